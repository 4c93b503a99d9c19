"""Pages of a moving window, joined as they come: nothing lost or doubled, and no row touched without need."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import pytest

from segment_fetch.events import Event, WindowReread
from segment_fetch.query import Window
from segment_fetch.windows.coverage import PageView
from segment_fetch.windows.live_pass import LivePass
from segment_fetch.windows.merge import in_order
from segment_fetch.windows.overlap_joiner import OverlapJoiner
from segment_fetch.windows.page_checks import checked
from segment_fetch.windows.pass_protocol import Failed, Fetch, More, Page, Proven
from segment_fetch.windows.reader import WindowRead, WindowReader
from segment_fetch.wire.models import Pagination, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer
from segment_fetch.wire.raw_rows import COMPILED, RawRows, keys_of, scan_page, times_of
from tests.support import shuffled_page

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

END = 1_000
WORLDS = 2_500


class Counts(NamedTuple):
    """Of many worlds: lasting rows missing from a proven window, and so on; `given` before the proof."""

    missed: int
    doubled: int
    unordered: int
    miscounted: int
    given: int
    again: int


class World:
    """Rows that come, go and change their order of ties between any two answers; pages in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.limit = self.random.choice([4, 5, 6, 8])
        self.window = Window(END - self.random.choice([12, 40, 200]), END)
        self.newest = self.random.choice([0.0, 0.0, 0.3])  # how many close at the very end
        self.rows = [self.row(f"s{number}") for number in range(self.random.randrange(5, 40))]
        self.lasting = {row.segmentId for row in self.rows if row.endTimeL < END}
        self.moves = self.random.choice([0.0, 0.1, 0.5, 1.0])
        self.most = self.random.choice([1, 3, 8])
        self.grows = self.random.choice([0.1, 0.5, 0.9])

    def row(self, name: str) -> Segment:
        close = END if self.random.random() < self.newest else self.random.randint(self.window.start, END)
        return Segment(segmentId=name, endTimeL=close)

    def move(self) -> None:
        """Some rows come, and some go, of which a few come back at once with another close time."""
        for _ in range(self.random.randint(1, self.most) if self.random.random() < self.moves else 0):
            if self.random.random() < self.grows:
                self.rows.append(self.row(f"n{self.random.randrange(10**6)}"))
            elif self.rows:
                gone = self.rows.pop(self.random.randrange(len(self.rows))).segmentId
                self.lasting.discard(gone)
                self.rows += [self.row(gone)] if self.random.random() < 0.2 else []

    def answer(self, fetch: Fetch) -> PageAnswer:
        self.move()
        return PageAnswer(shuffled_page(self.rows, fetch.window, fetch.offset, self.limit, self.random, quick=0.7), END)

    def read(self, *, joins: bool = True, conflicts: frozenset[str] | None = None) -> Counts:
        reading = LivePass(self.window, self.limit, list[Segment], joins=joins, conflicts=conflicts)
        given: list[list[Segment]] = []
        step: More | Proven[list[Segment]] | Failed = More([Fetch(self.window)])
        number = 0
        while isinstance(step, More):
            self.random.shuffle(fetches := list(step.fetches))
            for fetch in fetches:
                found = checked(self.answer(fetch), fetch.window, fetch.offset, self.limit)
                assert reading.take(fetch, Page(found.view, found.rows, number := number + 1)) is None
                given += reading.ready()
            step = reading.advance()
        if isinstance(step, Failed):
            again = step.again and self.read(joins=False, conflicts=step.conflicts or frozenset())
            return again._replace(again=1) if again else Counts(0, 0, 0, 0, 0, 0)
        rows = [row for part in [*given, *step.parts] for row in part]
        ids = [row.segmentId for row in rows]
        return Counts(
            missed=len(self.lasting.difference(ids)),
            doubled=len(ids) - len(set(ids)),
            unordered=rows != in_order(rows),
            miscounted=len(rows) != step.segments,
            given=len(given),
            again=0,
        )


def test_whatever_moves_while_pages_come_in_any_order_no_lasting_row_is_missed() -> None:
    sums = Counts(0, 0, 0, 0, 0, 0)
    for seed in range(WORLDS):
        counts = World(seed).read()
        assert counts[:4] == (0, 0, 0, 0), (seed, counts)
        sums = Counts(*map(sum, zip(sums, counts, strict=True)))
    assert sums.given > WORLDS * 0.9
    assert 0 < sums.again < WORLDS / 5


WINDOW = Window(0, END)


def segments(*closes: int) -> list[Segment]:
    return [Segment(segmentId=f"s{close}", endTimeL=close) for close in closes]


def page(rows: Sequence[Segment], *, offset: int = 1, last: bool = False) -> Page:
    count = offset + len(rows) + (not last)
    return Page(PageView(END, offset, count, keys_of(rows), times_of(rows)), rows)


def closes(parts: Sequence[Sequence[Segment]] | None) -> list[list[int]] | None:
    return None if parts is None else [[row.endTimeL for row in part] for part in parts]


def joined(*pages: Page) -> tuple[OverlapJoiner[Sequence[Segment]], list[list[list[int]] | None]]:
    joiner = OverlapJoiner[Sequence[Segment]](WINDOW, lambda rows: rows)
    return joiner, [closes(joiner.join(each)) for each in pages]


