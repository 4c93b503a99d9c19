"""The slowdown of a service by an extraction that runs in it: the longest pause of the event loop, and /ping.

    python -m benchmarks.guest                                   all ways, all ranges, without a limit
    python -m benchmarks.guest --ways jsonl parquet --ranges settled --rate 40
    python -m benchmarks.guest --write                           puts the table into the documentation

Three processes: the API on one core, with the program that pings; on another core a real service of aiohttp, which
answers /ping and extracts on request. Each extraction reads the range in windows of 50,000. The ranges: `settled`;
`gzip`, the same compressed; `live`, which ends now, so that its last day may still change, with 2,000 segments on one
millisecond of it. The ways: into files of two formats, as two kinds of stream, and `thread`: JSON Lines again, by
`segment_fetch.blocking` in a thread with a loop of its own.

`/ping` is sent every 5 ms, whether the one before was answered or not. A gap is the time between two beats, due
each millisecond, so it holds everything that a turn of the loop does. A callback is one step of the
loop; those that lay in a garbage collection are left out, and told apart. The service imports Arrow and freezes its
objects before it serves. Times of callbacks are given twice: by the
clock, which a busy machine stretches, and by the CPU time of the thread.

The exit code says whether the goals hold: of the callbacks 99.9 % under 10 ms and none over 20 by CPU time; no module
imported while extracting; entering the client under 10 ms of the loop; and a p99 of /ping at most 10 ms above that at
rest for JSON Lines and 15 for the others (with `--rate`: 5).
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import tempfile
import time
import types
from asyncio import events
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import web
from msgspec.structs import replace

from benchmarks.harness import Served, closed, serving
from benchmarks.measure import SOURCE, TOKEN, pin
from benchmarks.report import publish, table
from segment_fetch import BearerToken, SegmentClient
from segment_fetch.sinks import Sink

T = TypeVar("T")

PING_S = 0.005
REST_S = 2.0
DAYS, WINDOW_ROWS = 25.0, 50_000
RANGES = ("settled", "gzip", "live")
ENTERING_MS = 10.0
CALLBACK_P999_MS, CALLBACK_MAX_MS = 10.0, 20.0
ABOVE_REST_MS = {"jsonl": 10.0}
ABOVE_REST_ELSE_MS, ABOVE_REST_LIMITED_MS = 15.0, 5.0


class Job(msgspec.Struct, frozen=True):
    """An extraction in the service."""

    way: str
    base_url: str
    start: int
    end: int
    rate: float | None = None
    window_days: float = 7.0


class Kept(msgspec.Struct):
    """The loop's times while a job ran, milliseconds, and what it did."""

    seconds: float = 0.0
    segments: int = 0
    entering: list[float] = msgspec.field(default_factory=list)
    gaps: list[float] = msgspec.field(default_factory=list)
    callbacks: list[float] = msgspec.field(default_factory=list)
    cpu: list[float] = msgspec.field(default_factory=list)
    longest: str = ""
    collections: list[float] = msgspec.field(default_factory=list)
    imported: list[str] = msgspec.field(default_factory=list)


Way = Callable[[SegmentClient, Job], Awaitable[int]]


def _jsonl(out: Path) -> Way:
    from segment_fetch.sinks import JsonlSink  # noqa: PLC0415 - a way pays for its own imports

    return _into(JsonlSink(out))


def _csv(out: Path) -> Way:
    from segment_fetch.sinks import CsvSink  # noqa: PLC0415

    return _into(CsvSink(out))


def _parquet(out: Path) -> Way:
    from segment_fetch.sinks import ParquetSink  # noqa: PLC0415

    return _into(ParquetSink(out))


def _into(sink: Sink[Any]) -> Way:
    async def extracted(client: SegmentClient, job: Job) -> int:
        return (await client.extract(job.start, job.end, sink)).segments

    return extracted


def _stream(out: Path) -> Way:
    async def streamed(client: SegmentClient, job: Job) -> int:
        return sum([len(batch) async for batch in client.stream(job.start, job.end)])

    return streamed


def _stream_arrow(out: Path) -> Way:
    async def streamed(client: SegmentClient, job: Job) -> int:
        return sum([batch.num_rows async for batch in client.stream_arrow(job.start, job.end)])

    return streamed


def _thread(out: Path) -> Way:
    from segment_fetch import blocking  # noqa: PLC0415
    from segment_fetch.sinks import JsonlSink  # noqa: PLC0415

    async def extracted(client: SegmentClient, job: Job) -> int:
        report = await asyncio.to_thread(blocking.extract, client_of(job), job.start, job.end, JsonlSink(out))
        return report.segments

    return extracted


