"""Proofs and gaps, case by case. Rows are written as `a9`: the id `a9`, closed at 9, so `a9 b9` is a tie."""

from __future__ import annotations

import pytest
from msgspec import structs

from segment_fetch.windows.coverage import (
    Covered,
    Gap,
    OversizedTie,
    PageView,
    ProvenTie,
    Uncovered,
    check_page,
    find_coverage,
    newest_first,
    tie_proof,
)
from segment_fetch.windows.overlap import largest_tie, live_overlap, offsets, settled_overlap

START, END = 0, 20


def page(rows: str, count: int | None, offset: int = 0, to: int = END) -> PageView:
    ids = rows.split()
    return PageView(to, offset, count, ids, [int(name[1:]) for name in ids])


def stitched(*pages: PageView | ProvenTie, k: int = 2) -> Covered | Uncovered:
    return find_coverage(pages, start=START, end=END, k=k)


def kept(proof: Covered | Uncovered | None, *pages: PageView | ProvenTie) -> str:
    assert isinstance(proof, Covered)
    return " ".join(dict.fromkeys(segment_id for index in proof.chain for segment_id in pages[index].ids))


def missing(outcome: Covered | Uncovered) -> list[Gap | OversizedTie]:
    assert isinstance(outcome, Uncovered)
    return [*outcome.gaps, *outcome.ties]


@pytest.mark.parametrize(
    "good",
    [
        page("", 0),
        page("a9", 1),
        page("a9 b9 c9", 3),
        page("a9 b8 c7", 4),
        page("d6", 4, offset=3),
        page("", 4, offset=4),
        page("", 3, offset=4),
        page(f"a{END} b{START}", 2),
        page("a9 b8", None),
        page("a7 b8 c8", 3),
    ],
)
def test_a_page_that_agrees_with_itself_has_no_fault(good: PageView) -> None:
    assert check_page(good, start=START, limit=3) is None


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (page("a9", 2), "holds 1 rows, but its own count of 2 and the limit of 3 call for 2"),
        (page("a9 b8", 9), "holds 2 rows, but its own count of 9 and the limit of 3 call for 3"),
        (page("a9 b8 c7", 2), "holds 3 rows, but its own count of 2 and the limit of 3 call for 2"),
        (page("", 9, offset=6), "at offset 6 holds 0 rows, but its own count of 9 and the limit of 3 call for 3"),
        (page("a9", 4, offset=4), "holds 1 rows, but its own count of 4 and the limit of 3 call for 0"),
        (page("", -1), "its own count of -1"),
        (page("a7 b8 c7", 3), "is not sorted by close time"),
        (page("a9 b10 c8", 5, offset=1), "at offset 1 is not sorted by close time"),
        (page("a21 b9", 2), "holds close time 21, but the request ended at 20"),
        (page("a9 b21", 2), "holds close time 21, but the request ended at 20"),
        (page("a8 b7", 2, to=7), "holds close time 8, but the request ended at 7"),
        (page("a9 b-1", 2), "holds close time -1, but the request began at 0"),
        (page("a7 b8 c6", None), "is not sorted by close time"),
        (PageView(END, 0, 2, ["a", "b"], [1]), "holds 2 ids but 1 close times"),
    ],
)
def test_a_page_that_contradicts_itself_has_a_fault(bad: PageView, fault: str) -> None:
    assert fault in (check_page(bad, start=START, limit=3) or "none")


def test_close_times_may_be_any_sequence() -> None:
    assert check_page(PageView(END, 0, 2, ("a", "b"), (9, 8)), start=START, limit=3) is None


@pytest.mark.parametrize(("times", "size"), [([], 0), ([3], 1), ([3, 2, 1], 1), ([3, 3, 2, 2, 2, 1], 3)])
def test_largest_tie(times: list[int], size: int) -> None:
    assert largest_tie(times) == size


@pytest.mark.parametrize(
    ("tie", "settled", "live"), [(0, 2, 20), (1, 2, 20), (2, 3, 20), (6, 7, 20), (7, 8, 21), (100, 101, 300)]
)
def test_the_overlap_grows_with_the_largest_tie(tie: int, settled: int, live: int) -> None:
    assert (settled_overlap(tie), live_overlap(tie)) == (settled, live)


