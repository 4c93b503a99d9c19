"""Pages a second that one core of the simulator serves: proof that it measures clients, not itself.

    python -m benchmarks.simulator_throughput [--seconds 5] [--connections 16] [--rendered] [--gzip]

A server process on one core, this process on another, keep-alive connections on loopback, each asking for
pages of 500 segments one after the other. The bodies are read from the sockets and not looked at. Prints for
each round the pages a second, and the pages for each second of the server's own processor time: the second
figure is what a core of its own would serve, also where others use the machine meanwhile. `--rendered` measures
pages rendered anew each time, `--gzip` compressed ones. Linux only: processes are pinned to cores.
"""

import argparse
import asyncio
import itertools
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segment_fetch.simulator import Dataset, Simulator, serve

_SEGMENTS = 60_000
_PAGE = 500
_HEADERS_END = b"\r\n\r\n"
_KEEP_BYTES = 512 * 2**20
_WARM_UP_S = 2.0


class Connection:
    """A keep-alive connection that sends a request, and counts the bytes of the answer until it is complete."""

    def __init__(self, port: int, buffer: memoryview) -> None:
        self.pages = 0
        self.bytes = 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        self._buffer = buffer
        self._missing = 0

    def fileno(self) -> int:
        """The socket's descriptor, for the selector."""
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Ask for a page."""
        self._socket.sendall(request)

    def receive(self) -> bool:
        """Read what is there; True if the answer is complete."""
        if self._missing:
            self._missing -= self._socket.recv_into(self._buffer, self._missing, socket.MSG_TRUNC)
        else:
            self._missing = self._begin(self._socket.recv(65536))
        return not self._missing

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _begin(self, start: bytes) -> int:
        """Return the number of bytes missing after the first ones of an answer."""
        head, _, body = start.partition(_HEADERS_END)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"not a page: {start[:300]!r}")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.pages += 1
        self.bytes += length
        return length - len(body)


def requests(start: int, end: int, *, gzip: bool) -> Iterator[bytes]:
    """Requests for the pages of the whole dataset, over and over."""
    encoding = "gzip" if gzip else "identity"
    for offset in itertools.cycle(range(0, _SEGMENTS, _PAGE)):
        path = f"/api/account/111111/agent-segments?source=bench&limit={_PAGE}&offset={offset}"
        range_ = f"fromMillis={start}&toMillis={end}"
        headers = f"Host: 127.0.0.1\r\nAccept-Encoding: {encoding}\r\n"
        yield f"GET {path}&{range_} HTTP/1.1\r\n{headers}\r\n".encode()


class Round(NamedTuple):
    """Run one round; return pages and MB a second, and pages for each second of the server's processor time."""

    pages: float
    megabytes: float
    pages_per_core: float


def load(server: int, port: int, asked: Iterator[bytes], connections: int, seconds: float) -> Round:
    """Load the server process with so many connections, each with one request at a time."""
    buffer = memoryview(bytearray(2**20))
    opened = [Connection(port, buffer) for _ in range(connections)]
    with selectors.EpollSelector() as selector:
        for connection in opened:
            selector.register(connection, selectors.EVENT_READ, connection)
            connection.send(next(asked))
        began, used = time.perf_counter(), processor_seconds(server)
        while (elapsed := time.perf_counter() - began) < seconds:
            for key, _ in selector.select(timeout=1.0):
                if key.data.receive():
                    key.data.send(next(asked))
        used = processor_seconds(server) - used
    for connection in opened:
        connection.close()
    pages = sum(connection.pages for connection in opened)
    received = sum(connection.bytes for connection in opened)
    return Round(pages / elapsed, received / elapsed / 1e6, pages / used)


def processor_seconds(process: int) -> float:
    """Return the processor time of a process, in user and kernel mode."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve_on_core(core: int, now: float, keep_bytes: int) -> None:
    """The server process: tells its port on standard output, and serves until it is ended."""
    os.sched_setaffinity(0, {core})
    simulator = Simulator(Dataset.recent(_SEGMENTS, now=now), keep_bytes=keep_bytes)
    asyncio.run(serve(simulator, lambda ready: print(ready.port, flush=True)))


def main() -> None:
    """Start the server, load it for several rounds, print the figures."""
    parser = argparse.ArgumentParser(description="Pages a second of one core of the simulator")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds for each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rendered", action="store_true", help="render each page anew")
    parser.add_argument("--gzip", action="store_true", help="ask for compressed pages")
    parser.add_argument("--serve", nargs=2, metavar=("CORE", "NOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_bytes = 0 if options.rendered else _KEEP_BYTES
    if options.serve:
        serve_on_core(int(options.serve[0]), float(options.serve[1]), keep_bytes)
        return
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Run the rounds against a server process of its own, which ends with them."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    now = time.time()
    dataset = Dataset.recent(_SEGMENTS, now=now)
    command = [sys.executable, "-m", "benchmarks.simulator_throughput", "--serve", str(cores[0]), str(now)]
    if options.rendered:
        command.append("--rendered")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            asked = requests(dataset.start, dataset.end, gzip=options.gzip)
            seconds = [_WARM_UP_S] + [options.seconds] * options.rounds
            rounds = [load(server.pid, port, asked, options.connections, part) for part in seconds]
        finally:
            server.terminate()
    report(rounds[1:], cores)


def report(rounds: list[Round], cores: list[int]) -> None:
    """Print each round, and the best and the median of all."""
    for pages, megabytes, per_core in rounds:
        print(f"{pages:8.0f} pages/s {megabytes:8.0f} MB/s {per_core:8.0f} pages per second of processor time")
    served = [one.pages for one in rounds]
    per_core = statistics.median(one.pages_per_core for one in rounds)
    shared = "; one core for both sides" if len(cores) < 2 else ""
    print(
        f"best {max(served):.0f}, median {statistics.median(served):.0f} pages/s; "
        f"median {per_core:.0f} per second of processor time{shared}"
    )


if __name__ == "__main__":
    main()
