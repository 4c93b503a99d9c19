"""Isolation of a page that is always broken in the same way: smaller pages find the row. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from segment_fetch.query import Window
from segment_fetch.windows.page_checks import MAX_HALVING, MAX_ISOLATING, Divide, halves
from segment_fetch.windows.pass_protocol import Failed, Fetch

MAX_BROKEN_ROWS = 16
"""Maximum number of rows after a broken one that are examined to find the first good one."""


class Isolation:
    """Finds the first broken row on a page of a window, and where to divide the window around it.

    Request the page that `next` holds, and report it with `good` or `bad`, until there is a `result`. About ten pages,
    each for half as many rows, find one row of 500; two more find the close times beside it.
    """

    def __init__(self, fetch: Fetch, limit: int, failed: Failed, *, ascending: bool) -> None:
        self.result: Divide | Failed | None = None
        self._window = fetch.window
        self._failed = failed
        self._ascending = ascending
        self._low, self._high = fetch.offset, fetch.offset + limit  # the row is in this range of offsets
        self._is_found = False
        self._before: int | None = None  # the close time of the row before it
        self._after: int | None = None
        self._behind = 1  # rows from it to the one examined as the next good one
        self.next = self._ask()

    @property
    def confirms(self) -> bool:
        """True if the next page decides which row is at fault: no other answer than several equal ones is believed."""
        return not self._is_found and self.next.limit == 1

    def _ask(self) -> Fetch:
        if not self._is_found:
            return Fetch(self._window, self._low, limit=max(1, (self._high - self._low) // 2))
        if self._before is None and self._low > 0:
            return Fetch(self._window, self._low - 1, limit=1)
        return Fetch(self._window, self._low + self._behind, limit=1)

    def good(self, times: Sequence[int]) -> None:
        """Note that a page is valid; `times` are its close times as sent."""
        asked = self.next.limit or 0
        if self._is_found:
            if self.next.offset < self._low:
                self._before = times[0] if times else None
            else:
                self._after = times[0] if times else None
                return self._end()
        elif len(times) < asked or self._low + asked >= self._high:
            self.result = halves(self._window, self._failed, MAX_ISOLATING)  # no single row is at fault
            return None
        else:
            self._low += asked
            self._before = times[-1]
        self.next = self._ask()
        return None

    def bad(self, failed: Failed | None = None) -> None:
        """Note that a page is broken, too; `failed` describes it, if that adds information."""
        self._failed = failed or self._failed
        if not self._is_found:
            self._high = self._low + (self.next.limit or 1)
            self._is_found = self.next.limit == 1
        elif self.next.offset < self._low or self._behind >= MAX_BROKEN_ROWS:
            self.result = halves(self._window, self._failed, MAX_HALVING)
            return
        else:
            self._behind *= 2
        self.next = self._ask()

    def _end(self) -> None:
        """Divide the window so that the middle part has the row and, as far as is known, no other.

        The row above it may close in the same millisecond, and the part below shares its last instant with the middle.
        """
        start, end = self._window.start, self._window.end
        older, newer = (self._before, self._after) if self._ascending else (self._after, self._before)
        cuts = set()
        if older is not None:
            cuts.add(older + 1 if older + 1 < (end if newer is None else newer) else older - 1)
        if newer is not None:
            cuts.add(newer if newer > (start if older is None else older) else newer + 1)
        edges = [start, *sorted(cut for cut in cuts if start < cut < end), end]
        windows = tuple(Window(first, last) for first, last in pairwise(edges))
        if len(windows) == 1:
            self.result = self._failed
            return
        at = 0 if older is None or older + 1 <= start else 1
        broken = windows[min(at, len(windows) - 1)] if self._behind == 1 else None
        self.result = Divide(windows, self._failed.reason, MAX_ISOLATING, broken, self._failed.code)