WAYS: dict[str, Callable[[Path], Way]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "stream": _stream,
    "stream_arrow": _stream_arrow,
    "thread": _thread,
}


@contextmanager
def timed(kept: Kept) -> Iterator[None]:
    """Times every callback of the loop for the length of the block, without those that lay in a garbage collection."""
    collected = 0.0
    began = 0.0
    run = events.Handle._run  # noqa: SLF001 - what is measured is the loop itself

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal collected, began
        if phase == "start":
            began = time.perf_counter()
            return
        collected += 1
        kept.collections.append((time.perf_counter() - began) * 1e3)

    def timed_run(handle: Any) -> Any:
        before = collected
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            return run(handle)
        finally:
            if collected == before:
                cpu, wall = (time.thread_time() - cpu) * 1e3, (time.perf_counter() - wall) * 1e3
                if cpu > max(kept.cpu, default=0.0):
                    kept.longest = repr(handle)[:300]
                kept.cpu.append(cpu)
                kept.callbacks.append(wall)

    gc.callbacks.append(note)
    setattr(events.Handle, "_run", timed_run)  # noqa: B010
    try:
        yield
    finally:
        setattr(events.Handle, "_run", run)  # noqa: B010
        gc.callbacks.remove(note)


async def beat(gaps: list[float]) -> None:
    """Notes the milliseconds between two beats that are due after one."""
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        gaps.append((now - last) * 1e3)
        last = now


@asynccontextmanager
async def beating(gaps: list[float]) -> AsyncIterator[None]:
    task = asyncio.create_task(beat(gaps))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def client_of(job: Job) -> SegmentClient:
    """The client of a job."""
    return SegmentClient(
        "111111",
        auth=BearerToken(TOKEN),
        source=SOURCE,
        base_url=job.base_url,
        rate=job.rate,
        window=timedelta(days=job.window_days),
    )


async def extract(job: Job) -> Kept:
    """Runs a job and measures it."""
    kept = Kept()
    client = client_of(job)
    with tempfile.TemporaryDirectory(prefix="segment_fetch_") as out:
        way = WAYS[job.way](Path(out))
        async with beating(kept.gaps):
            with timed(kept):
                began = time.perf_counter()
                await steps(client.__aenter__(), kept.entering)
                try:
                    before = set(sys.modules)
                    kept.segments = await way(client, job)
                    kept.imported = sorted(set(sys.modules) - before)
                finally:
                    await client.__aexit__(None, None, None)
                kept.seconds = time.perf_counter() - began
    return kept


@types.coroutine
def steps(coroutine: Coroutine[Any, Any, T], spent: list[float]) -> Generator[Any, None, T]:
    """Awaits a coroutine and notes how long each of its steps keeps the loop: CPU time, milliseconds."""
    while True:
        began = time.thread_time()
        try:
            awaited = coroutine.send(None)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            spent.append((time.thread_time() - began) * 1e3)
        yield awaited


async def service() -> None:
    """The service: answers /ping, and /extract with what an extraction did to it. Ends with its standard input."""

    async def ping(request: web.Request) -> web.Response:
        return web.Response(text="pong")

    async def extracted(request: web.Request) -> web.Response:
        kept = await extract(msgspec.json.decode(await request.read(), type=Job))
        return web.Response(body=msgspec.json.encode(kept))

    app = web.Application()
    app.add_routes([web.get("/ping", ping), web.post("/extract", extracted)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    print(runner.addresses[0][1], flush=True)
    await ended.wait()
    await runner.cleanup()


@contextmanager
def running_service() -> Iterator[str]:
    """The service in a process of its own; gives its URL."""
    command = [sys.executable, "-m", "benchmarks.guest", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


async def pinged(url: str, work: Awaitable[Any]) -> tuple[list[float], Any]:
    """The latencies of /ping (milliseconds) while some work goes on, and its result."""
    latencies: list[float] = []

    async def once(session: aiohttp.ClientSession) -> None:
        began = time.perf_counter()
        async with session.get(f"{url}/ping") as response:
            await response.read()
        latencies.append((time.perf_counter() - began) * 1e3)

    running = asyncio.ensure_future(work)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        while not running.done():
            group.create_task(once(session))
            await asyncio.sleep(PING_S)
    return latencies, running.result()


async def measured(url: str, job: Job) -> tuple[list[float], Kept]:
    """A job in the service, with /ping beside it."""

    async def ask() -> Kept:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1800)) as session,
            session.post(f"{url}/extract", data=msgspec.json.encode(job)) as response,
        ):
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=Kept)

    return await pinged(url, ask())


