"""Is this window proven? Pages in; a proof out, or the requests that are still needed for one.

Pages of a window are read side by side while rows may arrive or vanish, so the counts and offsets of two
pages say nothing about each other. What a page does say holds whatever happened around it: it is one
contiguous slice, as of one moment, of a result sorted by close time, newest first.

**What a page vouches for.** Take a row with close time `d` that was present throughout the reading. If `d` is
older than the page's first row, the page does not begin behind it; if `d` is newer than the page's last row,
the page does not end before it. So the page holds *every* such row with `last < d < first`. Both bounds are
strict, because the edge of a page may cut a group of equal close times, and in any order.

* At offset 0 nothing lies before the page, so its `first` is the `to` it was asked with: the result holds
  `d < to`, whether the server's `to` is inclusive or not. A row that closes exactly at the `to` of a request
  shows that it is inclusive; then the result holds `d <= to`.
* Where `offset + rows >= count` nothing lies behind the page, so its `last` is below the window's start.
* All rows of one instant, read as a window of their own and proven, vouch for that instant.

**Why a chain is right.** A chain is a series of pages, from the window's end to below its start, where the
`first` of each is strictly newer than the `last` of the one before. Close times are whole milliseconds, so
the ranges vouched for leave none out: every row that was present throughout is on a page of the chain. This
uses no count of another page, no read order and no order of ties, and pages read long ago stay valid.

Its limits: replicas that disagree, a close time that changes and, for an instant with more rows than a page
holds, a row that vanishes and comes back.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from operator import gt
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

OVERLAP = 20  # rows that neighbouring pages of a moving window share


class PageView(msgspec.Struct, frozen=True, gc=False):
    """What a proof needs of one page. `count` is None for a *prefix*: the newest rows of the window, cut from
    a page of a bigger query, whose own count is not the window's.
    """

    to: int  # toMillis it was asked with: the window's end, or lower for a patch
    offset: int  # offset it was asked with, in the result that ends at that `to`
    count: int | None  # pagination.count that came with the page
    ids: Sequence[Any]  # of each row, as sent, its segmentId or what stands for it
    times: Sequence[int]  # endTimeL of each row, as sent
    falling: bool = False  # whether these are known to be `falls`

    @property
    def is_last(self) -> bool:
        """Whether its own count says that no row lies behind it."""
        return self.count is not None and self.offset + len(self.ids) >= self.count


class ProvenTie(msgspec.Struct, frozen=True, gc=False):
    """Every row of one close time, by `tie_proof`. `find_coverage` takes it in place of a page."""

    at: int
    ids: Sequence[Any]


class KeptRows(msgspec.Struct, frozen=True, gc=False):
    """The rows to keep of one page: those whose id no earlier row of the proof has."""

    page: int  # its index in the pages that were passed in
    rows: Sequence[int]  # indices into its ids, rising


class Proof(msgspec.Struct, frozen=True, gc=False):
    """Each id once, page by page from the window's end to its start."""

    chain: tuple[KeptRows, ...]
    segments: int  # rows kept
    duplicates: int  # rows of these pages left out, as an earlier one has the same id


class Gap(msgspec.Struct, frozen=True, gc=False):
    """No page vouches for the close times from `oldest` to `newest`, both included.

    Ask for a page with `toMillis=to` and offset 0, and give it to `find_coverage` with all the pages of before.
    """

    to: int
    newest: int
    oldest: int


class OversizedTie(msgspec.Struct, frozen=True, gc=False):
    """At the close time `at` there are more rows than a page has room for: there is no way past it by time.

    Read `fromMillis=at`, `toMillis=to` as a window of its own until `tie_proof` accepts it, and give
    `ProvenTie(at, ids)` to `find_coverage` with all the pages of before. Failing that the window stays unproven.
    """

    at: int
    to: int  # `at` itself where the server's `to` is known to be inclusive, else one millisecond more


class Uncovered(msgspec.Struct, frozen=True, gc=False):
    """Not proven yet. What is missing is independent of each other and may be read side by side."""

    gaps: tuple[Gap, ...]
    ties: tuple[OversizedTie, ...]


