"""A night of a fleet that is larger than a machine, simulated: discrete events, no network.

    python -m benchmarks.fleet_simulation [--accounts 10000] [--workers 16] [--seed 1] [--smoke]

Accounts have random sizes, limits and outages (their service is down for a while). A shard is a worker that runs some
accounts at once, in their order. Of the workers none dies, or a tenth (at least one) at a random moment of its work: it
is started again, and reads again only the windows that were not committed. What a request costs a worker's core is
measured by `benchmarks.fleet`; here it is a constant.
"""

import argparse
import heapq
import random
from collections.abc import Sequence
from statistics import quantiles

import msgspec

from benchmarks.report import publish, table
from segment_fetch.fleet.shards import shard_of

PAGE = 500  # segments a request
WINDOW = 7_000  # segments committed at once, about a day of a large account
CORE_S = 0.003  # of a worker's core for a request, with its segments and their share of a commit: assumed
AT_ONCE = 200  # accounts
RESTART_S = 60.0  # until a worker that died is replaced


class Account(msgspec.Struct, frozen=True):
    """A night of an account: requests, the limit (requests a second), and an outage (from, seconds) if there is one."""

    account: str
    requests: int
    limit: float
    down_at: float
    down_s: float

    def ends(self, start: float, requests: int, slowed: float) -> float:
        """Return when so many requests are answered (s), if the worker's core stretches time by `slowed`."""
        end = start + requests / self.limit * slowed
        met = start < self.down_at + self.down_s and end > self.down_at
        return end + self.down_at + self.down_s - max(start, self.down_at) if met else end


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
    """Return when each account of a shard is done (s), where its worker dies once at `dies_at`."""
    busy = sum(min(AT_ONCE, len(shard)) * each.limit for each in shard) / max(1, len(shard)) * CORE_S
    slowed = max(1.0, busy)  # more work a second than a core has seconds
    waiting = list(reversed(shard))
    running: list[tuple[float, int, float, int]] = []  # end, place in the shard, start, requests
    places = {each.account: place for place, each in enumerate(shard)}
    left = {each.account: each.requests for each in shard}
    done: list[float] = []

    def begin(moment: float) -> None:
        while waiting and len(running) < AT_ONCE:
            each = waiting.pop()
            requests = left[each.account]
            heapq.heappush(running, (each.ends(moment, requests, slowed), places[each.account], moment, requests))

    begin(0.0)
    while running:
        if running[0][0] > dies_at:
            for end, place, start, requests in running:
                each = shard[place]
                read = requests * (dies_at - start) / (end - start) if end > start else 0
                per_window = WINDOW // PAGE
                left[each.account] = requests - int(read) // per_window * per_window + 1  # one small look
                waiting.append(each)
            restart, dies_at = dies_at + RESTART_S, float("inf")
            running.clear()
            begin(restart)
            continue
        end, *_ = heapq.heappop(running)
        done.append(end)
        begin(end)
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
