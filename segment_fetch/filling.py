"""What a destination lacks of a range: read, by this process or by several, and committed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct, structs

from segment_fetch.events import Event, RangePlanned, Warned
from segment_fetch.extract import Committer, Report, Source, commit_all, report
from segment_fetch.feed import Feed
from segment_fetch.pool import Pool
from segment_fetch.processes import Job, are_few, crew, helper
from segment_fetch.query import Window
from segment_fetch.reader import Settings, read
from segment_fetch.sinks.base import Sink

Cut = Callable[[Window], list[Window]]
"""Makes the windows of a range."""


class Filling(Struct, frozen=True):
    """How a client fills destinations. `oldest` is the first moment that the API surely still serves; `job` says what
    each of several processes needs to know.
    """

    settings: Settings
    oldest: int
    tell: Callable[[Event], None]
    pool_of: Callable[[Feed], Pool]
    processes: int
    job: Callable[[Settings, Sink[Any]], Job]

    def check(self, sink: Sink[Any]) -> None:
        """InputError where several processes cannot write to the destination."""
        if self.processes > 1:
            helper(sink)

    async def fill(
        self, committer: Committer, whole: Window, cut: Cut, started: float, keep: AbstractSet[Window] = frozenset()
    ) -> Report:
        """Reads what an open destination lacks of a range, but for windows of `keep`. `started` is of `monotonic`."""
        ranges, skipped = await committer.resume(whole.start, whole.end, self.oldest, keep)
        windows = [window for part in ranges for window in cut(part)]
        gone = committer.ledger.out_of_reach(whole.start, whole.end, self.oldest)
        source = self._here if self.processes == 1 or not windows else self._side_by_side
        async with source(windows, committer, skipped) as reads:
            for entry in gone:
                self.tell(Warned(f"{entry.window} is {entry.status} and stays so: the API serves one month back"))
            entries = await commit_all(committer, reads, ranges)
        made = report(entries, skipped, reads.tally, started, committer.ledger.change)
        lost = tuple(str(entry.window) for entry in gone if entry.status == "unproven")
        return structs.replace(made, lost=lost, complete=made.complete and not lost)

    @asynccontextmanager
    async def _here(self, windows: Sequence[Window], committer: Committer, skipped: int) -> AsyncIterator[Source]:
        """The windows as they end, read by this process."""
        self.tell(RangePlanned(len(windows), skipped))
        outlet = None if committer.ordered else committer
        async with read(
            windows, self.settings, committer.encode, tell=self.tell, pool_of=self.pool_of, outlet=outlet
        ) as reads:
            yield reads

    @asynccontextmanager
    async def _side_by_side(
        self, windows: Sequence[Window], committer: Committer, skipped: int
    ) -> AsyncIterator[Source]:
        """The windows as they end, read and written by several processes, which start while windows are divided."""
        divide = are_few(windows, self.processes)
        job = self.job(structs.replace(self.settings, splits=not divide), helper(committer.sink))
        async with crew(job, self.processes, committer.sink.handles, self.tell) as members:
            if divide:
                windows = await members.divided(windows, self.pool_of)
            self.tell(RangePlanned(len(windows), skipped))
            members.deal(windows)
            yield members
