"""A range becomes windows, a window becomes pages. Plain arithmetic; nothing is sent from here.

The API serves at most one week a request, and the oldest data is the first to expire, so windows run oldest first.
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
"""Windows of one range that are kept, at most: each takes about a kilobyte in the manifest, a plan or a report."""


class PlannedWindow(Struct, frozen=True):
    """A window as it will be read: `count` segments in `pages` requests."""

    window: Window
    count: int
    pages: int


class Plan(Struct, frozen=True):
    """The work of an extraction. `seconds` estimates its length at `rate` requests a second.

    The rate is known from what was set, from what the API refused in this run or an earlier one, or from what it served
    an earlier one; else it is a guess, and `rate_known` False. Where no rate is to be kept both figures are None.
    """

    windows: tuple[PlannedWindow, ...]
    seconds: float | None
    rate: float | None = None
    rate_known: bool = False

    @property
    def segments(self) -> int:
        """Sum of the counts that the API reported; a segment on a shared boundary is in both its windows' counts."""
        return sum(planned.count for planned in self.windows)

    @property
    def pages(self) -> int:
        """Requests that reading everything takes."""
        return sum(planned.pages for planned in self.windows)


def check_width(width_ms: int) -> int:
    """Return the width of windows. InputError where it is too small or too large."""
    if width_ms > MAX_WINDOW_MS:
        raise InputError("window: must be at most one week, the most that the API serves at once")
    if width_ms < LEAST_WINDOW_MS:
        raise InputError(
            "window: must be at least one second: each window takes a request and an entry in the manifest, so that a "
            "month of shorter ones would be millions of both"
        )
    return width_ms


class Windows(Sequence[Window]):
    """A range in windows, oldest first, without gap or overlap, each of which is made when it is asked for.

    A new window begins at each of `cuts` (epoch milliseconds, rising; the first and the last are the ends of the
    range), and `width_ms` after the beginning of the one before it.
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
        at = range(len(self))[index]  # raises IndexError, and counts from the end where it is negative
        part = bisect_right(self._before, at) - 1
        start = self.cuts[part] + (at - self._before[part]) * self.width_ms
        return Window(start, min(start + self.width_ms, self.cuts[part + 1]))


class Remaining:
    """The windows of a sequence that were not taken yet, from the first one or from the last one on."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._left = range(len(windows))

    def __len__(self) -> int:
        return len(self._left)

    def first(self) -> Window:
        """Take the first one. IndexError where none is left."""
        at, self._left = self._left[0], self._left[1:]
        return self._windows[at]

    def last(self) -> Window:
        """Take the last one. IndexError where none is left."""
        at, self._left = self._left[-1], self._left[:-1]
        return self._windows[at]


def windows(start: int, end: int, width_ms: int = MAX_WINDOW_MS) -> Windows:
    """Return start..end in windows of at most `width_ms`."""
    return Windows([start, end], width_ms)


def days(start: int, end: int, zone: tzinfo, width_ms: int = MAX_WINDOW_MS) -> Windows:
    """Return start..end in windows that begin at each midnight of a time zone, of at most `width_ms`."""
    cuts = [start]
    while cuts[-1] < end:
        cuts.append(min(midnight(cuts[-1], zone, 1), end))
    return Windows(cuts, width_ms)


def hurry_oldest(planned: Windows, oldest: int) -> Windows:
    """Cut the windows near the end of the API's month, so that each is read before the month has moved past it.

    The first ends an hour after `oldest` (epoch milliseconds), the next ones two, four and eight hours later: each has
    about as much time as those before it are wide.
    """
    near = (oldest + hours * 3_600_000 for hours in (1, 3, 7, 15))
    cuts = {*planned.cuts, *(at for at in near if planned.cuts[0] < at < planned.cuts[-1])}
    return Windows(sorted(cuts), planned.width_ms)


def check_few(windows: Sequence[Window], place: str) -> None:
    """InputError where there are too many windows for a place (a plan, the manifest) that has an entry for each."""
    if len(windows) > MOST_WINDOWS:
        seconds = math.ceil((windows[-1].end - windows[0].start) / MOST_WINDOWS / 1000)
        raise InputError(
            f"window: the range divides into {len(windows):,} windows, and {place} has an entry for each, "
            f"{MOST_WINDOWS:,} at most: choose windows of at least {seconds} s, or a shorter range"
        )


def missing(start: int, end: int, done: Iterable[Window]) -> list[Window]:
    """The parts of start..end that no window of `done` covers, oldest first; they may be longer than a week."""
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
    """Return how many requests a settled window of `count` segments takes; an empty one takes one, too."""
    return len(overlap.offsets(count, limit, overlap.SETTLED_OVERLAP))
