"""A window with too many segments, divided by time into windows of about equal count."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from itertools import takewhile

from msgspec import Struct, json, structs

from segment_fetch.query import Window
from segment_fetch.windows.merge import since
from segment_fetch.windows.planning import split_offsets, split_point
from segment_fetch.windows.reader import checked_view
from segment_fetch.wire.models import ExtendedPage, SegmentPage
from segment_fetch.wire.pages import PageAnswer, PageRequest, decode_page
from segment_fetch.wire.raw_rows import times_of

_QUICKLY = 1
_MOST_UNPACKED = 32
"""Pages that are kept as they are, some 8 MB: packing one takes longer than all else that is done with it."""


class Splitter:
    """A window with too many segments. Pages deep in it show where to divide it, and begin the windows below; without
    `pages` they only show it, and are not kept.
    """

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int, *, pages: bool = True) -> None:
        self.window = window
        self.limit = limit
        self.requests = 1
        self._count = first.page.pagination.count
        self._ranks = split_offsets(self._count, bound, limit)
        loosely = StoredPage.loosely if len(self._ranks) <= _MOST_UNPACKED else StoredPage.of
        self._keep = loosely if pages else StoredPage.times_alone
        self._answers = {0: self._keep(first)}
        self._todo = deque(self._ranks)
        self._wanted = set(self._ranks)

    @property
    def has_next(self) -> bool:
        """Whether there is a page to ask for."""
        return bool(self._todo)

    @property
    def complete(self) -> bool:
        """Whether every page is there."""
        return not self._wanted

    def next(self) -> PageRequest:
        """The next page to ask for."""
        self.requests += 1
        return PageRequest(self.window, self._todo.popleft(), self.limit, self)

    def wants(self, request: PageRequest) -> bool:
        """Whether the page has not come yet."""
        return request.offset in self._wanted

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes one of the pages."""
        checked_view(answer, self.window, request.offset, self.limit)
        self._answers[request.offset] = self._keep(answer)
        self._wanted.discard(request.offset)

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


class IncrementalSplitter(Splitter):
    """Gives each part as soon as the page between it and the next newer part is there, and those of all older ones.

    `parts` are the windows given so far, oldest first and without gap; `rest` is what lies above them.
    """

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int) -> None:
        super().__init__(window, first, limit, bound)
        self.parts: list[Window] = []

    @property
    def rest(self) -> Window:
        """What no part that was given covers."""
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
    """A page that waits. Where hundreds do, in a tenth of its memory, but for one with new fields."""

    times: Sequence[int]
    page: bytes | SegmentPage
    at_ms: int

    @classmethod
    def of(cls, answer: PageAnswer) -> StoredPage:
        """The page, packed."""
        page = answer.page
        if isinstance(page, ExtendedPage):
            return cls.loosely(answer)
        plain = structs.replace(page, segments=list(page.segments))
        return cls(times_of(page.segments), zlib.compress(json.encode(plain), _QUICKLY), answer.at_ms)

    @classmethod
    def loosely(cls, answer: PageAnswer) -> StoredPage:
        """The page as it is."""
        return cls(times_of(answer.page.segments), answer.page, answer.at_ms)

    @classmethod
    def times_alone(cls, answer: PageAnswer) -> StoredPage:
        """The close times of a page that nobody will ask for."""
        return cls(times_of(answer.page.segments), b"", answer.at_ms)

    def unpacked(self) -> PageAnswer:
        """The page as it was."""
        page = decode_page(zlib.decompress(self.page)) if isinstance(self.page, bytes) else self.page
        return PageAnswer(page, self.at_ms)


class SubWindow(Struct, frozen=True):
    """A part of a divided window, and about how many segments it holds; a page whose rows from `first` on begin it."""

    window: Window
    page: StoredPage
    first: int
    count: int

    def newest(self) -> PageAnswer:
        """The page with the rows that are of this window."""
        answer = self.page.unpacked()
        last = since(self.page.times, self.window.start)
        rows = answer.page.segments[self.first : last]
        return structs.replace(answer, page=structs.replace(answer.page, segments=rows))
