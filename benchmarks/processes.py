"""Whether several processes pay: the same extraction by one process and by two, with `processes`.

    python -m benchmarks.processes [--segments 6400000] [--rounds 5] [--write] [--smoke]

No server takes part in what is measured: the answers are recorded first, and are read from memory then. Nor does a
disk: the files go to memory where the system has a folder for that, about 500 bytes a segment. Everything counts from
the call to its return; what comes before the first page, the start of the processes above all, is also told by itself.
One process uses more than one core by itself, as files are written and hashed in a thread; so it is also measured on
one core alone.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import closed, serving
from benchmarks.measure import CONNECTIONS, SOURCE, TOKEN, Cost, Job, peak_mb, pin
from benchmarks.replay import Replayed
from benchmarks.report import publish, table
from segment_fetch import Event, SegmentClient
from segment_fetch.events import PageRead
from segment_fetch.sinks import JsonlSink

_MEMORY = Path("/dev/shm")
_FOLDER = str(_MEMORY) if _MEMORY.is_dir() else None
_GOAL = 1.8
"""Two cores, two processes."""


WAYS = {"one process on one core": 0, "one process": 1, "two processes": 2}
"""How many processes have all cores; 0: one has a single core."""


async def extract(job: Job, recording: str, processes: int) -> None:
    """The range into a folder, as fast as it goes; prints what it cost, the processes' time included."""
    if not processes:
        pin(-1)
    first: list[float] = []

    def told(event: Event) -> None:
        if not first and isinstance(event, PageRead):
            first.append(time.perf_counter())

    options: dict[str, Any] = {"base_url": job.base_url, "rate": None, "connections": CONNECTIONS, "on_event": told}
    auth = Replayed(TOKEN, recording)
    async with SegmentClient(job.account, auth=auth, source=SOURCE, processes=max(1, processes), **options) as client:
        began, spent = time.perf_counter(), _cpu()
        report = await client.extract(job.start, job.end, JsonlSink(job.out))
        seconds = time.perf_counter() - began
    assert report.complete, report
    print(first[0] - began)
    Cost(seconds, _cpu() - spent, peak_mb()).tell()


def _cpu() -> float:
    """Seconds of processors, of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


class Run(NamedTuple):
    """What an extraction cost, and the seconds before its first page."""

    cost: Cost
    starting: float

    @property
    def reading(self) -> float:
        """Seconds from the first page on."""
        return self.cost.seconds - self.starting


def run(job: Job, recording: str, processes: int) -> Run:
    """The extraction in a process, or several, of its own; its files go."""
    command = [sys.executable, "-m", "benchmarks.processes", "--run", job.encode(), recording, str(processes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(job.out)
    return Run(Cost.told(done.stdout), float(done.stdout.splitlines()[0]))


def compared(segments: int, rounds: int) -> str:
    """The table: one way after the other in each round; of each the quickest counts, as others' work only adds."""
    served = closed(segments, days=6, days_ago=2)
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        recording, out = f"{folder}/recording", f"{folder}/out"
        Path(recording).mkdir()
        with serving(served) as base_url:
            job = Job(base_url, "111111", served.start, served.end, out)
            for processes in (1, 2):
                run(job, recording, processes)
        runs = [[run(job, recording, processes) for processes in WAYS.values()] for _ in range(rounds)]
    best = [
        (
            min(one[at].cost.seconds for one in runs),
            min(one[at].reading for one in runs),
            min(one[at].starting for one in runs),
            min(one[at].cost.cpu for one in runs),
        )
        for at in range(len(WAYS))
    ]
    _, (all_of_one, reading_of_one, _, _), _ = best
    rows = [
        [
            name,
            f"{all_of_one / total:.2f}",
            f"{reading_of_one / reading:.2f}",
            *(f"{it:.2f}" for it in (total, start, cpu)),
        ]
        for name, (total, reading, start, cpu) in zip(WAYS, best, strict=True)
    ]
    heads = [f"{segments:,} segments", "x as fast", "x from the first page on", "s", "s to the first page", "CPU s"]
    return f"{table(heads, rows)}\n\nThe goal is {_GOAL} times as fast on two cores that nobody else uses."


def main() -> None:
    """Measure, and print what it shows; or be one of the runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=6_400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        job, recording, processes = options.run
        asyncio.run(extract(Job.decode(job), recording, int(processes)))
        return
    text = compared(2_000, 1) if options.smoke else compared(options.segments, options.rounds)
    publish("processes", text, write=options.write and not options.smoke)


if __name__ == "__main__":
    main()
