"""Growth of time, CPU and memory with the segments: time and CPU linear, memory constant.

    python -m benchmarks.growth [--sizes 10000 100000 200000 1000000 10000000] [--allowed 30] [--recent] [--write]

Each size is extracted into JSON Lines in a new process, with every check on, and what was written is checked. The
server, on a core of its own, has rendered the pages beforehand, for which it takes 0.5 GB a million segments; with
`--render` it renders them when they are asked for, and time is the server's. Sizes up to a million are measured three
times, and the medians taken, but the highest peak. The slope of time and CPU over segments, both as logarithms, is 1.0
where the cost is linear; `x linear` is a size's cost over that of the straight line through all of them. Exit code 1 if
the largest takes more than `--allowed` MB (10^6 bytes) above 200,000 segments. All segments closed two days ago or
earlier; `--recent` lets them end now, so that the newest may still change.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean, linear_regression, median

from benchmarks.extract import run_once
from benchmarks.harness import closed, serving
from benchmarks.measure import Cost
from benchmarks.plot import lines
from benchmarks.report import publish, table

_SIZES = [10_000, 100_000, 200_000, 1_000_000, 10_000_000]
_SMOKE = [1_000, 4_000]
_BASE = 200_000
_RECENT_DAYS, _SETTLED_DAYS = 27.0, 25.0
_REPEATED = 1_000_000
_KEEP_BYTES = 16 * 2**30


def measure(segments: int, *, recent: bool, render: bool) -> Cost:
    """Extract nearly the month that the API keeps, and check what was written."""
    days, ago = (_RECENT_DAYS, 0) if recent else (_SETTLED_DAYS, 2)
    served = closed(segments, days=days, days_ago=ago, keep_bytes=0 if render else _KEEP_BYTES)
    with serving(served) as base_url:
        if not render:
            run_once("client", base_url, served)
        costs = [run_once("client", base_url, served) for _ in range(1 if segments > _REPEATED else 3)]
    print(f"{segments:,} segments: {costs}", file=sys.stderr, flush=True)
    seconds, cpu = median(cost.seconds for cost in costs), median(cost.cpu for cost in costs)
    return Cost(seconds, cpu, max(cost.peak_mb for cost in costs))


def slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the exponent of the growth: 1.0 is linear, 2.0 quadratic."""
    return linear_regression([math.log(size) for size in sizes], [math.log(cost) for cost in costs]).slope


def over_linear(sizes: Sequence[int], costs: Sequence[float]) -> list[float]:
    """Return each cost over that of the straight line through the middle of them all."""
    each = [cost / size for size, cost in zip(sizes, costs, strict=True)]
    middle = math.exp(fmean(map(math.log, each)))
    return [one / middle for one in each]


def shown(sizes: Sequence[int], costs: Sequence[Cost], ratios: Mapping[str, Sequence[float]]) -> str:
    """Return the table, the ratios first."""
    rows = [
        [
            f"{size:,}",
            *(f"{values[at]:.2f}" for values in ratios.values()),
            f"{cost.seconds:.2f}",
            f"{cost.cpu:.2f}",
            f"{cost.peak_mb:.0f}",
        ]
        for at, (size, cost) in enumerate(zip(sizes, costs, strict=True))
    ]
    return table(["segments", *ratios, "s", "CPU s", "peak MB"], rows)


def main() -> None:
    """Measure each size, and print the table."""
    options = _options()
    sizes = sorted(options.sizes)
    costs = [measure(size, recent=options.recent, render=options.render) for size in sizes]
    peaks = [cost.peak_mb for cost in costs]
    taken = {"time": [cost.seconds for cost in costs], "CPU": [cost.cpu for cost in costs]}
    ratios = {f"{name}, x linear": over_linear(sizes, values) for name, values in taken.items()}
    base, peak = next((pair for pair in zip(sizes, peaks, strict=True) if pair[0] >= _BASE), (sizes[-1], peaks[-1]))
    said = (
        f"Slope of time {slope(sizes, taken['time']):.3f}, of CPU {slope(sizes, taken['CPU']):.3f}; linear is 1.0. The "
        f"largest takes {peaks[-1] - peak:.1f} MB more than {base:,} segments; {options.allowed:.0f} are allowed."
    )
    series = {**ratios, "peak memory, x the first": [one / peaks[0] for one in peaks]}
    plot = lines("Growth: level lines are linear cost and constant memory", "segments", sizes, series)
    text = f"{shown(sizes, costs, ratios)}\n\n{said}"
    publish("growth", text, plots={"growth": plot}, write=options.write)
    sys.exit(peaks[-1] - peak > options.allowed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--allowed", type=float, default=30.0, help="MB that the largest may take above 200,000")
    parser.add_argument("--recent", action="store_true", help="segments up to now, the newest of which may still move")
    parser.add_argument("--render", action="store_true", help="let the server render each page when it is asked for")
    parser.add_argument("--write", action="store_true", help="put table and plot into the documentation")
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    options = parser.parse_args()
    if options.smoke:
        options.sizes, options.render, options.write = _SMOKE, True, False
    return options


if __name__ == "__main__":
    main()
