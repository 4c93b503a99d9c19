"""Windows, read side by side: which page to ask next, and what to do with each window that is proven or given up.

The oldest window goes first, and no window waits for the one before it to end. Memory stays bounded: the segments of a
window are held until the consumer has taken it and come back for the next, and a window starts to fill only while those
held are below a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Generic

from msgspec import Struct

from segment_fetch.errors import SegmentFetchError
from segment_fetch.events import Event, NewFields, PageRead, WindowDone, WindowOpened, WindowSplit
from segment_fetch.extraction.worker_pool import RequestCounts, WorkerPool
from segment_fetch.query import Window
from segment_fetch.windows.reader import Outlet, WindowRead, WindowReader
from segment_fetch.windows.splitting import IncrementalSplitter, SubWindow
from segment_fetch.windows.strategy import Failed
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.pages import PageAnswer, PageRequest, PageSource, new_fields

WINDOWS_AHEAD = 3
"""Windows of the largest size that may be held in memory at once."""


class ReadOptions(Struct, frozen=True):
    """How windows are read: segments a page, segments a window before it is split, if they are split at all."""

    limit: int
    split_above: int
    splits: bool = True


class WindowQueue(Generic[Part]):
    """The source of a pool. `done` takes each window at its end; `release` says that it is no longer held.

    An `outlet` takes what is ready of a window before that, if there is one. `more` is called when another window could
    be begun and none is left: `give` answers it, later.
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
        more: Callable[[], None] | None = None,
    ) -> None:
        self._more = more
        self._asked = False
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
        if self._full(1) or not (self._unopened or self._ask_for_more()):
            return None
        begun = self._reading(self._unopened.popleft())
        self._open.append(begun)
        return begun.next()

    def _ask_for_more(self) -> bool:
        if self._more is not None and not self._asked:
            self._asked = True
            self._more()
        return False

    def give(self, window: Window | None) -> None:
        """The answer to `more`: another window, or None where there is none left."""
        self._asked = False
        if window is None:
            self._more = None
        else:
            self._unopened.append(window)

    def _may_fill(self, item: WindowReader[Part] | IncrementalSplitter) -> bool:
        if isinstance(item, IncrementalSplitter) or item.count is None or item.window in self._held:
            return True
        if self._held and self._full(item.count) and item.window > min(self._held):
            return False  # but the oldest of all is never kept waiting: an ordered consumer may be waiting for it
        self._held[item.window] = item.count
        return True

    def _full(self, more: int) -> bool:
        return sum(self._held.values()) + more > self._options.split_above * WINDOWS_AHEAD

    def release(self, window: Window) -> None:
        """The consumer is done with the window."""
        self._held.pop(window, None)

    def finished(self) -> bool:
        """Whether every window is at its end."""
        return not self._open and not self._unopened and self._more is None

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
        divisible = self._options.splits and not owner.divided and owner.window.end - owner.window.start > 1
        return divisible and (owner.count or 0) > self._options.split_above

    def _reading(self, window: Window, newest: PageAnswer | None = None) -> WindowReader[Part]:
        return WindowReader(
            window, self._options.limit, self._encode, tell=self._tell, newest=newest, outlet=self._outlet
        )

    def _finish(self, owner: WindowReader[Part], read: WindowRead[Part]) -> None:
        self._open = [item for item in self._open if item is not owner]
        self._held[owner.window] = read.segments
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
    """Windows as they come to their end, in any order. Each counts as held until it is released."""

    def __init__(
        self, results: asyncio.Queue[WindowRead[Part] | None], queue: WindowQueue[Part], pool: WorkerPool
    ) -> None:
        self._results = results
        self._queue = queue
        self._pool = pool
        self._running = asyncio.create_task(pool.run())
        self._running.add_done_callback(lambda _: results.put_nowait(None))

    async def __aiter__(self) -> AsyncIterator[WindowRead[Part]]:
        while (result := await self._results.get()) is not None:
            yield result
        await self._running

    def release(self, window: Window) -> None:
        """The consumer no longer holds the window."""
        self._queue.release(window)
        self._pool.wake()

    def give(self, window: Window | None) -> None:
        """Another window to read, where `more` asked for one; None where there is none left."""
        self._queue.give(window)
        self._pool.wake()

    @property
    def counts(self) -> RequestCounts:
        """What was asked so far."""
        return self._pool.counts

    async def stop(self) -> None:
        """Ends everything that is in flight."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)


@asynccontextmanager
async def read(
    windows: Iterable[Window],
    options: ReadOptions,
    encode: Callable[[Sequence[Segment]], Part],
    *,
    tell: Callable[[Event], None],
    pool_of: Callable[[PageSource], WorkerPool],
    outlet: Outlet[Part] | None = None,
    more: Callable[[], None] | None = None,
) -> AsyncIterator[WindowStream[Part]]:
    """Reads windows side by side for the length of the block; leaving it stops everything that is in flight."""
    results: asyncio.Queue[WindowRead[Part] | None] = asyncio.Queue()
    queue = WindowQueue(windows, options, encode, tell=tell, done=results.put_nowait, outlet=outlet, more=more)
    reads = WindowStream(results, queue, pool_of(queue))
    try:
        yield reads
    finally:
        await reads.stop()
