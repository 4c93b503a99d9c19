"""Read windows concurrently: choose the next page to request, and deliver each window that is proven or given up.

The oldest window has priority, and no window waits for the one before it to end. Memory is bounded: the segments of a
window are held until the consumer has taken it and asks for the next one, and a window is started only while the number
of segments held is below a limit.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, Self, TypeAlias, assert_never

from segment_fetch.errors import LOST, SegmentFetchError
from segment_fetch.events import Event, NewFields, PageRead, WindowDone, WindowOpened, WindowSplit
from segment_fetch.extraction.context import ReadOptions, RunContext
from segment_fetch.extraction.loop_turns import ended
from segment_fetch.extraction.row_budget import RowBudget
from segment_fetch.extraction.worker_pool import RequestCounts, WorkerPool
from segment_fetch.query import Window
from segment_fetch.timerange import CLAMP_MARGIN_MS, oldest_start
from segment_fetch.windows.page_checks import Divide, halves
from segment_fetch.windows.pass_protocol import Failed
from segment_fetch.windows.planning import Remaining
from segment_fetch.windows.reader import Outlet, WindowRead, WindowReader, WindowRequest
from segment_fetch.windows.server_traits import ServerTraits
from segment_fetch.windows.splitting import SplitRequest, Splitter, SubWindow
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.pages import PageAnswer, PageRequest, new_fields

WINDOWS_AHEAD = 3
"""Number of windows of the largest size that may be held in memory at once."""


Request: TypeAlias = WindowRequest[Any] | SplitRequest
"""A page request of a window queue."""


class WindowQueue(Generic[Part]):
    """The page source of a pool. `done` gets each window at its end; `release` says that it is no longer held.

    An `outlet`, if there is one, gets the parts of a window that are ready before its end.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        options: ReadOptions,
        encode: Callable[[Sequence[Segment]], Part],
        *,
        tell: Callable[[Event], None],
        done: Callable[[WindowRead[Part]], None],
        outlet: Outlet[Part] | None = None,
        budget: RowBudget | None = None,
    ) -> None:
        self._budget = budget
        self._unopened = Remaining(windows)
        self._open: list[WindowReader[Part] | Splitter | SubWindow] = []
        self._options = options
        self._encode = encode
        self._tell = tell
        self._done = done
        self._outlet = outlet
        self._held: dict[Window, int] = {}
        self._named: set[str] = set()
        self._server_ms: int | None = None
        self._traits = ServerTraits()
        self._divisions: Counter[tuple[Window, int]] = Counter()
        self._roots: dict[Window, Window] = {}  # part of a divided window -> the window

    def next(self) -> Request | None:
        """Return a page request of the oldest window that has one, or the first of the next window."""
        for index, item in enumerate(self._open):
            if isinstance(item, SubWindow):
                item = self._open[index] = self._reader(item.window, item.newest(), divided=True)  # noqa: PLW2901
            if item.has_next:
                return item.next() if self._may_fill(item) else None
        if self._full(1) or not self._unopened:
            return None
        begun = self._reader(self._unopened.first())
        insort(self._open, begun, key=lambda item: item.window)  # the newest may have been begun before
        return begun.next()

    def newest(self) -> Request | None:
        """Return the first page request of the newest window, None if it has been started."""
        if not self._unopened:
            return None
        begun = self._reader(self._unopened.last())
        self._open.append(begun)
        return begun.next()

    def _may_fill(self, item: WindowReader[Part] | Splitter) -> bool:
        if isinstance(item, Splitter) or item.count is None or item.window in self._held:
            return True
        if self._held and self._full(item.count) and item.window > min(self._held):
            return False  # except the oldest window: an ordered consumer may be waiting for it
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
        """Note that the consumer no longer needs the window."""
        rows = self._held.pop(window, 0)
        if self._budget is not None:
            self._budget.held -= rows

    def release_all(self) -> None:
        """Note that no window is held any more: reading has ended."""
        for window in list(self._held):
            self.release(window)

    def finished(self) -> bool:
        """Return True if every window has ended."""
        return not self._open and not self._unopened

    def wants(self, request: Request) -> bool:
        """Return True if a delayed page is still needed."""
        match request:
            case WindowRequest(reader=reader):
                return any(reader is item for item in self._open) and reader.wants(request)
            case SplitRequest(splitter=splitter):
                return any(splitter is item for item in self._open) and splitter.wants(request)
            case _:
                assert_never(request)

    def failed(self, request: Request, error: SegmentFetchError) -> None:
        """Give up the window of a page that could not be fetched; the others continue."""
        if not self.wants(request):
            return
        match request:
            case WindowRequest(reader=reader):
                if not request.fetch.probe and (served := self._still_served(reader.window, error)) is not None:
                    self._cut(reader, served)
                elif reader.refused(request, error):
                    self._advance(reader)
                else:
                    self._finish(reader, reader.unproven(Failed(str(error), code=error.code)))
            case SplitRequest(splitter=splitter):
                self._end_split(splitter, error)
            case _:
                assert_never(request)
        self._advance_all()

    def _end_split(self, splitter: Splitter, error: SegmentFetchError) -> None:
        """Continue without a page that would have shown where to divide a window: in halves, if others were served."""
        rest = self._reader(splitter.rest)
        self._replace(splitter, [rest])
        if splitter.parts:
            self._tell(WindowSplit(splitter.window, (*splitter.parts, splitter.rest)))
        failed = Failed(str(error), code=error.code)
        match halves(rest.window, failed) if error.status in (200, 400) else failed:
            case Divide() as division:
                self._divide(rest, division)
            case Failed():
                self._finish(rest, rest.unproven(failed))

    def _still_served(self, window: Window, error: SegmentFetchError) -> Window | None:
        """Return the part of a refused window that the API still serves; None if its age does not explain the refusal.

        It may have become too old since the run began, or the local clock may be behind the server's.
        """
        if error.status != 400 or self._server_ms is None:
            return None
        oldest = oldest_start(self._server_ms)
        start = oldest + CLAMP_MARGIN_MS
        return Window(start, window.end) if window.start < oldest + 1000 and start < window.end else None

    def _cut(self, reader: WindowReader[Part], served: Window) -> None:
        """Give up the part of a window that the API no longer serves, and read the remainder again."""
        reason = "the API no longer serves this: it serves only the last month"
        lost = self._reader(Window(reader.window.start, served.start), divided=True)
        failed = Failed(reason, code=LOST)
        reader.unproven(failed)
        self.release(reader.window)
        self._tell(WindowSplit(reader.window, (lost.window, served)))
        self._replace(reader, [lost, self._reader(served)])
        self._finish(lost, lost.unproven(failed))

    def answered(self, request: Request, answer: PageAnswer) -> None:
        """Take a page. Raises TransientError if it contradicts itself."""
        self._server_ms = answer.at_ms if answer.server_ms is None else answer.server_ms
        if not self.wants(request):
            return
        match request:
            case WindowRequest(reader=reader):
                self._read(reader, request, answer)
            case SplitRequest(splitter=splitter):
                splitter.answered(request, answer)
                self._report_page(splitter.window, request, answer)
                if not splitter.has_next:
                    self._split(splitter)
            case _:
                assert_never(request)
        self._advance_all()

    def _report_page(self, window: Window, request: PageRequest, answer: PageAnswer) -> None:
        rows = len(answer.page.segments)
        self._tell(PageRead(window, request.offset, rows, answer.fallback if rows else None))
        names = new_fields(answer.page) - self._named
        if names:
            self._named |= names
            self._tell(NewFields(tuple(sorted(names))))

    def _read(self, reader: WindowReader[Part], request: WindowRequest[Part], answer: PageAnswer) -> None:
        first = reader.count is None
        if reader.answered(request, answer):
            self._report_page(reader.window, request, answer)
        if first and reader.count is not None:
            self._tell(WindowOpened(reader.window, reader.count))
            if self._too_large(reader):
                bound = self._options.split_above
                self._replace(reader, [Splitter(reader.window, answer, reader.limit, bound)])
                return
        self._advance(reader)

    def _advance_all(self) -> None:
        """Advance windows that waited for what another one was finding out about the server."""
        for item in list(self._open):
            if isinstance(item, WindowReader) and item.waits:
                self._advance(item)

    def _advance(self, reader: WindowReader[Part]) -> None:
        match reader.advance():
            case None:
                pass
            case Divide() as division:
                self._divide(reader, division)
            case read:
                self._finish(reader, read)

    def _divide(self, reader: WindowReader[Part], division: Divide) -> None:
        """Read a window in parts, as it cannot be read in one; up to a limited number of times."""
        root = self._roots.pop(reader.window, reader.window)
        self._divisions[root, division.most] += 1
        failed = Failed(division.reason, code=division.code)
        if self._divisions[root, division.most] > division.most:
            self._finish(reader, reader.unproven(failed))
            return
        self._roots |= dict.fromkeys(division.windows, root)
        self.release(reader.window)
        self._tell(WindowSplit(reader.window, division.windows))
        parts = [self._reader(window) for window in division.windows]
        self._replace(reader, parts)
        for part in parts:
            if part.window == division.broken:
                self._finish(part, part.unproven(failed))

    def _too_large(self, owner: WindowReader[Part]) -> bool:
        divisible = not owner.divided and not owner.is_decided and owner.window.end - owner.window.start > 1
        return divisible and (owner.count or 0) > self._options.split_above

    def _reader(self, window: Window, newest: PageAnswer | None = None, *, divided: bool = False) -> WindowReader[Part]:
        return WindowReader(
            window,
            self._options.limit,
            self._encode,
            tell=self._tell,
            traits=self._traits,
            newest=newest,
            divided=divided,
            outlet=self._outlet,
            settle_after_ms=self._options.settle_after_ms,
            part_of=self._roots.get(window),
        )

    def _finish(self, owner: WindowReader[Part], read: WindowRead[Part]) -> None:
        self._open = [item for item in self._open if item is not owner]
        self._hold(owner.window, read.segments)
        self._tell(WindowDone(read.window, read.status, read.segments, read.reason, read.code))
        self._done(read)

    def _split(self, owner: Splitter) -> None:
        """Start the parts that are known, so that connections stay busy while the others are determined."""
        ready = owner.ready()
        if owner.complete:
            self._tell(WindowSplit(owner.window, tuple(owner.parts)))
            self._replace(owner, ready)
        elif ready:
            self._replace(owner, [*ready, owner])

    def _replace(
        self,
        owner: WindowReader[Part] | Splitter,
        items: Sequence[WindowReader[Part] | Splitter | SubWindow],
    ) -> None:
        at = next(index for index, item in enumerate(self._open) if item is owner)
        self._open[at : at + 1] = items


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
        """Note that the consumer no longer needs the window, so that another one may be started."""
        self._queue.release(window)
        self._pool.wake()

    @property
    def counts(self) -> RequestCounts:
        """The requests made so far."""
        return self._pool.counts

    async def stop(self) -> None:
        """Cancel all requests in flight, and wait for their workers to end."""
        self._running.cancel()
        await ended(self._running)


@asynccontextmanager
async def read(
    context: RunContext,
    windows: Sequence[Window],
    encode: Callable[[Sequence[Segment]], Part],
    *,
    outlet: Outlet[Part] | None = None,
) -> AsyncIterator[WindowStream[Part]]:
    """Read windows concurrently inside the block; leaving it cancels all requests in flight."""
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
    stream = WindowStream(queue, results, context.workers(queue, context.telemetry.call_of_window))
    try:
        yield stream
    finally:
        try:
            await stream.stop()
        finally:
            queue.release_all()
