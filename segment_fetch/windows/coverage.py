"""The proof that pages cover a window, or the requests that are still needed to prove it. No I/O.

Pages of a window are read concurrently while rows may arrive or vanish, so the counts and offsets of two
pages say nothing about each other. One property of a page always holds: it is a contiguous slice, as of one
moment, of a result sorted by close time. All pages here are newest first; `newest_first` reverses those of a
server that sorts oldest first.

**What a page vouches for.** Take a row with close time `d` that was present throughout the reading. If `d` is
older than the page's first row, the page does not begin after it; if `d` is newer than the page's last row,
the page does not end before it. So the page holds *every* such row with `last < d < first`. Both bounds are
strict, because the edge of a page may cut through a group of equal close times, which may be in any order.

* At offset 0 no row precedes the page, so its `first` is the request's `to`: the result holds
  `d < to`, whether the server's `to` is inclusive or not. A row that closes exactly at the `to` of a request
  shows that it is inclusive; then the result holds `d <= to`.
* If `offset + rows >= count`, no row follows the page, so its `last` is below the request's start.
* All rows of one millisecond, read as a window of their own and proven, vouch for that millisecond.

**Why a chain is right.** A chain is a series of pages, from the window's end to below its start, where the
`first` of each is strictly newer than the `last` of the one before. Close times are whole milliseconds, so
the ranges vouched for leave no gap: every row that was present throughout is on a page of the chain. This
uses no count of another page, no read order and no order of ties, and pages read long ago stay valid.

Its limits: replicas that disagree, a close time that changes and, for a millisecond with more rows than a page
holds, a row that vanishes and comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from segment_fetch.windows.overlap import LIVE_OVERLAP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Order: TypeAlias = Literal["descending", "ascending"]


class PageView(msgspec.Struct, frozen=True, gc=False):
    """The parts of a page that a proof needs, rows newest first. `count` is None for a *prefix*: the newest rows of the
    window, cut from a page of a bigger query, whose own count is not the window's.
    """

    to: int  # toMillis of its request: the window's end, or lower for a patch
    offset: int  # rows of the result that are newer than the page's first
    count: int | None  # pagination.count that came with the page
    ids: Sequence[Any]  # of each row, its segmentId or the key for it
    times: Sequence[int]  # endTimeL of each row
    falling: bool = False  # True if the times are known not to rise
    start: int = 0  # fromMillis of its request, if that is above the window's start
    is_full: bool = False  # True if it cannot show rows beyond its count: it has no room left, or no rows

    @property
    def is_last(self) -> bool:
        """True if its own count says that no older row follows. A count can lag behind, so this is believed only of a
        page with room left, which would show rows beyond the count.
        """
        return self.count is not None and self.offset + len(self.ids) >= self.count and not self.is_full


class ProvenTie(msgspec.Struct, frozen=True, gc=False):
    """Every row of one close time, by `tie_proof`. `find_coverage` takes it in place of a page."""

    at: int
    ids: Sequence[Any]


class Covered(msgspec.Struct, frozen=True, gc=False):
    """The pages that cover the window, as indices, from the window's end to its start."""

    chain: tuple[int, ...]


class Gap(msgspec.Struct, frozen=True, gc=False):
    """No page vouches for the close times from `oldest` to `newest`, both included.

    Request the page at offset 0 from `start` to `to`, and pass it to `find_coverage` with all earlier pages.
    """

    to: int
    newest: int
    oldest: int
    start: int = 0


class OversizedTie(msgspec.Struct, frozen=True, gc=False):
    """At the close time `at` there are more rows than fit on a page, so no time range gets past it.

    Read `fromMillis=at`, `toMillis=to` as a separate window until `tie_proof` accepts it, and pass
    `ProvenTie(at, ids)` to `find_coverage` with all earlier pages. Otherwise the window stays unproven.
    """

    at: int
    to: int  # `at` if the server's `to` is known to be inclusive, else one millisecond more


class Uncovered(msgspec.Struct, frozen=True, gc=False):
    """Not proven yet. The missing requests are independent of each other and may be sent concurrently."""

    gaps: tuple[Gap, ...]
    ties: tuple[OversizedTie, ...]


def order_of(times: Sequence[int]) -> Order | None:
    """Return the order in which close times are sorted; None if they are unsorted or all equal."""
    found = list(times)
    if not found or found[0] == found[-1]:
        return None
    ordered = sorted(found)
    if found == ordered:
        return "ascending"
    return "descending" if found == ordered[::-1] else None


