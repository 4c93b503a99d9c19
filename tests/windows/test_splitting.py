"""A window that is being divided gives each part as soon as it is known, and all of them together cover it once."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
import pytest
from msgspec import structs

from segment_fetch.query import Window
from segment_fetch.windows import splitting
from segment_fetch.windows.splitting import SplitRequest, Splitter
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
