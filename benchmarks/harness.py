"""What the benchmarks share: the simulator in a process of its own, and clients in theirs, pinned to separate cores.

The server gets the first core that this process may use and every client the last, so that they do not take time from
each other. Pinning needs Linux; elsewhere, and with one core, the figures are less steady. All of it is on loopback.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from segment_fetch.simulator import Bearer, Dataset, Simulator

TOKEN = "benchmark"
SOURCE = "benchmark"
_LONGEST_S = 1800.0
_DAY_S = 86_400


class Served(msgspec.Struct, frozen=True):
    """What a server process serves: segments that closed in start <= t < end (epoch ms).

    `keep_bytes` of rendered pages are kept, so that a page asked for again costs the server next to nothing; 0 renders
    every page anew and keeps the server small. `gzip` compresses pages for clients that accept it.
    """

    segments: int
    start: int
    end: int
    keep_bytes: int = 0
    gzip: bool = False

    @property
    def dataset(self) -> Dataset:
        """The segments."""
        return Dataset(segments=self.segments, start=self.start, end=self.end)


class Cost(msgspec.Struct, frozen=True):
    """What a piece of work took in its process: wall and CPU seconds, and the process's peak resident memory."""

    seconds: float
    cpu: float
    peak_mb: float


class Meter:
    """Measures from its making to `cost`."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._began = time.perf_counter()

    def cost(self) -> Cost:
        """What was spent since."""
        return Cost(time.perf_counter() - self._began, time.process_time() - self._cpu, peak_mb())


def closed(segments: int, *, days: float, days_ago: float, keep_bytes: int = 0, gzip: bool = False) -> Served:
    """Segments of so many days, the last of which ended that long ago. After two days nothing changes any more."""
    whole = Dataset.recent(segments, now=time.time() - days_ago * _DAY_S, days=days)
    return Served(segments, whole.start, whole.end, keep_bytes, gzip)


def peak_mb() -> float:
    """The peak resident memory of this process, in 10^6 bytes.

    From /proc where there is one: what getrusage reports includes the process that this one was started from.
    """
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    import resource  # noqa: PLC0415 - not everywhere

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def pin(which: int) -> None:
    """Ties this process to one of the cores it may use: 0 the first, -1 the last."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[which]})


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """A server process for the length of the block; gives its base URL. It also ends when this process ends."""
    command = [sys.executable, "-m", "benchmarks.harness", msgspec.json.encode(served).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def in_process(module: str, arguments: Sequence[str]) -> Cost:
    """Runs a module of the benchmarks in a process of its own; it prints its `Cost` last."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_LONGEST_S, check=True)
    return msgspec.json.decode(done.stdout, type=Cost)


def print_cost(cost: Cost) -> None:
    """Tells `in_process` what was measured."""
    print(msgspec.json.encode(cost).decode())


async def serve(served: Served) -> None:
    """Serves until standard input ends; tells the port on standard output."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    simulator = Simulator(served.dataset, auth=Bearer(TOKEN), keep_bytes=served.keep_bytes, gzip=served.gzip)
    async with simulator:
        print(simulator.port, flush=True)
        await ended.wait()


def main() -> None:
    """The server process."""
    parser = argparse.ArgumentParser(description="The server that the benchmarks start for themselves")
    parser.add_argument("served")
    pin(0)
    asyncio.run(serve(msgspec.json.decode(parser.parse_args().served, type=Served)))


if __name__ == "__main__":
    main()
