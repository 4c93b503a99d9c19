"""This client as it is delivered, with every check."""

import asyncio

from benchmarks.measure import CONNECTIONS, SOURCE, TOKEN, Job, run
from segment_fetch import BearerToken, SegmentClient
from segment_fetch.api import transport as _transport  # noqa: F401
from segment_fetch.extraction import run as _filling  # noqa: F401 - loaded before the clock runs, as the others' modules are
from segment_fetch.sinks import JsonlSink


async def extract(job: Job) -> None:
    """`extract` into a folder of JSON Lines."""
    client = SegmentClient(
        job.account,
        auth=BearerToken(TOKEN),
        source=SOURCE,
        base_url=job.base_url,
        rate="auto" if job.rate == "auto" else None if job.rate is None else float(job.rate),
        connections=CONNECTIONS,
    )
    async with client:
        report = await client.extract(job.start, job.end, JsonlSink(job.out))
    if not report.complete:
        raise SystemExit(f"unproven: {report.unproven}")


if __name__ == "__main__":
    run(lambda job: asyncio.run(extract(job)))
