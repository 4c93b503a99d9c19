"""Random worlds for pacers: servers, networks and clients that nobody chose, drawn by seed.

    python -m benchmarks.pacing_worlds                     200 worlds, the pacer beside the one before it
    python -m benchmarks.pacing_worlds 1000 --rivals       1,000 worlds and all rivals, which takes minutes
    python -m benchmarks.pacing_worlds --steady --stale    limits that do not move; states that are out of date

Worlds from 100,000 on were not used to choose the pacer's constants: the default. Goodput is a share of what a client
could be served that knows the limit and is never refused; it counts for 1.1 at most. The exit code says whether the
targets hold.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.pacing_previous import Pacer as PreviousPacer
from benchmarks.pacing_rivals import RIVALS
from benchmarks.pacing_world import (
    AtOnce,
    Conditions,
    FixedWindow,
    Limit,
    Outcome,
    Paced,
    RateAndAtOnce,
    SlidingWindow,
    TokenBucket,
    Unlimited,
    World,
)
from segment_fetch.throttle.pacer import Learned, Pacer

UNTUNED = 100_000
KINDS = ("bucket", "sliding window", "fixed window", "penalising", "at once", "rate and at once", "none")
WEIGHTS = (24, 17, 10, 5, 28, 12, 4)
MOST_REQUESTS = 25_000
TARGETS = {"all": (0.86, 0.60), "at once": (0.85, 0.0)}
MOST_MORE_429 = {"fixed window": 0.8, "rate and at once": 0.8}
MOST_LATE_429 = {1.0: 3.0, 10.0: 0.5, 40.0: 0.5}
STALE_COST = 0.10


@dataclass(frozen=True)
class Spec:
    """A world: the kind of its limit, with the figures of all kinds, and the conditions."""

    seed: int
    kind: str
    rate: float
    burst: int
    window: float
    at_once: int
    conditions: Conditions

    def limit(self) -> Limit:
        count = max(1, round(self.rate * self.window))
        match self.kind:
            case "bucket":
                return TokenBucket(self.rate, self.burst)
            case "sliding window" | "penalising":
                return SlidingWindow(count, self.window, penalise=self.kind == "penalising")
            case "fixed window":
                return FixedWindow(count, self.window, random.Random(self.seed).random() * self.window)
            case "at once":
                return AtOnce(self.at_once)
            case "rate and at once":
                return RateAndAtOnce(TokenBucket(self.rate, self.burst), AtOnce(self.at_once))
            case _:
                return Unlimited()

    def possible(self) -> float:
        """Requests that a client that knows the limit is served."""
        conditions, limit, total = self.conditions, self.limit(), 0.0
        half, trip = conditions.seconds / 2, conditions.round_trip
        for scale in (1.0, conditions.scaled):
            limit.scale(scale)
            served = max(0.0, limit.capacity(trip) - conditions.neighbour / 2) * half + limit.reserve(2 * half) / 2
            total += min(conditions.connections / trip * half, served)
        return total

    def play(self, pacer: Paced) -> Outcome:
        return World(self.limit(), self.conditions, self.seed).run(pacer)


def draw(seed: int) -> Spec:
    """Draw the world of a seed: the shape of the limit, how far and how even the service is, and all that disturbs."""
    source = random.Random(seed)
    chance = source.random

    def between(low: float, high: float) -> float:
        """As likely between 1 and 2 as between 10 and 20."""
        return low * math.exp(math.log(high / low) * chance())

    kind = source.choices(KINDS, WEIGHTS)[0]
    rate, window, at_once = between(0.5, 60), between(1, 60), round(between(1, 16))
    burst = round(between(1, 60)) if chance() < 0.75 else 1
    latency = between(0.03, 1.5)
    conditions = Conditions(
        seconds=source.choices((20.0, 60.0, 300.0, 900.0), (20, 30, 36, 14))[0],
        latency=latency,
        spread=source.uniform(0.1, 0.9),
        network=between(0.0005, 0.06),
        jitter=source.choice((0.0, 0.1, 0.5)),
        retry_after=chance() < 0.5 and kind != "at once",
        late=chance() < 0.3,
        refusal=source.uniform(0.005, 0.03),
        noise=source.choices((0.0, 0.001, 0.005), (70, 15, 15))[0],
        faults=source.choices((0.0, 0.002, 0.02), (80, 10, 10))[0],
        scaled=1.0 if kind == "none" else source.choices((1.0, 0.5, 2.0), (68, 18, 14))[0],
        connections=source.choice((4, 16, 16, 32)),
        timers=0.001,
    )
    spec = Spec(seed, kind, rate, burst, window, at_once, conditions)
    if chance() < 0.15 and kind != "none":
        share = source.uniform(0.2, 0.5) * spec.limit().capacity(conditions.round_trip)
        spec = replace(spec, conditions=replace(conditions, neighbour=share))
    while spec.possible() > MOST_REQUESTS and spec.conditions.seconds > 60:
        spec = replace(spec, conditions=replace(spec.conditions, seconds=spec.conditions.seconds / 3))
    return spec


@dataclass(frozen=True)
class Score:
    goodput: float
    refused: float  # the percentage of answers that were 429


def score(spec: Spec, make: Callable[[int], Paced]) -> Score:
    outcome = spec.play(make(spec.conditions.connections))
    return Score(min(1.1, outcome.accepted / spec.possible()), 100 * outcome.refused_share)


def tenth(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 10]


def pairs(ours: Iterable[float], theirs: Iterable[float]) -> tuple[float, float]:
    """The mean of the differences and its standard error."""
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        return 0.0, 0.0
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(differences))


PACERS: dict[str, Callable[[int], Paced]] = {
    "this pacer": lambda connections: Pacer(connections=connections),
    "the one before": lambda connections: PreviousPacer(connections=connections),
}


def compare(specs: Sequence[Spec], *, rivals: bool) -> bool:
    """Print goodput, its 10th percentile and the 429s by kind, and whether the targets hold."""
    pacers = PACERS | (RIVALS if rivals else {})
    scores = {name: [score(spec, make) for spec in specs] for name, make in pacers.items()}
    print("| worlds | | " + " | ".join(pacers) + " | more 429s |")
    print("|---|--:|" + "---|" * len(pacers) + "---|")
    good = True
    for name, chosen in groups(specs).items():
        cells = []
        for found in scores.values():
            goodput = [found[at].goodput for at in chosen]
            refused = statistics.fmean(found[at].refused for at in chosen)
            cells.append(f"{statistics.fmean(goodput):.2f}, {tenth(goodput):.2f} / {refused:.1f}")
        ours, before = scores["this pacer"], scores["the one before"]
        lasting = [at for at in chosen if specs[at].conditions.seconds >= 60]
        more, error = pairs([ours[at].refused for at in lasting], [before[at].refused for at in lasting])
        goodput = [ours[at].goodput for at in chosen]
        mean, low = TARGETS.get(name, (0.0, 0.0))
        holds = statistics.fmean(goodput) >= mean and tenth(goodput) >= low
        holds &= name not in KINDS or more <= MOST_MORE_429.get(name, 2 * error)
        good &= holds
        mark = "" if holds else " FAILS"
        print(f"| {name} | {len(chosen)} | {' | '.join(cells)} | {more:+.2f} ± {error:.2f}{mark} |")
    return good


def groups(specs: Sequence[Spec]) -> dict[str, list[int]]:
    """Worlds by kind, and by the conditions that matter most."""
    by: dict[str, Callable[[Spec], bool]] = {"all": lambda _: True}
    by |= {kind: (lambda spec, kind=kind: spec.kind == kind) for kind in KINDS}  # type: ignore[misc]
    by |= {
        "20 s": lambda spec: spec.conditions.seconds <= 20,
        "halves midway": lambda spec: spec.conditions.scaled < 1,
        "doubles midway": lambda spec: spec.conditions.scaled > 1,
        "neighbour": lambda spec: spec.conditions.neighbour > 0,
        "0.5 % random 429": lambda spec: spec.conditions.noise == 0.005,
        "429 late": lambda spec: spec.conditions.late,
    }
    found = {name: [at for at, spec in enumerate(specs) if holds(spec)] for name, holds in by.items()}
    return {name: chosen for name, chosen in found.items() if chosen}


def settled(spec: Spec, rate: float, kind: str) -> Spec:
    """The same world with a limit of `rate` that nothing disturbs, for 10 minutes."""
    source = random.Random(spec.seed)
    calm = replace(
        spec.conditions, seconds=600.0, noise=0.0, faults=0.0, neighbour=0.0, scaled=1.0, connections=16, latency=0.2
    )
    calm = replace(calm, latency=0.03 * (0.5 / 0.03) ** source.random())
    at_once = max(1, min(14, round(rate * calm.latency)))
    return Spec(spec.seed, kind, rate, min(spec.burst, 20), max(3 / rate, min(spec.window, 30)), at_once, calm)


def steady(worlds: int) -> bool:
    """Print the 429s of the second five minutes at limits that do not move, for 25 worlds a kind."""
    print("\n| limit, 429s after 5 minutes | " + " | ".join(f"{rate:g}/s" for rate in MOST_LATE_429) + " |")
    print("|---|" + "---|" * len(MOST_LATE_429))
    good = True
    for kind in ("bucket", "sliding window", "fixed window", "at once"):
        cells = []
        for rate, most in MOST_LATE_429.items():
            shares = []
            for seed in range(UNTUNED, UNTUNED + worlds):
                spec = settled(draw(seed), rate, kind)
                outcome = spec.play(Pacer(connections=16))
                asked = sum(at > 300 for at in outcome.sends)
                shares.append(100 * sum(at > 300 for at in outcome.refusals) / asked)
            holds = statistics.fmean(shares) <= most
            good &= holds
            cells.append(f"{statistics.fmean(shares):.2f} %{'' if holds else ' FAILS'}")
        print(f"| {kind} | {' | '.join(cells)} |")
    return good


STALE: dict[str, tuple[Callable[[], Limit], Callable[[], Limit]]] = {
    "bucket, halved since": (lambda: TokenBucket(20, 10), lambda: TokenBucket(10, 10)),
    "bucket, doubled since": (lambda: TokenBucket(10, 10), lambda: TokenBucket(20, 10)),
    "window, halved since": (lambda: SlidingWindow(200, 10), lambda: SlidingWindow(100, 10)),
    "window, doubled since": (lambda: SlidingWindow(100, 10), lambda: SlidingWindow(200, 10)),
    "at once, halved since": (lambda: AtOnce(6), lambda: AtOnce(3)),
    "at once, doubled since": (lambda: AtOnce(3), lambda: AtOnce(6)),
    "at once, a rate since": (lambda: AtOnce(3), lambda: TokenBucket(20, 10)),
    "a rate, at once since": (lambda: TokenBucket(10, 10), lambda: AtOnce(4)),
}


def stale(seeds: int) -> bool:
    """Print what a state that is out of date costs a run of 60 s, beside no state and beside the right one."""
    print("\n| state | out of date | none | right |\n|---|---|---|---|")
    good = True
    for name, (before, now) in STALE.items():
        runs: dict[str, list[Outcome]] = {"stale": [], "none": [], "right": []}
        for seed in range(seeds):
            for latency in (0.05, 0.2, 0.8):
                conditions = Conditions(seconds=60, latency=latency, network=0.005, jitter=0.3, timers=0.001)
                states = {"stale": taught(before(), conditions, seed), "right": taught(now(), conditions, seed)}
                for kind, found in runs.items():
                    found.append(World(now(), conditions, seed).run(Pacer(learned=states.get(kind))))
        means = {kind: statistics.fmean(run.goodput for run in found) for kind, found in runs.items()}
        holds = means["stale"] >= min((1 - STALE_COST) * means["right"], 1.0) and means["stale"] >= means["none"]
        good &= holds
        cells = [
            f"{means[kind]:.3f} / {100 * statistics.fmean(run.refused_share for run in found):.1f}"
            for kind, found in runs.items()
        ]
        print(f"| {name}{'' if holds else ' FAILS'} | {' | '.join(cells)} |")
    return good


def taught(limit: Limit, conditions: Conditions, seed: int) -> Learned:
    """Return the state that a run of 5 minutes leaves."""
    pacer = Pacer()
    World(limit, replace(conditions, seconds=300), seed + 1000).run(pacer)
    return pacer.learned(0.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacing_worlds", description=__doc__.splitlines()[0])
    parser.add_argument("worlds", type=int, nargs="?", default=200)
    parser.add_argument("--first", type=int, default=UNTUNED, metavar="SEED")
    parser.add_argument("--rivals", action="store_true", help="all rivals, not only the pacer of before")
    parser.add_argument("--steady", action="store_true", help="also limits that do not move")
    parser.add_argument("--stale", action="store_true", help="also states that are out of date")
    options = parser.parse_args()
    good = compare([draw(seed) for seed in range(options.first, options.first + options.worlds)], rivals=options.rivals)
    if options.steady:
        good &= steady(25)
    if options.stale:
        good &= stale(4)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
