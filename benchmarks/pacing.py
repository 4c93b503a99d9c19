"""Every pacer against every limit, by simulated events: the table of `docs/pacing.md`.

    python -m benchmarks.pacing               the pacer with 8 seeds, its rivals with 1
    python -m benchmarks.pacing --rivals 8    the rivals with as many, which takes minutes (0 leaves them out)
    python -m benchmarks.pacing --gates       only the pacer, only where it has a gate to pass
    python -m benchmarks.pacing --without     the pacer with one rule taken out at a time
    python -m benchmarks.pacing --picture docs/figures/pacing.svg    a run at each kind of limit, drawn

A cell is goodput as a share of what the limit allows / the percentage of answers that were 429: the mean over
the seeds, three latencies, with and without Retry-After. Exit code 1 if a gate does not hold.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.pacing_rivals import RIVALS, Fixed
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
from benchmarks.plot import timelines
from segment_fetch.throttle.pacer import Learned, Pacer

COLD = Conditions()
USUAL, QUICK, SLOW, LONG = (0.05, 0.2, 0.8), (0.02, 0.05, 0.1), (0.2, 0.4, 0.8), (1.2, 1.4, 1.5)


@dataclass(frozen=True)
class Row:
    """One server; `gate` is the least goodput and the largest percentage of 429."""

    name: str
    limit: Callable[[], Limit]
    conditions: Conditions = COLD
    latencies: tuple[float, ...] = USUAL
    gate: tuple[float, float] | None = None
    warm: bool = False


def bucket(rate: float = 10, burst: float = 10) -> Callable[[], Limit]:
    return lambda: TokenBucket(rate, burst)


def window(count: int = 100, seconds: float = 10) -> Callable[[], Limit]:
    return lambda: SlidingWindow(count, seconds)


def at_once(count: int = 5) -> Callable[[], Limit]:
    return lambda: AtOnce(count)


SHORT, HALVED, DOUBLED = Conditions(seconds=60), Conditions(scaled=0.5), Conditions(scaled=2)
NOISY, NOISIER, SHARED = Conditions(noise=0.002), Conditions(noise=0.005), Conditions(neighbour=5)
LATE = Conditions(late=True)
COLD_GATE, WARM_GATE, MOVING_GATE = (0.95, 0.6), (0.95, 0.3), (0.92, 1.5)

ROWS = (
    Row("token bucket 10/s, burst 10", bucket(), gate=COLD_GATE),
    Row("sliding window 100 in 10 s", window(), gate=COLD_GATE),
    Row("5 at once", at_once(), gate=COLD_GATE),
    Row("token bucket, warm, 60 s", bucket(), SHORT, gate=WARM_GATE, warm=True),
    Row("sliding window, warm, 60 s", window(), SHORT, gate=WARM_GATE, warm=True),
    Row("5 at once, warm, 60 s", at_once(), SHORT, gate=WARM_GATE, warm=True),
    Row("token bucket, halves midway", bucket(), HALVED, gate=MOVING_GATE),
    Row("sliding window, halves midway", window(), HALVED, gate=MOVING_GATE),
    Row("6 at once, halves midway", at_once(6), HALVED, gate=MOVING_GATE),
    Row("token bucket, cold, 60 s", bucket(), SHORT),
    Row("sliding window, cold, 60 s", window(), SHORT),
    Row("5 at once, cold, 60 s", at_once(), SHORT),
    Row("token bucket, doubles midway", bucket(), DOUBLED),
    Row("token bucket 10/s, burst 1", bucket(burst=1)),
    Row("token bucket 10/s, burst 10, 429 late", bucket(), LATE),
    Row("token bucket 10/s, burst 1, 429 late", bucket(burst=1), LATE),
    Row("5 at once, 429 late", at_once(), LATE),
    Row("fixed window 100 in 10 s", lambda: FixedWindow(100, 10)),
    Row("sliding window 600 in 60 s", window(600, 60)),
    Row("token bucket 1/s, burst 5", bucket(1, 5)),
    Row("sliding window 10 in 10 s", window(10)),
    Row("token bucket 100/s, burst 100", bucket(100, 100), latencies=QUICK),
    Row("sliding window 1000 in 10 s", window(1000), latencies=QUICK),
    Row("token bucket, 12 to 15 in flight", bucket(), latencies=LONG),
    Row("sliding window, 12 to 15 in flight", window(), latencies=LONG),
    Row("token bucket, neighbour 5/s on and off", bucket(), SHARED),
    Row("sliding window, neighbour 5/s on and off", window(), SHARED),
    Row("token bucket, 0.2 % random 429", bucket(), NOISY),
    Row("token bucket, 0.5 % random 429", bucket(), NOISIER),
    Row("sliding window, 0.5 % random 429", window(), NOISIER),
    Row("no limit, 0.2 % random 429", Unlimited, NOISY, SLOW),
    Row("no limit, 0.5 % random 429", Unlimited, NOISIER, SLOW),
)

BESIDE: dict[str, Callable[[int], Paced]] = {"fixed 9.7/s": Fixed, **RIVALS}

# The constants that turn each rule off.
NEVER = math.inf
RULES: dict[str, dict[str, object]] = {
    "nothing": {},
    "the lead": {"LEAD": NEVER},
    "doubt of the refused rate": {"CERTAIN": 1.0},
    "the creep": {"CREEP": 0.0},
    "slow steps at slow limits": {"SLOW": 0.0},
    "patience": {"SAME": -1.0},
    "longer pauses": {"LONGEST": 1},
    "proof of a number": {"PROOF": 1},
    "chance": {"CHANCE": NEVER},
    "holding below": {"HOLD": 1.0},
}


def warmed(row: Row, conditions: Conditions, seed: int) -> Learned:
    """Return what a cold run of 5 minutes against the same server saves for the next one."""
    pacer = Pacer()
    World(row.limit(), Conditions(latency=conditions.latency), seed + 1000).run(pacer)
    return pacer.learned(0.0)


def outcomes(row: Row, make: Callable[[int], Paced] | None, seeds: int) -> Iterator[Outcome]:
    """Play each run; without `make` the pacer is this project's."""
    kinds = itertools.product(row.latencies, (True, False), range(seeds))
    for latency, retry_after, seed in kinds:
        conditions = replace(row.conditions, latency=latency, retry_after=retry_after)
        learned = warmed(row, conditions, seed) if row.warm and make is None else None
        pacer = make(conditions.connections) if make else Pacer(learned=learned)
        yield World(row.limit(), conditions, seed).run(pacer)