@pytest.mark.parametrize(
    ("count", "limit", "k", "found"),
    [
        (0, 500, 2, [0]),
        (499, 500, 2, [0]),
        (500, 500, 2, [0, 498]),
        (501, 500, 2, [0, 498]),
        (996, 500, 2, [0, 498]),
        (997, 500, 2, [0, 498]),
        (998, 500, 2, [0, 498, 996]),
        (1500, 500, 20, [0, 480, 960, 1440]),
        (1440, 500, 20, [0, 480, 960]),
        (1000, 500, 900, [0, 250, 500, 750]),
        (3, 3, 20, [0, 1]),
        (3, 2, 20, [0, 1, 2]),
        (3, 1, 20, [0, 1, 2, 3]),
    ],
)
def test_offsets(count: int, limit: int, k: int, found: list[int]) -> None:
    assert list(offsets(count, limit, k)) == found


PREFIX = page("a9 b8", None)


FULL = structs.replace(page("a5 b5", 3, to=6), is_full=True)
REST = page("c5", 3, 2, to=6)


@pytest.mark.parametrize(
    ("middle", "later", "earlier", "proven"),
    [
        pytest.param([page("a5", 1, to=6)], [], [], True, id="one answer has all of it"),
        pytest.param([structs.replace(page("a5 b5", 2), is_full=True)], [], [], False, id="a full one may lack some"),
        pytest.param([FULL, REST], [], [FULL, REST], False, id="nothing is seen after the count was shown"),
        pytest.param([FULL, REST], [FULL], [FULL, REST], True, id="all is seen before it and after it"),
        pytest.param([FULL, REST], [FULL], [FULL], False, id="an id was not seen before"),
        pytest.param([FULL, REST], [page("a5", 3, to=6)], [FULL, REST], False, id="an id was not seen after"),
        pytest.param([FULL, REST], [page("d5", 3), FULL], [FULL, REST], False, id="another row came"),
    ],
)
def test_tie_proof(middle: list[PageView], later: list[PageView], earlier: list[PageView], proven: bool) -> None:
    assert (tie_proof(middle, later, earlier) is not None) is proven


@pytest.mark.parametrize(
    ("pages", "rows"),
    [
        pytest.param([page("", 0)], "", id="empty window"),
        pytest.param([page("a9 b8", 2)], "a9 b8", id="one page"),
        pytest.param([page("a9 b8 c7", 4), page("b8 c7 d6", 4, 1)], "a9 b8 c7 d6", id="two rows shared"),
        pytest.param([page("b8 c7 d6", 4, 1), page("a9 b8 c7", 4)], "a9 b8 c7 d6", id="in any order"),
        pytest.param([page("a9 b8 c7", 4), page("b8 c7 d6", 5, 2)], "a9 b8 c7 d6", id="a row came above"),
        pytest.param([page("a9 b8 c7", 4), page("d9 b8 e6", 4, 1)], "a9 b8 c7 d9 e6", id="a row came, one went"),
        pytest.param([page("a9 b8 c7", 4), page("x8 y8 d6", 4, 1)], "a9 b8 c7 x8 y8 d6", id="none in common"),
        pytest.param(
            [page("a9 b8 c7", 5), page("b8 c7 d6", 5, 1), page("b8 c7 d6 e5", 4)], "b8 c7 d6 e5", id="the furthest"
        ),
        pytest.param([page("a9 b8 c7", 6), page("b8 c7 d6", 3, to=8)], "a9 b8 c7 d6", id="a patch"),
        pytest.param([page("a9 b8 c7", 6), page("c7 d6", 2, to=8)], "a9 b8 c7 d6", id="a patch, its `to` exclusive"),
        pytest.param([page("a9 b8 c7", 6), page("d6", 1, to=8)], "a9 b8 c7 d6", id="a patch, the joint is gone"),
        pytest.param([page("a9 b8 c7", 6), page("", 0, to=8)], "a9 b8 c7", id="a patch, the rest is gone"),
        pytest.param([PREFIX, page("a9 b8 c7", 3)], "a9 b8 c7", id="a prefix outdone"),
        pytest.param([page("a9 b8 c7", None), page("b8 c7 d6", 4, 1)], "a9 b8 c7 d6", id="a prefix"),
    ],
)
def test_a_chain_keeps_each_id_once(pages: list[PageView], rows: str) -> None:
    assert kept(stitched(*pages), *pages) == rows


