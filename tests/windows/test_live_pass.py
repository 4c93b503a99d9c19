"""A live window whose pages contradict each other about where it ends."""

from __future__ import annotations

from collections.abc import Sequence

from segment_fetch.events import Event
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead, WindowReader
from segment_fetch.wire.models import Pagination, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer

WINDOW, LIMIT = Window(0, 1_000), 4
ROWS = [Segment(segmentId=f"id-{at}", endTimeL=900 - at) for at in range(10)]


def nothing(event: Event) -> None:
    """No event matters here."""


def read(counts: dict[int, Sequence[int]]) -> tuple[WindowRead[list[Segment]], list[int]]:
    """The window read while it may move, and the offsets asked for. `counts` are reported for pages of an offset, each
    once; after them, and for all other pages, the right one.
    """
    left = {offset: list(given) for offset, given in counts.items()}
    reading = WindowReader(WINDOW, LIMIT, list, tell=nothing)
    asked = []
    while (result := reading.advance()) is None:
        request = reading.next()
        asked.append(request.offset)
        rows = [row for row in ROWS if row.endTimeL <= request.window.end]
        count = left[request.offset].pop(0) if left.get(request.offset) else len(rows)
        page = rows[request.offset : min(count, request.offset + LIMIT)]
        reading.answered(request, PageAnswer(SegmentPage(page, Pagination(count)), WINDOW.end))
    assert isinstance(result, WindowRead)
    return result, asked


def written(result: WindowRead[list[Segment]]) -> list[Segment]:
    return [row for part in result.parts for row in part]


def test_the_newest_page_is_read_first_and_then_the_oldest() -> None:
    result, asked = read({})
    assert (result.status, written(result)) == ("provisional", ROWS[::-1])
    assert asked == [0, 8, 6, 4, 2]


def test_a_page_that_falsely_claims_to_be_the_last_is_asked_for_again() -> None:
    result, asked = read({8: [9]})
    assert (result.status, written(result)) == ("provisional", ROWS[::-1])
    assert asked == [0, 8, 6, 4, 2, 8]


def test_a_page_that_claims_it_twice_is_believed() -> None:
    """Then the rows that other pages hold behind it have vanished since; they may be kept or not."""
    result, asked = read({8: [9, 9]})
    assert (result.status, written(result)) == ("provisional", ROWS[::-1])
    assert asked == [0, 8, 6, 4, 2, 8]


def test_a_page_that_claims_it_above_the_last_one_changes_nothing() -> None:
    result, asked = read({4: [8]})
    assert (result.status, written(result)) == ("provisional", ROWS[::-1])
    assert asked == [0, 8, 6, 4, 2]
