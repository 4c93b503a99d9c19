"""Reads windows from a service that breaks a fifth of its answers, over real sockets, and counts what was lost.

    python -m tests.chaos.faults --runs 20

Every kind of fault alone, refusals and redirects too, and all of them together, settled and provisional. Retry delays,
pauses and timeouts are cut to next to nothing, so that the runs are quick; the number of attempts is what users have.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from unittest import mock

from msgspec import Struct, structs

from segment_fetch import BearerToken, RetryPolicy, SegmentClient
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.errors import CredentialsError, RequestRefusedError
from segment_fetch.simulator import Dataset, Fault, Faults, Simulator
from tests.chaos import ways

NOW = 1_795_000_000.0
DAY_MS = 86_400_000
QUICK = RetryPolicy(server=(0.01,) * 3, network=(0.01,) * 3, parked=(0.05, 0.05), probe=0.05)
SHARE = 0.2


class Outcome(Struct):
    """Sums over the runs of a kind. `ended` are those that ended with an error and were begun again.

    A run may end so where the very first answer refuses it, or where refused credentials were probed in vain: of one
    that has been served, nothing else ends it.
    """

    runs: int = 0
    lost: int = 0
    doubled: int = 0
    unproven: int = 0
    ended: int = 0
    requests: int = 0
    pages: int = 0


def mixes() -> dict[str, Faults]:
    """Each kind alone, and all together, a fifth of the answers broken."""
    none = Faults(retry_after_s=0, slow_body_s=0.1)
    kinds = {kind.value: structs.replace(none, **{kind.value: SHARE}) for kind in Fault}
    share = dict.fromkeys((kind.value for kind in Fault), SHARE / len(Fault))
    return kinds | {"all together": structs.replace(none, **share)}


async def run(faults: Faults, seed: int, segments: int, outcome: Outcome, *, settled: bool) -> None:
    """One reading of one day."""
    end = int(NOW * 1000) - (3 * DAY_MS if settled else 0)
    dataset = Dataset(segments=segments, start=end - DAY_MS, end=end, seed=seed)
    async with Simulator(
        dataset, faults=structs.replace(faults, seed=seed), clock=lambda: NOW, to_inclusive=bool(seed % 2)
    ) as simulator:
        async with SegmentClient(
            dataset.account,
            auth=BearerToken("faults"),
            source="faults",
            base_url=simulator.base_url,
            rate=None,
            connections=8,
            retry=QUICK,
            timeouts=Timeouts(connect=5, read=0.15, total=5),
            clock=lambda: NOW,
        ) as client:
            read, proven = await _read_at_last(client, simulator, end, outcome, stored=seed % 4 > 1)
        truth = set(simulator.ids(end - DAY_MS, end))
    rows = [segment_id for _, segment_id in read]
    outcome.runs += 1
    outcome.unproven += not proven
    outcome.lost += len(truth - set(rows)) if rows else 0
    outcome.doubled += len(rows) - len(set(rows))
    outcome.requests += simulator.stats.requests
    outcome.pages += math.ceil(len(truth) / 500)


async def _read_at_last(
    client: SegmentClient, simulator: Simulator, end: int, outcome: Outcome, *, stored: bool
) -> tuple[list[ways.Row], bool]:
    for _ in range(10):
        served = simulator.stats.answers[200]
        try:
            return await ways.read(client, end - DAY_MS, end, stored=stored)
        except (CredentialsError, RequestRefusedError) as error:
            if simulator.stats.answers[200] > served and not isinstance(error, CredentialsError):
                raise
            outcome.ended += 1
    return [], False


async def run_kind(faults: Faults, runs: int, segments: int = 10_000) -> Outcome:
    """All runs of a kind, every other one of a window that is not settled yet."""
    outcome = Outcome()
    with mock.patch("segment_fetch.throttle.limiter.MIN_PAUSE_S", 0.01):
        for seed in range(1, runs + 1):
            await run(faults, seed, segments, outcome, settled=seed % 2 == 0)
    return outcome


def main() -> int:
    """Prints a table; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="runs of each kind")
    options = parser.parse_args()
    started, failed = time.monotonic(), 0
    names = ("runs", "lost", "doubled", "unproven", "ended", "requests")
    print(f"{'fault, 20 % of answers':24}" + "".join(f"{name:>9}" for name in names))
    for name, faults in mixes().items():
        seen = asyncio.run(run_kind(faults, options.runs))
        good = not (seen.lost or seen.doubled or seen.unproven)
        failed += not good
        sums = (seen.runs, seen.lost, seen.doubled, seen.unproven, seen.ended)
        line = f"{name:24}" + "".join(f"{number:9}" for number in sums)
        print(f"{line} {seen.requests / seen.pages:7.2f} x{'' if good else '   FAILED'}", flush=True)
    print(f"{time.monotonic() - started:.0f} s; {'nothing lost' if not failed else f'{failed} kinds failed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
