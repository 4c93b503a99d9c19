"""reqstorm: `stream`, with `rate_limit` where the limit is told, and else with its retries, which heed Retry-After.

Where the limit is to be found out, `concurrency="auto"` is its quickest: its `rate_limit="auto"` doubles the pause for
each 429, so that 16 refused together stop it for a minute. Its paginators follow one page after the other, so the first
page tells the count and the offsets are sent as a batch. Rows go through the standard library's json, which is what
`result.json()` uses; its schemas would check each value again.
"""

import asyncio
import json
from contextlib import aclosing
from typing import Any

import reqstorm

from benchmarks.measure import CONNECTIONS, PAGE, TOKEN, Job, run


async def extract(job: Job) -> None:
    """Page after page into one file, as they come."""
    options: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "concurrency": "auto" if job.rate == "auto" else CONNECTIONS,
        "rate_limit": None if job.rate == "auto" else job.rate,
        "retries": 30,
        "timeout": 60,
    }
    [first] = await reqstorm.fetch_all([reqstorm.Request(job.url, params=job.params(0))], **options)
    first.raise_for_error()
    offsets = range(PAGE, first.json()["pagination"]["count"], PAGE)
    rest = (reqstorm.Request(job.url, params=job.params(offset)) for offset in offsets)
    with job.file.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in first.json()["segments"])
        async with aclosing(reqstorm.stream(rest, **options)) as results:
            async for result in results:
                result.raise_for_error()
                file.writelines(json.dumps(row) + "\n" for row in result.json()["segments"])


if __name__ == "__main__":
    run(lambda job: asyncio.run(extract(job)))
