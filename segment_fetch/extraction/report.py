"""The report of a run: totals over its windows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from segment_fetch.manifest.format import WindowEntry

if TYPE_CHECKING:
    from segment_fetch.extraction.context import PageCounts
    from segment_fetch.extraction.worker_pool import RequestCounts
    from segment_fetch.manifest.commit_log import Change


class Report(Struct, frozen=True):
    """The totals of a run. `windows` are those it read, oldest first; `skipped` counts those complete before.

    `complete` is True if every window of the range is in the destination and proven. `settled` is the number of
    provisional windows that had not changed. `added` and `removed` are the segments that appeared in and vanished from
    windows that were read again. Everything that closed before `complete_before`, from the destination's first window
    on, is stored and final; None if the destination keeps no manifest. `lost` names ranges that were never read and
    that the API no longer serves. `fast_pages` were kept as the bytes received; `fallback_pages` were decoded, which
    takes more than twice the CPU time, the first of them because of `fallback_reason`.
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
    complete_before: str | None = None
    fast_pages: int = 0
    fallback_pages: int = 0
    fallback_reason: str | None = None

    @property
    def unproven(self) -> tuple[WindowEntry, ...]:
        """The windows that are missing from the destination."""
        return tuple(entry for entry in self.windows if entry.status == "unproven")


def report(
    entries: Sequence[WindowEntry],
    skipped: int,
    counts: RequestCounts,
    started: float,
    change: Change,
    *,
    pages: PageCounts,
) -> Report:
    """Add up the entries of a run."""
    return Report(
        complete=all(entry.status != "unproven" for entry in entries),
        windows=tuple(entries),
        skipped=skipped,
        segments=sum(entry.segments for entry in entries),
        duplicates=sum(entry.duplicates for entry in entries),
        requests=counts.requests,
        retries=counts.retries,
        throttled=counts.throttled,
        seconds=round(time.monotonic() - started, 3),
        unknown_fields=tuple(sorted({name for entry in entries for name in entry.unknown_fields})),
        added=change.added,
        removed=change.removed,
        fast_pages=pages.fast,
        fallback_pages=pages.fallback,
        fallback_reason=pages.reason,
    )
