"""Bring a destination up to date: settle provisional windows, and read whole days from its end until now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from msgspec import Struct, structs

from segment_fetch.errors import InputError
from segment_fetch.events import Warned
from segment_fetch.extraction.context import RunContext
from segment_fetch.extraction.report import Report
from segment_fetch.extraction.run import fill
from segment_fetch.extraction.worker_pool import RequestCounts
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.timerange import format_time, midnight, settled_before
from segment_fetch.windows import planning
from segment_fetch.windows.counting import Counting


class Agenda(Struct, frozen=True):
    """The work of a sync: its start, the provisional windows to count, and the range that is lost."""

    start: int
    recount: tuple[Window, ...]
    lost: Window | None


def agenda(entries: Sequence[WindowEntry], oldest: int, zone: tzinfo) -> Agenda:
    """Return the work to do, given a destination's windows, oldest first, and the first moment that the API serves.

    The day in which the last run ended is read again completely, unless the run ended at its midnight.
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


def is_of_other_zone(entries: Sequence[WindowEntry], zone: tzinfo) -> bool:
    """Return True if the windows of a destination are days, but none of them begins at a midnight of this time zone."""
    inner = [entry.window.start for entry in entries[1:]]
    return len(inner) > 1 and not any(midnight(start, zone) == start for start in inner)


def unchanged(entries: Sequence[WindowEntry], counting: Counting) -> list[Window]:
    """Return the windows whose count is still the one at the time of reading, and equals the segments written."""
    counts = {entry.window: (entry.count, entry.segments) for entry in entries}
    return [window for window, count in counting.counts.items() if (count, count) == counts[window]]


def settled(windows: Sequence[Window], counting: Counting, settle_after_ms: int) -> list[Window]:
    """Return the windows that had settled when they were counted."""
    return [window for window in windows if window.end <= settled_before(counting.at_ms[window], settle_after_ms)]


async def sync(
    context: RunContext, committer: Committer, first: Window | None, zone: tzinfo, *, now: int, started: float
) -> Report:
    """Bring an open destination up to date until `now` (epoch milliseconds), in whole days of a time zone.

    `first` is the range to read into an empty destination, None for any other. `started` is the start of the run by
    `time.monotonic`.
    """

    def days(whole: Window) -> Sequence[Window]:
        return planning.shorten_oldest(planning.days(whole.start, whole.end, zone, context.width), context.oldest_ms())

    if first is not None:
        context = structs.replace(context, begins=first.start)
        return await fill(context, committer, first, days, started=started)
    entries = committer.entries
    todo = agenda(entries, context.oldest_ms(), zone)
    _warn(context, entries, todo, zone)
    counters = context.workers(counting := Counting(todo.recount))
    await counters.run()
    same = await committer.intact(unchanged(entries, counting))
    final = settled(same, counting, context.options.settle_after_ms)
    await committer.settle(final)
    now = min(now, context.now_ms())  # the counts have shown the server's clock
    if now <= todo.start:
        raise InputError(
            f"the destination begins at {format_time(todo.start)}, but now it is {format_time(now)}: the clock is "
            "wrong, or was wrong when the destination was filled; set it, or use an empty destination"
        )
    made = await fill(context, committer, Window(todo.start, now), days, started=started, keep=set(same))
    return _reported(made, len(final), todo.lost, counters.counts)


def _warn(context: RunContext, entries: Sequence[WindowEntry], todo: Agenda, zone: tzinfo) -> None:
    if is_of_other_zone(entries, zone):
        context.tell(
            Warned(f"no window here begins at midnight in {zone}: if earlier runs used another time zone, use that one")
        )
    if todo.lost is not None:
        context.tell(Warned(f"{todo.lost} is no longer available: the API serves only the last month"))


def _reported(made: Report, settled: int, lost: Window | None, counting: RequestCounts) -> Report:
    """Add the work done before the reading to its report."""
    return structs.replace(
        made,
        settled=settled,
        lost=made.lost if lost is None else (*made.lost, str(lost)),
        complete=made.complete and lost is None,
        requests=made.requests + counting.requests,
        retries=made.retries + counting.retries,
        throttled=made.throttled + counting.throttled,
    )
