"""Overlapping pages of a window, joined from the oldest on as they come, so that what is joined need not be held.

Two neighbours meet where the older one begins strictly above the end of the newer one, as `find_coverage` has it. The
older one then vouches for every close time below that end: its rows from there down are done. Those above are most
often the very first ones of the newer page; what the newer one lacks of them is taken into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.windows.merge import in_order, since
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import Column, RawRows, distinct, ids_of, keys_of, times_of


class Page(NamedTuple):
    """What a proof needs of a page, and its rows, newest first."""

    view: coverage.PageView
    rows: Sequence[Segment]


class OverlapJoiner(Generic[Part]):
    """Pages that were joined. Of their rows, those older than `at` have been given, `rows` in number."""

    def __init__(self, window: Window, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self.at = window.start
        self.rows = 0
        self._window = window
        self._encode = encode
        self._keys: list[Column] = []
        self._last: Page | None = None  # while it is all there is
        self._oldest = window.start  # of the last page
        self._top: Sequence[Segment] = ()  # the page taken last, with what it lacked; from `at` on not given

    def join(self, page: Page) -> list[Part] | None:
        """Takes the next newer page. What is whole now, in order; None where the page cannot be shown to come next."""
        view, rows = page
        if not self._top:
            if not view.is_last or not rows:
                return None
            self._last, self._oldest, self._top = page, view.times[-1], rows
            return []
        if not rows or not coverage.follows(times_of(self._top)[0], view.times[-1]) or self.is_below(view):
            return None
        self._last = None
        return self._join(rows, view.times)

    @property
    def joined(self) -> bool:
        """Whether two pages were."""
        return len(self._top) > 0 and self._last is None

    def is_below(self, view: coverage.PageView) -> bool:
        """Whether a page holds older rows than the last one, which then may not be the last at all."""
        return len(view.times) > 0 and view.times[-1] < self._oldest

    def go_below(self, view: coverage.PageView) -> bool:
        """Whether older rows were joined than a page holds."""
        return self.joined and view.times[-1] > self._oldest

    def _join(self, rows: Sequence[Segment], times: Sequence[int]) -> list[Part]:
        above = times_of(self._top)
        cut = max(self.at, times[-1])
        shared = since(above, cut)
        whole = self._top[shared : since(above, self.at)]
        same = rows[since(times, above[0] + 1) : since(times, cut)]
        self._top = _completed(rows, same, self._top[:shared])
        self.at = cut
        if not whole:
            return []
        self.rows += len(whole)
        self._keys.append(keys_of(whole))
        return [self._encode(whole[::-1] if isinstance(whole, RawRows) else in_order(whole))]

    def rest(self) -> Page | None:
        """What was joined and not given, as a last page; None where nothing was joined."""
        if not self.joined:
            return self._last
        rows = self._top[: since(times_of(self._top), self.at)]
        offset = 1  # any but 0: it is not the first page; and its count says that it is the last
        return Page(
            coverage.PageView(self._window.end, offset, offset + len(rows), keys_of(rows), times_of(rows)), rows
        )

    def are_different(self, others: Sequence[Sequence[Segment]]) -> bool:
        """Whether no id is twice among the rows that were given and these."""
        return distinct([*self._keys, *map(keys_of, others)]) == self.rows + sum(map(len, others))


def _completed(rows: Sequence[Segment], same: Sequence[Segment], older: Sequence[Segment]) -> Sequence[Segment]:
    """A page with what it lacks of the rows that the page below has of the same time; `same` are its own of that."""
    if isinstance(same, RawRows) and isinstance(older, RawRows) and same.text == older.text:
        return rows
    ids = set(ids_of(same))
    lacking = [row for row in older if row.segmentId not in ids]
    return in_order([*rows, *lacking])[::-1] if lacking else rows
