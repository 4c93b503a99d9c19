"""The common part of the benchmarks: the simulator in a process of its own, and clients in theirs, on separate cores.

The server gets the first core that this process may use and every client the last, so that they do not take time from
each other. Pinning needs Linux; elsewhere, and with one core, the figures are less steady. All of it is on loopback.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from benchmarks.measure import TOKEN, Cost, pin
from segment_fetch.simulator import Bearer, Dataset, Simulator

_LONGEST_S = 1800.0
_DAY_S = 86_400


class Served(msgspec.Struct, frozen=True):
    """The data of a server process: segments that closed in start <= t < end (epoch ms).

    `keep_bytes` of rendered pages are kept, so that a page asked for again costs the server next to nothing; 0 renders
    every page anew and keeps the server small. `gzip` compresses pages for clients that accept it. `burst` of the
    segments closed in the one millisecond `burst_at`. `nice` lets other programs of the same core go first.
    """

    segments: int
    start: int
    end: int
    keep_bytes: int = 0
    gzip: bool = False
    burst: int = 0
    burst_at: int | None = None
    nice: int = 0

    @property
    def dataset(self) -> Dataset:
        """Return the segments."""
        return Dataset(segments=self.segments, start=self.start, end=self.end, burst=self.burst, burst_at=self.burst_at)


def closed(segments: int, *, days: float, days_ago: float, keep_bytes: int = 0, gzip: bool = False) -> Served:
    """Return segments of `days` days that ended `ago` days ago. After two days nothing changes any more."""
    whole = Dataset.recent(segments, now=time.time() - days_ago * _DAY_S, days=days)
    return Served(segments, whole.start, whole.end, keep_bytes, gzip)


@contextmanager
def serving(served: Served) -> Iterator[str]:
    """Run a server process for the length of the block; yield its base URL. It also ends when this process does."""
    command = [sys.executable, "-m", "benchmarks.harness", msgspec.json.encode(served).decode()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()


def in_process(module: str, arguments: Sequence[str]) -> Cost:
    """Run a module of the benchmarks in a process of its own; return its `Cost`, which it prints last."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=_LONGEST_S, check=True, text=True)
    return Cost.told(done.stdout)


async def serve(served: Served) -> None:
    """Serve until standard input ends; print the port."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    simulator = Simulator(served.dataset, auth=Bearer(TOKEN), keep_bytes=served.keep_bytes, gzip=served.gzip)
    async with simulator:
        print(simulator.port, flush=True)
        await ended.wait()


def main() -> None:
    """Run the server process."""
    parser = argparse.ArgumentParser(description="The server that the benchmarks start for themselves")
    parser.add_argument("served")
    pin(0)
    served = msgspec.json.decode(parser.parse_args().served, type=Served)
    os.nice(served.nice)
    asyncio.run(serve(served))


if __name__ == "__main__":
    main()