def check_page(page: PageView, *, start: int, limit: int) -> str | None:
    """Return a description of what is wrong with a page as it was sent, or None. A faulty page is read again.

    Its rows may still be in either order; `offset` is the one requested. A short page is a fault and never the end of
    the result: its own count says how many rows it must hold.
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
    if not page.falling and order_of(times) is None and min(times) != max(times):
        return f"{name} is not sorted by close time"
    newest, oldest = max(times[0], times[-1]), min(times[0], times[-1])
    if newest > page.to:
        return f"{name} holds close time {newest}, but the request ended at {page.to}"
    if oldest < start:
        return f"{name} holds close time {oldest}, but the request began at {start}"
    return None


def newest_first(page: PageView) -> PageView:
    """Reverse a page of a server that sorts oldest first, and recompute its offset from the newest row. A prefix is
    returned unchanged: it is newest first already.

    The page at the server's offset 0 becomes the last page, full or not; a full page never becomes the first, whatever
    its count says.
    """
    if page.count is None:
        return page
    return msgspec.structs.replace(
        page,
        offset=max(int(page.is_full), page.count - page.offset - len(page.ids)),
        ids=page.ids[::-1],
        times=page.times[::-1],
        is_full=page.is_full and page.offset > 0,
    )


def tie_proof(
    middle: Sequence[PageView], later: Sequence[PageView] = (), earlier: Sequence[PageView] = ()
) -> set[Any] | None:
    """Return the ids of all rows of one millisecond if they are proven, else None.

    `middle` is one complete pass, `later` are the passes after it; `earlier` may be any pages that hold rows of that
    millisecond. Each group was requested after the last page of the previous one had arrived. They prove it if a page
    of `middle` has room left, so that it shows how many rows there are, and holds all of them; or if that page and
    `later` hold as many ids, all of which had been seen before. If a row that was present throughout were missing, one
    of these ids was absent when that page was made. As it was seen both before and after, it vanished and came back,
    which is excluded. A count is believed only if the page would show more rows.
    """
    for page in middle:
        rows = len(page.ids)
        if page.is_full or (not rows and page.count):
            continue
        if rows == page.count:
            return set(page.ids)
        found = _ids([page, *later])
        if len(found) == page.count and found <= _ids(earlier):
            return found
    return None


def find_coverage(
    pages: Sequence[PageView | ProvenTie],
    *,
    start: int,
    end: int,
    k: int = LIVE_OVERLAP,
    order: Order = "descending",
) -> Covered | Uncovered:
    """Chain the pages from the window's `end` down to its `start`, or return the requests that are missing.

    The pages have passed `check_page`. They may be from any moment, in any order, and more than are needed: each step
    takes the one that reaches furthest. A patch begins `k` rows inside the page that it continues: the one above the
    gap, or the one below it if the server sorts oldest first (`order`).
    """
    inclusive = any(isinstance(page, PageView) and page.to in page.times[:1] for page in pages)
    links = (_link(index, page, start, end, inclusive) for index, page in enumerate(pages))
    chain, breaks = _sweep([link for link in links if link.last < link.first - 1], start, end)
    if not breaks:
        return Covered(tuple(chain))
    missing = _missing_above if order == "ascending" else _missing_below
    needed = [missing(pages, broken, (start, end), inclusive=inclusive, k=k) for broken in breaks]
    return Uncovered(
        gaps=tuple(item for item in needed if isinstance(item, Gap)),
        ties=tuple(item for item in needed if isinstance(item, OversizedTie)),
    )


class _Link(NamedTuple):
    first: int  # the page vouches for the close times between `last` and `first`
    last: int
    page: int


class _Break(NamedTuple):
    newest: int  # no page vouches for the close times from `oldest` to `newest`
    oldest: int
    above: int | None  # the page of the chain above it, if any
    below: int | None  # the page that vouches for the close times below it, if any


def follows(first: int, last: int) -> bool:
    """Return True if a page that begins at `first` may follow one that ends at `last`.

    It must be strictly newer: at the millisecond `last` there may be rows between the two pages.
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
        return _Link(first, max(start, page.start) - 1, index)
    return _Link(first, page.times[-1] if page.times else first, index)


def _sweep(links: list[_Link], start: int, end: int) -> tuple[list[int], list[_Break]]:
    """Return the chain from the end down, and its breaks; after a break it continues with the newest page below."""
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
            below = links[at] if at < len(links) else None
            oldest = start if below is None else below.first
            above = chain[-1] if chain else None
            breaks.append(_Break(last, oldest, above, None if below is None else below.page))
            last = oldest - 1
    return chain, breaks


def _missing_below(
    pages: Sequence[PageView | ProvenTie], broken: _Break, bounds: tuple[int, int], *, inclusive: bool, k: int
) -> Gap | OversizedTie:
    """Return the request that closes a break: a patch that begins above it, so that two pages show the joint; if that
    has not reached past it, the lowest patch whose result still holds all rows of the millisecond `newest`.
    """
    (start, end), newest = bounds, broken.newest
    read = [page for page in pages if isinstance(page, PageView) and page.count is not None]
    if any(page.times[0] == page.times[-1] == newest for page in read if page.times and not page.is_last):
        return OversizedTie(newest, newest if inclusive else newest + 1)
    lowest = wanted = newest if inclusive or newest == end else newest + 1
    above = None if broken.above is None else pages[broken.above]
    if isinstance(above, PageView):
        wanted = max(lowest, above.times[-max(1, min(k, len(above.times) // 2))])
    asked = {page.to for page in read if page.offset == 0 and page.start <= start}
    return Gap(lowest if wanted in asked else wanted, newest, broken.oldest, start)


def _missing_above(
    pages: Sequence[PageView | ProvenTie], broken: _Break, bounds: tuple[int, int], *, inclusive: bool, k: int
) -> Gap | OversizedTie:
    """Return the same where offset 0 is the oldest row: the patch begins inside the page below the break."""
    (start, end), oldest = bounds, broken.oldest
    read = [page for page in pages if isinstance(page, PageView) and page.count is not None]
    if any(page.times[0] == page.times[-1] == oldest for page in read if page.times and page.offset > 0):
        return OversizedTie(oldest, oldest if inclusive else oldest + 1)
    wanted = oldest
    below = None if broken.below is None else pages[broken.below]
    if isinstance(below, PageView) and below.times:
        wanted = min(oldest, below.times[max(1, min(k, len(below.times) // 2)) - 1])
    asked = {max(start, page.start) for page in read if page.is_last and page.to == end}
    return Gap(end, broken.newest, oldest, oldest if wanted in asked else wanted)


def _ids(pages: Iterable[PageView]) -> set[Any]:
    return set().union(*(page.ids for page in pages))
