"""Page sources for a pool that count segments or plan windows, and keep no data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from segment_fetch.errors import SegmentFetchError
from segment_fetch.query import Window
from segment_fetch.windows.planning import PlannedWindow, Remaining, pages
from segment_fetch.windows.splitting import SplitRequest, Splitter
from segment_fetch.wire.pages import PageAnswer, PageRequest


class Counting:
    """Counts the segments of each window, with one small request per window.

    `counts` are as the API reports them; `at_ms` is the server's clock at that time.
    """

    def __init__(self, windows: Iterable[Window]) -> None:
        self._todo = deque(dict.fromkeys(windows))
        self._due = len(self._todo)
        self.counts: dict[Window, int] = {}
        self.at_ms: dict[Window, int] = {}

    def next(self) -> PageRequest | None:
        return PageRequest(self._todo.popleft(), 0, 1) if self._todo else None

    def newest(self) -> PageRequest | None:
        return PageRequest(self._todo.pop(), 0, 1) if self._todo else None

    def wants(self, request: PageRequest) -> bool:
        return True

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        self.counts[request.window] = answer.page.pagination.count
        self.at_ms[request.window] = answer.at_ms

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        raise error

    def finished(self) -> bool:
        return len(self.counts) == self._due


class ExactCounting:
    """Counts windows exactly. If the server treats `to` as inclusive, a segment on the boundary of two windows is in
    both counts, so the boundary itself is counted, too, and subtracted. With an exclusive `to` its count is zero.

    `total` is the number of segments that the windows own.
    """

    def __init__(self, windows: Sequence[Window]) -> None:
        self._todo = Remaining(windows)
        self._ends: list[Window] = []  # the instants to be asked next
        self._due = 2 * len(windows)
        self.total = 0

    def next(self) -> PageRequest | None:
        if self._ends:
            return PageRequest(self._ends.pop(), 0, 1)
        return self._asked(self._todo.first()) if self._todo else None

    def newest(self) -> PageRequest | None:
        return self._asked(self._todo.last()) if self._todo else None

    def _asked(self, window: Window) -> PageRequest:
        self._ends.append(Window(window.end, window.end))
        return PageRequest(window, 0, 1)

    def wants(self, request: PageRequest) -> bool:
        return True

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        is_instant = request.window.start == request.window.end
        self.total += answer.page.pagination.count * (-1 if is_instant else 1)
        self._due -= 1

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        raise error

    def finished(self) -> bool:
        return self._due == 0


class Survey:
    """Finds the windows that an extraction would read, from the first page of each and the cuts of large ones."""

    def __init__(self, windows: Sequence[Window], limit: int, bound: int) -> None:
        self._limit = limit
        self._bound = bound
        self._unopened = Remaining(windows)
        self._due = len(windows)
        self._splitters: list[Splitter] = []
        self._found: list[PlannedWindow] = []

    def next(self) -> PageRequest | None:
        for splitter in self._splitters:
            if splitter.has_next:
                return splitter.next()
        if self._unopened:
            return PageRequest(self._unopened.first(), 0, self._limit)
        return None

    def newest(self) -> PageRequest | None:
        return PageRequest(self._unopened.last(), 0, self._limit) if self._unopened else None

    def wants(self, request: PageRequest) -> bool:
        return True

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        if isinstance(request, SplitRequest):
            splitter = request.splitter
            splitter.answered(request, answer)
            if splitter.complete:
                self._divide(splitter)
            return
        count = answer.page.pagination.count
        if count > self._bound and request.window.end - request.window.start > 1:
            self._splitters.append(Splitter(request.window, answer, self._limit, self._bound, pages=False))
        else:
            self._add(request.window, count)
            self._due -= 1

    def _divide(self, splitter: Splitter) -> None:
        self._splitters.remove(splitter)
        for piece in splitter.pieces():
            self._add(piece.window, piece.count)
        self._due -= 1

    def _add(self, window: Window, count: int) -> None:
        self._found.append(PlannedWindow(window, count, pages(count, self._limit)))

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        raise error

    def finished(self) -> bool:
        return self._due == 0

    def planned(self) -> tuple[PlannedWindow, ...]:
        """Return the windows found, oldest first."""
        return tuple(sorted(self._found, key=lambda planned: planned.window))
