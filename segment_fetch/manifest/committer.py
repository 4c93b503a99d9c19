"""The committer: runs a sink and its commit log in a thread, so that slow storage does not block the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

from segment_fetch.errors import DestinationBusyError, SegmentFetchError
from segment_fetch.manifest.commit_log import Change, CommitLog
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Query, Window
from segment_fetch.sinks.base import Sink, encoded
from segment_fetch.timerange import SETTLE_AFTER_MS
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Segment

T = TypeVar("T")

_log = logging.getLogger(__name__)

_in_use: set[int] = set()
"""The identities of the open sinks: two runs using one sink object at the same time would mix up their files."""


class Committer:
    """Runs an open sink and its commit log in a thread, so that slow storage does not block the event loop."""

    def __init__(self, sink: Sink[Any], query: Query, thread: Executor, settle_after_ms: int, oldest: int) -> None:
        self.sink = sink
        self._query = query
        self._settle_after_ms = settle_after_ms
        self._oldest = oldest
        self._thread = thread
        self.on_commit: Callable[[WindowEntry], object] = _ignore
        """Called in the event loop with each window that was committed, or given up as unproven."""
        self.around_commit: Callable[[Window], AbstractContextManager[object]] = nullcontext
        """Called in the thread with a proven window; returns the context in which the window is committed."""
        self._taken = False
        self._release = sink.close
        self.log: CommitLog

    async def open(self) -> None:
        """Take the destination and read its manifest."""
        await self._run(self._open)

    def _open(self) -> None:
        stored = self.sink.open()
        self._taken = True
        self.log = CommitLog(self.sink, self._query, stored, settle_after_ms=self._settle_after_ms, oldest=self._oldest)
        self._release = self._close

    def _close(self) -> None:
        try:
            self.log.close()
        finally:
            self.sink.close()

    async def close(self) -> None:
        """Release the destination, if it was opened."""
        if self._taken:
            self._taken = False
            await self._run(self._release)

    @property
    def entries(self) -> list[WindowEntry]:
        """All windows that the manifest names, oldest first."""
        return self.log.entries

    @property
    def change(self) -> Change:
        """The segments that appeared and vanished in windows that were read again."""
        return self.log.change

    def out_of_reach(self, whole: Window, oldest: int) -> list[WindowEntry]:
        """Return the windows of a range that are not complete, and that the API no longer serves as a whole."""
        return self.log.out_of_reach(whole.start, whole.end, oldest)

    async def resume(
        self, start: int, end: int, oldest: int, keep: AbstractSet[Window] = frozenset()
    ) -> tuple[list[Window], int]:
        """Return the parts of a range still to be read, and the number of its complete windows."""
        return await self._run(lambda: self.log.resume(start, end, oldest, keep))

    async def intact(self, windows: Iterable[Window]) -> list[Window]:
        """Return the windows whose stored data matches the manifest, byte for byte."""
        return await self._run(lambda: self.log.intact(windows))

    async def settle(self, windows: Iterable[Window]) -> None:
        """Mark provisional windows as complete without reading them again."""
        await self._run(lambda: self.log.settle(windows))

    def encode(self, segments: Sequence[Segment]) -> Any:
        """Return segments in the form in which the sink keeps them until their window is proven."""
        return encoded(self.sink, segments)

    @property
    def ordered(self) -> bool:
        """True if the sink takes windows only oldest first."""
        return self.sink.ordered

    def put(self, window: Window, parts: Sequence[Any]) -> None:
        """Schedule the writing of parts of a window, before it is proven."""
        self._thread.submit(self.log.add, window, parts)

    def withdraw(self, window: Window) -> None:
        """Schedule the removal of the parts of a window written so far."""
        self._thread.submit(self.log.withdraw, [window])

    async def commit(self, read: WindowRead[Any]) -> WindowEntry:
        """Write and commit a window; `on_commit` is called even if the caller is cancelled meanwhile."""
        loop = asyncio.get_running_loop()

        def commit() -> WindowEntry:
            with nullcontext() if read.status == "unproven" else self.around_commit(read.window):
                entry = self.log.commit(read)
            loop.call_soon_threadsafe(self.on_commit, entry)
            return entry

        return await self._run(commit)

    async def abandon(self) -> list[WindowEntry]:
        """Delete written windows that cannot be committed, and return them as unproven."""
        return await self._run(self.log.abandon)

    async def _run(self, call: Callable[[], T]) -> T:
        """Make a call in the thread and return its result.

        A cancellation is raised only after the call has ended, because it cannot be undone halfway.
        """
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise


def _ignore(_: WindowEntry) -> None:
    """Do nothing."""


async def _close_after_failure(committer: Committer) -> None:
    """Release the destination. An error of the clean-up is logged, as the caller raises the one that ended the run."""
    try:
        await committer.close()
    except SegmentFetchError as error:
        _log.warning("the clean-up after the failure failed, too: %s", error)


@asynccontextmanager
async def committing(
    sink: Sink[Any], query: Query, *, settle_after_ms: int = SETTLE_AFTER_MS, oldest: int = 0
) -> AsyncIterator[Committer]:
    """Open a destination for the duration of the block. `settle_after_ms` and `oldest` are as in `CommitLog`."""
    if id(sink) in _in_use:
        raise DestinationBusyError("another run of this process is writing to this sink: wait for it to end")
    _in_use.add(id(sink))
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="segment_fetch") as thread:
            committer = Committer(sink, query, thread, settle_after_ms, oldest)
            try:
                await committer.open()
                yield committer
            except BaseException:
                await _close_after_failure(committer)
                raise
            await committer.close()
    finally:
        _in_use.discard(id(sink))
