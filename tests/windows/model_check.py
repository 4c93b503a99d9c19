"""Read small windows that change meanwhile, in every way there is, and look for a proof that lacks a row.

    python -m tests.windows.model_check --interleavings 1000000

A *world* is a handful of rows with close times from 0 to 3, so that ties, rows on both bounds of the window and
neighbouring milliseconds are the rule. It is read in earnest: the first page, the pages that its count calls for
in every order, then every patch and every instant that `find_coverage` asks for, in every order too. Before each
request, of all the things that can happen, up to two do: a row comes, at any close time, or any row goes. Besides,
up to two times the order of ties turns around. The server's `to` is inclusive in half of the worlds.

One run through all these choices is an *interleaving*. Worlds come in random order, each with all of its own.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from functools import lru_cache
from itertools import combinations_with_replacement, islice, product
from typing import TYPE_CHECKING, NamedTuple

from segment_fetch.windows import coverage
from segment_fetch.windows.coverage import PageView, Proof, ProvenTie

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from segment_fetch.windows.coverage import OversizedTie

START, END = 0, 3
EVENTS = 2  # rows that come or go during one reading
TURNS = 2  # times that the order of ties turns around
ROUNDS = 100  # of patches; a reading that needs as many would never end
MODES = ("moving", "settled", "prefix")
SHAPES = (  # limit, rows shared by neighbours, rows
    *((2, 0, 3), (2, 1, 3), (2, 0, 4), (2, 1, 4)),
    *((3, 0, 4), (3, 1, 4), (3, 1, 5)),
    *((4, 1, 6), (4, 2, 6)),
)

Row = tuple[int, str]  # close time, id


class Setting(NamedTuple):
    """How a world is read."""

    limit: int
    k: int
    inclusive: bool
    mode: str  # "moving": by the chain; "settled": by the count, if it will do; "prefix": begun with a prefix


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


@lru_cache(maxsize=200_000)
def answers(rows: tuple[Row, ...], setting: Setting, request: tuple[int, int, int]) -> tuple[PageView, ...]:
    """What the server may answer to (start, to, offset): one page, or two if the order of ties matters to it."""
    start, to, offset = request
    found = [row for row in rows if start <= row[0] and (row[0] < to or (setting.inclusive and row[0] == to))]
    pages = []
    for ties in (sorted(found), sorted(found, reverse=True)):
        ties.sort(key=lambda row: -row[0])
        part = ties[offset : offset + setting.limit]
        page = PageView(to, offset, len(found), [name for _, name in part], [at for at, _ in part])
        fault = coverage.check_page(page, start=start, limit=setting.limit)
        assert fault is None, fault
        if page not in pages:
            pages.append(page)
    return tuple(pages)


class World:
    """Rows that change between two requests, as the choices say."""

    def __init__(self, rows: tuple[Row, ...], setting: Setting, choose: Callable[[int], int], end: int = END) -> None:
        self.rows = self.first = rows
        self.setting = setting
        self.choose = choose
        self.start, self.end = START, end
        last = end if setting.inclusive else end - 1
        self.throughout = {name for at, name in rows if START <= at <= last}
        self.events = self.turns = self.reads = 0
        self.growing: bool | None = None
        self.is_done = False  # this was the last of its interleavings

    def page(self, start: int, to: int, offset: int) -> PageView:
        if self.reads:
            self.drift()
        self.reads += 1
        return self.answer(start, to, offset)

    def drift(self) -> None:
        while self.events < EVENTS and self._event():
            self.events += 1

    def answer(self, start: int, to: int, offset: int) -> PageView:
        pages = answers(self.rows, self.setting, (start, to, offset))
        if len(pages) == 1:
            return pages[0]
        if self.turns < TURNS and self.choose(2):
            self.turns += 1
        return pages[self.turns % 2]

    def come(self, row: Row) -> None:
        self.growing = True
        self.rows = tuple(sorted((*self.rows, row)))

    def go(self, index: int) -> None:
        self.growing = False
        self.throughout.discard(self.rows[index][1])
        self.rows = self.rows[:index] + self.rows[index + 1 :]

    def changes(self) -> tuple[int, int]:
        """How many rows could go and how many could come. A settled window changes one way only, if at all."""
        one_way = self.setting.mode == "settled" and self.growing is not None
        gone = 0 if one_way and self.growing else len(self.rows)
        return gone, 0 if one_way and not self.growing else self.end - self.start + 1

    def _event(self) -> bool:
        gone, new = self.changes()
        event = self.choose(1 + gone + new) - 1
        if event >= gone:
            self.come((self.start + event - gone, "xy"[self.events]))
        elif event >= 0:
            self.go(event)
        return event >= 0


def read_window(world: World) -> list[str] | None:
    """The ids of a window that was proven, or None if an instant could not be."""
    setting = world.setting
    views = _planned(world)
    if setting.mode == "settled" and coverage.count_proof(views) is not None:
        return _ids(views)
    pages: list[PageView | ProvenTie] = list(views)
    for _ in range(ROUNDS):
        outcome = coverage.find_coverage(pages, start=world.start, end=world.end, k=setting.k)
        if isinstance(outcome, Proof):
            return [pages[kept.page].ids[row] for kept in outcome.chain for row in kept.rows]
        gaps, ties = list(outcome.gaps), list(outcome.ties)
        while gaps:
            pages.append(world.page(world.start, gaps.pop(world.choose(len(gaps))).to, 0))
        while ties:
            instant = _instant(world, ties.pop(world.choose(len(ties))))
            if instant is None:
                return None
            pages.append(instant)
    raise AssertionError(f"{setting}: no end after {world.reads} requests")


def _planned(world: World) -> list[PageView]:
    """The first page and those that its count calls for; after a prefix, the second page's count."""
    limit, k = world.setting.limit, world.setting.k
    pages = [_prefix(world) if world.setting.mode == "prefix" else world.page(world.start, world.end, 0)]
    count, read = pages[0].count, 1
    if count is None:
        pages.append(world.page(world.start, world.end, coverage.offsets(2 * limit, limit, k)[1]))
        count, read = pages[1].count, 2
    assert count is not None
    todo = list(coverage.offsets(count, limit, k)[read:])
    while todo:
        pages.append(world.page(world.start, world.end, todo.pop(world.choose(len(todo)))))
    return pages


