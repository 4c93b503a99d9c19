"""One window, from its first request to its proof. No I/O: says which page to ask for, and takes the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from segment_fetch.errors import TransientError
from segment_fetch.events import Event, Status, WindowReread
from segment_fetch.query import Window
from segment_fetch.timerange import settled_before
from segment_fetch.windows import coverage
from segment_fetch.windows.live import LivePass
from segment_fetch.windows.settled import SettledPass
from segment_fetch.windows.strategy import Failed, Pass, Proven
from segment_fetch.windows.ties import Fetch
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.pages import PageAnswer, PageRequest, new_fields
from segment_fetch.wire.raw_rows import RawRows, keys_of, times_of

Part_contra = TypeVar("Part_contra", contravariant=True)


class Outlet(Protocol[Part_contra]):
    """Takes parts of a window as they become ready, in order, before the window is proven."""

    def put(self, window: Window, parts: Sequence[Part_contra]) -> None:
        """Takes the next parts. They count once the window is proven; its `WindowRead` then brings the rest."""

    def withdraw(self, window: Window) -> None:
        """The parts of the window are void: it is read anew, or given up."""


class WindowRead(Struct, Generic[Part]):
    """A window at the end of its reading. `parts` are its segments as encoded, in order; none if unproven, and
    without those that an `Outlet` took before.

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
) -> coverage.PageView:
    """What the proof needs of a page; TransientError for a page that contradicts itself, which is a fault.

    A prefix is the newest part of a window taken from a page of another query, whose count is not the window's.
    """
    rows = answer.page.segments
    count = None if prefix else answer.page.pagination.count
    times = times_of(rows)
    falling = rows.falling if isinstance(rows, RawRows) else coverage.falls(times)
    view = coverage.PageView(window.end, offset, count, keys_of(rows), times, falling)
    if fault := coverage.check_page(view, start=window.start, limit=limit):
        raise TransientError(fault, status=200)
    return view


class WindowReader(Generic[Part]):
    """Reads one window until its pages prove it, or cannot.

    A settled window is read as one that does not change; if it does, or if it is not settled yet, as one that moves;
    and once more, in the rare case that pages which were joined turn out not to be what they seemed.
    `newest` is a page already read, of a bigger query, that holds the newest segments of the window.
    """

    def __init__(
        self,
        window: Window,
        limit: int,
        encode: Callable[[Sequence[Segment]], Part],
        *,
        tell: Callable[[Event], None],
        newest: PageAnswer | None = None,
        outlet: Outlet[Part] | None = None,
    ) -> None:
        self.window = window
        self.limit = limit
        self.requests = 0
        self.count: int | None = None
        self.divided = newest is not None
        self._encode = encode
        self._tell = tell
        self._outlet = outlet
        self._unknown: set[str] = set()
        self._rows = self._pages = self._passes = 0
        self._began = 0
        self._pass: Pass[Part] | None = None
        self._todo: deque[Fetch] = deque()
        self._wanted: set[Fetch] = set()
        if newest is None:
            self._ask([Fetch(window)])
        else:
            self.requests = 1
            self._hold(Fetch(window), newest, prefix=True)
            self.advance()

    def _ask(self, asks: Iterable[Fetch]) -> None:
        self._todo.extend(asks)
        self._wanted.update(self._todo)

    @property
    def has_next(self) -> bool:
        """Whether there is a page to ask for."""
        return bool(self._todo)

    def next(self) -> PageRequest:
        """The next page to ask for."""
        ask = self._todo.popleft()
        self.requests += 1
        return PageRequest(ask.window, ask.offset, self.limit, self, ask)

    def wants(self, request: PageRequest) -> bool:
        """Whether the page is still of use and has not come yet."""
        return request.mark in self._wanted

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes a page; TransientError where it contradicts itself."""
        begins = self._pass is None
        futile = self._hold(request.mark, answer)
        self._wanted.discard(request.mark)
        if begins or self.count is None:
            self.count = answer.page.pagination.count
        if futile is not None:
            self._start_over(futile)

    def _hold(self, ask: Fetch, answer: PageAnswer, *, prefix: bool = False) -> str | None:
        view = checked_view(answer, ask.window, ask.offset, self.limit, prefix=prefix)
        if self._pass is None:
            self._began = answer.at_ms
            self._pass = self._first_pass()
        self._pages += 1
        self._rows += len(view.ids)
        self._unknown |= new_fields(answer.page)
        futile = self._pass.take(ask, view, answer.page.segments)
        if self._outlet and futile is None and (parts := self._pass.ready()):
            self._outlet.put(self.window, parts)
        return futile

    def _withdraw(self) -> None:
        if self._outlet:
            self._outlet.withdraw(self.window)

    @property
    def _settled(self) -> bool:
        return self.window.end <= settled_before(self._began)

    def _first_pass(self) -> Pass[Part]:
        self._passes += 1
        if self._settled and self._passes == 1:
            return SettledPass(self.window, self.limit, self._encode)
        return LivePass(self.window, self.limit, self._encode, joins=self._passes <= 1 + self._settled)

    def _start_over(self, reason: str) -> None:
        """Reads the window again, in another way. What is still in flight is no longer of use."""
        self._tell(WindowReread(self.window, self._passes, reason))
        self._withdraw()
        self._todo.clear()
        self._wanted.clear()
        self._pass = None
        self._pages = self._rows = 0
        self._ask([Fetch(self.window)])

    def advance(self) -> WindowRead[Part] | None:
        """What follows from the pages that came: the window at its end, or None while there is more to ask."""
        if self._wanted or self._pass is None:
            return None
        step = self._pass.advance()
        if isinstance(step, Proven):
            return self._result("complete" if self._settled else "provisional", step.parts, step.segments)
        if isinstance(step, list):
            self._ask(step)
        elif step.again:
            self._start_over(step.reason)
        else:
            return self.unproven(step)
        return None

    def unproven(self, failed: Failed) -> WindowRead[Part]:
        """The window, given up; nothing more is asked."""
        self._withdraw()
        self._todo.clear()
        self._wanted.clear()
        return self._result("unproven", [], 0, failed.reason)

    def _result(self, status: Status, parts: list[Part], segments: int, reason: str | None = None) -> WindowRead[Part]:
        return WindowRead(
            window=self.window,
            status=status,
            parts=parts,
            count=self.count or 0,
            segments=segments,
            duplicates=self._rows - segments if status != "unproven" else 0,
            pages=self._pages,
            requests=self.requests,
            read_at=self._began,
            unknown_fields=tuple(sorted(self._unknown)),
            reason=reason,
        )
