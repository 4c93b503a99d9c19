"""Overlapping pages of a window, joined from the oldest on as they come, so that what is joined need not be held.

Two neighbours meet where the older one begins strictly above the end of the newer one, as `find_coverage` has it. The
older one then vouches for every close time below that end: its rows from there down are done. Those above are most
often the very first ones of the newer page; the rows that the newer one lacks of them are added to it.
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
    """Pages that were joined. Of their rows, those older than `at` have been given, `rows` in number.

    `foreign` counts those at the window's end, which the next window owns.
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
        """The keys of the rows that were given, page by page."""
        self._foreign_keys: list[Column] = []
        self._bottom: Page | None = None  # the first page, while it is all there is
        self._oldest = window.start  # of the first page
        self._top: Sequence[Segment] = ()  # the page joined last, with the rows it lacked; from `at` on not given

    def join(self, page: Page) -> list[Part] | None:
        """Take the next newer page. The rows that are whole now, in order; None where the page cannot be shown to come
        next, or has an id with other content.
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
        """Encode rows that are done, and remember their keys. Rows at the window's end are counted, not given."""
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
        """The rows of the page joined last, which reaches up to the window's end."""
        rows, self._top, self._bottom = self._top, (), None
        return self._give(rows[: since(times_of(rows), self.at)])

    @property
    def joined(self) -> bool:
        """True if two pages were."""
        return len(self._top) > 0 and self._bottom is None

    def is_below(self, view: coverage.PageView) -> bool:
        """True if a page holds older rows than the first one, which then may not be the last at all."""
        return len(view.times) > 0 and view.times[-1] < self._oldest

    def go_below(self, view: coverage.PageView) -> bool:
        """True if older rows were joined than a page holds."""
        return self.joined and view.times[-1] > self._oldest

    def rest(self) -> Page | None:
        """The rows that were joined and not given, as a last page; None where nothing was joined."""
        if not self.joined:
            return self._bottom
        rows = self._top[: since(times_of(self._top), self.at)]
        offset = 1  # any but 0: it is not the first page; and its count says that it is the last
        view = coverage.PageView(self._window.end, offset, offset + len(rows), keys_of(rows), times_of(rows))
        return Page(view, rows)

    def are_different(self, others: Sequence[Segment] = ()) -> bool:
        """True if no id is twice among the rows that were given and these."""
        return distinct([*self.keys, *self._foreign_keys, keys_of(others)]) == self.rows + self.foreign + len(others)


def _completed(rows: Sequence[Segment], same: Sequence[Segment], older: Sequence[Segment]) -> Sequence[Segment] | None:
    """A page with the rows it lacks of those that the page below has of the same time; `same` are its own of that.

    None where the two have an id with different contents.
    """
    if isinstance(same, RawRows) and isinstance(older, RawRows) and same.text == older.text:
        return rows
    known = {row.segmentId: row for row in same}
    if any(known.get(row.segmentId, row) != row for row in older):
        return None
    lacking = [row for row in older if row.segmentId not in known]
    return in_order([*rows, *lacking])[::-1] if lacking else rows
