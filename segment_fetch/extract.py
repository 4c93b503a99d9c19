"""Windows as they are proven, into a sink, noted in the ledger; the report at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from segment_fetch.errors import SegmentFetchError
from segment_fetch.ledger import Change, Ledger
from segment_fetch.manifest import WindowEntry
from segment_fetch.models import Segment
from segment_fetch.order import Part
from segment_fetch.pool import Tally
from segment_fetch.query import Query, Window
from segment_fetch.reading import WindowRead
from segment_fetch.sinks.base import Sink
from segment_fetch.sinks.encoding import encoded

T = TypeVar("T")


class Report(Struct, frozen=True):
    """What an extraction did. `windows` are those read in this run, oldest first; `skipped` were complete before.

    `complete` is True if every window of the range is in the destination and proven. `settled` windows were
    provisional before, and unchanged. `added` and `removed` are segments that came and went in windows that were read
    again. `lost` names ranges that the API no longer serves and that were never read.
    """

    complete: bool
    windows: tuple[WindowEntry, ...]
    skipped: int
    segments: int
    duplicates: int
    requests: int
    retries: int
    throttled: int
    seconds: float
    unknown_fields: tuple[str, ...]
    settled: int = 0
    added: int = 0
    removed: int = 0
    lost: tuple[str, ...] = ()

    @property
    def unproven(self) -> tuple[WindowEntry, ...]:
        """The windows that are missing from the destination."""
        return tuple(entry for entry in self.windows if entry.status == "unproven")


class Committer:
    """An open sink and its ledger, in a thread of their own, so that no disk makes the event loop wait."""

    def __init__(self, sink: Sink[Any], query: Query, thread: Executor) -> None:
        self.sink = sink
        self._query = query
        self._thread = thread
        self._taken = False
        self._give_back = sink.close
        self.ledger: Ledger

    async def open(self) -> None:
        """Takes the destination and reads its manifest."""
        await self._run(self._open)

    def _open(self) -> None:
        stored = self.sink.open()
        self._taken = True
        self.ledger = Ledger(self.sink, self._query, stored)
        self._give_back = self._close

    def _close(self) -> None:
        try:
            self.ledger.withdraw()
        finally:
            self.sink.close()

    async def close(self) -> None:
        """Gives the destination back, if it was taken."""
        if self._taken:
            self._taken = False
            await self._run(self._give_back)

    async def resume(
        self, start: int, end: int, oldest: int, keep: AbstractSet[Window] = frozenset()
    ) -> tuple[list[Window], int]:
        """What is still to be read of a range, and how many of its windows are complete."""
        return await self._run(lambda: self.ledger.resume(start, end, oldest, keep))

    async def intact(self, windows: Iterable[Window]) -> list[Window]:
        """Those of the windows whose data is, byte for byte, what the manifest says."""
        return await self._run(lambda: self.ledger.intact(windows))

    async def settle(self, windows: Iterable[Window]) -> None:
        """Notes that provisional windows are complete as they are."""
        await self._run(lambda: self.ledger.settle(windows))

    def encode(self, segments: Sequence[Segment]) -> Any:
        """Segments as the sink wants them held."""
        return encoded(self.sink, segments)

    @property
    def ordered(self) -> bool:
        """Whether the sink wants windows oldest first."""
        return self.sink.ordered

    def put(self, window: Window, parts: Sequence[Any]) -> None:
        """Has the thread write what is ready of a window, before it is proven."""
        self._thread.submit(self.ledger.add, window, parts)

    def withdraw(self, window: Window) -> None:
        """Has the thread drop what was written of a window."""
        self._thread.submit(self.ledger.withdraw, [window])

    async def commit(self, read: WindowRead[Any]) -> WindowEntry:
        """Writes a window and makes it count."""
        return await self._run(lambda: self.ledger.commit(read))

    async def abandon(self) -> list[WindowEntry]:
        """Drops what was written and cannot count; as it is to be reported."""
        return await self._run(self.ledger.abandon)

    async def _run(self, call: Callable[[], T]) -> T:
        """One call, in the thread. However often cancelled, it ends first: a half-done one cannot be taken back."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            raise


@asynccontextmanager
async def committing(sink: Sink[Any], query: Query) -> AsyncIterator[Committer]:
    """A destination, open for the length of the block."""
    with ThreadPoolExecutor(1, thread_name_prefix="segment_fetch") as thread:
        committer = Committer(sink, query, thread)
        try:
            await committer.open()
            yield committer
        except BaseException:
            with suppress(SegmentFetchError):  # what ended the run is the news, not what came of it
                await committer.close()
            raise
        await committer.close()


class Source(Protocol):
    """Windows as they are proven or given up, in any order, and what that took."""

    @property
    def tally(self) -> Tally:
        """What was asked so far."""

    def __aiter__(self) -> AsyncIterator[WindowRead[Any]]:
        """The windows; raises what ended the run."""

    def release(self, window: Window) -> None:
        """The window is committed: nothing of it need be held any more."""


async def commit_all(committer: Committer, reads: Source, ranges: Sequence[Window]) -> list[WindowEntry]:
    """Commits each window of `ranges` as it comes, oldest first where the sink wants it so."""
    entries: dict[Window, WindowEntry] = {}
    queue = OldestFirst[Any](ranges)
    async for read in reads:
        for ready in queue.after(read) if committer.ordered else (read,):
            entries[ready.window] = await committer.commit(ready)
            reads.release(ready.window)
    entries |= {entry.window: entry for entry in await committer.abandon()}
    return [entries[window] for window in sorted(entries)]


class OldestFirst(Generic[Part]):
    """Puts windows, which come in any order and cover `ranges`, in order: each waits until all before it have gone."""

    def __init__(self, ranges: Sequence[Window]) -> None:
        self._waiting: dict[int, WindowRead[Part]] = {}
        self._follow = {left.end: right.start for left, right in pairwise(ranges)}
        self._at = ranges[0].start if ranges else 0

    def after(self, read: WindowRead[Part]) -> Iterator[WindowRead[Part]]:
        """The windows whose turn it is, now that this one has come."""
        self._waiting[read.window.start] = read
        while (ready := self._waiting.pop(self._at, None)) is not None:
            self._at = self._follow.get(ready.window.end, ready.window.end)
            yield ready


def report(entries: Sequence[WindowEntry], skipped: int, tally: Tally, started: float, change: Change) -> Report:
    """Adds up a run."""
    return Report(
        complete=all(entry.status != "unproven" for entry in entries),
        windows=tuple(entries),
        skipped=skipped,
        segments=sum(entry.segments for entry in entries),
        duplicates=sum(entry.duplicates for entry in entries),
        requests=tally.requests,
        retries=tally.retries,
        throttled=tally.throttled,
        seconds=round(time.monotonic() - started, 3),
        unknown_fields=tuple(sorted({name for entry in entries for name in entry.unknown_fields})),
        added=change.added,
        removed=change.removed,
    )
