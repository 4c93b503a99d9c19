"""Overlapping pages of a window, joined from the oldest on as they arrive, so that joined rows need not be kept.

Two neighbours meet if the older one begins strictly above the end of the newer one, as in `find_coverage`. The older
one then vouches for every close time below that end, so its rows below it are final. Its rows above are usually the
oldest rows of the newer page, too; any that the newer page lacks are added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.windows.merge import in_order, since
from segment_fetch.windows.pass_protocol import Page
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import Column, RawRows, distinct, keys_of, times_of


class OverlapJoiner(Generic[Part]):
    """Joins pages. Of their rows, the `rows` older than `at` have been returned.

    `foreign` counts those at the window's end, which belong to the next window.
    """

    def __init__(self, window: Window, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self.at = window.start
        self.rows = 0
        self.foreign = 0
        self.reaches_end = False
        """True if the page joined last holds the newest rows of the window."""
        self._window = window
        self._encode = encode
        self.keys: list[Column] = []
        """The keys of the rows that were returned, page by page."""
        self._foreign_keys: list[Column] = []
        self._bottom: Page | None = None  # the first page, while it is the only one
        self._oldest = window.start  # of the first page
        self._top: Sequence[Segment] = ()  # the page joined last, completed; from `at` on not returned

    def join(self, page: Page) -> list[Part] | None:
        """Join the next newer page. Return the rows that are now final, in order; None if the page cannot be shown to
        be the next one, or has an id with other content.
        """
        view, rows = page.view, page.rows
        if not self._top:
            if not view.is_last or not rows:
                return None
            self._bottom, self._oldest, self._top = page, view.times[-1], rows
            self.reaches_end = view.offset == 0
            return []
        above = times_of(self._top)
        if not rows or not coverage.follows(above[0], view.times[-1]) or self.is_below(view):
            return None
        cut = max(self.at, view.times[-1])
        shared = since(above, cut)
        same = rows[since(view.times, above[0] + 1) : since(view.times, cut)]
        completed = _completed(rows, same, self._top[:shared])
        if completed is None:
            return None
        parts = self._give(self._top[shared : since(above, self.at)])
        self._bottom, self._top, self.at = None, completed, cut
        self.reaches_end = view.offset == 0
        return parts

    def _give(self, rows: Sequence[Segment]) -> list[Part]:
        """Encode final rows, and keep their keys. Rows at the window's end are counted, not returned."""
        foreign = since(times_of(rows), self._window.end)
        if foreign:
            self.foreign += foreign
            self._foreign_keys.append(keys_of(rows[:foreign]))
        own = rows[foreign:] if foreign else rows
        self.rows += len(own)
        if not own:
            return []
        self.keys.append(keys_of(own))
        return [self._encode(own[::-1] if isinstance(own, RawRows) else in_order(own))]

    def finish(self) -> list[Part]:
        """Return the rows of the page joined last, which reaches up to the window's end."""
        rows, self._top, self._bottom = self._top, (), None
        return self._give(rows[: since(times_of(rows), self.at)])

    @property
    def joined(self) -> bool:
        """True if at least two pages were joined."""
        return len(self._top) > 0 and self._bottom is None

    def is_below(self, view: coverage.PageView) -> bool:
        """Return True if a page holds older rows than the first one, which then may not be the oldest page."""
        return len(view.times) > 0 and view.times[-1] < self._oldest

    def go_below(self, view: coverage.PageView) -> bool:
        """Return True if the joined rows go further back than a page does."""
        return self.joined and view.times[-1] > self._oldest

    def rest(self) -> Page | None:
        """Return the joined rows that were not returned yet, as a last page; None if nothing was joined."""
        if not self.joined:
            return self._bottom
        rows = self._top[: since(times_of(self._top), self.at)]
        offset = 1  # anything but 0: it is not the first page; its count says that it is the last
        view = coverage.PageView(self._window.end, offset, offset + len(rows), keys_of(rows), times_of(rows))
        return Page(view, rows)

    def are_different(self, others: Sequence[Segment] = ()) -> bool:
        """Return True if no id occurs twice among the rows already returned and these."""
        return distinct([*self.keys, *self._foreign_keys, keys_of(others)]) == self.rows + self.foreign + len(others)


def _completed(rows: Sequence[Segment], same: Sequence[Segment], older: Sequence[Segment]) -> Sequence[Segment] | None:
    """Return a page's rows with those that it lacks of `older`, the rows of the page below with the same close times as
    its own rows `same`; None if an id has different contents in the two.
    """
    if isinstance(same, RawRows) and isinstance(older, RawRows) and same.text == older.text:
        return rows
    known = {row.segmentId: row for row in same}
    if any(known.get(row.segmentId, row) != row for row in older):
        return None
    lacking = [row for row in older if row.segmentId not in known]
    return in_order([*rows, *lacking])[::-1] if lacking else rows
