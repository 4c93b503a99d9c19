"""dlt: RESTClient with its OffsetPaginator, and its own retries, which heed Retry-After.

A paginator asks one page after the other. Where the server is slow and limited, ten parts of the range are read side by
side, as dlt's page on performance says: `parallelized=True`, with `workers` of the extract stage to match; without a
limit that only costs time, as one core decodes all of it. The end is the first empty page, rather than `total_path`,
for which dlt would decode every page a second time.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import dlt
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import OffsetPaginator

from benchmarks.measure import PAGE, TOKEN, Job, run

_PARTS = 10


def pages(job: Job, start: int, end: int) -> Iterator[Any]:
    """The pages of the segments closed in [start, end)."""
    client = RESTClient(
        job.base_url, auth=BearerTokenAuth(token=TOKEN), paginator=OffsetPaginator(PAGE, total_path=None)
    )
    params = {**job.query, "fromMillis": start, "toMillis": end - 1}
    yield from client.paginate(job.url.removeprefix(job.base_url), params=params, data_selector="segments")


def parts(job: Job) -> Any:
    """Ten parts of the range, a resource each, in as many threads."""
    os.environ["EXTRACT__WORKERS"] = str(_PARTS)
    edges = [job.start + (job.end - job.start) * part // _PARTS for part in range(_PARTS + 1)]
    return dlt.source(
        lambda: [
            dlt.resource(pages(job, edges[part], edges[part + 1]), name=f"part_{part}", parallelized=True)
            for part in range(_PARTS)
        ],
        name="segments",
    )()


def extract(job: Job) -> None:
    """Page after page into one file."""
    with job.file.open("w", encoding="utf-8") as file:
        if job.rate is not None:
            file.writelines(json.dumps(row) + "\n" for row in parts(job))
            return
        for page in pages(job, job.start, job.end):
            file.writelines(json.dumps(row) + "\n" for row in page)


if __name__ == "__main__":
    run(extract)
