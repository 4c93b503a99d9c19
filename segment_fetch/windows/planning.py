"""Divides a range into windows and a window into pages. Plain arithmetic; sends nothing.

The API serves at most one week per request, and the oldest data expires first, so windows are ordered oldest first.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from itertools import accumulate, pairwise
from typing import overload

from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.query import MAX_WINDOW_MS, Window
from segment_fetch.timerange import midnight
from segment_fetch.windows import overlap

LEAST_WINDOW_MS = 1_000
MOST_WINDOWS = 100_000
"""Maximum number of stored windows in a range: each takes about a kilobyte in the manifest, a plan or a report."""


class PlannedWindow(Struct, frozen=True):
    """A window to read: `count` segments in `pages` requests."""

    window: Window
    count: int
    pages: int


class Plan(Struct, frozen=True):
    """The work of an extraction. `seconds` estimates its length at `rate` requests a second.

    The rate is known if it was set, if the API refused requests in this run or an earlier one, or if an earlier run
    measured it; otherwise it is a guess, and `rate_known` is False. Without a rate limit both figures are None.
    """

    windows: tuple[PlannedWindow, ...]
    seconds: float | None
    rate: float | None = None
    rate_known: bool = False

    @property
    def segments(self) -> int:
        """Sum of the counts that the API reported; a segment on a shared boundary is counted in both windows."""
        return sum(planned.count for planned in self.windows)

    @property
    def pages(self) -> int:
        """Number of requests that reading all windows takes."""
        return sum(planned.pages for planned in self.windows)


def check_width(width_ms: int) -> int:
    """Return the width of windows. Raises InputError if it is too small or too large."""
    if width_ms > MAX_WINDOW_MS:
        raise InputError("window: must be at most one week, the longest range that the API serves in one request")
    if width_ms < LEAST_WINDOW_MS:
        raise InputError(
            "window: must be at least one second: each window takes a request and an entry in the manifest, and a "
            "month of shorter ones would need millions of both"
        )
    return width_ms


class Windows(Sequence[Window]):
    """A range in adjacent windows, oldest first, each created on access.

    A window begins at each of `cuts` (epoch milliseconds, ascending; the first and the last are the ends of the range),
    and `width_ms` after the beginning of the previous one.
    """

    def __init__(self, cuts: Sequence[int], width_ms: int) -> None:
        self.cuts = cuts
        self.width_ms = width_ms
        counts = (math.ceil((end - start) / width_ms) for start, end in pairwise(cuts))
        self._before = list(accumulate(counts, initial=0))  # windows before each cut

    def __len__(self) -> int:
        return self._before[-1]

    @overload
    def __getitem__(self, index: int) -> Window: ...
    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...
    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        at = range(len(self))[index]  # raises IndexError; a negative index counts from the end
        part = bisect_right(self._before, at) - 1
        start = self.cuts[part] + (at - self._before[part]) * self.width_ms
        return Window(start, min(start + self.width_ms, self.cuts[part + 1]))


class Remaining:
    """The windows of a sequence that have not been taken yet, from either end."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._left = range(len(windows))

    def __len__(self) -> int:
        return len(self._left)

    def first(self) -> Window:
        """Take the first one. Raises IndexError if none is left."""
        at, self._left = self._left[0], self._left[1:]
        return self._windows[at]

    def last(self) -> Window:
        """Take the last one. Raises IndexError if none is left."""
        at, self._left = self._left[-1], self._left[:-1]
        return self._windows[at]


def windows(start: int, end: int, width_ms: int = MAX_WINDOW_MS) -> Windows:
    """Divide start..end into windows of at most `width_ms`."""
    return Windows([start, end], width_ms)


def days(start: int, end: int, zone: tzinfo, width_ms: int = MAX_WINDOW_MS) -> Windows:
    """Divide start..end into windows of at most `width_ms` that begin at each midnight of a time zone."""
    cuts = [start]
    while cuts[-1] < end:
        cuts.append(min(midnight(cuts[-1], zone, 1), end))
    return Windows(cuts, width_ms)


def shorten_oldest(planned: Windows, oldest: int) -> Windows:
    """Divide the oldest windows, so that each is read before it falls out of the month that the API serves.

    The first ends an hour after `oldest` (epoch milliseconds), the next ones two, four and eight hours later: the time
    left to read each is about the width of those before it.
    """
    near = (oldest + hours * 3_600_000 for hours in (1, 3, 7, 15))
    cuts = {*planned.cuts, *(at for at in near if planned.cuts[0] < at < planned.cuts[-1])}
    return Windows(sorted(cuts), planned.width_ms)


def check_few(windows: Sequence[Window], place: str) -> None:
    """Raise InputError if there are too many windows for a place (a plan, the manifest) that has an entry for each."""
    if len(windows) > MOST_WINDOWS:
        seconds = math.ceil((windows[-1].end - windows[0].start) / MOST_WINDOWS / 1000)
        raise InputError(
            f"window: the range divides into {len(windows):,} windows, and {place} has an entry for each, "
            f"{MOST_WINDOWS:,} at most: choose windows of at least {seconds} s, or a shorter range"
        )


def missing(start: int, end: int, done: Iterable[Window]) -> list[Window]:
    """Return the parts of start..end that no window of `done` covers, oldest first; they may exceed a week."""
    gaps, at = [], start
    for window in sorted(done):
        if window.end <= at or window.start >= end:
            continue
        if window.start > at:
            gaps.append(Window(at, window.start))
        at = max(at, window.end)
    if at < end:
        gaps.append(Window(at, end))
    return gaps


def pages(count: int, limit: int) -> int:
    """Return the number of requests that a settled window of `count` segments takes; an empty one takes one."""
    return len(overlap.offsets(count, limit, overlap.SETTLED_OVERLAP))
