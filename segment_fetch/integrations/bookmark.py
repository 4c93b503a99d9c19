"""Incremental loading by a bookmark, the only state that Singer taps and dlt resources keep.

Everything that closed before the bookmark has settled and was proven complete. Newer segments are loaded, too, and
again in each load until they have settled; so the destination must replace segments by their id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic

import msgspec
from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.query import Filters, Window
from segment_fetch.timerange import SETTLE_AFTER_MS, TimeLike, settled_before
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part, Segment

if TYPE_CHECKING:
    from segment_fetch.client import SegmentClient


VERSION = 1
"""Incremented when an older release could misread the stored state."""


class Kept(Struct, kw_only=True):
    """The query of a bookmark, stored with it. A field that is None was not stored, and matches every query."""

    version: int = VERSION
    account: str | None = None
    filters: Mapping[str, str | None] | None = None


def kept(account: str, filters: Filters) -> dict[str, Any]:
    """Return the fields to store with the bookmark of a query."""
    return {"version": VERSION, "account": account, "filters": msgspec.to_builtins(filters)}


def check_kept(found: Kept, account: str, filters: Filters, *, anew: str) -> None:
    """Raise InputError if a bookmark belongs to another query: continuing from it would leave segments out.

    `anew` says how to start again without it.
    """
    if found.version > VERSION:
        raise InputError(f"the bookmark was made by a newer release; install that, or {anew}")
    for name, asked in kept(account, filters).items():
        had = getattr(found, name)
        if name != "version" and had is not None and had != asked:
            raise InputError(f"the bookmark belongs to {name} {_shown(had)}, not {_shown(asked)}; {anew}")


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()


class Step(Struct, Generic[Part], frozen=True):
    """A window that was read, and the bookmark after it, epoch milliseconds.

    `lost` is the range between the last run's bookmark and the first window, which the API no longer serves.
    """

    read: WindowRead[Part]
    bookmark: int
    lost: Window | None = None


def advanced(bookmark: int, read: WindowRead[Any], settle_after_ms: int = SETTLE_AFTER_MS) -> int:
    """Return the bookmark after a window. It moves only over a proven window that begins at it.

    In a provisional window it moves to the time before which everything had settled: that is before the window's end,
    so no later window begins at it.
    """
    if read.status == "unproven" or read.window.start != bookmark:
        return bookmark
    return max(bookmark, min(read.window.end, settled_before(read.read_at, settle_after_ms)))


async def steps(
    client: SegmentClient,
    bookmark: int | None,
    start: TimeLike,
    encode: Callable[[Sequence[Segment]], Part],
    *,
    clamp: bool = False,
) -> AsyncGenerator[Step[Part], None]:
    """Open the client and yield windows from the bookmark, or `start` if there is none, until now, oldest first.

    Data that the API no longer serves is skipped after a bookmark, and with `clamp` after a `start`, too. Raises the
    same errors as `SegmentClient.windows`.
    """
    begin, cut, lost = (start, clamp, None) if bookmark is None else (bookmark, True, None)
    at: int | None = None
    settle_after_ms = client.settle_after // timedelta(milliseconds=1)
    async with client, aclosing(client.windows(begin, client.now_ms(), encode, clamp=cut)) as windows:
        async for read in windows:
            if at is None:
                at = read.window.start
                lost = Window(bookmark, at) if bookmark is not None and bookmark < at else None
            at = advanced(at, read, settle_after_ms)
            yield Step(read, at, lost)