def test_rows_below_the_end_of_the_next_page_are_given_and_the_others_wait() -> None:
    joiner, given = joined(
        page(segments(4, 3, 2, 1), last=True), page(segments(6, 5, 4, 3)), page(segments(8, 7, 6, 5))
    )
    assert given == [[], [[1, 2]], [[3, 4]]]
    assert (joiner.at, joiner.rows) == (5, 4)
    rest = joiner.rest()
    assert rest is not None
    assert (closes([rest.rows]), rest.view.is_last) == ([[8, 7, 6, 5]], True)


def test_what_the_newer_page_lacks_of_shared_times_is_taken_into_it() -> None:
    """5 vanished before the newer page was read, or 6 and 4 came."""
    _, given = joined(
        page(segments(5, 3, 2, 1), last=True), page(segments(7, 6, 4, 3)), page(segments(9, 8, 6)), page(segments(9, 8))
    )
    assert given == [[], [[1, 2]], [[3, 4, 5]], [[6, 7]]]


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([page(segments(3, 2, 1))], "nothing says that it is the last"),
        ([page([], last=True)], "it holds nothing"),
        ([page(segments(3, 2), last=True), page(segments(5, 4))], "rows between 3 and 4 may be missing"),
        ([page(segments(3, 2), last=True), page(segments(4, 3))], "more rows of 3 may be between them"),
        ([page(segments(3, 2), last=True), page(segments(4, 2, 1))], "it goes on where the last page ended"),
        ([page(segments(3, 2), last=True), page([])], "it says nothing"),
    ],
)
def test_a_page_that_cannot_be_shown_to_come_next_is_not_joined(pages: list[Page], why: str) -> None:
    joiner, given = joined(*pages)
    assert given[-1] is None, why
    assert joiner.rest() == (pages[0] if len(pages) == 2 else None)


@pytest.mark.skipif(not COMPILED, reason="lines come of the compiled scanner")
def test_pages_of_lines_that_nothing_moved_between_are_never_decoded() -> None:
    rows = segments(*range(40, 0, -1))
    whole = scan_page(msgspec.json.encode(SegmentPage(rows, Pagination(40))))
    assert whole is not None
    assert isinstance(whole.segments, RawRows)
    joiner = OverlapJoiner[bytes](
        WINDOW, lambda rows: bytes(rows.text) if isinstance(rows, RawRows) else pytest.fail("decoded")
    )
    lines = [whole.segments[at : at + 10] for at in (30, 25, 20, 15, 10, 5, 0)]
    given = [joiner.join(page(part, offset=30, last=not at)) for at, part in enumerate(lines)]
    text = b"".join(part for parts in given for part in parts or [])
    rest = joiner.rest()
    assert rest is not None
    assert isinstance(rest.rows, RawRows)
    assert msgspec.json.Decoder(Segment).decode_lines(text + rest.rows[::-1].text) == rows[::-1]


def test_an_id_with_two_close_times_is_noticed() -> None:
    twice = Segment(segmentId="s1", endTimeL=9)
    joiner, _ = joined(page(segments(4, 3, 2, 1), last=True), page(segments(6, 5, 4, 3)))
    assert joiner.are_different(segments(6, 5, 4, 3))
    assert not joiner.are_different([twice, *segments(6, 5, 4, 3)])
    assert not joiner.are_different(segments(6, 5, 5, 4, 3))


def read(*states: Sequence[Segment]) -> tuple[list[int], list[int], list[str]]:
    """The close times written, the offsets asked for and why the window was read anew. `states` are the rows, newest
    first, that the server has when each request comes; the last state stays.
    """
    reasons: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, WindowReread):
            reasons.append(event.reason)

    reading = WindowReader(WINDOW, 4, list[Segment], tell=tell)
    asked: list[int] = []
    while (result := reading.advance()) is None:
        request = reading.next()
        state = states[min(len(asked), len(states) - 1)]
        rows = [row for row in state if row.endTimeL <= request.window.end]
        asked.append(request.offset)
        found = SegmentPage(rows[request.offset :][:4], Pagination(len(rows)))
        reading.answered(request, PageAnswer(found, END))
    assert isinstance(result, WindowRead)
    assert result.status == "provisional", result
    return [row.endTimeL for part in result.parts for row in part], asked, reasons


def test_a_window_of_which_an_id_comes_with_two_close_times_is_read_anew() -> None:
    moved = Segment(segmentId="s1", endTimeL=9)
    written, asked, reasons = read([moved, *segments(8, 7, 6, 5, 4, 3, 2)], segments(10, 8, 7, 6, 5, 4, 3, 1))
    assert written == [1, 3, 4, 5, 6, 7, 8, 10]
    assert asked == [0, 6, 4, 2] * 2
    assert reasons == ["an id came twice in pages that were joined"]


def test_a_window_whose_last_page_was_not_the_last_is_read_anew() -> None:
    """Or all that is older vanished at once; who knows."""
    after = segments(20, 19, 18, 17, 16, 15, 14, 13)
    written, asked, reasons = read(segments(8, 7, 6, 5, 4, 3, 2, 1), after)
    assert written == [13, 14, 15, 16, 17, 18, 19, 20]
    assert asked == [0, 6, 4, 2] * 2
    assert reasons == ["its pages contradict each other about where it ends"]
