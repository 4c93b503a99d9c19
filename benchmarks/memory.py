"""How much memory this client takes for many segments over what it takes for few: that it does not grow with them.

    python -m benchmarks.memory [--segments 10000000] [--base 200000] [--allowed 30] [--recent] [--smoke]

Extracts first `--base` and then `--segments` segments into JSON Lines, each in a new process, with every
check on, and prints the peak resident memory of both and the difference; exit code 1 if it is above `--allowed` MB
(10^6 bytes). The server is a process of its own that renders each page when it is asked for, and keeps none. All
segments closed two days ago or earlier; `--recent` lets them end now, so that the newest may still change.
"""

import argparse
import sys

from benchmarks.extract import run_once
from benchmarks.harness import closed, serving
from benchmarks.measure import Cost

_RECENT_DAYS = 27.0
_SETTLED_DAYS = 25.0


def measure(segments: int, *, recent: bool) -> Cost:
    """One extraction, what was written checked afterwards."""
    days = _RECENT_DAYS if recent else _SETTLED_DAYS
    served = closed(segments, days=days, days_ago=0 if recent else 2)
    with serving(served) as base_url:
        cost = run_once("client", base_url, served)
    print(f"{segments:>10} segments: {cost.peak_mb:6.1f} MB peak, {cost.seconds:7.1f} s", flush=True)
    return cost


def main() -> None:
    """Measure few, then many, and compare."""
    parser = argparse.ArgumentParser(description="Peak memory of this client for few and for many segments")
    parser.add_argument("--segments", type=int, default=10_000_000)
    parser.add_argument("--base", type=int, default=200_000)
    parser.add_argument("--allowed", type=float, default=30.0, help="MB that many may take above few")
    parser.add_argument("--recent", action="store_true", help="segments up to now, the newest of which may still move")
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    options = parser.parse_args()
    few, many = (1_000, 4_000) if options.smoke else (options.base, options.segments)
    base, whole = (measure(segments, recent=options.recent) for segments in (few, many))
    difference = whole.peak_mb - base.peak_mb
    print(f"difference: {difference:.1f} MB, allowed are {options.allowed:.0f} MB")
    sys.exit(difference > options.allowed)


if __name__ == "__main__":
    main()
