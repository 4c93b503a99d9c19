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
"""Segments in one window, at most, by default: bounds memory, the depth of offsets, and the cost of a second read."""

_SHARED = 40
"""Rows that a part of a divided window reads twice, or with the next part, at most: more are shared where many close
within a few milliseconds of each other."""

_EVEN = 20
"""The size of a part, in pages and in shared rows, from which on one page more makes no difference."""

_QUICKLY = 1
_MOST_UNPACKED = 32
"""Pages that are kept as they are, some 8 MB: packing one takes longer than all else that is done with it."""


class SplitPoint(Struct, frozen=True):
    """The boundary at which a page divides a big window: rows from `row` on lie below `instant`, as its newest."""

    instant: int
    row: int


def split_offsets(count: int, bound: int, limit: int = MAX_PAGE_SIZE) -> list[int]:
    """Offsets in a window of `count` segments that divide it into parts of about equal count, the oldest part's first.

    Parts hold at most `bound`, or a page more. All but the oldest fill their pages of `limit`, as a few rows too many
    would cost each of them a page; parts of a few pages are rather kept equal.
    """
    parts = math.ceil(count / bound)
    newer = range(parts - 1, 0, -1)  # how many parts lie above the cut
    needed = math.ceil((count + _SHARED * (parts - 1)) / limit)
    if count < parts * max(_EVEN * limit, _EVEN * _SHARED):
        return [count * above // parts for above in newer]
    return [needed * above // parts * limit - _SHARED * above for above in newer]


def split_point(times: Sequence[int], window: Window) -> SplitPoint | None:
    """Return the boundary at which a page of close times, newest first, can divide its window; None without one.

    The best cut lies where two neighbours are at least 2 ms apart: no segment then stands on the cut itself, and the
    rows below it are the newest of the lower window whether the server's `to` is inclusive or not. Without such a pair
    the page's oldest time within the window still divides, but no row of the page is kept for the lower window.
    """
    for row in range(1, len(times)):
        if times[row - 1] - times[row] >= 2 and window.start < times[row] + 1 < window.end:
            return SplitPoint(times[row] + 1, row)
    inside = [time for time in times if window.start < time < window.end]
    return SplitPoint(inside[-1], len(times)) if inside else None


class SplitRequest(PageRequest, frozen=True):
    """A page that shows where to divide a window. `rank` is how many segments are newer than its first."""

    splitter: Splitter
    rank: int


class Splitter:
    """Incremental split: yields sub-windows, oldest first, as soon as both boundaries are known.

    Pages deep in a window with too many segments show where to divide it, and begin the windows below; without `pages`
    they only show it, and are not kept. Nor are those of a server that sorts oldest first.
    """

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int, *, pages: bool = True) -> None:
        self.window = window
        self.limit = limit
        self.requests = 1
        self._count = first.page.pagination.count
        self._ascending = order_of(times_of(first.page.segments)) == "ascending"
        self._ranks = split_offsets(self._count, bound, limit)
        loosely = StoredPage.loosely if len(self._ranks) <= _MOST_UNPACKED else StoredPage.of
        self._keep = loosely if pages and not self._ascending else StoredPage.times_alone
        self._answers = {0: StoredPage((), None, first.at_ms) if self._ascending else self._keep(first)}
        self._todo = deque(self._ranks)
        self._wanted = set(self._ranks)
        self.parts: list[Window] = []
        """The windows that `ready` has given, oldest first and without gap."""

    @property
    def has_next(self) -> bool:
        """True if there is a page to ask for."""
        return bool(self._todo)

    @property
    def complete(self) -> bool:
        """True if every page is there."""
        return not self._wanted

    def next(self) -> SplitRequest:
        """The next page to ask for."""
        self.requests += 1
        rank = self._todo.popleft()
        offset = max(0, self._count - rank - self.limit) if self._ascending else rank
        return SplitRequest(self.window, offset, self.limit, self, rank)

    def wants(self, request: SplitRequest) -> bool:
        """True if the page has not come yet."""
        return request.rank in self._wanted

    def answered(self, request: SplitRequest, answer: PageAnswer) -> None:
        """Take one of the pages."""
        checked(answer, self.window, request.offset, self.limit)
        self._answers[request.rank] = self._keep(answer)
        self._wanted.discard(request.rank)

    def pieces(self) -> list[SubWindow]:
        """The windows, oldest first."""
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
        """The part of the window that no part given so far covers."""
        return Window(self.parts[-1].end if self.parts else self.window.start, self.window.end)

    def ready(self) -> list[SubWindow]:
        """The parts that have become known, oldest first, each once: all that are left as soon as it is complete.

        A page that came since may have put a cut elsewhere, if segments came or went; what is given stays.
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
    """A page that waits, its close times newest first. Where hundreds do, it is packed to a tenth of its memory, unless
    it has new fields. `page` is None where nobody will ask for it.
    """

    times: Sequence[int]
    page: bytes | SegmentPage | None
    at_ms: int

    @classmethod
    def of(cls, answer: PageAnswer) -> StoredPage:
        """Pack a page."""
        page = answer.page
        if isinstance(page, ExtendedPage):
            return cls.loosely(answer)
        plain = structs.replace(page, segments=list(page.segments))
        return cls(times_of(page.segments), zlib.compress(json.encode(plain), _QUICKLY), answer.at_ms)

    @classmethod
    def loosely(cls, answer: PageAnswer) -> StoredPage:
        """Keep a page as it is."""
        return cls(times_of(answer.page.segments), answer.page, answer.at_ms)

    @classmethod
    def times_alone(cls, answer: PageAnswer) -> StoredPage:
        """Keep the close times of a page in either order."""
        return cls(sorted(times_of(answer.page.segments), reverse=True), None, answer.at_ms)


class SubWindow(Struct, frozen=True):
    """A part of a divided window, and about how many segments it holds; a page whose rows from `first` on begin it."""

    window: Window
    page: StoredPage
    first: int
    count: int

    def newest(self) -> PageAnswer | None:
        """The page with the rows that are of this window; None where it was not kept."""
        page = self.page.page
        if page is None:
            return None
        if isinstance(page, bytes):
            page = decode_page(zlib.decompress(page))
        last = since(self.page.times, self.window.start)
        return PageAnswer(structs.replace(page, segments=page.segments[self.first : last]), self.page.at_ms)
