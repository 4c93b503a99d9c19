"""httpx: one AsyncClient with as many connections as requests at once, as its page on resource limits says.

It retries connections only, so 429 is answered here, by the Retry-After of the answer. The rows go through the
standard library's json, which is what `response.json()` uses.
"""

import asyncio
import json
from typing import Any

import httpx

from benchmarks.measure import CONNECTIONS, PAGE, TOKEN, Job, run


async def extract(job: Job) -> None:
    """The first page tells the count; then so many workers take one offset after the other."""
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60) as client:
        with job.file.open("w", encoding="utf-8") as file:

            async def fetch(offset: int) -> Any:
                response = await client.get(job.url, params=job.params(offset))
                while response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(float(response.headers["Retry-After"]))
                    response = await client.get(job.url, params=job.params(offset))
                page = response.raise_for_status().json()
                file.writelines(json.dumps(row) + "\n" for row in page["segments"])
                return page["pagination"]["count"]

            async def work() -> None:
                for offset in offsets:
                    await fetch(offset)

            offsets = iter(range(PAGE, await fetch(0), PAGE))
            await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    run(lambda job: asyncio.run(extract(job)))
