"""A range becomes windows, a window becomes pages. Plain arithmetic; nothing is sent from here.

The API serves at most one week a request, and the oldest data is the first to expire, so windows run oldest first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import tzinfo
from itertools import pairwise

from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.query import MAX_WINDOW_MS, Window
from segment_fetch.timerange import midnight
from segment_fetch.windows import overlap

LEAST_WINDOW_MS = 1_000
MOST_WINDOWS = 100_000
"""Windows of one range, at most: each costs a request and an entry in the manifest."""


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


def windows(start: int, end: int, width_ms: int = MAX_WINDOW_MS) -> list[Window]:
    """start..end in windows of at most `width_ms`, oldest first, without gap or overlap. InputError if too many."""
    if (count := math.ceil((end - start) / width_ms)) > MOST_WINDOWS:
        raise InputError(
            f"window: {width_ms / 1000:g} s divides the range into {count:,} windows, more than {MOST_WINDOWS:,}; "
            "choose wider windows"
        )
    return [Window(at, min(at + width_ms, end)) for at in range(start, end, width_ms)]


def days(start: int, end: int, zone: tzinfo, width_ms: int = MAX_WINDOW_MS) -> list[Window]:
    """start..end cut at each midnight of a time zone (and into `width_ms`), oldest first, without gap or overlap."""
    cuts = [start]
    while cuts[-1] < end:
        cuts.append(min(midnight(cuts[-1], zone, 1), cuts[-1] + width_ms, end))
    return [Window(one, other) for one, other in pairwise(cuts)]


def hurry_oldest(planned: Sequence[Window], oldest: int) -> list[Window]:
    """Cut the windows near the end of the API's month, so that each is read before the month has moved past it.

    The first ends an hour after `oldest` (epoch milliseconds), the next ones two, four and eight hours later: each has
    about as much time as those before it are wide. Windows that are not so old stay as they are.
    """
    cuts = [oldest + hours * 3_600_000 for hours in (1, 3, 7, 15)]
    cut: list[Window] = []
    for window in planned:
        at = [window.start, *(one for one in cuts if window.start < one < window.end), window.end]
        cut += [Window(one, other) for one, other in pairwise(at)]
    return cut


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
