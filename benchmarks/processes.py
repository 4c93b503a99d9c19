"""Whether several processes would pay: two that extract half of a range each, over one that extracts all of it.

    python -m benchmarks.processes [--segments 400000] [--rounds 8] [--write] [--smoke]

No server takes part: each process first records the answers for its part of the range, and what is measured is an
extraction with every check from those recorded answers, unthrottled, the processes side by side on all cores. Nor does
a disk: the files go to memory where the system has a folder for that. One process uses more than one core by itself
where files are written and hashed in threads.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.harness import closed, serving
from benchmarks.measure import CONNECTIONS, SOURCE, TOKEN, Cost, Job, Meter
from benchmarks.report import publish, table
from segment_fetch import BearerToken, SegmentClient
from segment_fetch.sinks import JsonlSink
from segment_fetch.transport import Reply, Transport

_page = Transport.page
_MEMORY = Path("/dev/shm")
_FOLDER = str(_MEMORY) if _MEMORY.is_dir() else None


async def extract(job: Job, out: str) -> None:
    """The range into a folder, as fast as it goes."""
    options: dict[str, Any] = {"base_url": job.base_url, "rate": None, "connections": CONNECTIONS}
    async with SegmentClient(job.account, auth=BearerToken(TOKEN), source=SOURCE, **options) as client:
        report = await client.extract(job.start, job.end, JsonlSink(out))
    assert report.complete, report


def recorded(kept: dict[str, Reply]) -> Callable[..., Awaitable[Any]]:
    """In place of `Transport.page`: an answer is fetched once, kept, and given again whenever it is asked for."""

    async def page(transport: Transport, url: str, sign: Any, take: Callable[[Reply], Any]) -> Any:
        if url in kept:
            await sign()
            await asyncio.sleep(0)
        else:
            kept[url] = await _page(transport, url, sign, lambda it: Reply(it.status, dict(it.headers), bytes(it.body)))
        return take(kept[url])

    return page


def part(job: Job) -> None:
    """One of the processes: records, says so, waits to be told, and measures."""
    with patch.object(Transport, "page", recorded({})):
        with tempfile.TemporaryDirectory(dir=_FOLDER) as out:
            asyncio.run(extract(job, out))
        print("ready", flush=True)
        sys.stdin.readline()
        meter = Meter()
        asyncio.run(extract(job, job.out))
        meter.cost().tell()


def side_by_side(base_url: str, start: int, end: int, processes: int) -> list[Cost]:
    """The costs of so many processes that share a range and begin together."""
    edges = [start + (end - start) * at // processes for at in range(processes + 1)]
    with tempfile.TemporaryDirectory(dir=_FOLDER) as out:
        jobs = [Job(base_url, "111111", edges[at], edges[at + 1], f"{out}/{at}") for at in range(processes)]
        started = [_started("--part", job.encode()) for job in jobs]
        if any(process.stdout.readline() != "ready\n" for process in started if process.stdout):
            raise SystemExit("a process could not record its part")
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [Cost.told(process.communicate()[0]) for process in started]


def _started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.processes", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def compared(segments: int, rounds: int) -> str:
    """The table: one process and two, one after the other in each round; the quickest, as others' work only adds."""
    served = closed(segments, days=6, days_ago=2)
    with serving(served) as base_url:
        runs = [[side_by_side(base_url, served.start, served.end, n) for n in (1, 2)] for _ in range(rounds)]
    seconds = [min(max(cost.seconds for cost in one[at]) for one in runs) for at in range(2)]
    cpu = [min(sum(cost.cpu for cost in one[at]) for one in runs) for at in range(2)]
    rows = [
        [name, f"{seconds[0] / seconds[at]:.2f}", f"{segments / seconds[at]:,.0f}", f"{cpu[at]:.2f}"]
        for at, name in enumerate(("one process", "two, half of the range each"))
    ]
    return table([f"{segments:,} segments", "x as fast", "segments/s", "CPU s"], rows)


def main() -> None:
    """Measure, and print what it shows; or be one of the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    parser.add_argument("--part", type=Job.decode, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part)
        return
    text = compared(2_000, 1) if options.smoke else compared(options.segments, options.rounds)
    write = options.write and not options.smoke
    publish("processes", text, write=write)


if __name__ == "__main__":
    main()
