"""Fill a range of a destination: read the missing windows, and commit each as it is proven or given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any, Generic, TypeAlias

from msgspec import structs

from segment_fetch.events import RangePlanned, Warned, WindowCommitted
from segment_fetch.extraction.context import RunContext
from segment_fetch.extraction.encoding import WindowWriter
from segment_fetch.extraction.neighbours import Neighbours
from segment_fetch.extraction.report import Report, report
from segment_fetch.extraction.window_queue import WindowStream, read
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.windows.planning import check_few
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part

Divide: TypeAlias = Callable[[Window], Sequence[Window]]
"""Divides a range into the windows in which it is read."""


async def fill(
    context: RunContext,
    committer: Committer,
    whole: Window,
    divide: Divide,
    *,
    started: float,
    keep: AbstractSet[Window] = frozenset(),
) -> Report:
    """Read the parts of a range that an open destination lacks, except windows of `keep`, and return the report.

    `started` is the beginning of the run by `time.monotonic`.
    """

    def tell_committed(entry: WindowEntry) -> None:
        if entry.status != "unproven":
            context.tell(WindowCommitted(entry.window, entry.status, entry.segments))

    committer.on_commit = tell_committed
    committer.around_commit = context.telemetry.commit
    oldest = context.oldest_ms()
    ranges, skipped = await committer.resume(whole.start, whole.end, oldest, keep)
    windows = _divided(ranges, divide)
    out_of_reach = committer.out_of_reach(whole, oldest)
    context.tell(RangePlanned(len(windows), skipped))
    writer = WindowWriter(committer, context.turns)
    async with read(context, windows, writer.encode, outlet=None if committer.ordered else writer) as stream:
        for entry in out_of_reach:
            context.tell(Warned(f"{entry.window} stays {entry.status}: the API serves only the last month"))
        neighbours = Neighbours()
        entries = await _commit_all(writer, stream, ranges, neighbours, ordered=committer.ordered)
        if neighbours.overlapping:
            entries |= await _read_once_more(context, writer, neighbours.overlapping, ordered=committer.ordered)
        entries |= {entry.window: entry for entry in await committer.abandon()}
    read_now = [entries[window] for window in sorted(entries)]
    made = report(read_now, skipped, stream.counts, started, committer.change, pages=context.pages)
    doubled = committer.ordered and bool(neighbours.overlapping)
    lost = tuple(str(entry.window) for entry in out_of_reach if entry.status == "unproven")
    final = committer.log.complete_before
    return structs.replace(made, lost=lost, complete=made.complete and not lost and not doubled, complete_before=final)


def _divided(ranges: Sequence[Window], divide: Divide) -> list[Window]:
    windows = list[Window]()
    for part in map(divide, ranges):
        check_few(part, "the manifest")
        windows += part
    return windows


async def _commit_all(
    writer: WindowWriter, stream: WindowStream[Any], ranges: Sequence[Window], neighbours: Neighbours, *, ordered: bool
) -> dict[Window, WindowEntry]:
    """Commit each window of `ranges` as it ends, oldest first if `ordered`."""
    entries: dict[Window, WindowEntry] = {}
    queue = OldestFirst[Any](ranges)
    async for window_read in stream:
        for ready in queue.after(window_read) if ordered else (window_read,):
            neighbours.add(ready)
            entries[ready.window] = await writer.commit(ready)
            stream.release(ready.window)
    return entries


async def _read_once_more(
    context: RunContext, writer: WindowWriter, windows: AbstractSet[Window], *, ordered: bool
) -> dict[Window, WindowEntry]:
    """Read windows again that share an id with a neighbour, perhaps because a segment moved from one to the other.

    Windows that still share it are given up, and so are those of a destination that keeps an order and cannot retract.
    """
    reason = "a segmentId is in this window and in its neighbour"
    if ordered:
        context.tell(Warned(f"{reason}: {', '.join(map(str, sorted(windows)))}"))
        return {}
    reads = []
    neighbours = Neighbours()
    async with read(context, sorted(windows), writer.encode) as stream:
        async for window_read in stream:
            neighbours.add(window_read)
            reads.append(window_read)
            stream.release(window_read.window)
    entries = {}
    for window_read in reads:
        if window_read.window in neighbours.overlapping:
            window_read = structs.replace(  # noqa: PLW2901
                window_read, status="unproven", reason=reason, parts=[], segments=0, duplicates=0
            )
        entries[window_read.window] = await writer.commit(window_read)
    return entries


class OldestFirst(Generic[Part]):
    """Reorders windows, which cover `ranges` and end in any order, so that each waits until all before it are out."""

    def __init__(self, ranges: Sequence[Window]) -> None:
        self._waiting: dict[int, WindowRead[Part]] = {}
        self._follow = {left.end: right.start for left, right in pairwise(ranges)}
        self._at = ranges[0].start if ranges else 0

    def after(self, read: WindowRead[Part]) -> Iterator[WindowRead[Part]]:
        """Take a window that has ended, and yield the windows that are next in order."""
        self._waiting[read.window.start] = read
        while (ready := self._waiting.pop(self._at, None)) is not None:
            self._at = self._follow.get(ready.window.end, ready.window.end)
            yield ready