def test_a_chain_goes_from_the_window_s_end_to_its_start() -> None:
    assert stitched(page("b8 c7 d6", 4, 1), page("a9 b8 c7", 4)) == Covered((1, 0))


@pytest.mark.parametrize(
    ("pages", "needed"),
    [
        pytest.param([], [Gap(END, END, START)], id="nothing read"),
        pytest.param([page("b8 c7", 3, 1)], [Gap(END, END, 8)], id="the first page never came"),
        pytest.param([page("a9 b8 c7", 6)], [Gap(8, 7, START)], id="the end is missing"),
        pytest.param([page("a9 b8 c7", 6), page("d6 e5", 5, 3)], [Gap(8, 7, 6)], id="pages that share no row"),
        pytest.param([page("a9 b8 c7", 5), page("c7 d6 e5", 5, 2)], [Gap(8, 7, 7)], id="pages that share their edge"),
        pytest.param([page("a9 b7 c7", 5), page("c7 d7 e5", 5, 2)], [Gap(8, 7, 7)], id="a tie at the joint"),
        pytest.param(
            [page("a9 b8 c7", 6), page("f3 g2 h1", 8, 5), page("d6 e5 f4", 9, 3)],
            [Gap(8, 7, 6), Gap(5, 4, 3)],
            id="two gaps",
        ),
        pytest.param(
            [page("a9 b8 c7", 6), page("b8 x8 y8", 6, to=8)], [Gap(7, 7, START)], id="a patch full of later rows"
        ),
        pytest.param(
            [page("a9 b8 c7", 6), page("c7 d7 e7", 5, to=8)], [OversizedTie(7, 8)], id="a patch full of one instant"
        ),
        pytest.param(
            [page("a9 b7 c7", 6), page("c7 d7 e7", 7, 3)], [OversizedTie(7, 8)], id="a page full of one instant"
        ),
        pytest.param([page("a7 b7 c7", 6)], [OversizedTie(7, 8)], id="first page full of one instant"),
        pytest.param([page("a20 b20 c20", 6)], [OversizedTie(20, 20)], id="full of the end, which the server includes"),
        pytest.param([page("a20 b7 c7", 6)], [Gap(7, 7, START)], id="inclusive: no need to go above the tie"),
        pytest.param([PREFIX], [Gap(9, 8, START)], id="a prefix"),
        pytest.param([page("a20", None)], [Gap(END, END, START)], id="a prefix of one instant says too little"),
    ],
)
def test_what_is_missing(pages: list[PageView], needed: list[Gap | OversizedTie]) -> None:
    assert missing(stitched(*pages)) == needed


def test_gaps_and_ties_are_reported_side_by_side() -> None:
    pages = page("a9 b8 c7", 6), page("d6 e4 f4", 8, 3), page("f4 g4 h4", 12, 5), page("j3 k2", 11, 9)
    assert stitched(*pages) == Uncovered(gaps=(Gap(8, 7, 6),), ties=(OversizedTie(4, 5),))


TIED = ProvenTie(7, ["b7", "c7", "d7", "e7", "f7"])


def test_the_chain_goes_across_an_instant() -> None:
    tie = page("a9 b7 c7", 7), TIED
    assert missing(stitched(*tie, page("c7 d7 e7", 7, 2))) == [Gap(7, 6, START)]
    exclusive = *tie, page("g6", 1, to=7)
    assert kept(stitched(*exclusive), *exclusive) == "a9 b7 c7 d7 e7 f7 g6"


