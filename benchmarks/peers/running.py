"""The programs compared, their settings, and one run of a program: in a process of its own, and checked."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from benchmarks.measure import Cost, Job, pin
from segment_fetch.simulator import AtOnce, Dataset, Drift, RateLimit, Simulator
from segment_fetch.simulator.background import running_loop

KEEP_BYTES = 8 * 2**30
_LONGEST_S = 900.0


@dataclass(frozen=True)
class Program:
    """A module of this package, what tables call it, what it needs to be importable, and whether it can be told."""

    module: str
    title: str
    needs: str
    told: bool = False


OWN = Program("this_client", "this client", "segment_fetch", told=True)
PROGRAMS = (
    OWN,
    Program("reqstorm_stream", "reqstorm", "reqstorm", told=True),
    Program("requests_pool", "requests + OAuth 1.0, 10 threads", "requests_oauthlib"),
    Program("httpx_async", "httpx, asyncio", "httpx"),
    Program("dlt_rest", "dlt REST client", "dlt"),
    Program("singer_tap", "Singer SDK tap", "singer_sdk"),
)


@dataclass(frozen=True)
class Setting:
    """The server's behaviour, and the limit that the programs are told; `share` of the segments are read."""

    name: str
    title: str
    rate: float | str | None = None
    limit: RateLimit | AtOnce | None = None
    latency_ms: float = 0.0
    drift: Drift | None = None
    share: float = 1.0

    def simulator(self, dataset: Dataset) -> Simulator:
        """The server. Credentials are sent by all and checked for none, as not all of them send the same."""
        return Simulator(dataset, latency_ms=self.latency_ms, drift=self.drift, keep_bytes=KEEP_BYTES)


LIMIT = RateLimit(20, burst=20)
SETTINGS = (
    Setting("unlimited", "no limit"),
    Setting("limited", "20 requests a second, 150 ms; the limit is not known", "auto", LIMIT, 150.0),
    Setting(
        "strict", "20 requests a second, no burst; the limit is not known", "auto", RateLimit(20), 150.0, share=0.25
    ),
    Setting("told", "20 requests a second, 150 ms; the limit is told", 20.0, LIMIT, 150.0),
    Setting(
        "day",
        "40 pages, 10 requests a second; the limit is not known",
        "auto",
        RateLimit(10, burst=10),
        150.0,
        share=0.1,
    ),
    Setting("day-at-once", "40 pages, 5 requests at once; the limit is not known", "auto", AtOnce(5), 150.0, share=0.1),
    Setting("late", "rows come and go", latency_ms=100.0, drift=Drift(inserts_per_s=30, removals_per_s=30), share=0.25),
)


@dataclass(frozen=True)
class Outcome:
    """The time of a program and its output. `missing` were there all the time; `doubled` are rows written twice."""

    cost: Cost
    requests: int
    refused: int
    missing: int
    doubled: int


class _Inner(msgspec.Struct, rename="camel"):
    segment_id: str = ""


class _Line(msgspec.Struct, rename="camel"):
    """A row, or a Singer message with one in it."""

    segment_id: str = ""
    record: _Inner | None = None


def written(out: Path) -> list[str]:
    """The ids of the rows in the files of a folder, in any order."""
    decode = msgspec.json.Decoder(_Line).decode_lines
    lines = chain.from_iterable(decode(path.read_bytes()) for path in out.glob("*.jsonl"))
    ids = (line.record.segment_id if line.record else line.segment_id for line in lines)
    return [segment_id for segment_id in ids if segment_id]


@contextmanager
def serving(simulator: Simulator) -> Iterator[None]:
    """Serves from a thread of its own on the first core, for the length of the block."""

    async def start() -> None:
        pin(0)
        await simulator.start()

    with running_loop() as loop:
        asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result()


def command(program: Program, job: Job, *more: str) -> list[str]:
    """Return the command that runs a program in a process of its own."""
    return [sys.executable, "-m", f"benchmarks.peers.{program.module}", job.encode(), *more]


def run_once(program: Program, setting: Setting, simulator: Simulator) -> Outcome | None:
    """Run one program and count what it wrote; None if it gave up. The limit is reset before."""
    dataset, stats = simulator.dataset, simulator.stats
    simulator.set_limit(setting.limit)
    requests, refused, since = stats.requests, stats.limited, simulator.mark()
    with tempfile.TemporaryDirectory(prefix="segment_fetch_") as out:
        job = Job(simulator.base_url, dataset.account, dataset.start, dataset.end, out, setting.rate)
        done = subprocess.run(command(program, job), capture_output=True, text=True, timeout=_LONGEST_S, check=False)
        lasting = simulator.ids_throughout(dataset.start, dataset.end, since=since)
        rows = written(Path(out))
    if done.returncode:
        print(f"{program.title}, {setting.title}: gave up\n{done.stderr[-800:]}", file=sys.stderr)
        return None
    print(f"{setting.name}: {program.title}: {Cost.told(done.stdout)}", file=sys.stderr, flush=True)
    different = set(rows)
    return Outcome(
        Cost.told(done.stdout),
        stats.requests - requests,
        stats.limited - refused,
        len(lasting - different),
        len(rows) - len(different),
    )


def dataset_of(setting: Setting, segments: int) -> Dataset:
    """The setting's share of so many: settled ones of a week; where rows come and go, those of the last two days."""
    days, days_ago = (2, 0) if setting.drift else (7, 2)
    return Dataset.recent(int(segments * setting.share), now=time.time() - days_ago * 86_400, days=days)