def share(values: Sequence[float], part: float) -> float:
    """The value below which this part of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else 0.0


def ranges(segments: int) -> dict[str, Served]:
    """The ranges by name."""
    keep = 2**30
    settled = replace(closed(segments, days=DAYS, days_ago=2, keep_bytes=keep), nice=10)
    live = replace(closed(segments, days=DAYS, days_ago=0, keep_bytes=keep), nice=10)
    burst = min(2_000, segments // 4)
    return {
        "settled": settled,
        "gzip": replace(settled, gzip=True),
        "live": replace(live, burst=burst, burst_at=live.end - 3 * 3_600_000),
    }


def row(way: str, place: str, rest: Sequence[float], pings: Sequence[float], kept: Kept) -> list[str]:
    """The figures of one job."""
    return [
        f"{way}, {place}",
        f"{kept.segments / kept.seconds / 1e3:,.0f}",
        *(f"{share(pings, part):.1f}" for part in (0.5, 0.99, 1.0)),
        f"{share(pings, 0.99) - share(rest, 0.99):+.1f}",
        f"{max(kept.gaps, default=0):.1f}",
        f"{share(kept.cpu, 0.999):.1f} / {max(kept.cpu, default=0):.1f}",
        f"{share(kept.callbacks, 0.999):.1f} / {max(kept.callbacks, default=0):.1f}",
        f"{max(kept.collections, default=0):.0f}",
        f"{sum(kept.entering):.1f}",
    ]


def missed(way: str, rate: float | None, rest: Sequence[float], pings: Sequence[float], kept: Kept) -> list[str]:
    """The goals that a job missed."""
    above = ABOVE_REST_LIMITED_MS if rate else ABOVE_REST_MS.get(way, ABOVE_REST_ELSE_MS)
    found = {
        f"p99 of /ping more than {above:.0f} ms above rest": share(pings, 0.99) - share(rest, 0.99) > above,
        f"99.9 % of the callbacks not under {CALLBACK_P999_MS:.0f} ms": share(kept.cpu, 0.999) >= CALLBACK_P999_MS,
        f"a callback over {CALLBACK_MAX_MS:.0f} ms: {kept.longest}": max(kept.cpu, default=0) > CALLBACK_MAX_MS,
        f"entering took {ENTERING_MS:.0f} ms or more": sum(kept.entering) >= ENTERING_MS,
        f"imported while extracting: {', '.join(kept.imported[:5])}": bool(kept.imported),
    }
    return [goal for goal, is_missed in found.items() if is_missed]


HEADER = ["way, range", "1,000/s", "ping p50", "p99", "max", "p99 above rest", "gap", "cpu p99.9 / max"]
HEADER += ["clock p99.9 / max", "gc max", "entering"]


def main() -> int:
    """All ways on all ranges."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guest", description=__doc__.splitlines()[0])
    parser.add_argument("--segments", type=int, default=400_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["jsonl", "parquet", "stream", "stream_arrow"])
    parser.add_argument("--ranges", nargs="+", choices=RANGES, default=list(RANGES))
    parser.add_argument("--rate", type=float, help="requests a second at most (default: no limit)")
    parser.add_argument("--smoke", action="store_true", help="a few segments, no judgement")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        pin(-1)
        import segment_fetch.sinks.files.parquet  # noqa: F401, PLC0415 - as a service does, before it serves

        gc.freeze()

        asyncio.run(service())
        return 0
    pin(0)
    rows, bad = [], []
    for place, served in ranges(4_000 if options.smoke else options.segments).items():
        for way in options.ways if place in options.ranges else ():
            with serving(served) as base_url, running_service() as url:
                days = min(7.0, DAYS * WINDOW_ROWS / served.segments)
                job = Job(way, base_url, served.start, served.end, options.rate, days)
                if not options.smoke and not options.rate:
                    asyncio.run(extract(replace(job, way="jsonl")))  # the server renders its pages
                rest, _ = asyncio.run(pinged(url, asyncio.sleep(0.2 if options.smoke else REST_S)))
                pings, kept = asyncio.run(measured(url, job))
            assert kept.segments == served.segments, f"{kept.segments} of {served.segments}"
            rows.append(row(way, place, rest, pings, kept))
            bad += [f"{way}, {place}: {goal}" for goal in missed(way, options.rate, rest, pings, kept)]
            print(rows[-1], file=sys.stderr, flush=True)
    publish("guest", table(HEADER, rows), write=options.write)
    if options.smoke:
        return 0
    print("\n".join(bad))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
