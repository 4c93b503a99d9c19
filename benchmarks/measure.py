"""The tools of a measured program: its job, its core, and a meter. Nothing but the standard library, so that the memory
that is measured is the program's own.
"""

import argparse
import cProfile
import json
import os
import pstats
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

TOKEN = "benchmark"
SOURCE = "benchmark"
PAGE = 500
CONNECTIONS = 16
"""Concurrent requests of every program that can send several."""


@dataclass(frozen=True)
class Job:
    """The job: account and address, and the folder for the files. Times are epoch ms.

    `rate` is None where the server has no limit, "auto" where it has one that the program must find out, and the
    requests a second where it is told.
    """

    base_url: str
    account: str
    start: int
    end: int
    out: str
    rate: float | str | None = None

    @property
    def url(self) -> str:
        """Return the address of pages."""
        return f"{self.base_url}/api/account/{self.account}/agent-segments"

    @property
    def file(self) -> Path:
        """The file of a program that writes a single file."""
        return Path(self.out) / "segments.jsonl"

    @property
    def query(self) -> dict[str, str | int]:
        """Return the parameters that every page's request has."""
        return {"source": SOURCE, "fromMillis": self.start, "toMillis": self.end, "sort": "Date", "limit": PAGE}

    def params(self, offset: int) -> dict[str, str | int]:
        """Return the parameters of one page's request."""
        return {**self.query, "offset": offset}

    def encode(self) -> str:
        """Return the job as text for a command line; `decode` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Job":
        """Parse the output of `encode`."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Cost:
    """The cost of a piece of work in its process: wall and CPU seconds, and the process's peak resident memory."""

    seconds: float
    cpu: float
    peak_mb: float

    def tell(self) -> None:
        """Print the cost, as the last line that the parent process reads."""
        sys.stdout.write(json.dumps(asdict(self)) + "\n")

    @classmethod
    def told(cls, output: str) -> "Cost":
        """Parse the line that `tell` printed at the end of an output."""
        return cls(**json.loads(output.splitlines()[-1]))


class Meter:
    """Meter of the work between its creation and `cost`."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._began = time.perf_counter()

    def cost(self) -> Cost:
        """Return what was spent since."""
        return Cost(time.perf_counter() - self._began, time.process_time() - self._cpu, peak_mb())


def peak_mb() -> float:
    """Return the peak resident memory of this process, in 10^6 bytes.

    Read from /proc where it exists, because getrusage includes the memory of the parent process.
    """
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    import resource  # noqa: PLC0415 - not everywhere

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def pin(which: int) -> None:
    """Pin this thread and its children to one of the cores that it may use: 0 the first, -1 the last."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[which]})


def run(program: Callable[[Job], None]) -> None:
    """Run the job of the command line and measure it, from before the first connection to the last byte written.

    `--profile LINES` behind the job prints the most expensive functions on standard error besides.
    """
    parser = argparse.ArgumentParser(description=program.__doc__)
    parser.add_argument("job", type=Job.decode)
    parser.add_argument("--profile", type=int, metavar="LINES", help="print the most expensive functions")
    options = parser.parse_args()
    pin(-1)
    profiler = cProfile.Profile() if options.profile else None
    meter = Meter()
    profiler.runcall(program, options.job) if profiler else program(options.job)
    meter.cost().tell()
    if profiler:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(options.profile)
