"""From where the last run ended until now, in whole days, and what was provisional settled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from msgspec import Struct, structs

from segment_fetch.events import Warned
from segment_fetch.extraction.report import Report
from segment_fetch.extraction.run import Filling
from segment_fetch.extraction.worker_pool import RequestCounts
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.timerange import midnight
from segment_fetch.windows import planning
from segment_fetch.windows.counting import Counting
from segment_fetch.windows.reader import SETTLED_AFTER_MS


class Agenda(Struct, frozen=True):
    """What a sync is about: where it begins, the provisional windows to count, and what can no longer be had."""

    start: int
    recount: tuple[Window, ...]
    lost: Window | None


def agenda(entries: Sequence[WindowEntry], oldest: int, zone: tzinfo) -> Agenda:
    """What to do, given the windows of a destination, oldest first, and the first moment that the API serves.

    The day in which the last run ended is read again as a whole, unless it ended with that day.
    """
    reached = entries[-1].window.end
    today = midnight(reached, zone)
    recount = [
        entry.window
        for entry in entries
        if entry.status == "provisional" and entry.window.start >= oldest and entry.window.end <= today
    ]
    lost = Window(reached, oldest) if reached < oldest else None
    return Agenda(max(entries[0].window.start, oldest), tuple(recount), lost)


def other_days(entries: Sequence[WindowEntry], zone: tzinfo) -> bool:
    """Whether the windows of a destination are days, but none of this time zone."""
    inner = [entry.window.start for entry in entries[1:]]
    return len(inner) > 1 and not any(midnight(start, zone) == start for start in inner)


def unchanged(entries: Sequence[WindowEntry], counting: Counting) -> list[Window]:
    """The windows that still hold as many segments as when they were read, and as many as were written then."""
    counts = {entry.window: (entry.count, entry.segments) for entry in entries}
    return [window for window, count in counting.counts.items() if (count, count) == counts[window]]


def settled(windows: Sequence[Window], counting: Counting) -> list[Window]:
    """Those of the windows in which nothing more will change."""
    return [window for window in windows if window.end <= counting.at_ms[window] - SETTLED_AFTER_MS]


def reported(made: Report, now_settled: Sequence[Window], lost: Window | None, counts: RequestCounts) -> Report:
    """The report of a sync: that of its reading, and what went before."""
    return structs.replace(
        made,
        settled=len(now_settled),
        lost=made.lost if lost is None else (*made.lost, str(lost)),
        complete=made.complete and lost is None,
        requests=made.requests + counts.requests,
        retries=made.retries + counts.retries,
        throttled=made.throttled + counts.throttled,
    )


class Sync(Struct, frozen=True):
    """One sync of an open destination, until `now` (epoch milliseconds), in windows of whole days of a time zone that
    are at most `width` milliseconds wide. `started` is of `monotonic`.
    """

    filling: Filling
    committer: Committer
    zone: tzinfo
    width: int
    now: int
    started: float

    async def begin(self, whole: Window) -> Report:
        """Fills a destination that is empty."""
        return await self.filling.fill(self.committer, whole, self._days, self.started)

    async def go_on(self) -> Report:
        """Settles what was provisional, and reads on from where the destination ends."""
        entries = self.committer.log.entries
        todo = agenda(entries, self.filling.oldest, self.zone)
        self._warn(entries, todo)
        counters = self.filling.pool_of(counting := Counting(todo.recount))
        await counters.run()
        same = await self.committer.intact(unchanged(entries, counting))
        final = settled(same, counting)
        await self.committer.settle(final)
        whole = Window(todo.start, self.now)
        made = await self.filling.fill(self.committer, whole, self._days, self.started, keep=set(same))
        return reported(made, final, todo.lost, counters.counts)

    def _warn(self, entries: Sequence[WindowEntry], todo: Agenda) -> None:
        if other_days(entries, self.zone):
            what = f"no window here begins at a midnight of {self.zone}: if it was another zone before, name that one"
            self.filling.tell(Warned(what))
        if todo.lost is not None:
            self.filling.tell(Warned(f"{todo.lost} can no longer be had: the API serves one month back"))

    def _days(self, whole: Window) -> list[Window]:
        return planning.days(whole.start, whole.end, self.zone, self.width)
