"""Intervals on the local clock: 15 minutes to a week in any time zone, exact across changes of the UTC offset.

An interval of 15 minutes, 30 minutes or an hour is aligned to local time and ends where the offset changes.
A day runs from local midnight (or the first moment of the day, if midnight is skipped) to the next, so it has 23, 24,
24.5 or 25 hours; a week begins on Monday. The arithmetic uses the offsets of this machine's IANA database, never a
database's time zone functions, so that every destination gives the same intervals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.timerange import midnight

Every: TypeAlias = Literal["15m", "30m", "1h", "1d", "1w", "none"]
"""Length of an interval; none is one interval for the whole range."""

EVERY: tuple[Every, ...] = get_args(Every)

_MINUTE = 60_000
_DAY = 24 * 60 * _MINUTE
_STEP = _DAY // 2  # no zone changes its offset twice within half a day
_GRID: dict[str, int] = {"15m": 15 * _MINUTE, "30m": 30 * _MINUTE, "1h": 60 * _MINUTE}
_MONDAY = 3 * _DAY  # the epoch was a Thursday, three days after a Monday


class Stretch(Struct, frozen=True):
    """A stretch of time, `start` <= t < `end`, with one offset from UTC; all in milliseconds."""

    start: int
    end: int
    offset: int


class Intervals(Struct, frozen=True):
    """The intervals that a range touches, in one time zone. Times are epoch milliseconds."""

    start: int
    end: int
    every: Every
    zone: tzinfo

    def key_sql(self, close_ms: str) -> str:
        """Return SQL, for both DuckDB and PostgreSQL, that maps a close time to the key of its interval.

        `close_ms` is a non-negative integer expression within the range.
        """
        if self.every == "none":
            return str(self.start)
        stretches = self.stretches()
        cases = [f"WHEN {close_ms} < {each.end} THEN {self._stretch_sql(close_ms, each)}" for each in stretches[:-1]]
        last = self._stretch_sql(close_ms, stretches[-1])
        return f"CASE {' '.join(cases)} ELSE {last} END" if cases else last

    def _stretch_sql(self, close_ms: str, stretch: Stretch) -> str:
        local = f"({close_ms} + {stretch.offset})"
        if self.every == "1d":
            return f"({local} - {local} % {_DAY})"
        if self.every == "1w":
            return f"({local} - ({local} + {_MONDAY}) % {7 * _DAY})"
        return f"greatest({stretch.start}, {local} - {local} % {_GRID[self.every]} - {stretch.offset})"

    def key_of(self, start: int) -> int:
        """Return the key that `key_sql` assigns to the interval that starts at `start`."""
        if self.every not in ("1d", "1w"):
            return start
        # Local midnight, written as if it were UTC: the day may begin later.
        day = datetime.fromtimestamp(start // 1000, self.zone).date()
        return _to_ms(datetime(day.year, day.month, day.day, tzinfo=UTC))

    def starts(self) -> list[int]:
        """Return the first moment of every interval that the range touches, oldest first."""
        if self.every == "none":
            return [self.start]
        if self.every in ("1d", "1w"):
            return self._day_starts(7 if self.every == "1w" else 1)
        grid, found = _GRID[self.every], []
        for stretch in self.stretches():
            first = max(self.start, stretch.start)
            local = first + stretch.offset
            at = max(stretch.start, local - local % grid - stretch.offset)
            while at < min(stretch.end, self.end):
                found.append(at)
                local = at + stretch.offset
                at = local - local % grid + grid - stretch.offset
        return found

    def _day_starts(self, days: int) -> list[int]:
        at = midnight(self.start, self.zone)
        if days == 7:
            weekday = datetime.fromtimestamp(self.start // 1000, self.zone).weekday()
            at = midnight(self.start, self.zone, -weekday)
        found = []
        while at < self.end:
            found.append(at)
            at = midnight(at, self.zone, days)
        return found

    def stretches(self) -> list[Stretch]:
        """Return the stretches of constant offset that cover the range. The first begins where its offset began, or
        early enough for a whole interval before the range.
        """
        begin, end = self.start - 8 * _DAY, max(self.end, self.start + 1)
        edges = [begin]
        for one, other in pairwise([*range(begin, end, _STEP), end]):
            if _offset(one, self.zone) != _offset(other, self.zone):
                edges.append(_change(one, other, self.zone))
        found = [Stretch(one, other, _offset(one, self.zone)) for one, other in pairwise([*edges, end])]
        return [stretch for stretch in found if stretch.end > self.start]

    def label(self, moment: int) -> str:
        """Return a moment as ISO 8601 in local time, with its offset: 2026-10-25T02:00:00+01:00."""
        return datetime.fromtimestamp(moment // 1000, self.zone).isoformat()


def overlapping(starts: Sequence[int], end: int, spans: Sequence[tuple[int, int]]) -> set[int]:
    """Return the starts of the intervals that any of the half-open `spans` touches.

    `starts` are sorted; each interval ends where the next begins, and the last one at `end`.
    """
    touched: set[int] = set()
    for low, high in spans:
        if low >= end or high <= low:
            continue
        first = max(0, bisect_right(starts, low) - 1)
        for at in range(first, len(starts)):
            if starts[at] >= high:
                break
            if (starts[at + 1] if at + 1 < len(starts) else end) > low:
                touched.add(starts[at])
    return touched


def check_every(every: str) -> Every:
    """Return the length of an interval, or raise InputError that lists those there are."""
    for known in EVERY:
        if every == known:
            return known
    raise InputError(f"every {every!r}: choose one of {', '.join(EVERY)}")


def _offset(ms: int, zone: tzinfo) -> int:
    offset = datetime.fromtimestamp(ms // 1000, zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1000)


def _change(low: int, high: int, zone: tzinfo) -> int:
    """Return the first whole second after `low`, up to `high`, that has the offset of `high`."""
    after = _offset(high, zone)
    low, high = low // 1000, -(-high // 1000)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(middle * 1000, zone) == after:
            high = middle
        else:
            low = middle
    return high * 1000


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp()) * 1000
