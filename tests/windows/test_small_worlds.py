"""Thousands of tiny windows, divided, with many ties in any order, read in any order: nothing lost or doubled.

Pages of two to four rows make rare things common: an instant that fills a page, a prefix of one row, a page that is all
edge. Answers come back in any order, some by the fast path; a row may vanish, or come, at any moment of the reading.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from segment_fetch.errors import TransientError
from segment_fetch.extraction.context import ReadOptions
from segment_fetch.extraction.window_queue import Request, WindowQueue
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Segment
from segment_fetch.wire.pages import PageAnswer, PageRequest
from tests.support import shuffled_page

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

END = 1_000
SETTLED, MOVING = 10**12, END
LONGEST = 5_000
WORLDS = 600


class Written:
    """The parts of windows written before their proof."""

    def __init__(self) -> None:
        self.parts: dict[Window, list[list[Segment]]] = {}

    def put(self, window: Window, parts: Sequence[list[Segment]]) -> None:
        self.parts.setdefault(window, []).extend(parts)

    def withdraw(self, window: Window) -> None:
        self.parts.pop(window, None)


class World:
    """A few rows, their server, and a reader whose answers come in any order."""

    def __init__(self, seed: int, change: str, now: int) -> None:
        self.now = now
        self.random = random.Random(seed)
        self.limit = self.random.choice([2, 3, 4])
        span = self.random.choice([4, 8, 15])
        self.start = END - span
        self.rows = [self.row(number) for number in range(self.random.randrange(12, 45))]
        self.throughout = list(self.rows)
        self.change = change
        self.written = Written()
        self.ended: list[WindowRead[list[Segment]]] = []
        self.queue = WindowQueue[list[Segment]](
            [Window(self.start, END)],
            ReadOptions(self.limit, self.limit * 3),
            list,
            tell=lambda _: None,
            done=self.ended.append,
            outlet=self.written,
        )

    def row(self, number: int) -> Segment:
        return Segment(segmentId=f"s{number}", endTimeL=self.start + self.random.randrange(END - self.start))

    def maybe_change(self) -> None:
        if not self.change or self.random.random() > 0.03:
            return
        if self.change == "vanishes":
            gone = self.rows.pop(self.random.randrange(len(self.rows)))
            self.throughout.remove(gone)
        else:
            self.rows.append(self.row(len(self.rows)))
        self.change = ""

    def answer(self, request: PageRequest) -> PageAnswer:
        window, offset = request.window, request.offset
        return PageAnswer(shuffled_page(self.rows, window, offset, request.limit, self.random, quick=0.5), self.now)

    def read(self) -> None:
        in_flight: list[Request] = []
        for _ in range(LONGEST):
            if self.queue.finished():
                return
            while (not in_flight or self.random.random() < 0.7) and (request := self.queue.next()):
                in_flight.append(request)
            if not in_flight:
                for read in self.ended:
                    self.queue.release(read.window)
                continue
            request = in_flight.pop(self.random.randrange(len(in_flight)))
            self.maybe_change()
            try:
                self.queue.answered(request, self.answer(request))
            except TransientError:
                in_flight.append(request)
        raise AssertionError("no end")


class Seen(NamedTuple):
    """Of all worlds: rows that were there throughout and are missing from a proven window, and so on."""

    missed: int
    doubled: int
    unordered: int
    miscounted: int
    unproven: int


def check(world: World) -> Seen:
    missed = doubled = unordered = miscounted = unproven = 0
    for read in world.ended:
        if read.status == "unproven":
            unproven += 1
            continue
        parts = [*world.written.parts.get(read.window, []), *read.parts]
        rows = [(row.endTimeL, row.segmentId) for part in parts for row in part]
        due = {row.segmentId for row in world.throughout if read.window.start <= row.endTimeL < read.window.end}
        missed += len(due - {name for _, name in rows})
        doubled += len(rows) - len(set(rows))
        unordered += rows != sorted(rows)
        miscounted += len(rows) != read.segments
    return Seen(missed, doubled, unordered, miscounted, unproven)


@pytest.mark.parametrize("now", [SETTLED, MOVING])
@pytest.mark.parametrize("change", ["", "vanishes", "comes"])
def test_no_proven_window_lacks_or_doubles_a_row(change: str, now: int) -> None:
    sums, proven = Seen(0, 0, 0, 0, 0), 0
    for seed in range(WORLDS):
        world = World(seed, change, now)
        world.read()
        seen = check(world)
        assert seen._replace(unproven=0) == (0, 0, 0, 0, 0), (seed, seen)
        sums = Seen(*map(sum, zip(sums, seen, strict=True)))
        proven += len(world.ended) - seen.unproven
    assert proven > WORLDS
    assert (
        change or now == MOVING or sums.unproven == 0
    )  # an instant larger than a page cannot be proven in every order