def test_the_chain_goes_on_below_an_instant_where_the_server_includes_its_to() -> None:
    pages = page("a9 b7 c7", 7), TIED, page("b7 c7 d7", 6, to=7)
    assert missing(stitched(*pages)) == [Gap(6, 6, START)]
    pages_below = *pages, page("g6", 1, to=6)
    assert kept(stitched(*pages_below), *pages_below) == "a9 b7 c7 d7 e7 f7 g6"


def test_a_page_that_begins_in_an_instant_and_ends_below_it_leads_on() -> None:
    pages = page("a9 b7 c7", 7), TIED, page("e7 f7 g6", 7, 4)
    assert kept(stitched(*pages), *pages) == "a9 b7 c7 d7 e7 f7 g6"


def test_an_instant_at_the_start_is_the_end_of_the_chain() -> None:
    pages = page("a9 b0 c0", 6), ProvenTie(0, ["b0", "c0", "d0", "e0", "f0"])
    assert kept(stitched(*pages), *pages) == "a9 b0 c0 d0 e0 f0"


def test_a_patch_begins_k_rows_up_but_at_most_half_a_page() -> None:
    rows = page("a9 b8 c7 d6 e5 f4", 9)
    assert [missing(stitched(rows, k=k))[0].to for k in (0, 1, 2, 3, 99)] == [5, 5, 5, 6, 6]


def test_a_page_of_a_server_that_sorts_oldest_first_is_turned_around() -> None:
    """Of the rows 3 to 8, the page at offset 1 holds 4 to 6: two newer ones and one older lie around it."""
    found = newest_first(page("d4 e5 f6", 6, offset=1))
    assert (found.ids, found.times, found.offset) == (["f6", "e5", "d4"], [6, 5, 4], 2)
    assert newest_first(page("c3 d4", 6)).is_last
    assert newest_first(page("g7 h8", 6, offset=4)).offset == 0


def ascending(*pages: PageView) -> Covered | Uncovered:
    return find_coverage([newest_first(each) for each in pages], start=START, end=END, k=2, order="ascending")


def test_pages_that_are_sorted_oldest_first_are_chained_as_well() -> None:
    assert ascending(page("c3 d4 e5 f6", 6), page("e5 f6 g7 h8", 6, offset=2)) == Covered((1, 0))


def test_a_gap_between_pages_sorted_oldest_first_is_closed_from_below() -> None:
    pages = page("c3 d4 e5 f6", 8), page("h8 i9", 8, offset=6)
    assert ascending(*pages) == Uncovered((Gap(END, 8, 6, 5),), ())
    patch = PageView(END, 0, 5, ["f6", "g7", "h8"], [6, 7, 8], start=6)
    assert ascending(*pages, patch) == Uncovered((Gap(END, 8, 8, 8),), ())
    lower = PageView(END, 0, 2, ["h8", "i9"], [8, 9], start=8)
    assert ascending(*pages, patch, lower) == Covered((3, 2, 0))


def full(offset: int, came: int) -> PageView:
    """A page of 2,000 rows, one a millisecond, after `came` newer ones came."""
    rows = range(offset - came, min(offset - came + 500, 2000))
    return PageView(10_000, offset, 2000 + came, [f"r{row}" for row in rows], [5_000 - row for row in rows])


def test_late_rows_fewer_than_the_overlap_cost_no_request() -> None:
    pages = [full(offset, came) for came, offset in enumerate(offsets(2000, 500, 20))]
    proof = find_coverage(pages, start=0, end=10_000)
    assert isinstance(proof, Covered)
    rows = [segment_id for index in proof.chain for segment_id in pages[index].ids]
    assert (len(set(rows)), len(rows)) == (2000, 2000 + 20 * 4 + 4)


def test_more_late_rows_than_the_overlap_are_no_harm_either() -> None:
    """They shift rows down, so the pages share more; rows that vanish tear a gap."""
    down = [full(0, 0), full(480, 100), full(960, 100), full(1440, 100), full(1920, 100)]
    assert isinstance(find_coverage(down, start=0, end=10_000), Covered)
    up = [full(0, 100), *(full(offset, 0) for offset in range(480, 2000, 480))]
    assert find_coverage(up, start=0, end=10_000) == Uncovered(gaps=(Gap(4620, 4601, 4520),), ties=())
