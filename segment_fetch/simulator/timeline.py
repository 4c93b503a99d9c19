"""The close time of each row: a monotonic function of its number, so that a time is found by binary search.

Row `i` of `n` is at `(i + u) / n` of the range, where `u` is a hash of the row's number; a load curve, rows that
share a close time, and a burst in one millisecond are added without a table of rows.
"""

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime
from itertools import accumulate, pairwise

_MASK = 0xFFFFFFFFFFFFFFFF
_HOUR_MS = 3_600_000
_TIE_BLOCK = 64

_DAILY_LOAD = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 20, 18, 19, 20, 19, 18, 16, 13, 10, 8, 6, 5, 3)
_WEEKEND_FACTOR = 0.4


def mix(seed: int, number: int) -> int:
    """Hash two numbers to 64 bits: fast, the same on every machine, not cryptographic."""
    value = (number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & _MASK
    value ^= value >> 32
    value = (value * 0xD6E8FEB86659FD93) & _MASK
    return value ^ (value >> 32)


class Timeline:
    """The close times of `rows` rows in `[start, end)` (epoch ms), in ascending order."""

    def __init__(
        self,
        *,
        seed: int,
        rows: int,
        start: int,
        end: int,
        daily_load: bool = False,
        concentrate: float = 0.0,
        ties: float = 0.0,
        burst: int = 0,
        burst_at: int | None = None,
    ) -> None:
        self._seed = seed
        self._tie_seed = mix(seed, 1)
        self._tie_limit = int(ties * 2**64)
        self._rows = rows
        self._spread = max(rows - burst, 1)
        self._edges, self._shares = _load_curve(start, end, daily_load=daily_load, concentrate=concentrate)
        self._burst = burst
        self.burst_at = (start + end) // 2 if burst_at is None else burst_at
        self._burst_first = self._count_spread_before(self.burst_at) if burst else rows

    def at(self, row: int) -> int:
        """Return the close time of a row, in epoch ms."""
        if row >= self._burst_first:
            if row < self._burst_first + self._burst:
                return self.burst_at
            row -= self._burst
        return self._spread_at(row)

    def between(self, first: int, last: int) -> list[int]:
        """Return the close times of the rows `[first, last)`, in epoch ms; faster than one by one."""
        burst_last = self._burst_first + self._burst
        before = self._spread_between(first, min(last, self._burst_first))
        burst = max(min(last, burst_last) - max(first, self._burst_first), 0)
        after = self._spread_between(max(first, burst_last) - self._burst, last - self._burst)
        return before + [self.burst_at] * burst + after

    def before(self, instant: int) -> int:
        """Count the rows that closed before an instant (epoch ms); also the number of the first that did not."""
        return bisect_left(range(self._rows), instant, key=self.at)

    def _count_spread_before(self, instant: int) -> int:
        return bisect_left(range(self._rows - self._burst), instant, key=self._spread_at)

    def _spread_at(self, row: int) -> int:
        return self._spread_between(row, row + 1)[0]

    def _spread_between(self, first: int, last: int) -> list[int]:
        times: list[int] = []
        seed, spread, ties = self._seed, self._spread, self._tie_limit
        low, high, edge, end = 0.0, 0.0, 0, 0
        for number in range(first, last):
            row = self._leader(number) if ties else number
            share = (row + mix(seed, row) / 2**64) / spread
            if not low <= share < high:
                piece = bisect_right(self._shares, share) - 1
                low, high = self._shares[piece], self._shares[piece + 1]
                edge, end = self._edges[piece], self._edges[piece + 1]
            times.append(min(edge + int((share - low) / (high - low) * (end - edge)), end - 1))
        return times

    def _leader(self, row: int) -> int:
        """Return the row whose close time this one shares: itself, or one of a bounded run before it."""
        while row % _TIE_BLOCK and mix(self._tie_seed, row) < self._tie_limit:
            row -= 1
        return row


def _load_curve(start: int, end: int, *, daily_load: bool, concentrate: float) -> tuple[list[int], list[float]]:
    """Return edges in epoch ms, and the share of all rows that closed before each edge.

    The last share is above 1, so that a position that rounds up to 1 still falls into the last piece.
    """
    edges = [*range(start, end, _HOUR_MS), end]
    spans = [(last - first) / _HOUR_MS for first, last in pairwise(edges)]
    if daily_load:
        spans = [span * _load_at(edge) for span, edge in zip(spans, edges, strict=False)]
    if concentrate and len(spans) > 1:
        busy = len(spans) // 2
        rest = sum(spans) - spans[busy]
        spans = [span * (1 - concentrate) / rest for span in spans]
        spans[busy] = concentrate
    total = sum(spans)
    shares = [0.0, *(part / total for part in accumulate(spans))]
    shares[-1] = 1.0 + 1e-12
    return edges, shares


def _load_at(instant: int) -> float:
    moment = datetime.fromtimestamp(instant / 1000, UTC)
    return _DAILY_LOAD[moment.hour] * (_WEEKEND_FACTOR if moment.weekday() >= 5 else 1.0)
