"""Stream a range to a consumer: windows oldest first as they are proven, whole or in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from segment_fetch.errors import IncompleteError, UnstorableValueError
from segment_fetch.extraction.context import RunContext
from segment_fetch.extraction.encoding import MaybeEncoded, PartEncoder, Unencoded, unstored, with_parts
from segment_fetch.extraction.loop_turns import in_thread
from segment_fetch.extraction.run import OldestFirst
from segment_fetch.extraction.window_queue import read
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import decoded

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 500


async def windows_in_order(
    context: RunContext, whole: Window, windows: Sequence[Window], encode: Callable[[Sequence[Segment]], Part]
) -> AsyncGenerator[WindowRead[Part], None]:
    """Yield the windows of a range as they are proven or given up, oldest first, without gap."""
    queue = OldestFirst[Part]([whole])
    async with read(context, windows, encode) as stream:
        async for ended in stream:
            for ready in queue.after(ended):
                yield ready
                stream.release(ready.window)


async def stream_windows(
    context: RunContext, whole: Window, windows: Sequence[Window], encode: Callable[[Sequence[Segment]], Part]
) -> AsyncGenerator[WindowRead[Part], None]:
    """Yield the windows with all their parts encoded."""
    encoder = PartEncoder(lambda rows: encode(decoded(rows)), context.turns)
    async with aclosing(windows_in_order(context, whole, windows, encoder.now_or_later)) as reads:
        async for ready in reads:
            try:
                parts = await encoder.encode_all(_taken(ready.parts))
            except UnstorableValueError as error:
                yield unstored(ready, error)
            else:
                yield with_parts(ready, parts)


async def stream_segments(
    context: RunContext, whole: Window, windows: Sequence[Window]
) -> AsyncGenerator[list[Segment], None]:
    """Yield the segments of proven windows in batches of at most 500; IncompleteError at the end names other windows.

    Rows stay encoded until their batch is due, which takes less memory than decoded segments.
    """
    unproven: list[WindowRead[Any]] = []
    async with aclosing(windows_in_order(context, whole, windows, Unencoded)) as reads:
        async for ready in reads:
            if ready.status == "unproven":
                unproven.append(ready)
            parts, batch = _taken(ready.parts), list[Segment]()
            while parts or batch:
                await context.turns.take()
                while parts and len(batch) < BATCH_ROWS:
                    batch += parts.popleft().rows
                yield batch[:BATCH_ROWS]
                del batch[:BATCH_ROWS]
    if unproven:
        raise incomplete(unproven)


async def stream_batches(
    context: RunContext, whole: Window, windows: Sequence[Window]
) -> AsyncGenerator[pa.RecordBatch, None]:
    """Yield the same as Arrow record batches of at most 65,536 rows; joining small ones releases the GIL."""
    arrow = await in_thread(lambda: import_module("segment_fetch.arrow"))  # an optional extra, and slow to import
    encoder = PartEncoder(arrow.record_batch, context.turns)
    unproven: list[WindowRead[Any]] = []
    async with aclosing(windows_in_order(context, whole, windows, encoder.now_or_later)) as reads:
        async for ready in reads:
            small: list[pa.RecordBatch] = []
            try:
                small = await encoder.encode_all(_taken(ready.parts))  # all of it first: what is yielded is final
            except UnstorableValueError as error:
                unproven.append(unstored(ready, error))
                continue
            if ready.status == "unproven":
                unproven.append(ready)
            while small:
                joined, small = await in_thread(partial(arrow.join_some, small))
                if joined.num_rows:
                    yield joined
    if unproven:
        raise incomplete(unproven)


def _taken(parts: list[MaybeEncoded[Part]]) -> deque[MaybeEncoded[Part]]:
    """Move the parts out of a window, so that each is freed once it has been handed over."""
    taken = deque(parts)
    parts.clear()
    return taken


def incomplete(unproven: Sequence[WindowRead[Any]]) -> IncompleteError:
    """Return the error that lists windows, with the reasons for the first five."""
    windows = [read.window for read in unproven]
    listed = "; ".join(f"{read.window}: {read.reason}" for read in unproven[:5])
    how_many = f"{len(windows)} window{'' if len(windows) == 1 else 's'}"
    return IncompleteError(f"{how_many} could not be proven complete: {listed}", windows)
