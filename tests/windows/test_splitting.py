"""A window that is being divided gives each part as soon as it is known, and all of them together cover it once."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from segment_fetch.query import Window
from segment_fetch.windows import splitting
from segment_fetch.windows.splitting import SplitPoint, SplitRequest, Splitter, split_offsets, split_point
from segment_fetch.wire.models import Pagination, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer, PageRequest, read_page
from tests.support import NOW

WHOLE = Window(0, 100_000)
ROWS, PARTS, LIMIT = 400, 4, 10


def served(request: PageRequest, closes: list[int]) -> PageAnswer:
    """The page of these close times, newest first."""
    page = [Segment(segmentId=f"id-{at}", endTimeL=at) for at in closes[request.offset : request.offset + LIMIT]]
    return PageAnswer(SegmentPage(page, Pagination(len(closes))), int(NOW * 1000))


def divided(closes: list[int]) -> tuple[Splitter, list[SplitRequest]]:
    """A division, and all that it asks for."""
    division = Splitter(WHOLE, served(PageRequest(WHOLE, 0, LIMIT), closes), LIMIT, len(closes) // PARTS)
    asked = []
    while division.has_next:
        asked.append(division.next())
    return division, asked


SPREAD = [WHOLE.end - 250 * at for at in range(1, ROWS)]
"""Close times, newest first, each far enough from the next to cut there."""


def test_the_oldest_part_is_given_first_and_the_newest_two_at_the_end() -> None:
    division, asked = divided(SPREAD)
    given = []
    for request in asked:
        division.answered(request, served(request, SPREAD))
        given.append([piece.window for piece in division.ready()])
    assert [len(windows) for windows in given] == [1, 1, 1, 2]
    assert division.parts == sorted(window for windows in given for window in windows)
    assert division.parts == [piece.window for piece in division.pieces()]


def test_a_part_waits_for_the_pages_of_older_ones() -> None:
    division, asked = divided(SPREAD)
    division.answered(asked[1], served(asked[1], SPREAD))
    assert division.ready() == []
    assert division.rest == WHOLE
    division.answered(asked[0], served(asked[0], SPREAD))
    assert len(division.ready()) == 2
    assert division.rest == Window(division.parts[-1].end, WHOLE.end)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_when_the_parts_cover_the_window_once(seed: int) -> None:
    """With ties that leave no place for a cut, and segments that come or go between two pages."""
    chance = random.Random(seed)
    ties = [chance.randrange(WHOLE.end) for _ in range(chance.choice([3, 30, ROWS]))]
    closes = sorted((chance.choice(ties) for _ in range(ROWS)), reverse=True)
    division, asked = divided(closes)
    chance.shuffle(asked)
    for request in asked:
        moved = [at for at in closes if chance.random() > 0.05] + [chance.randrange(WHOLE.end)] * 20
        answer = served(request, sorted(moved, reverse=True))
        division.answered(request, answer)
        for piece in division.ready():
            newest = piece.newest()
            assert newest is not None
            assert all(piece.window.start <= row.endTimeL for row in newest.page.segments)
    assert division.complete
    assert (division.parts[0].start, division.parts[-1].end) == (WHOLE.start, WHOLE.end)
    assert all(older.end == newer.start for older, newer in pairwise(division.parts))
    assert all(part.start < part.end for part in division.parts)


@pytest.mark.parametrize("quick", [False, True])
def test_pages_that_are_packed_come_back_as_they_were(monkeypatch: pytest.MonkeyPatch, *, quick: bool) -> None:
    found = []
    for most_unpacked in (32, 0):
        monkeypatch.setattr(splitting, "_MOST_UNPACKED", most_unpacked)
        division, asked = divided(SPREAD)
        for request in asked:
            answer = served(request, SPREAD)
            if quick:
                answer = structs.replace(answer, page=read_page(msgspec.json.encode(answer.page)))
            division.answered(request, answer)
        pieces = division.pieces()
        newest = [(piece.window, piece.newest()) for piece in pieces]
        found.append([(window, list(answer.page.segments)) for window, answer in newest if answer is not None])
    assert found[0] == found[1]
    assert all(window.start <= row.endTimeL <= window.end for window, rows in found[0] for row in rows)
    assert len(found[0]) == PARTS + 1  # the rest of the division, too


def sizes_of_parts(count: int, bound: int, limit: int) -> list[int]:
    """Newest first."""
    ranks = split_offsets(count, bound, limit)
    assert ranks == sorted(ranks, reverse=True), "the oldest part first"
    return [right - left for left, right in pairwise([0, *ranks[::-1], count])]


@given(st.integers(min_value=1, max_value=10_000), st.integers(min_value=1, max_value=500))
def test_ranks_divide_a_window_evenly(count: int, bound: int) -> None:
    sizes = sizes_of_parts(count, bound, 500)
    assert 0 < max(sizes) <= bound
    assert max(sizes) - min(sizes) <= 1


@given(
    st.integers(min_value=1, max_value=10_000_000),
    st.integers(min_value=20, max_value=200),
    st.integers(min_value=100, max_value=500),
)
def test_large_parts_but_the_oldest_fill_their_pages(count: int, wide: int, limit: int) -> None:
    bound = wide * limit
    sizes = sizes_of_parts(count, bound, limit)
    if count < len(sizes) * max(20 * limit, 800):
        return
    assert {(size + 40) % limit for size in sizes[:-1]} <= {0}
    assert max(sizes) <= bound + limit
    assert max(sizes) - min(sizes) <= 2 * limit


@given(st.integers(1, 100_000), st.integers(1, 2_000), st.integers(1, 500))
def test_no_part_is_empty_or_much_larger_than_the_bound(count: int, bound: int, limit: int) -> None:
    sizes = sizes_of_parts(count, max(bound, limit), limit)
    assert min(sizes) > 0
    assert max(sizes) <= max(bound, limit) + limit + 40


@pytest.mark.parametrize(
    ("times", "cut"),
    [
        ([], None),
        ([9, 7, 5], SplitPoint(8, 1)),
        ([9, 8, 5], SplitPoint(6, 2)),
        ([9, 8, 7], SplitPoint(7, 3)),
        ([9, 9, 9], SplitPoint(9, 3)),
        ([9, 9, 8], SplitPoint(8, 3)),
        ([4], SplitPoint(4, 1)),
        ([2], None),
        ([2, 2], None),
        ([3, 2], SplitPoint(3, 2)),
        ([4, 3, 2], SplitPoint(3, 3)),
        ([12, 2], SplitPoint(3, 1)),
        ([14, 11], SplitPoint(11, 2)),
        ([12, 10], SplitPoint(11, 1)),
        ([12, 12], None),
    ],
)
def test_where_a_page_divides_its_window(times: list[int], cut: SplitPoint | None) -> None:
    assert split_point(times, Window(2, 12)) == cut


@given(
    st.lists(st.integers(min_value=0, max_value=25), min_size=2, max_size=40),
    st.data(),
    st.booleans(),
)
def test_a_cut_loses_no_segment_and_takes_none_twice(closes: list[int], data: st.DataObject, inclusive: bool) -> None:
    whole = Window(0, 26)
    rows = sorted(enumerate(closes), key=lambda each: (-each[1], each[0]))

    def asked(window: Window) -> list[tuple[int, int]]:
        last = window.end if inclusive else window.end - 1
        return [each for each in rows if window.start <= each[1] <= last]

    rank = data.draw(st.integers(min_value=0, max_value=len(rows) - 1))
    page = rows[rank : rank + data.draw(st.integers(min_value=1, max_value=20))]
    cut = split_point([close for _, close in page], whole)
    if cut is None:
        assert {close for _, close in page} == {whole.start}
        return
    below, above = Window(whole.start, cut.instant), Window(cut.instant, whole.end)
    owned = [each for window in (above, below) for each in asked(window) if window.start <= each[1] < window.end]
    assert owned == rows
    kept = page[cut.row :]
    assert asked(below)[: len(kept)] == kept


def test_windows_are_split_above_50_000_segments_unless_told_otherwise() -> None:
    assert splitting.SPLIT_ABOVE == 50_000
