"""The share of a limited server's slots that is used: the time of a whole extraction, as a share of pages / limit.

    python -m benchmarks.slots                    3 rounds against 20 requests a second, told three ways
    python -m benchmarks.slots --limit 20/s:10    against another limit, as `simulate` takes it
    python -m benchmarks.slots --connections 4,16,64 --limit 5-at-once    with so many connections each

400 pages in 4 windows, 150 ms an answer, real sockets, a server in a process of its own. 1.00 is a client that uses
every slot and whose last answer takes no time. `--rate 20` is told the limit, `auto` finds it, and `auto, again` begins
with what the run before it found. The exit code says whether the goals of the first and the last hold in every round:
1.05 and 1.10.
"""

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import closed
from segment_fetch import BearerToken, PaceStore, SegmentClient
from segment_fetch.cli.commands import demo
from segment_fetch.sinks import JsonlSink
from segment_fetch.timerange import format_time

PAGES, LIMIT, WINDOWS, PAGE = 400, 20.0, 4, 50
LIMITS = ("20/s", "20/s:20", "20/1s")
GOALS = {"--rate 20": 1.05, "auto, again": 1.10}


class Used(msgspec.Struct, frozen=True):
    """One extraction: its time as a multiple of pages / limit, its pages, and its number of 429s."""

    ratio: float
    pages: int
    throttled: int


async def extract(base_url: str, start: int, end: int, out: Path, **options: Any) -> Used:
    """Read the range in four windows, as fast as `options` allow."""
    window = timedelta(milliseconds=(end - start) // WINDOWS)
    auth = BearerToken("benchmark")
    began = time.perf_counter()
    async with SegmentClient(
        "111111", auth=auth, source="benchmark", base_url=base_url, window=window, limit=PAGE, **options
    ) as client:
        report = await client.extract(start, end, JsonlSink(out))
    seconds = time.perf_counter() - began
    pages = sum(entry.pages for entry in report.windows)
    assert report.complete, report
    return Used(seconds / (pages / LIMIT), pages, report.throttled)


def measured(limit: str, pages: int, connections: int) -> dict[str, Used]:
    """Run an extraction of each kind, each from a server of its own."""
    served = closed(pages * PAGE - WINDOWS * PAGE // 2, days=4, days_ago=3)
    arguments = ["--segments", str(served.segments), "--latency", "150", "--auth", "bearer", "--limit", limit]
    arguments += ["--from", format_time(served.start), "--to", format_time(served.end)]
    environ = {**os.environ, "LIVEPERSON_ACCOUNT": "111111", "LIVEPERSON_BEARER": "benchmark"}

    def extracted(base_url: str, out: str, **options: Any) -> Used:
        return asyncio.run(
            extract(base_url, served.start, served.end, Path(folder) / out, connections=connections, **options)
        )

    used: dict[str, Used] = {}
    with tempfile.TemporaryDirectory() as folder:
        with demo.simulator(arguments, environ) as announced:
            used["--rate 20"] = extracted(announced["base_url"], "told", rate=LIMIT)
        with demo.simulator(arguments, environ) as announced:
            for name in ("auto", "auto, again"):
                pace = PaceStore(Path(folder) / "pace")
                used[name] = extracted(announced["base_url"], name, rate="auto", pace=pace)
    return used


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", action="append", help=f"may be repeated (default: {', '.join(LIMITS)})")
    parser.add_argument("--connections", default="16", metavar="N,N", help="how many to extract with, one by one")
    parser.add_argument("--smoke", action="store_true", help="a few pages, no judgement")
    options = parser.parse_args()
    good = True
    print("| limit | round | --rate 20 | auto | auto, again |\n|---|---|---|---|---|")
    counts = [int(count) for count in options.connections.split(",")]
    for limit, connections in itertools.product(options.limit or LIMITS, counts):
        for turn in range(options.rounds):
            used = measured(limit, 12 if options.smoke else PAGES, connections)
            cells = [f"{one.ratio:.3f} / {one.throttled}" for one in used.values()]
            name = limit if len(counts) == 1 else f"{limit}, {connections} connections"
            print(f"| {name} | {turn + 1} | {' | '.join(cells)} |", flush=True)
            good &= options.smoke or all(used[name].ratio <= goal for name, goal in GOALS.items())
    print("\ntime as a share of pages / limit / answers that were 429")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
