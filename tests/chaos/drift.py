"""Reads windows that change while they are read, over real sockets, and holds what came against what was there.

    python -m tests.chaos.drift --runs 200

Every kind of drift gets its runs. The simulator's clock moves on by 50 ms with each request, as if pages took 0.4 s and
eight were in flight; nothing waits. A segment is *missed* if it was there from the first request to the last and did
not come, *doubled* if it came twice, *foreign* if it never was there.

The kinds behind them are servers whose answers do not agree with each other. With `--before`, settled windows are read
by the rules as they were before that was allowed for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from email.utils import formatdate
from random import Random

from msgspec import Struct, structs

from segment_fetch import BearerToken, RetryPolicy, SegmentClient
from segment_fetch.simulator import Dataset, Drift, Simulator
from segment_fetch.windows.planning import pages
from tests.chaos.odd_worlds import Odd, OddServer, rules_as_before
from tests.chaos.ways import read
from tests.support import raw_server

NOW = 1_795_000_000.0
DAY_MS = 86_400_000
STEP_S = 0.05


class Kind(Struct, frozen=True):
    """One kind of drift. `bound` is the most requests as a multiple of those that a still world takes.

    `wrong` is the share of runs that may miss a row, where that is not promised; `unproven` if that is what is due.
    """

    name: str
    drift: Drift
    ties: float = 0.0
    burst: int = 0
    settled: bool = False
    split_above: int = 50_000
    bound: float = 1.10
    odd: Odd | None = None
    wrong: float = 0.0
    unproven: bool = False


KINDS = (
    Kind("still, settled", Drift(), settled=True, bound=1.0),
    Kind("still, provisional", Drift()),
    Kind("late rows +0.1/s", Drift(inserts_per_s=0.1)),
    Kind("late rows +1/s", Drift(inserts_per_s=1)),
    Kind("late rows +6.5/s", Drift(inserts_per_s=6.5)),
    Kind("rows vanish 1/s", Drift(removals_per_s=1)),
    Kind("swaps 2/s, count constant", Drift(swaps_per_s=2)),
    Kind("all at once", Drift(inserts_per_s=3, removals_per_s=1, swaps_per_s=1, shuffle_ties=True), ties=0.1),
    Kind("late rows +1/s, split", Drift(inserts_per_s=1), split_above=6_000),
    Kind(
        "all at once, split",
        Drift(inserts_per_s=3, removals_per_s=1, swaps_per_s=1, shuffle_ties=True),
        ties=0.1,
        split_above=6_000,
    ),
    Kind("unstable ties, settled", Drift(shuffle_ties=True), ties=0.1, settled=True),
    Kind("unstable ties, provisional", Drift(shuffle_ties=True), ties=0.1),
    Kind("2,000 on one ms, settled", Drift(), burst=2000, settled=True, bound=1.3),
    Kind("late rows +1/s, settled", Drift(inserts_per_s=1), settled=True, bound=2.2),
    Kind("rows vanish 1/s, settled", Drift(removals_per_s=1), settled=True, bound=2.2),
    Kind("2,000 on one ms, unstable", Drift(shuffle_ties=True), burst=2000, settled=True, bound=3.5),
    Kind("2,000 on one ms, provisional", Drift(), burst=2000, bound=1.3),
    Kind("2,000 on one ms, late rows", Drift(inserts_per_s=1), burst=2000, bound=1.3),
)

ODD_KINDS = (
    Kind("100 out and 100 in, settled", Drift(), settled=True, odd=Odd(burst=100), bound=2.5),
    Kind("1 out and 1 in a page, settled", Drift(), settled=True, odd=Odd(swaps=1), bound=2.5),
    Kind("a close time moves, settled", Drift(), settled=True, odd=Odd(moved=1), bound=2.5),
    Kind("a close time moves, provisional", Drift(), odd=Odd(moved=1), bound=1.3, wrong=0.25),
    Kind("a replica behind, settled", Drift(), settled=True, odd=Odd(arrivals=0.5, lag=3), bound=2.5),
    Kind("a replica behind, provisional", Drift(), odd=Odd(arrivals=0.5, lag=3), bound=1.3),
    Kind("stale counts, settled", Drift(), settled=True, odd=Odd(arrivals=0.5, stale=0.1), bound=2.5),
    Kind("counts stop at 1,000, settled", Drift(), settled=True, odd=Odd(cap=1_000), bound=2.5),
    Kind("half frames 10 %, settled", Drift(), settled=True, odd=Odd(narrow=0.1), bound=1.5),
    Kind("half frames always, settled", Drift(), settled=True, odd=Odd(late=True), bound=1.5, unproven=True),
)


class Outcome(Struct):
    """Sums over the runs of a kind. `wrong` are the runs that were accepted and missed a row."""

    runs: int = 0
    wrong: int = 0
    missed: int = 0
    doubled: int = 0
    unproven: int = 0
    unordered: int = 0
    requests: int = 0
    still: int = 0
    worst: float = 0.0

    @property
    def ratio(self) -> float:
        """Requests as a multiple of those that a still world takes."""
        return self.requests / max(1, self.still)


class _Clock:
    """Seconds since the epoch that pass when a request comes."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        self.now += STEP_S
        return self.now