def falls(times: Sequence[int]) -> bool:
    """Whether each close time is strictly older than the one before it."""
    return all(map(gt, times, islice(times, 1, None)))


def check_page(page: PageView, *, start: int, limit: int) -> str | None:
    """A sentence that says what is wrong with the page, or None. A faulty page is read again, never used.

    A short page is a fault and never an end: its own count says how many rows it has to have.
    """
    rows, count = len(page.ids), page.count
    if len(page.times) != rows:
        return f"the page at offset {page.offset} holds {rows} ids but {len(page.times)} close times"
    if count is not None:
        due = max(0, min(limit, count - page.offset))
        if rows != due or count < 0:
            return (
                f"the page at offset {page.offset} holds {rows} rows, but its own count of {count} "
                f"and the limit of {limit} call for {due}"
            )
    return _check_times(page, start) if rows else None


def _check_times(page: PageView, start: int) -> str | None:
    times, name = page.times, f"the page at offset {page.offset}"
    if not page.falling and sorted(times, reverse=True) != list(times):
        return f"{name} has close times that rise, so it is not sorted newest first"
    if times[0] > page.to:
        return f"{name} begins at close time {times[0]}, but was asked for none after {page.to}"
    if times[-1] < start:
        return f"{name} ends at close time {times[-1]}, but was asked for none before {start}"
    return None


def largest_tie(times: Iterable[int]) -> int:
    """The size of the largest group of equal close times; 0 if there are none."""
    return max(Counter(times).values(), default=0)


def overlap(tie: int) -> int:
    """How many rows neighbouring pages of a moving window share, where `tie` is the largest group seen."""
    return max(OVERLAP, 3 * tie)