def _prefix(world: World) -> PageView:
    """The window's part of the first page of a bigger query; all of the window if the page reaches further."""
    page = world.page(world.start - 2, world.end, 0)
    rows = sum(at >= world.start for at in page.times)
    complete = page.is_last or rows < len(page.ids)
    return PageView(world.end, 0, rows if complete else None, page.ids[:rows], page.times[:rows])


def _instant(world: World, tie: OversizedTie) -> ProvenTie | None:
    """The rows of one instant, by one answer or two passes; given up at once where these cannot prove it."""
    read = _pass(world, tie)
    proven = coverage.tie_proof(read)
    if not proven and coverage.count_proof(read) is not None:
        earlier, read = read, _pass(world, tie)
        proven = coverage.tie_proof(read, earlier)
    return ProvenTie(tie.at, _ids(read)) if proven else None


def _ids(pages: list[PageView]) -> list[str]:
    return sorted({segment_id for page in pages for segment_id in page.ids})


def _pass(world: World, tie: OversizedTie) -> list[PageView]:
    first = world.page(tie.at, tie.to, 0)
    assert first.count is not None
    rest = coverage.offsets(first.count, world.setting.limit)[1:]
    return [first, *(world.page(tie.at, tie.to, offset) for offset in rest)]


class Tally(NamedTuple):
    """What a check found. A miss is an interleaving accepted without a row that was present throughout."""

    worlds: int  # tried to the end, in every interleaving
    interleavings: int
    accepted: int
    unproven: int  # every one of them at an instant whose ties came in another order each time
    missed: int
    requests: int
    example: str | None  # the first miss


def check(interleavings: int | None, seed: int = 1, *, stop: bool = False) -> Tally:
    """So many interleavings, or all there are; with `stop` only up to the first miss."""
    count: Counter[str] = Counter()
    example = None
    for world, ids in islice(_interleavings(seed), interleavings):
        count["tried"] += 1
        count["requests"] += world.reads
        count["worlds"] += world.is_done
        if ids is None:
            count["unproven"] += 1
        elif not world.throughout.issubset(ids):
            count["missed"] += 1
            example = example or f"{world.setting}, {world.first}: kept {ids} of {sorted(world.throughout)}"
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


def _interleavings(seed: int) -> Iterator[tuple[World, list[str] | None]]:
    for setting, rows in worlds(seed):
        choices, more = Choices(), True
        while more:
            world = World(rows, setting, choices.choose)
            ids = read_window(world)
            assert ids is None or len(set(ids)) == len(ids), f"{setting}, {rows}: an id is kept twice: {ids}"
            more = choices.advance()
            world.is_done = not more
            yield world, ids


def worlds(seed: int) -> list[tuple[Setting, tuple[Row, ...]]]:
    """All worlds and ways to read them, shuffled, so that the first few are a fair sample."""
    found = []
    for (limit, k, size), inclusive, mode in product(SHAPES, (False, True), MODES):
        for times in combinations_with_replacement(range(START, END + 1), size):
            below = [(START - 1, "z")] if mode == "prefix" else []
            rows = (*below, *zip(times, "abcdefgh", strict=False))
            found.append((Setting(limit, k, inclusive, mode), rows))
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
        f"{tally.interleavings:,} interleavings, all there are of {tally.worlds:,} worlds, "
        f"{tally.requests:,} requests, {time.perf_counter() - begun:.0f} s\n"
        f"accepted {tally.accepted:,}, unproven {tally.unproven:,}, missed {tally.missed:,}\n"
    )
    if tally.example:
        sys.stdout.write(f"first miss: {tally.example}\n")
    return 1 if tally.missed else 0


if __name__ == "__main__":
    sys.exit(main())
