"""Four programs that extract the same segments into JSON Lines, each run in a process of its own by `extract`.

    python -m benchmarks.contenders NAME JOB [--profile LINES]

Time and CPU are measured from before the first connection to after the last byte is written, without imports.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import sys
from collections.abc import Callable
from itertools import count as count_from

import aiohttp
import msgspec
import requests

from benchmarks.measure import CONNECTIONS, PAGE, SOURCE, TOKEN, Job, Meter, pin
from segment_fetch import BearerToken, SegmentClient
from segment_fetch.extraction import opening as _opening  # noqa: F401 - loaded before the clock runs, as the others' modules are
from segment_fetch.sinks import JsonlSink
from segment_fetch.wire import raw_rows
from segment_fetch.wire.models import SegmentPage

_HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def client(job: Job) -> None:
    """Run this client with its defaults, every check on, without a rate limit."""
    asyncio.run(_client(job))


def uncompiled(job: Job) -> None:
    """Run the same as if it was installed without a C compiler."""
    setattr(raw_rows, "_scanner", raw_rows.Uncompiled())  # noqa: B010 - types do not know it as an attribute
    client(job)


async def _client(job: Job) -> None:
    opened = SegmentClient(
        job.account,
        auth=BearerToken(TOKEN),
        source=SOURCE,
        base_url=job.base_url,
        rate=None,
        connections=CONNECTIONS,
    )
    async with opened:
        report = await opened.extract(job.start, job.end, JsonlSink(job.out))
    if not report.complete:
        raise SystemExit(f"incomplete: {report.unproven}")


def bare(job: Job) -> None:
    """Run the bare minimum of aiohttp and msgspec: no check, retry, order or manifest."""
    asyncio.run(_bare(job))


async def _bare(job: Job) -> None:
    decode, encode = msgspec.json.Decoder(SegmentPage).decode, msgspec.json.Encoder().encode_lines
    url = f"{job.url}?source={SOURCE}&fromMillis={job.start}&toMillis={job.end}&sort=Date&limit={PAGE}&offset="
    async with aiohttp.ClientSession(headers=_HEADERS) as session:
        with job.file.open("wb") as file:

            async def fetch(offset: int) -> int:
                async with session.get(f"{url}{offset}") as response:
                    page = decode(await response.read())
                file.write(encode(page.segments))
                return page.pagination.count

            async def work() -> None:
                for offset in offsets:
                    await fetch(offset)

            offsets = iter(range(PAGE, await fetch(0), PAGE))
            await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


def usual(job: Job) -> None:
    """Run the usual script: aiohttp, a semaphore, `json`."""
    asyncio.run(_usual(job))


async def _usual(job: Job) -> None:
    semaphore = asyncio.Semaphore(CONNECTIONS)
    async with aiohttp.ClientSession(headers=_HEADERS) as session:
        with job.file.open("w", encoding="utf-8") as file:

            async def fetch(offset: int) -> int:
                async with semaphore, session.get(job.url, params=job.params(offset)) as response:
                    response.raise_for_status()
                    page = await response.json()
                for segment in page["segments"]:
                    file.write(json.dumps(segment) + "\n")
                return int(page["pagination"]["count"])

            total = await fetch(0)
            await asyncio.gather(*(fetch(offset) for offset in range(PAGE, total, PAGE)))


def sequential(job: Job) -> None:
    """Run `requests`, page after page."""
    with requests.Session() as session, job.file.open("w", encoding="utf-8") as file:
        session.headers.update(_HEADERS)
        for offset in count_from(0, PAGE):
            response = session.get(job.url, params=job.params(offset), timeout=60)
            response.raise_for_status()
            page = response.json()
            for segment in page["segments"]:
                file.write(json.dumps(segment) + "\n")
            if offset + PAGE >= page["pagination"]["count"]:
                break


CONTENDERS: dict[str, Callable[[Job], None]] = {
    "client": client,
    "uncompiled": uncompiled,
    "bare": bare,
    "usual": usual,
    "sequential": sequential,
}


def main() -> None:
    """Run one contender, once."""
    parser = argparse.ArgumentParser(description="One contender of benchmarks.extract")
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("job")
    parser.add_argument("--profile", type=int, metavar="LINES", help="print the most expensive functions")
    options = parser.parse_args()
    job = Job.decode(options.job)
    pin(-1)
    run = CONTENDERS[options.name]
    profiler = cProfile.Profile() if options.profile else None
    meter = Meter()
    profiler.runcall(run, job) if profiler else run(job)
    meter.cost().tell()
    if profiler:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(options.profile)


if __name__ == "__main__":
    main()