def offsets(count: int, limit: int, k: int = 0) -> range:
    """The offsets, from 0 on, that read a result of `count` rows with `k` rows shared between neighbours.

    Never more than half a page is shared: patches where they are needed cost less than that everywhere.
    """
    step = max(1, limit - min(k, limit // 2))
    return range(0, max(1, count - limit + step), step)


def _unique(columns: list[Any]) -> int:
    return len(set().union(*columns))


def count_proof(pages: Sequence[PageView], unique_in: Callable[[list[Any]], int] = _unique) -> int | None:
    """How many segments a window holds, if it is proven that nothing changes in it: all pages report one count, and
    there are as many ids. None if it is not.

    `pages` are of one query, a prefix included, and at least one has a count. The ids are a subset of the
    rows, as large as the set of rows, so none is missing. Equal counts alone would not do: where two answers
    order ties differently, one row comes twice and another never. If one row came and another went between
    two answers, this is no proof; a chain is. `unique_in` counts the different ids of several pages.
    """
    counts = {page.count for page in pages if page.count is not None}
    unique = unique_in([page.ids for page in pages])
    return unique if counts == {unique} else None


def tie_proof(later: Sequence[PageView], earlier: Sequence[PageView] = ()) -> bool:
    """Whether an instant is proven, whatever changes: it fits one answer, or all of it had been seen before.

    Every page of `later`, a whole pass, was asked for after the last page of `earlier` had come, which may be any
    pages that hold rows of the instant. Were a row missing that was present throughout, the first answer of the pass
    had counted it, so one of the others was not there at that moment. It had been seen before and is seen in the pass:
    it vanished and came back, which is excluded.
    """
    return count_proof(later) is not None and (len(later) == 1 or _ids(later) <= _ids(earlier))


def find_coverage(
    pages: Sequence[PageView | ProvenTie], *, start: int, end: int, k: int = OVERLAP
) -> Proof | Uncovered:
    """Chain the pages from the window's `end` down to its `start`, or say what is missing for that.

    The pages have passed `check_page`. They may be of any moment, in any order and more than are needed: each
    step takes the one that reaches furthest. A patch begins `k` rows above the end of the page it follows.
    """
    inclusive = any(isinstance(page, PageView) and page.to in page.times[:1] for page in pages)
    links = (_link(index, page, start, end, inclusive) for index, page in enumerate(pages))
    chain, breaks = _sweep([link for link in links if link.last < link.first - 1], start, end)
    if not breaks:
        return _keep(pages, chain)
    missing = [_missing(pages, broken, end, inclusive, k) for broken in breaks]
    return Uncovered(
        gaps=tuple(item for item in missing if isinstance(item, Gap)),
        ties=tuple(item for item in missing if isinstance(item, OversizedTie)),
    )


class _Link(NamedTuple):
    first: int  # the page vouches for the close times between `last` and `first`
    last: int
    page: int


class _Break(NamedTuple):
    newest: int  # no page vouches for the close times from `oldest` to `newest`
    oldest: int
    page: int | None  # the one above, if any


def follows(first: int, last: int) -> bool:
    """Whether a page that begins at `first` may follow one that ends at `last`.

    Strictly newer: at the instant `last` rows may lie behind the page in hand and before the next one.
    """
    return first > last


def _link(index: int, page: PageView | ProvenTie, start: int, end: int, inclusive: bool) -> _Link:
    if isinstance(page, ProvenTie):
        return _Link(page.at + 1, page.at - 1, index)
    if page.offset == 0:
        first = page.to + 1 if inclusive or page.to == end else page.to
    else:
        first = page.times[0] if page.times else start
    if page.is_last:
        return _Link(first, start - 1, index)
    return _Link(first, page.times[-1] if page.times else first, index)


def _sweep(links: list[_Link], start: int, end: int) -> tuple[list[int], list[_Break]]:
    """The chain from the end down, and where it breaks; below a break the newest page there goes on."""
    links.sort(key=lambda link: -link.first)
    chain: list[int] = []
    breaks: list[_Break] = []
    last, at = end, 0
    while last >= start:
        begun = at
        while at < len(links) and follows(links[at].first, last):
            at += 1
        furthest = min(links[begun:at], key=lambda link: link.last, default=None)
        if furthest is not None and furthest.last < last:
            chain.append(furthest.page)
            last = furthest.last
        else:
            oldest = links[at].first if at < len(links) else start
            breaks.append(_Break(last, oldest, chain[-1] if chain else None))
            last = oldest - 1
    return chain, breaks


def _missing(
    pages: Sequence[PageView | ProvenTie], broken: _Break, end: int, inclusive: bool, k: int
) -> Gap | OversizedTie:
    """The request that leads on from a break: a patch that begins above it, so that two pages show the joint;
    if that did not reach past it, the lowest patch whose result still holds all of the instant `newest`.
    """
    newest = broken.newest
    read = [page for page in pages if isinstance(page, PageView) and page.count is not None]
    if any(page.times[0] == page.times[-1] == newest for page in read if not page.is_last):
        return OversizedTie(newest, newest if inclusive else newest + 1)
    lowest = wanted = newest if inclusive or newest == end else newest + 1
    above = None if broken.page is None else pages[broken.page]
    if isinstance(above, PageView):
        wanted = max(lowest, above.times[-max(1, min(k, len(above.times) // 2))])
    asked = {page.to for page in read if page.offset == 0}
    return Gap(lowest if wanted in asked else wanted, newest, broken.oldest)


def _keep(pages: Sequence[PageView | ProvenTie], order: Iterable[int]) -> Proof:
    seen: set[Any] = set()
    chain: list[KeptRows] = []
    rows = 0
    for index in order:
        ids = pages[index].ids
        chain.append(KeptRows(index, _fresh(ids, seen)))
        rows += len(ids)
    return Proof(tuple(chain), segments=len(seen), duplicates=rows - len(seen))


def _fresh(ids: Sequence[Any], seen: set[Any]) -> list[int]:
    """The rows whose id is neither among those seen, to which it is added, nor in an earlier row of the same page."""
    fresh = []
    for row, segment_id in enumerate(ids):
        if segment_id not in seen:
            seen.add(segment_id)
            fresh.append(row)
    return fresh


def _ids(pages: Sequence[PageView]) -> set[Any]:
    return set().union(*(page.ids for page in pages))
