"""The order in which a window's segments are written: by close time, oldest first, then by segmentId."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import attrgetter, neg
from typing import NamedTuple

from segment_fetch.windows.pass_protocol import Page
from segment_fetch.wire.models import Segment

close_order = attrgetter("endTimeL", "segmentId")
"""The sort key of this order."""


def since(times: Sequence[int], at: int) -> int:
    """Return the number of close times (sorted newest first) that are `at` or later."""
    return bisect_left(times, 1 - at, key=neg)


def in_order(rows: Iterable[Segment]) -> list[Segment]:
    """Sort segments into the written order."""
    return sorted(rows, key=close_order)


class Merged(NamedTuple):
    """The rows of several pages, each id once, and the ids that occurred with different contents."""

    rows: dict[str, Segment]
    conflicts: frozenset[str]


def merged(pages: Iterable[Page]) -> Merged:
    """Merge pages by id. Of two rows with the same id and different content, the later page's is kept."""
    rows: dict[str, Segment] = {}
    conflicts = set()
    for page in sorted(pages, key=lambda page: page.number):
        for row in page.rows:
            if rows.setdefault(row.segmentId, row) != row:
                conflicts.add(row.segmentId)
                rows[row.segmentId] = row
    return Merged(rows, frozenset(conflicts))
