"""Windows, read side by side: which page to ask next, and what to do with each window that is proven or given up.

The oldest window goes first, and no window waits for the one before it to end. Memory stays bounded: the segments of a
window are held until the consumer has taken it and come back for the next, and a window starts to fill only while those
held are below a bound.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, Self

from segment_fetch.errors import SegmentFetchError
from segment_fetch.events import Event, NewFields, PageRead, WindowDone, WindowOpened, WindowSplit
from segment_fetch.extraction.context import ReadOptions, RunContext
from segment_fetch.extraction.row_budget import RowBudget
from segment_fetch.extraction.turns import ended
from segment_fetch.extraction.worker_pool import RequestCounts, WorkerPool
from segment_fetch.query import Window
from segment_fetch.windows.reader import Outlet, WindowRead, WindowReader
from segment_fetch.windows.splitting import IncrementalSplitter, SubWindow
from segment_fetch.windows.strategy import Failed
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.pages import PageAnswer, PageRequest, new_fields

WINDOWS_AHEAD = 3
"""Windows of the largest size that may be held in memory at once."""


class WindowQueue(Generic[Part]):
    """The source of a pool. `done` takes each window at its end; `release` says that it is no longer held.

    An `outlet`, if there is one, takes the parts of a window that are ready before its end.
    """

    def __init__(
        self,
        windows: Iterable[Window],
        options: ReadOptions,
        encode: Callable[[Sequence[Segment]], Part],
        *,
        tell: Callable[[Event], None],
        done: Callable[[WindowRead[Part]], None],
        outlet: Outlet[Part] | None = None,
        budget: RowBudget | None = None,
    ) -> None:
        self._budget = budget
        self._unopened = deque(windows)
        self._open: list[WindowReader[Part] | IncrementalSplitter | SubWindow] = []
        self._options = options
        self._encode = encode
        self._tell = tell
        self._done = done
        self._outlet = outlet
        self._held: dict[Window, int] = {}
        self._named: set[str] = set()

    def next(self) -> PageRequest | None:
        """A page of the oldest window that has one to ask for, or the first page of the next window."""
        for index, item in enumerate(self._open):
            if isinstance(item, SubWindow):
                item = self._open[index] = self._reading(item.window, item.newest())  # noqa: PLW2901
            if item.has_next:
                return item.next() if self._may_fill(item) else None
        if self._full(1) or not self._unopened:
            return None
        begun = self._reading(self._unopened.popleft())
        insort(self._open, begun, key=lambda item: item.window)  # the newest may have been begun before
        return begun.next()

    def newest(self) -> PageRequest | None:
        """The first page of the newest window, where that is not begun."""
        if not self._unopened:
            return None
        begun = self._reading(self._unopened.pop())
        self._open.append(begun)
        return begun.next()

    def _may_fill(self, item: WindowReader[Part] | IncrementalSplitter) -> bool:
        if isinstance(item, IncrementalSplitter) or item.count is None or item.window in self._held:
            return True
        if self._held and self._full(item.count) and item.window > min(self._held):
            return False  # but the oldest of all is never kept waiting: an ordered consumer may be waiting for it
        self._hold(item.window, item.count)
        return True

    def _full(self, more: int) -> bool:
        if self._held and self._budget is not None and not self._budget.has_room(more):
            return True
        return sum(self._held.values()) + more > self._options.split_above * WINDOWS_AHEAD

    def _hold(self, window: Window, rows: int) -> None:
        if self._budget is not None:
            self._budget.held += rows - self._held.get(window, 0)
        self._held[window] = rows

    def release(self, window: Window) -> None:
        """The consumer is done with the window."""
        rows = self._held.pop(window, 0)
        if self._budget is not None:
            self._budget.held -= rows

    def release_all(self) -> None:
        """Note that nothing is held any more: the reading has ended."""
        for window in list(self._held):
            self.release(window)

    def finished(self) -> bool:
        """Whether every window is at its end."""
        return not self._open and not self._unopened

    def wants(self, request: PageRequest) -> bool:
        """Whether a delayed page is still of use."""
        owner = request.reading
        return any(owner is item for item in self._open) and owner.wants(request)

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        """A page cannot be had: its window is given up, the others go on."""
        owner = request.reading
        if not self.wants(request):
            return
        if isinstance(owner, IncrementalSplitter):
            rest = self._reading(owner.rest)
            self._replace(owner, [rest])
            if owner.parts:
                self._tell(WindowSplit(owner.window, (*owner.parts, owner.rest)))
            owner = rest
        self._finish(owner, owner.unproven(Failed(str(error))))

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes a page; raises TransientError where it contradicts itself."""
        owner = request.reading
        if not self.wants(request):
            return
        first = isinstance(owner, WindowReader) and owner.count is None
        owner.answered(request, answer)
        self._tell(PageRead(owner.window, request.offset, len(answer.page.segments)))
        self._name_fields(answer)
        if isinstance(owner, IncrementalSplitter):
            if not owner.has_next:
                self._divide(owner)
            return
        if first:
            self._tell(WindowOpened(owner.window, owner.count))
            if self._too_large(owner):
                self._replace(
                    owner, [IncrementalSplitter(owner.window, answer, owner.limit, self._options.split_above)]
                )
                return
        if (read := owner.advance()) is not None:
            self._finish(owner, read)

    def _too_large(self, owner: WindowReader[Part]) -> bool:
        divisible = not owner.divided and owner.window.end - owner.window.start > 1
        return divisible and (owner.count or 0) > self._options.split_above

    def _reading(self, window: Window, newest: PageAnswer | None = None) -> WindowReader[Part]:
        return WindowReader(
            window, self._options.limit, self._encode, tell=self._tell, newest=newest, outlet=self._outlet
        )

    def _finish(self, owner: WindowReader[Part], read: WindowRead[Part]) -> None:
        self._open = [item for item in self._open if item is not owner]
        self._hold(owner.window, read.segments)
        self._tell(WindowDone(read.window, read.status, read.segments, read.reason))
        self._done(read)

    def _divide(self, owner: IncrementalSplitter) -> None:
        """Begins the parts that are known, so that connections have something to do while the others are found."""
        ready = owner.ready()
        if owner.complete:
            self._tell(WindowSplit(owner.window, tuple(owner.parts)))
            self._replace(owner, ready)
        elif ready:
            self._replace(owner, [*ready, owner])

    def _replace(
        self,
        owner: WindowReader[Part] | IncrementalSplitter,
        items: Sequence[WindowReader[Part] | IncrementalSplitter | SubWindow],
    ) -> None:
        at = next(index for index, item in enumerate(self._open) if item is owner)
        self._open[at : at + 1] = items

    def _name_fields(self, answer: PageAnswer) -> None:
        names = new_fields(answer.page) - self._named
        if names:
            self._named |= names
            self._tell(NewFields(tuple(sorted(names))))


