"""A night of a fleet that is larger than a machine, simulated: discrete events, no network.

    python -m benchmarks.fleet_simulation [--accounts 10000] [--workers 16] [--seed 1] [--smoke]

Accounts have random sizes, limits and outages (their service is down for a while). A shard is a worker that runs some
accounts at once, in their order. Of the workers none dies, or a tenth (at least one) at a random moment of its work: it
is started again, and reads again only the windows that were not committed. What a request costs a worker's core is
measured by `benchmarks.fleet`; here it is a constant.
"""

import argparse
import random
from collections.abc import Sequence
from statistics import quantiles

import msgspec

from benchmarks.report import publish, table
from segment_fetch.fleet.shards import shard_of

PAGE = 500  # segments a request
PAGES = 14  # of a window, about a day of a large account, committed at once
CORE_S = 0.003  # of a worker's core for a request with its segments, as `benchmarks.fleet` measures it
AT_ONCE = 200  # accounts
RESTART_S = 60.0  # until a worker that died is replaced


class Account(msgspec.Struct, frozen=True):
    """A night of an account: requests, the limit (requests a second), and an outage (from, seconds) if there is one."""

    account: str
    requests: int
    limit: float
    down_at: float
    down_s: float


def accounts(count: int, seed: int) -> list[Account]:
    """Return random accounts: sizes are log-normal (median 2,000 segments a night, a few above 200,000)."""
    chance = random.Random(seed)
    return [
        Account(
            account=str(100_000 + number),
            requests=2 + int(chance.lognormvariate(7.6, 1.6)) // PAGE,
            limit=chance.choice((1.0, 2.0, 5.0, 10.0)),
            down_at=chance.uniform(0, 3_600) if chance.random() < 0.02 else float("inf"),
            down_s=chance.expovariate(1 / 300),
        )
        for number in range(count)
    ]


def shard_ends(shard: Sequence[Account], dies_at: float = float("inf")) -> list[float]:
    """Return when each account of a shard is done (s), where its worker dies once at `dies_at`.

    Accounts share the worker's core: while those that run ask for more than it has, all are slowed alike, and each that
    ends, or whose service is down, frees its part for the others.
    """
    waiting, running, done = list(reversed(shard)), list[Account](), list[float]()
    left = {each.account: float(each.requests) for each in shard}
    now = 0.0
    while running or waiting:
        while waiting and len(running) < AT_ONCE:
            running.append(waiting.pop())
        up = [each for each in running if not each.down_at <= now < each.down_at + each.down_s]
        slowed = max(1.0, sum(each.limit for each in up) * CORE_S)
        turns = [turn for each in running for turn in (each.down_at, each.down_at + each.down_s) if turn > now]
        moment = min(*(now + left[each.account] / each.limit * slowed for each in up), *turns, dies_at)
        for each in up:
            left[each.account] -= (moment - now) * each.limit / slowed
        now = moment
        if now == dies_at:
            for each in running:
                read = int(each.requests - left[each.account]) // PAGES * PAGES
                left[each.account] = each.requests - read + 1.0  # one small look
            waiting += reversed(running)
            running, now, dies_at = [], now + RESTART_S, float("inf")
        ended = [each for each in up if left[each.account] < 1e-6]
        running = [each for each in running if each not in ended]
        done += [now] * len(ended)
    return done


def night(fleet: Sequence[Account], workers: int, *, dying: float, seed: int) -> list[float]:
    """Return when each account is done (s), where a share of the workers dies at a random moment of its work."""
    chance = random.Random(seed)
    doomed = set(chance.sample(range(workers), round(workers * dying + 0.49)))
    ends: list[float] = []
    for index in range(workers):
        shard = shard_of(fleet, index, workers)
        usual = shard_ends(shard)
        ends += shard_ends(shard, chance.uniform(0, max(usual, default=0.0))) if index in doomed else usual
    return sorted(ends)


def main() -> None:
    """Simulate, and print when accounts are done."""
    options = _options()
    fleet = accounts(options.accounts, options.seed)
    rows = []
    for workers in (options.workers // 4, options.workers // 2, options.workers, options.workers * 4):
        for dying in (0.0, 0.1):
            ends = night(fleet, max(1, workers), dying=dying, seed=options.seed)
            half, most = quantiles(ends, n=100)[49], quantiles(ends, n=100)[98]
            rows.append(
                [f"{max(1, workers)}", f"{dying:.0%}", f"{half / 60:.1f}", f"{most / 60:.1f}", f"{ends[-1] / 60:.1f}"]
            )
    requests = sum(each.requests for each in fleet)
    slowest = max(each.requests / each.limit for each in fleet) / 60
    told = f"{len(fleet):,} accounts, {requests:,} requests; the slowest account alone takes {slowest:.1f} minutes."
    header = ["workers", "of them die", "half done, min", "99 % done, min", "all done, min"]
    publish("fleet_simulation", f"{table(header, rows)}\n\n{told}", write=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet_simulation", description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="few accounts")
    options = parser.parse_args()
    if options.smoke:
        options.accounts = 200
    return options


if __name__ == "__main__":
    main()