def measure(row: Row, make: Callable[[int], Paced] | None, seeds: int) -> tuple[float, float]:
    """Mean goodput, and the mean percentage of 429."""
    runs = list(outcomes(row, make, seeds))
    return (
        sum(run.goodput for run in runs) / len(runs),
        100 * sum(run.refused_share for run in runs) / len(runs),
    )


def cell(result: tuple[float, float]) -> str:
    goodput, refused = result
    return f"{goodput:.2f} / {refused:.{2 if refused < 10 else 0}f}"


def holds(row: Row, result: tuple[float, float]) -> bool:
    return row.gate is None or (result[0] >= row.gate[0] and result[1] <= row.gate[1])


def compare(rows: Iterable[Row], seeds: int, rival_seeds: int) -> bool:
    """Prints the table; whether every gate holds."""
    rivals = BESIDE if rival_seeds else {}
    print("| server | gate | this pacer |" + "".join(f" {name} |" for name in rivals))
    print("|---|---|---|" + "---|" * len(rivals))
    good = True
    for row in rows:
        ours = measure(row, None, seeds)
        good &= holds(row, ours)
        gate = f"{row.gate[0]} / {row.gate[1]}" if row.gate else ""
        mark = "" if holds(row, ours) else " FAILS"
        theirs = (f" {cell(measure(row, make, rival_seeds))} |" for make in rivals.values())
        print(f"| {row.name} | {gate} | **{cell(ours)}**{mark} |" + "".join(theirs), flush=True)
    return good


