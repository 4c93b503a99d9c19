"""Read small windows that change meanwhile, in every way there is, and look for a proof that lacks a row.

    python -m tests.windows.model_check --interleavings 1000000

A *world* is a handful of rows with close times from 0 to 3, so that ties, rows on both bounds of the window and
neighbouring milliseconds are the rule, and a server for them. It is read by the reader itself: whatever requests it has
in flight are answered in every order. Before each answer, of all the things that can happen, up to two do: a row comes,
at any close time, or any row goes. Besides, up to two times the order of ties turns around. The window is settled or
live, the server sorts newest first or oldest first, its `to` is inclusive or not. Some servers count no further than a
number while rows go on behind it, some report counts that lag behind, some have two rows of one id.

One run through all these choices is an *interleaving*. Worlds come in random order, each with all of its own or, where
those are more than a bound, with that many of them and as many that are chosen at random.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement, islice, product
from typing import NamedTuple

from segment_fetch.errors import TransientError
from segment_fetch.events import Event
from segment_fetch.query import Window
from segment_fetch.windows.page_checks import Divide
from segment_fetch.windows.reader import WindowRead, WindowReader, WindowRequest
from segment_fetch.windows.server_traits import ServerTraits
from segment_fetch.wire.models import Pagination, Reference, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer

START, END = 0, 3
EVENTS = 2  # rows that come or go during one reading
TURNS = 2  # times that the order of ties turns around
MOST = 300  # interleavings of one world that are tried one after the other
LONGEST = 20_000  # answers; a reading that needs as many would never end
SIZES = ((2, 3), (2, 4), (3, 4), (3, 5), (4, 5), (4, 6))  # limit, rows
SERVERS = ("honest", "honest", "honest", "capped", "lagging", "repeating")
NEXT = [Reference("next", "")]

Row = tuple[int, str]  # close time, id


class Setting(NamedTuple):
    """A kind of server, and the way in which it is read."""

    limit: int
    inclusive: bool = True
    settled: bool = False
    ascending: bool = False
    server: str = "honest"


class Choices:
    """Every sequence of choices, one after the other: `choose(n)` answers 0 to n - 1, another way each time."""

    def __init__(self) -> None:
        self._path: list[list[int]] = []
        self._at = 0

    def choose(self, options: int) -> int:
        if options == 1:
            return 0
        if self._at == len(self._path):
            self._path.append([0, options])
        self._at += 1
        return self._path[self._at - 1][0]

    def advance(self) -> bool:
        """Go back to the last choice that has an option left; False if every sequence was tried."""
        self._at = 0
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        if not self._path:
            return False
        self._path[-1][0] += 1
        return True


class World:
    """Rows that change between two answers, as the choices say, and their server."""

    def __init__(self, rows: tuple[Row, ...], setting: Setting, choose: Callable[[int], int], end: int = END) -> None:
        self.rows = self.first = rows
        self.setting = setting
        self.choose = choose
        self.window = Window(START, end)
        self.throughout = {row for row in rows if START <= row[0] < end}
        self.events = self.turns = self.reads = 0

    def answer(self, request: WindowRequest[list[Segment]]) -> PageAnswer:
        if self.reads:
            self.drift()
        self.reads += 1
        return PageAnswer(self.page(request.window, request.offset), 10**12 if self.setting.settled else 0)

    def page(self, window: Window, offset: int) -> SegmentPage:
        found = self.sort([row for row in self.rows if self._is_in(row[0], window)])
        part = found[offset : offset + self.setting.limit]
        count, has_next = len(found), offset + len(part) < len(found)
        if self.setting.server == "capped":
            count = min(count, self.setting.limit + 1)
        elif self.setting.server == "lagging" and count and self.choose(2):
            count -= 1
        rows = [Segment(segmentId=name.rstrip("'"), endTimeL=at, employeeId=name) for at, name in part]
        return SegmentPage(rows, Pagination(count, NEXT if has_next else None))

    def _is_in(self, at: int, window: Window) -> bool:
        return window.start <= at and (at < window.end or (self.setting.inclusive and at == window.end))

    def sort(self, found: list[Row]) -> list[Row]:
        """The rows in the server's order, which changes now and then as far as their ties go."""
        sign = 1 if self.setting.ascending else -1
        found.sort(reverse=bool(self.turns % 2))
        if self.turns < TURNS and len({at for at, _ in found}) < len(found) and self.choose(2):
            self.turns += 1
            found.reverse()
        return sorted(found, key=lambda row: sign * row[0])

    def drift(self) -> None:
        while self.events < EVENTS and self._event():
            self.events += 1

    def come(self, row: Row) -> None:
        self.rows = tuple(sorted((*self.rows, row)))

    def go(self, index: int) -> None:
        self.throughout.discard(self.rows[index])
        self.rows = self.rows[:index] + self.rows[index + 1 :]

    def _event(self) -> bool:
        gone, new = len(self.rows), self.window.end - self.window.start + 1
        event = self.choose(1 + gone + new) - 1
        if event >= gone:
            self.come((self.window.start + event - gone, "xy"[self.events]))
        elif event >= 0:
            self.go(event)
        return event >= 0


