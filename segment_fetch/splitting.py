"""A window with too many segments, divided by time into windows of about equal count."""

from __future__ import annotations

from collections import deque
from operator import attrgetter

from msgspec import Struct, structs

from segment_fetch.feed import PageAnswer, PageRequest
from segment_fetch.models import Segment
from segment_fetch.plan import cut_at, cut_ranks
from segment_fetch.query import Window
from segment_fetch.reading import checked_view

_time = attrgetter("endTimeL")


class Splitting:
    """A window with too many segments. Pages deep in it show where to divide it, and begin the windows below."""

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int) -> None:
        self.window = window
        self.limit = limit
        self.requests = 1
        self._answers = {0: first}
        self._count = first.page.pagination.count
        ranks = cut_ranks(self._count, bound)
        self._todo = deque(ranks)
        self._wanted = set(ranks)

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
        self._answers[request.offset] = answer
        self._wanted.discard(request.offset)

    def pieces(self) -> list[Piece]:
        """The windows, oldest first."""
        pieces: list[Piece] = []
        end, rank, newest = self.window.end, 0, self._answers[0]
        for offset in sorted(self._answers)[1:]:
            answer = self._answers[offset]
            cut = cut_at(list(map(_time, answer.page.segments)), Window(self.window.start, end))
            if cut is not None:
                pieces.append(_piece(cut.instant, end, newest, offset + cut.row - rank))
                end, rank, newest = cut.instant, offset + cut.row, _with_rows(answer, answer.page.segments[cut.row :])
        pieces.append(_piece(self.window.start, end, newest, self._count - rank))
        return pieces[::-1]


class Piece(Struct, frozen=True):
    """A part of a divided window: its newest segments, already read, and about how many it holds."""

    window: Window
    newest: PageAnswer
    count: int


def _piece(start: int, end: int, newest: PageAnswer, count: int) -> Piece:
    rows = [row for row in newest.page.segments if row.endTimeL >= start]
    return Piece(Window(start, end), _with_rows(newest, rows), count)


def _with_rows(answer: PageAnswer, rows: list[Segment]) -> PageAnswer:
    return structs.replace(answer, page=structs.replace(answer.page, segments=rows))
