"""The rows that neighbouring pages of a window share, and the offsets that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

LIVE_OVERLAP = 20
"""Rows that neighbouring pages of a live window share, at least."""

SETTLED_OVERLAP = 2
"""The same for a settled one. Two is the least that lets a joint be strict; one shared row loses rows to swaps."""


def largest_tie(times: Iterable[int]) -> int:
    """The size of the largest group of equal close times; 0 if there are none."""
    return max(Counter(times).values(), default=0)


def live_overlap(tie: int) -> int:
    """Return how many rows neighbouring pages of a live window share, where `tie` is the largest group seen."""
    return max(LIVE_OVERLAP, 3 * tie)


def settled_overlap(tie: int) -> int:
    """Return the same for a settled window: enough for a joint to be strict beside a tie of that size."""
    return max(SETTLED_OVERLAP, 1 + tie)


def offsets(count: int, limit: int, k: int) -> range:
    """The offsets, from 0 on, that read a result of `count` rows with `k` rows shared between neighbours.

    They go on until a page has room left, so that the last one is never full and a count that lags is seen. At most
    half a page is shared, or two rows of three: patches where they are needed cost less.
    """
    shared = min(k, max(limit // 2, min(SETTLED_OVERLAP, limit - 1)))
    return range(0, max(1, count - shared + 1), limit - shared)