def patched(rule: str) -> ExitStack:
    """Turn one rule off until the block ends."""
    stack = ExitStack()
    for name, value in RULES[rule].items():
        stack.enter_context(patch(f"segment_fetch.throttle.pacer.{name}", value))
    return stack


def ablate(seeds: int) -> None:
    print("| without |", " | ".join(row.name for row in ROWS), "|")
    print("|---|" + "---|" * len(ROWS))
    for rule in RULES:
        with patched(rule):
            print(f"| {rule} |", " | ".join(cell(measure(row, None, seeds)) for row in ROWS), "|", flush=True)


PICTURED: dict[str, tuple[Callable[[], Limit], float]] = {
    "token bucket 10/s, burst 10": (bucket(), 1.0),
    "sliding window 100 in 10 s": (window(), 1.0),
    "fixed window 100 in 10 s": (lambda: FixedWindow(100, 10), 1.0),
    "5 at once": (at_once(), 1.0),
    "10/s and 5 at once": (lambda: RateAndAtOnce(TokenBucket(10, 10), AtOnce(5)), 1.0),
    "token bucket 10/s, 20/s after 5 minutes": (bucket(), 2.0),
}


def picture(path: Path) -> None:
    """Draw ten minutes at each kind of limit: the rate (up to 40/s), the cap, and when a 429 came."""
    panels = {}
    for name, (limit, scaled) in PICTURED.items():
        rates, caps = [0.0], [0.0]

        class Sampled(Pacer):
            def next_send(self, now: float, rates: list[float] = rates, caps: list[float] = caps) -> float:
                wait = super().next_send(now)
                while len(rates) < now:
                    rates.append(min(40.0, self.rate))
                    caps.append(self.cap)
                return wait

        outcome = World(limit(), Conditions(seconds=600, network=0.01, scaled=scaled), 1).run(Sampled())
        panels[name] = ({"requests a second": rates, "at once, at most": caps}, outcome.refusals)
    path.write_text(timelines("Ten minutes at each kind of limit", 600, panels))


def ramp() -> None:
    """Return the time a cold client takes to reach 500/s at a server without a limit, and its cost."""
    conditions = Conditions(seconds=30, latency=0.02)
    outcome = World(Unlimited(), conditions, 1).run(Pacer())
    fast = next(at for before, at in zip(outcome.sends, outcome.sends[50:], strict=False) if at - before <= 0.1)
    lost = conditions.seconds * (1 - outcome.goodput)
    print(f"\nno limit, 16 connections, 20 ms: 500/s after {fast:.1f} s; the start costs {lost:.1f} s in all")


def cost(requests: int = 200_000) -> None:
    """Return the time that the pacer itself takes, the caller's loop included."""
    pacer, now = Pacer(learned=Learned(1e6, limited=True, cap=None, at=0.0)), 0.0
    began = time.perf_counter()
    for _ in range(requests):
        now += 1e-5
        pacer.next_send(now)
        pacer.accepted(pacer.sent(now), now)
    print(f"a request costs {(time.perf_counter() - began) / requests * 1e6:.1f} us of processor time")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacing", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--rivals", type=int, default=1, metavar="SEEDS")
    parser.add_argument("--gates", action="store_true", help="only the rows with a gate, without rivals")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw runs as SVG, and nothing else")
    parser.add_argument("--without", action="store_true", help="take out one rule at a time")
    options = parser.parse_args()
    if options.picture:
        picture(options.picture)
        return 0
    if options.without:
        ablate(options.seeds)
        return 0
    if options.gates:
        return 0 if compare([row for row in ROWS if row.gate], options.seeds, 0) else 1
    good = compare(ROWS, options.seeds, options.rivals)
    ramp()
    cost()
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
