"""The segments that exist now: those of the dataset that have closed by the clock, with the changes made by drift."""

import random
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import NamedTuple

from segment_fetch.simulator.dataset import Dataset
from segment_fetch.simulator.drift import Drift
from segment_fetch.simulator.overlay import FIRST_INSERTED, Overlay, OverlaySlice, Row
from segment_fetch.simulator.query import SegmentQuery
from segment_fetch.simulator.rows import row_of_id
from segment_fetch.simulator.selection import SelectionCache
from segment_fetch.simulator.timeline import mix


class Page(NamedTuple):
    """One consistent result: the rows in the requested order, the total count, and the version they belong to."""

    rows: list[Row]
    total: int
    version: int


class Population:
    """The segments visible to a request. A segment that closes in the future does not exist yet.

    Each change has a unique number, the *version*, which orders reads and changes, whatever
    the clock's resolution. Methods may be called from any thread.
    """

    def __init__(self, dataset: Dataset, drift: Drift, *, clock: Callable[[], float], to_inclusive: bool) -> None:
        self._dataset = dataset
        self._drift = drift
        self._clock = clock
        self._inclusive = 1 if to_inclusive else 0
        self._overlay = Overlay(dataset)
        self._selections = SelectionCache(dataset.writer)
        self._lock = threading.RLock()
        self._random = random.Random(drift.seed)  # noqa: S311
        self._started = self._advanced = clock()
        self._version = 0
        self._appeared: dict[int, int] = {}
        self._vanished: dict[int, int] = {}
        self._awaited: list[tuple[float, int]] = []
        self._overlay.horizon = self._reached(self._started)
        self._horizons = [(0, self._overlay.horizon)]
        earliest = int((self._started - drift.late_delay_s) * 1000)
        self._await_late(self._dataset.count_before(earliest), self._overlay.horizon, self._started)

    @property
    def is_repeatable(self) -> bool:
        """True if the same query gets the same rows in the same order until a caller changes them."""
        return not self._drift.changes

    def page(self, query: SegmentQuery, request: int) -> Page:
        """Return the rows of a query at this moment; `request` decides the order of ties if they are shuffled."""
        with self._lock:
            self.advance()
            seen = self._overlay.slice(query.start, query.end + self._inclusive)
            if query.filters or query.sort != "Date":
                rows = self._selected(seen, query)
                return Page(rows[query.offset : query.offset + query.limit], len(rows), self._version)
            last = max(seen.count - query.offset, 0)
            first = max(last - query.limit, 0)
            rows = seen.rows(first, last)
            if self._drift.shuffle_ties and rows:
                rows = _shuffled(seen, rows, first, mix(self._drift.seed, request))
            rows.reverse()
            return Page(rows, seen.count, self._version)

    def insert(self, close: int) -> str:
        """Add a segment that closed at `close` (epoch ms); return its `segmentId`."""
        with self._lock:
            self.advance()
            return self._dataset.writer.segment_id(self._insert(close))

    def remove(self, segment_id: str) -> None:
        """Remove a segment. Raises `LookupError` if it does not exist."""
        number = row_of_id(segment_id)
        with self._lock:
            self.advance()
            known = self._overlay.is_present(number) and self._dataset.writer.segment_id(number) == segment_id
            if not known:
                raise LookupError(f"there is no segment {segment_id}")
            self._remove(number)

    def ids(self, start: int, end: int) -> Iterator[str]:
        """Return the ids of the segments that exist now and closed in `[start, end)` (epoch ms), oldest first."""
        with self._lock:
            self.advance()
            seen = self._overlay.slice(start, end)
            rows = seen.rows(0, seen.count)
        return (self._dataset.writer.segment_id(number) for _, number in rows)

    def mark(self) -> int:
        """Return the current version, for `ids_throughout`."""
        with self._lock:
            self.advance()
            return self._version

    def ids_throughout(self, start: int, end: int, *, since: int, until: int) -> set[str]:
        """Return the ids of the segments that closed in `[start, end)` and existed from one mark to another."""
        with self._lock:
            at = bisect_right(self._horizons, since, key=lambda entry: entry[0]) - 1
            first = self._dataset.count_before(start)
            base = range(first, min(self._dataset.count_before(end), self._horizons[at][1]))
            hidden = set(self._overlay.absent) - self._vanished.keys()
            inserted = (n for n, close in self._overlay.inserted_times.items() if start <= close < end)
            numbers = [n for n in (*base, *inserted) if n not in hidden and self._was_there(n, since, until)]
        return set(map(self._dataset.writer.segment_id, numbers))

    def advance(self) -> None:
        """Apply every change that is due by the clock since the last call."""
        now = self._clock()
        if now <= self._advanced:
            return
        self._reach(now)
        while self._awaited and self._awaited[0][0] <= now:
            self._show(heappop(self._awaited)[1])
        drift = self._drift
        for _ in range(self._due(drift.inserts_per_s, now)):
            self._insert_recent(now)
        for _ in range(self._due(drift.removals_per_s, now)):
            self._remove_recent(now)
        for _ in range(self._due(drift.swaps_per_s, now)):
            if self._remove_recent(now):
                self._insert_recent(now)
        self._advanced = now

    def _due(self, rate: float, now: float) -> int:
        """Return the number of events, at a steady rate, since the last call."""
        return int((now - self._started) * rate) - int((self._advanced - self._started) * rate)

    def _reached(self, now: float) -> int:
        return self._dataset.count_before(int(now * 1000) + 1)

    def _reach(self, now: float) -> None:
        """Add the base rows that have closed since the last call."""
        before = self._overlay.horizon
        if before == self._dataset.segments:
            return
        horizon = self._reached(now)
        if horizon > before:
            self._version += 1
            self._overlay.horizon = horizon
            self._horizons.append((self._version, horizon))
            self._await_late(before, horizon, now)

    def _await_late(self, first: int, last: int, now: float) -> None:
        """Hide the base rows of `[first, last)` that are late and have not appeared by `now` (epoch s)."""
        share, delay = self._drift.late_share, self._drift.late_delay_s
        if not share:
            return
        limit = int(share * 2**64)
        for number in range(first, last):
            if mix(self._drift.seed + 1, number) < limit:
                visible = self._dataset.close_time(number) / 1000 + delay * mix(self._drift.seed + 2, number) / 2**64
                if visible > now:
                    self._overlay.hide(number)
                    heappush(self._awaited, (visible, number))

    def _show(self, number: int) -> None:
        self._version += 1
        self._appeared[number] = self._version
        self._overlay.show(number)

    def _insert(self, close: int) -> int:
        self._version += 1
        number = self._overlay.insert(close)
        self._appeared[number] = self._version
        return number

    def _remove(self, number: int) -> None:
        self._version += 1
        self._vanished[number] = self._version
        if number >= FIRST_INSERTED:
            self._overlay.discard(number)
        else:
            self._overlay.hide(number)

    def _recent(self, now: float) -> tuple[int, int]:
        """Return the range of close times (epoch ms) in which segments appear and vanish: the most recent ones."""
        end = min(int(now * 1000) + 1, self._dataset.end)
        return max(end - int(self._drift.recent_s * 1000), self._dataset.start), end

    def _insert_recent(self, now: float) -> None:
        start, end = self._recent(now)
        if start < end:
            self._insert(self._random.randrange(start, end))

    def _remove_recent(self, now: float) -> bool:
        seen = self._overlay.slice(*self._recent(now))
        if not seen.count:
            return False
        rank = self._random.randrange(seen.count)
        self._remove(seen.rows(rank, rank + 1)[0][1])
        return True

    def _was_there(self, number: int, since: int, until: int) -> bool:
        return self._appeared.get(number, 0) <= since and self._vanished.get(number, until + 1) > until

    def _selected(self, seen: OverlaySlice, query: SegmentQuery) -> list[Row]:
        key = (self._version, query.start, query.end, query.sort, query.filters)
        return self._selections.get(key, lambda: seen.rows(0, seen.count))


def _shuffled(seen: OverlaySlice, rows: list[Row], first: int, key: int) -> list[Row]:
    """Return the rows of the same ranks with each group of ties reordered, even groups that the page cuts."""
    low, high = seen.rank_before(rows[0][0]), seen.rank_before(rows[-1][0] + 1)
    groups = sorted(seen.rows(low, high), key=lambda row: (row[0], mix(key, row[1])))
    return groups[first - low : first - low + len(rows)]
