"""One window, from its first request to its proof. No I/O: says which page to ask for, and takes the answers."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter, neg
from typing import Generic

from msgspec import Struct, structs

from segment_fetch import stitch
from segment_fetch.api import PageAnswer
from segment_fetch.errors import TransientError
from segment_fetch.events import Status
from segment_fetch.models import Segment
from segment_fetch.order import Part, Slice, join, slice_page
from segment_fetch.plan import cut_at, cut_ranks
from segment_fetch.pool import PageRequest
from segment_fetch.protocol import new_fields
from segment_fetch.query import Window

SETTLED_AFTER_MS = (24 * 60 + 15) * 60_000
"""A segment can take 24 hours after its close to appear; 15 minutes more for clocks and caches."""
PASSES = 3
"""How often a window is read before it is given up."""

_id = attrgetter("segmentId")
_time = attrgetter("endTimeL")


class WindowRead(Struct, Generic[Part]):
    """A window at the end of its reading. `parts` are its segments as encoded, in order; none if unproven.

    `count` is what the API reported, segments on a shared boundary included; `segments` are those that the window
    owns, `duplicates` the rows read beyond them. `read_at` is the server's clock, epoch milliseconds.
    """

    window: Window
    status: Status
    parts: list[Part]
    count: int
    segments: int
    duplicates: int
    pages: int
    requests: int
    read_at: int
    unknown_fields: tuple[str, ...]
    reason: str | None = None


def checked_view(
    answer: PageAnswer, window: Window, offset: int, limit: int, *, prefix: bool = False
) -> stitch.PageView:
    """What the proof needs of a page; TransientError for a page that contradicts itself, which is a fault.

    A prefix is the newest part of a window taken from a page of another query, whose count is not the window's.
    """
    rows = answer.page.segments
    count = None if prefix else answer.page.pagination.count
    view = stitch.PageView(window.end, offset, count, list(map(_id, rows)), list(map(_time, rows)))
    if fault := stitch.check_page(view, start=window.start, limit=limit):
        raise TransientError(fault, status=200)
    return view


class WindowReading(Generic[Part]):
    """Reads one window until its pages prove it, at most `PASSES` times.

    `newest` is a page already read that holds the newest segments of the window.
    """

    def __init__(
        self,
        window: Window,
        limit: int,
        encode: Callable[[Sequence[Segment]], Part],
        newest: PageAnswer | None = None,
        *,
        may_split: bool = True,
    ) -> None:
        self.window = window
        self.limit = limit
        self.may_split = may_split
        self.passes = 0
        self.requests = 0
        self.count = 0
        self._encode = encode
        self._unknown: set[str] = set()
        self._begin()
        if newest is not None:
            self.requests = 1
            self._hold(newest, 0, prefix=True)
            self._todo = deque([len(newest.page.segments)])

    def _begin(self) -> None:
        self.passes += 1
        self.opened = False
        self._read_at = 0
        self._owned = 0
        self._todo = deque([0])
        self._wanted: set[int] = set()
        self._views: list[stitch.PageView] = []
        self._slices: dict[int, Slice[Part]] = {}

    @property
    def has_next(self) -> bool:
        """Whether there is a page to ask for."""
        return bool(self._todo)

    @property
    def complete(self) -> bool:
        """Whether every page of this pass is there."""
        return self.opened and not self._todo and not self._wanted

    def next(self) -> PageRequest:
        """The next page to ask for."""
        offset = self._todo.popleft()
        self._wanted.add(offset)
        self.requests += 1
        return PageRequest(self.window, offset, self.limit, self, self.passes)

    def wants(self, request: PageRequest) -> bool:
        """Whether the page belongs to this pass and has not come yet."""
        return request.serial == self.passes and request.offset in self._wanted

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes a page of this pass; the first one's count says which others there are."""
        self._hold(answer, request.offset)
        self._wanted.discard(request.offset)
        if not self.opened:
            self.opened = True
            self.count = answer.page.pagination.count
            self._todo.extend(range(request.offset + self.limit, self.count, self.limit))

    def _hold(self, answer: PageAnswer, offset: int, *, prefix: bool = False) -> None:
        rows = answer.page.segments
        view = checked_view(answer, self.window, offset, self.limit, prefix=prefix)
        foreign = bisect_left(view.times, -self.window.end + 1, key=neg)
        self._slices[offset] = slice_page(rows[foreign:], view.times[foreign:], self._encode)
        self._owned += len(rows) - foreign
        self._views.append(view)
        self._unknown |= new_fields(rows)
        self._read_at = max(self._read_at, answer.at_ms)

    def again(self) -> bool:
        """Starts another pass, if there is one left."""
        if self.passes == PASSES:
            return False
        self._begin()
        return True

    def proven(self) -> WindowRead[Part] | None:
        """The window, if the pages of this pass prove it."""
        if stitch.count_proof(self._views) is None:
            return None
        settled = self.window.end <= self._read_at - SETTLED_AFTER_MS
        newest_last = (self._slices[offset] for offset in sorted(self._slices, reverse=True))
        parts = list(join(newest_last, self._encode))
        return self._result("complete" if settled else "provisional", parts, self._owned)

    def unproven(self, reason: str) -> WindowRead[Part]:
        """The window, given up; nothing more is asked."""
        self._todo.clear()
        self._wanted.clear()
        return self._result("unproven", [], 0, reason)

    def _result(self, status: Status, parts: list[Part], segments: int, reason: str | None = None) -> WindowRead[Part]:
        rows = sum(len(view.ids) for view in self._views)
        return WindowRead(
            window=self.window,
            status=status,
            parts=parts,
            count=self.count,
            segments=segments,
            duplicates=rows - segments if status != "unproven" else 0,
            pages=len(self._views),
            requests=self.requests,
            read_at=self._read_at,
            unknown_fields=tuple(sorted(self._unknown)),
            reason=reason,
        )


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
        return PageRequest(self.window, self._todo.popleft(), self.limit, self, 0)

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
