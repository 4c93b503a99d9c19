"""The rows that neighbouring pages of a window share, and the offsets that follow from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

LIVE_OVERLAP = 20
"""Minimum number of rows that neighbouring pages of a live window share."""

SETTLED_OVERLAP = 2
"""The same for a settled window. Two is the minimum for a strict joint; with one shared row, swaps could lose rows."""


def largest_tie(times: Iterable[int]) -> int:
    """Return the size of the largest group of equal close times; 0 if there are no times."""
    return max(Counter(times).values(), default=0)


def live_overlap(tie: int) -> int:
    """Return the number of rows that neighbouring pages of a live window share; `tie` is the largest tie seen."""
    return max(LIVE_OVERLAP, 3 * tie)


def settled_overlap(tie: int) -> int:
    """Return the same for a settled window: enough for a joint to be strict beside a tie of that size."""
    return max(SETTLED_OVERLAP, 1 + tie)


def offsets(count: int, limit: int, k: int) -> range:
    """Return the offsets, from 0 on, that read a result of `count` rows with `k` rows shared between neighbours.

    The last page is never full, so that a count that lags behind is noticed. At most half a page is shared, or two rows
    of three: patching the gaps that result costs less.
    """
    shared = min(k, max(limit // 2, min(SETTLED_OVERLAP, limit - 1)))
    return range(0, max(1, count - shared + 1), limit - shared)
