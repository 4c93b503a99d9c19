"""The run: fill what a destination lacks of a range, committing each window as it is proven or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, Generic

from msgspec import Struct, structs

from segment_fetch.events import Event, RangePlanned, Warned
from segment_fetch.extraction.report import Report, report
from segment_fetch.extraction.window_queue import ReadOptions, WindowStream, read
from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part
from segment_fetch.wire.pages import PageSource

Divide = Callable[[Window], list[Window]]
"""Divides a range into windows."""


class Filling(Struct, frozen=True):
    """How a client fills destinations. `oldest` is the first moment that the API surely still serves."""

    options: ReadOptions
    oldest: int
    tell: Callable[[Event], None]
    pool_of: Callable[[PageSource], WorkerPool]

    async def fill(
        self,
        committer: Committer,
        whole: Window,
        divide: Divide,
        started: float,
        keep: AbstractSet[Window] = frozenset(),
    ) -> Report:
        """Reads what an open destination lacks of a range, but for windows of `keep`. `started` is of `monotonic`."""
        ranges, skipped = await committer.resume(whole.start, whole.end, self.oldest, keep)
        windows = [window for part in ranges for window in divide(part)]
        gone = committer.log.out_of_reach(whole.start, whole.end, self.oldest)
        self.tell(RangePlanned(len(windows), skipped))
        outlet = None if committer.ordered else committer
        async with read(
            windows, self.options, committer.encode, tell=self.tell, pool_of=self.pool_of, outlet=outlet
        ) as reads:
            for entry in gone:
                self.tell(Warned(f"{entry.window} is {entry.status} and stays so: the API serves one month back"))
            entries = await commit_all(committer, reads, ranges)
        made = report(entries, skipped, reads.counts, started, committer.log.change)
        lost = tuple(str(entry.window) for entry in gone if entry.status == "unproven")
        return structs.replace(made, lost=lost, complete=made.complete and not lost)


async def commit_all(committer: Committer, reads: WindowStream[Any], ranges: Sequence[Window]) -> list[WindowEntry]:
    """Commits each window of `ranges` as it comes, oldest first where the sink wants it so."""
    entries: dict[Window, WindowEntry] = {}
    queue = OldestFirst[Any](ranges)
    async for window_read in reads:
        for ready in queue.after(window_read) if committer.ordered else (window_read,):
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
