"""Cancels a run at every await, one after the other, and looks for what it left behind.

    python -m tests.chaos.cancellations [--turns] [WAY ...]

Each way out of the library (streams, sinks, sync, counting) is run again and again over real sockets: the first run is
cancelled where it waits for the first time, the second where it waits for the second time, and so on until a run gets
through. `--turns` cancels after a turn of the event loop instead, wherever the workers then are, in steps of a
sixteenth. After each, no task,
socket, open file, thread or temporary file may be left, and the same run must get through with the whole result.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import socket
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterator
from contextlib import ExitStack, aclosing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from obstore.store import MemoryStore

from segment_fetch import PaceStore, SegmentClient
from segment_fetch.simulator import Simulator
from segment_fetch.sinks import CsvSink, JsonLines, JsonlSink, ObjectSink, ParquetSink, Sink, StreamSink
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from segment_fetch.sinks.tables.postgres import PostgresSink
from tests.support_postgres import postgres
from tests.support_runs import END, START, client, now, settled

T = TypeVar("T")
Run = Callable[[SegmentClient, Path], Awaitable[int]]
"""One way to use an open client, with a folder of its own; returns how many segments it got, or has in all."""

SEGMENTS = 90
OPTIONS: dict[str, Any] = {"window": timedelta(days=3), "limit": 20, "connections": 3}
_POSTGRES = "postgres"


def _into(make: Callable[[Path], Sink[Any]]) -> Run:
    async def run(client: SegmentClient, folder: Path) -> int:
        report = await client.extract(START, END, make(folder))
        assert report.complete
        return SEGMENTS

    return run


async def _stream(client: SegmentClient, folder: Path) -> int:
    async with aclosing(client.stream(START, END)) as batches:
        return sum([len(batch) async for batch in batches])


async def _stream_arrow(client: SegmentClient, folder: Path) -> int:
    async with aclosing(client.stream_arrow(START, END)) as batches:
        return sum([batch.num_rows async for batch in batches])


async def _windows(client: SegmentClient, folder: Path) -> int:
    async with aclosing(client.windows(START, END, len)) as reads:
        return sum([sum(read.parts) async for read in reads])


async def _sync(client: SegmentClient, folder: Path) -> int:
    assert (await client.sync(JsonlSink(folder / "days"), START)).complete
    return SEGMENTS


async def _count(client: SegmentClient, folder: Path) -> int:
    return await client.count(START, END)


async def _plan(client: SegmentClient, folder: Path) -> int:
    return sum(window.count for window in (await client.plan(START, END)).windows)


_stores: dict[Path, MemoryStore] = {}


def _objects(folder: Path) -> Sink[Any]:
    return ObjectSink("s3://bucket/x", JsonLines(), store=_stores.setdefault(folder, MemoryStore()))


def _to_null(folder: Path) -> Sink[Any]:
    return StreamSink(_Discarded())  # type: ignore[arg-type]


class _Discarded:
    """A stream that holds nothing open."""

    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


WAYS: dict[str, Run] = {
    "stream": _stream,
    "stream_arrow": _stream_arrow,
    "windows": _windows,
    "jsonl": _into(lambda folder: JsonlSink(folder / "out", compress="gzip")),
    "csv": _into(lambda folder: CsvSink(folder / "out", partition="day")),
    "parquet": _into(lambda folder: ParquetSink(folder / "out")),
    "duckdb": _into(lambda folder: DuckDbSink(folder / "out.duckdb")),
    "objects": _into(_objects),
    "standard output": _into(_to_null),
    "sync": _sync,
    "count": _count,
    "plan": _plan,
}


def into_postgres(url: str) -> Run:
    """The way into a database of PostgreSQL, which needs a server; each folder has a table of its own."""
    return _into(lambda folder: PostgresSink(url, f"{folder.name}_segments"))


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, T], point: int) -> Generator[Any, Any, T]:
    """Await a coroutine, and cancel its task where it waits for the `point`-th time."""
    step: Callable[[], Any] = partial(coroutine.send, None)
    waits = 0
    while True:
        try:
            awaited = step()
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        waits += 1
        if waits == point:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, None)


async def _at_await(run: Coroutine[Any, Any, int], point: int) -> bool:
    """Return True if the run was cancelled at that await; False if it ended before."""
    task = asyncio.ensure_future(_awaited(run, point))
    await asyncio.wait([task])
    return _was_cancelled(task)


async def _awaited(run: Coroutine[Any, Any, int], point: int) -> int:
    return await cancelled_at(run, point)


async def _at_turn(run: Coroutine[Any, Any, int], point: int) -> bool:
    task = asyncio.ensure_future(run)
    for _ in range(point):
        await asyncio.sleep(0)
        if task.done():
            break
    task.cancel()
    await asyncio.wait([task])
    return _was_cancelled(task)


def _was_cancelled(task: asyncio.Task[int]) -> bool:
    if not task.cancelled():
        assert task.result() == SEGMENTS
    return task.cancelled()


def _open_files(folder: Path, ports: Collection[int]) -> set[str]:
    """The files in the folder, and the sockets to the ports, that this process has open."""
    found = set()
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the listing's own handle is gone
            place = str(handle.readlink())
            if place.startswith(str(folder)) or (place.startswith("socket:") and _peer(int(handle.name)) in ports):
                found.add(place)
    return found


def _peer(handle: int) -> int | None:
    with suppress(OSError, IndexError), socket.socket(fileno=os.dup(handle)) as copy:
        if copy.family == socket.AF_INET:
            return int(copy.getpeername()[1])
    return None


@contextmanager
def nothing_left(folder: Path, ports: Collection[int]) -> Iterator[None]:
    """Raise AssertionError for every task, thread, socket, file or warning that the block leaves behind."""
    tasks, threads, files = asyncio.all_tasks(), set(threading.enumerate()), _open_files(folder, ports)
    unraisable: list[str] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(f"{args.object}: {args.exc_value}")
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            assert asyncio.all_tasks() <= tasks, asyncio.all_tasks() - tasks
            gc.collect()
        assert _open_files(folder, ports) <= files
        others = {thread for thread in threading.enumerate() if not thread.name.startswith(("segment-sim", "asyncio"))}
        assert others <= threads, others - threads
        assert not [path for path in folder.rglob("*") if path.name.endswith(".partial")]
        assert not [str(one.message) for one in warned] + unraisable
    finally:
        sys.unraisablehook = hook


async def run_way(
    way: Run, simulator: Simulator, *, ports: Collection[int] = (), turns: bool = False, step: Callable[[int], int]
) -> int:
    """Cancel one way at one await or turn after the other; return at how many. `step` says which is next.

    `ports` are those of servers besides the simulator, to which no socket may be left either.
    """
    points, point, cancel = 0, 1, _at_turn if turns else _at_await

    async def used(folder: Path) -> int:
        async with client(simulator, **OPTIONS, pace=PaceStore(folder / "pace")) as opened:
            return await way(opened, folder)

    while True:
        with tempfile.TemporaryDirectory() as named:
            folder = Path(named)
            with nothing_left(folder, (simulator.port, *ports)):
                if not await cancel(used(folder), point):
                    return points
            assert await used(folder) == SEGMENTS, f"not the whole after it was cancelled at {point}"
            _stores.clear()
        points += 1
        point = step(point)


def served() -> Simulator:
    """A simulator of a few windows."""
    return Simulator(settled(SEGMENTS, ties=0.2), clock=now)


def main() -> int:
    """All ways, or those that are named."""
    names = [*WAYS, _POSTGRES]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.cancellations", description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", metavar="WAY", help=", ".join(names))
    parser.add_argument("--turns", action="store_true", help="after a turn of the event loop, ever farther apart")
    options = parser.parse_args()

    def step(point: int) -> int:
        return point + 1 + (point // 16 if options.turns else 0)

    with served().in_thread() as simulator, ExitStack() as stack:
        for name in options.ways or names:
            if name == _POSTGRES:
                place = stack.enter_context(tempfile.TemporaryDirectory())
                server = stack.enter_context(postgres(Path(place) / "data"))
                way, ports = into_postgres(server.url()), [server.port]
            else:
                way, ports = WAYS[name], []
            began = time.perf_counter()
            points = asyncio.run(run_way(way, simulator, ports=ports, turns=options.turns, step=step))
            print(f"{name}: cancelled at {points} points, {time.perf_counter() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