class WindowStream(Generic[Part]):
    """Windows in the order in which they end. Each counts as held until it is released."""

    def __init__(
        self, queue: WindowQueue[Part], results: asyncio.Queue[WindowRead[Part] | None], pool: WorkerPool
    ) -> None:
        self._queue = queue
        self._results = results
        self._pool = pool
        self._running = asyncio.create_task(pool.run())
        self._running.add_done_callback(lambda _: results.put_nowait(None))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WindowRead[Part]:
        if (result := await self._results.get()) is not None:
            return result
        await self._running
        raise StopAsyncIteration

    def release(self, window: Window) -> None:
        """Note that the consumer no longer holds the window, so that another one may fill."""
        self._queue.release(window)
        self._pool.wake()

    @property
    def counts(self) -> RequestCounts:
        """The requests made so far."""
        return self._pool.counts

    async def stop(self) -> None:
        """Cancel all requests in flight, and return when their workers have ended."""
        self._running.cancel()
        await ended(self._running)


@asynccontextmanager
async def read(
    context: RunContext,
    windows: Iterable[Window],
    encode: Callable[[Sequence[Segment]], Part],
    *,
    outlet: Outlet[Part] | None = None,
) -> AsyncIterator[WindowStream[Part]]:
    """Read windows side by side for the length of the block; leaving it cancels all requests in flight."""
    results: asyncio.Queue[WindowRead[Part] | None] = asyncio.Queue()
    queue = WindowQueue(
        windows,
        context.options,
        encode,
        tell=context.tell,
        done=results.put_nowait,
        outlet=outlet,
        budget=context.rows,
    )
    stream = WindowStream(queue, results, context.workers(queue))
    try:
        yield stream
    finally:
        try:
            await stream.stop()
        finally:
            queue.release_all()