async def run(kind: Kind, seed: int, segments: int, outcome: Outcome) -> None:
    """One reading of one window."""
    if kind.odd is not None:
        await run_odd(kind, kind.odd, seed, segments, outcome)
        return
    age = 3 * DAY_MS if kind.settled else 0
    end = int(NOW * 1000) - age
    dataset = Dataset(segments=segments, start=end - DAY_MS, end=end, seed=seed, ties=kind.ties, burst=kind.burst)
    drift = structs.replace(kind.drift, seed=seed)
    simulator = Simulator(dataset, drift=drift, clock=_Clock(), latency_ms=(0, 2), to_inclusive=bool(seed % 2))
    async with simulator:
        since = simulator.mark()
        client = SegmentClient(
            dataset.account,
            auth=BearerToken("drift"),
            source="drift",
            base_url=simulator.base_url,
            rate=None,
            connections=8,
            split_above=kind.split_above,
            clock=lambda: NOW,
        )
        async with client:
            rows, proven = await read(client, end - DAY_MS, end, stored=seed % 4 > 1)
        there = simulator.ids_throughout(end - DAY_MS, end, since=since)
        count = max(len(there), len(simulator.ids(end - DAY_MS, end)))
    _add(outcome, rows, there, simulator.stats.requests, count, proven=proven)


async def run_odd(kind: Kind, odd: Odd, seed: int, segments: int, outcome: Outcome) -> None:
    """One reading of one window of a server whose answers do not agree."""
    end = int(NOW * 1000) - (3 * DAY_MS if kind.settled else 0)
    span, chance = (end - DAY_MS, end), Random(seed)
    rows = sorted((chance.randrange(*span), f"row-{at}") for at in range(segments))
    server = OddServer(odd, rows, span, formatdate(NOW, usegmt=True), seed)
    async with raw_server(server) as raw:
        client = SegmentClient(
            "111111",
            auth=BearerToken("drift"),
            source="drift",
            base_url=raw.url,
            rate=None,
            connections=8,
            retry=RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, parked=(0.0, 0.0), jitter=0.0),
            clock=lambda: NOW,
        )
        async with client:
            came, proven = await read(client, *span, stored=seed % 4 > 1)
    _add(outcome, came, server.throughout, server.requests, segments, proven=proven)


def _add(
    outcome: Outcome, rows: list[tuple[int, str]], there: set[str], requests: int, count: int, *, proven: bool
) -> None:
    came = {segment_id for _, segment_id in rows}
    outcome.unordered += rows != sorted(rows)
    outcome.runs += 1
    outcome.unproven += not proven
    outcome.missed += (missed := len(there - came) if proven else 0)
    outcome.wrong += missed > 0
    outcome.doubled += len(rows) - len(came)
    outcome.requests += requests
    outcome.still += (still := pages(count, 500))
    outcome.worst = max(outcome.worst, requests / still)


async def run_kind(kind: Kind, runs: int, segments: int = 20_000) -> Outcome:
    """All runs of a kind."""
    outcome = Outcome()
    for seed in range(1, runs + 1):
        await run(kind, seed, segments, outcome)
    return outcome


def _lines(kinds: tuple[Kind, ...], runs: int, segments: int) -> Iterator[tuple[str, bool]]:
    names = ("runs", "wrong", "missed", "doubled", "unproven", "requests", "worst")
    yield f"{'drift':32}" + "".join(f"{name:>9}" for name in names), True
    for kind in kinds:
        seen = asyncio.run(run_kind(kind, runs, segments))
        sums = (seen.runs, seen.wrong, seen.missed, seen.doubled, seen.unproven)
        line = f"{kind.name:32}" + "".join(f"{number:9}" for number in sums)
        good = holds(kind, seen)
        yield f"{line} {seen.ratio:7.3f} x {seen.worst:5.2f} x{'' if good else '   FAILED'}", good


def holds(kind: Kind, seen: Outcome) -> bool:
    """True if what is promised holds."""
    exact = not (seen.doubled or seen.unordered) and seen.wrong <= kind.wrong * seen.runs
    return exact and seen.unproven == (seen.runs if kind.unproven else 0) and seen.ratio <= kind.bound


def main() -> int:
    """Prints a table; exit code 1 if any kind failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="runs of each kind")
    parser.add_argument("--segments", type=int, default=20_000, help="segments in the window")
    parser.add_argument("--odd", action="store_true", help="only the servers whose answers do not agree")
    parser.add_argument("--before", action="store_true", help="those, by the rules as they were before")
    options = parser.parse_args()
    started, failed = time.monotonic(), 0
    kinds: tuple[Kind, ...] = KINDS + ODD_KINDS
    if options.odd or options.before:
        kinds = tuple(kind for kind in ODD_KINDS if kind.settled or not options.before)
    with rules_as_before() if options.before else nullcontext():
        for line, good in _lines(kinds, options.runs, options.segments):
            print(line, flush=True)
            failed += not good
    print(f"{time.monotonic() - started:.0f} s; {'all kinds hold' if not failed else f'{failed} kinds failed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
