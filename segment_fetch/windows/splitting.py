"""A window with too many segments, divided by time into windows of about equal count."""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from msgspec import Struct, json, structs

from segment_fetch.query import MAX_PAGE_SIZE, Window
from segment_fetch.windows.coverage import order_of
from segment_fetch.windows.merge import since
from segment_fetch.windows.page_checks import checked
from segment_fetch.wire.models import ExtendedPage, SegmentPage
from segment_fetch.wire.pages import PageAnswer, PageRequest, decode_page
from segment_fetch.wire.raw_rows import times_of

SPLIT_ABOVE = 50_000
"""Default maximum of segments in a window: bounds memory, the depth of offsets, and the cost of a second read."""

_SHARED = 40
"""Usual maximum of rows that two parts of a divided window share; there are more where many segments close within a few
milliseconds of each other."""

_EVEN = 20
"""The size of a part, in pages and in shared rows, above which one more page makes no difference."""

_FASTEST_LEVEL = 1
_MOST_UNPACKED = 32
"""Pages kept uncompressed, about 8 MB: compressing a page takes longer than all other work on it."""


class SplitPoint(Struct, frozen=True):
    """The boundary at which a page divides a large window: its rows from `row` on are the newest below `instant`."""

    instant: int
    row: int


def split_offsets(count: int, bound: int, limit: int = MAX_PAGE_SIZE) -> list[int]:
    """Return the offsets that divide a window of `count` segments into parts of about equal count, oldest part first.

    Parts hold at most `bound` segments, or a page more. All but the oldest fill their pages of `limit`, because a few
    extra rows would cost each of them a page; parts of only a few pages are kept equal instead.
    """
    parts = math.ceil(count / bound)
    newer = range(parts - 1, 0, -1)  # number of parts above the cut
    needed = math.ceil((count + _SHARED * (parts - 1)) / limit)
    if count < parts * max(_EVEN * limit, _EVEN * _SHARED):
        return [count * above // parts for above in newer]
    return [needed * above // parts * limit - _SHARED * above for above in newer]


def split_point(times: Sequence[int], window: Window) -> SplitPoint | None:
    """Return the boundary at which a page of close times, newest first, can divide its window; None if there is none.

    The best cut is between two neighbours at least 2 ms apart: then no segment is on the cut itself, and the rows below
    it are the newest of the lower window whether the server's `to` is inclusive or not. Without such a pair the page's
    oldest time within the window is used, but no row of the page is kept for the lower window.
    """
    for row in range(1, len(times)):
        if times[row - 1] - times[row] >= 2 and window.start < times[row] + 1 < window.end:
            return SplitPoint(times[row] + 1, row)
    inside = [time for time in times if window.start < time < window.end]
    return SplitPoint(inside[-1], len(times)) if inside else None


class SplitRequest(PageRequest, frozen=True):
    """A page that shows where to divide a window. `rank` is the number of segments newer than its first."""

    splitter: Splitter
    rank: int


class Splitter:
    """Incremental split: yields sub-windows, oldest first, as soon as both boundaries are known.

    Pages deep in a window with too many segments show where to divide it, and provide the first rows of the windows
    below. They are not kept without `pages`, or if the server sorts oldest first.
    """

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int, *, pages: bool = True) -> None:
        self.window = window
        self.limit = limit
        self.requests = 1
        self._count = first.page.pagination.count
        self._ascending = order_of(times_of(first.page.segments)) == "ascending"
        self._ranks = split_offsets(self._count, bound, limit)
        store = StoredPage.uncompressed if len(self._ranks) <= _MOST_UNPACKED else StoredPage.compressed
        self._keep = store if pages and not self._ascending else StoredPage.times_alone
        self._answers = {0: StoredPage((), None, first.at_ms) if self._ascending else self._keep(first)}
        self._todo = deque(self._ranks)
        self._wanted = set(self._ranks)
        self.parts: list[Window] = []
        """The windows that `ready` has returned, oldest first and without gap."""

    @property
    def has_next(self) -> bool:
        """True if there is a page to request."""
        return bool(self._todo)

    @property
    def complete(self) -> bool:
        """True if every page has arrived."""
        return not self._wanted

    def next(self) -> SplitRequest:
        """Return the next page to request."""
        self.requests += 1
        rank = self._todo.popleft()
        offset = max(0, self._count - rank - self.limit) if self._ascending else rank
        return SplitRequest(self.window, offset, self.limit, self, rank)

    def wants(self, request: SplitRequest) -> bool:
        """Return True if the page has not arrived yet."""
        return request.rank in self._wanted

    def answered(self, request: SplitRequest, answer: PageAnswer) -> None:
        """Check and store one of the pages."""
        checked(answer, self.window, request.offset, self.limit)
        self._answers[request.rank] = self._keep(answer)
        self._wanted.discard(request.rank)

    def pieces(self) -> list[SubWindow]:
        """Return the windows as known so far, oldest first."""
        pieces: list[SubWindow] = []
        end, rank, newest, first = self.window.end, 0, self._answers[0], 0
        for offset in sorted(self._answers)[1:]:
            answer = self._answers[offset]
            cut = split_point(answer.times, Window(self.window.start, end))
            if cut is not None:
                pieces.append(SubWindow(Window(cut.instant, end), newest, first, offset + cut.row - rank))
                end, rank, newest, first = cut.instant, offset + cut.row, answer, cut.row
        pieces.append(SubWindow(Window(self.window.start, end), newest, first, self._count - rank))
        return pieces[::-1]

    @property
    def rest(self) -> Window:
        """The part of the window that `ready` has not returned yet."""
        return Window(self.parts[-1].end if self.parts else self.window.start, self.window.end)

    def ready(self) -> list[SubWindow]:
        """Return the parts that are newly known, oldest first, each once; once complete, all that are left.

        A page that arrived since may move a cut if segments were added or removed; parts already returned stay.
        """
        cuts = sum(1 for _ in takewhile(lambda rank: rank not in self._wanted, self._ranks))
        pieces = self.pieces()
        known = pieces if self.complete else pieces[: min(cuts, len(pieces) - 1)]
        start = self.rest.start
        ready = [
            structs.replace(piece, window=Window(max(start, piece.window.start), piece.window.end))
            for piece in known
            if piece.window.end > start
        ]
        self.parts += [piece.window for piece in ready]
        return ready


class StoredPage(Struct, frozen=True):
    """A page kept for later, its close times newest first. Where hundreds are kept, it is compressed to a tenth of its
    size, unless it has new fields. `page` is None if only the times are needed.
    """

    times: Sequence[int]
    page: bytes | SegmentPage | None
    at_ms: int

    @classmethod
    def compressed(cls, answer: PageAnswer) -> StoredPage:
        """Compress a page, unless it has new fields."""
        page = answer.page
        if isinstance(page, ExtendedPage):
            return cls.uncompressed(answer)
        plain = structs.replace(page, segments=list(page.segments))
        return cls(times_of(page.segments), zlib.compress(json.encode(plain), _FASTEST_LEVEL), answer.at_ms)

    @classmethod
    def uncompressed(cls, answer: PageAnswer) -> StoredPage:
        """Keep a page uncompressed."""
        return cls(times_of(answer.page.segments), answer.page, answer.at_ms)

    @classmethod
    def times_alone(cls, answer: PageAnswer) -> StoredPage:
        """Keep only the close times of a page, sorted in either order."""
        return cls(sorted(times_of(answer.page.segments), reverse=True), None, answer.at_ms)


class SubWindow(Struct, frozen=True):
    """A part of a divided window and its approximate count; rows from `first` on of `page` are its newest."""

    window: Window
    page: StoredPage
    first: int
    count: int

    def newest(self) -> PageAnswer | None:
        """Return the page with the rows that belong to this window; None if it was not kept."""
        page = self.page.page
        if page is None:
            return None
        if isinstance(page, bytes):
            page = decode_page(zlib.decompress(page))
        last = since(self.page.times, self.window.start)
        return PageAnswer(structs.replace(page, segments=page.segments[self.first : last]), self.page.at_ms)
