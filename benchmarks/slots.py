"""How many of a limited server's slots are used: the time of a whole extraction, as a share of pages / limit.

    python -m benchmarks.slots                    400 pages in 4 windows at 20 requests a second, 150 ms; 3 rounds
    python -m benchmarks.slots --limit 20/s:10    the same against another limit

Real sockets, a server in a process of its own. 1.00 is a client that uses every slot and whose last answer takes no
time. `auto` starts cold, `warm` with what an `auto` run before it learned.
"""

import argparse
import asyncio
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import closed
from segment_fetch import BearerToken, SegmentClient
from segment_fetch.cli import child
from segment_fetch.query import format_time
from segment_fetch.sinks import JsonlSink

PAGES, LIMIT, WINDOWS = 400, 20.0, 4
PAGE = 50
GOALS = {"rate 20": 1.05, "auto": 1.10, "warm": 1.10}


class Used(msgspec.Struct, frozen=True):
    """One extraction: its length as a share of pages / limit, its pages, and how many answers were 429."""

    ratio: float
    pages: int
    throttled: int


async def extract(base_url: str, start: int, end: int, out: Path, **options: Any) -> Used:
    """Reads the range in four windows, as fast as `options` let it."""
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


def measured(limits: list[str], **options: Any) -> Used:
    """One extraction from a server of its own."""
    served = closed(PAGES * PAGE - WINDOWS * PAGE // 2, days=4, days_ago=3)
    arguments = ["--segments", str(served.segments), "--latency", "150", "--auth", "bearer"]
    arguments += ["--from", format_time(served.start), "--to", format_time(served.end)]
    arguments += [text for limit in limits for text in ("--limit", limit)]
    environ = {**os.environ, "LIVEPERSON_ACCOUNT": "111111", "LIVEPERSON_BEARER": "benchmark"}
    with child.simulator(arguments, environ) as announced, tempfile.TemporaryDirectory() as folder:
        return asyncio.run(extract(announced["base_url"], served.start, served.end, Path(folder), **options))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", action="append", help="as `simulate` takes it (default: 20/s); may be repeated")
    options = parser.parse_args()
    limits = options.limit or ["20/s"]
    for turn in range(options.rounds):
        for name, rate in (("rate 20", 20.0), ("auto", "auto")):
            used = measured(limits, rate=rate)
            print(f"{turn + 1} {name:8} {used.ratio:.3f} {used.pages} pages, {used.throttled} 429", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