def nothing(event: Event) -> None:
    """No event matters here."""


def read_window(
    world: World, window: Window | None = None, traits: ServerTraits | None = None
) -> tuple[list[Row], list[Window]]:
    """The rows of the windows that were proven, and those windows: more than one if the server made it be divided."""
    traits = traits or ServerTraits()
    reader = WindowReader(window or world.window, world.setting.limit, list[Segment], tell=nothing, traits=traits)
    in_flight: list[WindowRequest[list[Segment]]] = []
    while (result := reader.advance()) is None:
        while reader.has_next:
            in_flight.append(reader.next())
        request = in_flight.pop(world.choose(len(in_flight)))
        if not reader.wants(request):
            continue
        try:
            reader.answered(request, world.answer(request))
        except TransientError:
            in_flight.append(request)
        if world.reads > LONGEST:
            raise AssertionError(f"{world.setting}, {world.first}: no end after {world.reads} requests")
    match result:
        case WindowRead(status="unproven"):
            return [], []
        case WindowRead(parts=parts):
            return [(row.endTimeL, str(row.employeeId)) for part in parts for row in part], [reader.window]
        case Divide(windows):
            read = [read_window(world, part, traits) for part in windows]
            return [row for rows, _ in read for row in rows], [proven for _, windows in read for proven in windows]


class Tally(NamedTuple):
    """The outcome of a check. A miss is an interleaving accepted without a row that was present throughout."""

    worlds: int
    interleavings: int
    accepted: int
    unproven: int
    missed: int
    requests: int
    example: str | None  # the first miss


def check(interleavings: int | None, seed: int = 1, *, stop: bool = False, server: str | None = None) -> Tally:
    """Try so many interleavings, or all there are; with `stop` only up to the first miss; of one kind of server."""
    count: Counter[str] = Counter()
    example, last = None, None
    for world in islice(_interleavings(seed, server), interleavings):
        rows, windows = read_window(world)
        ids = [name.rstrip("'") for _, name in rows]
        assert len(set(ids)) == len(ids), f"{world.setting}, {world.first}: an id is kept twice: {rows}"
        assert rows == sorted(rows), f"{world.setting}, {world.first}: not in order: {rows}"
        count["tried"] += 1
        count["requests"] += world.reads
        count["worlds"] += (world.setting, world.first) != last
        last = world.setting, world.first
        due = {row for row in world.throughout if any(part.start <= row[0] < part.end for part in windows)}
        count["unproven"] += not windows
        if not due.issubset(rows):
            count["missed"] += 1
            example = example or f"{world.setting}, {world.first}: kept {rows} of {sorted(due)}"
            if stop:
                break
    return Tally(
        worlds=count["worlds"],
        interleavings=count["tried"],
        accepted=count["tried"] - count["unproven"],
        unproven=count["unproven"],
        missed=count["missed"],
        requests=count["requests"],
        example=example,
    )


def _interleavings(seed: int, server: str | None = None) -> Iterator[World]:
    for number, (setting, rows) in enumerate(worlds(seed, server)):
        choices, more, tried = Choices(), True, 0
        while more and tried < MOST:
            yield World(rows, setting, choices.choose)
            more, tried = choices.advance(), tried + 1
        chance = random.Random(number)
        for _ in range(MOST if more else 0):
            yield World(rows, setting, chance.randrange)


def worlds(seed: int, server: str | None = None) -> list[tuple[Setting, tuple[Row, ...]]]:
    """All worlds and ways to read them, shuffled, so that the first few are a fair sample."""
    found = []
    flags = (False, True)
    servers = SERVERS if server is None else (server,)
    for (limit, size), inclusive, settled, ascending, kind in product(SIZES, flags, flags, flags, servers):
        for times in combinations_with_replacement(range(START, END + 1), size):
            names = ("a", "b", "a'", "d", "e", "f") if kind == "repeating" else "abcdef"
            setting = Setting(limit, inclusive, settled, ascending, kind)
            found.append((setting, tuple(sorted(zip(times, names, strict=False)))))
    random.Random(seed).shuffle(found)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.windows.model_check", description=__doc__)
    parser.add_argument("--interleavings", type=int, default=1_000_000, help="0 for all there are")
    parser.add_argument("--seed", type=int, default=1, help="which worlds come first")
    options = parser.parse_args()
    begun = time.perf_counter()
    tally = check(options.interleavings or None, options.seed)
    sys.stdout.write(
        f"{tally.interleavings:,} interleavings of {tally.worlds:,} worlds, "
        f"{tally.requests:,} requests, {time.perf_counter() - begun:.0f} s\n"
        f"accepted {tally.accepted:,}, unproven {tally.unproven:,}, missed {tally.missed:,}\n"
    )
    if tally.example:
        sys.stdout.write(f"first miss: {tally.example}\n")
    return 1 if tally.missed else 0


if __name__ == "__main__":
    sys.exit(main())
