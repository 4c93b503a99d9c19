"""A pool of 10 threads with requests and OAuth 1.0: what lp_api_wrapper, LivePerson's Python wrapper, does.

As there: the first page tells the count, and `ThreadPoolExecutor(max_workers=10)` asks for every other offset, each
request signed by `requests_oauthlib.OAuth1`. Better than there: pages as large as the API allows, a session for each
thread, which keeps its connection, rows written as they come, and `Retry` of urllib3, which heeds Retry-After. The
body is decoded by the standard library's json; `response.json()` would take simplejson, slower, if that is installed.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests_oauthlib import OAuth1
from urllib3.util import Retry

from benchmarks.measure import Job, run

_AGAIN = Retry(total=30, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))


def extract(job: Job) -> None:
    """Page after page into one file, in the order of the offsets."""
    kept = local()
    signed = OAuth1("app-key", "app-secret", "access-token", "access-token-secret")

    def fetch(offset: int) -> Any:
        if not hasattr(kept, "session"):
            kept.session = requests.Session()
            kept.session.mount("http://", HTTPAdapter(max_retries=_AGAIN))
        response = kept.session.get(job.url, params=job.params(offset), auth=signed, timeout=60)
        response.raise_for_status()
        return json.loads(response.content)

    with ThreadPoolExecutor(max_workers=10) as pool, job.file.open("w", encoding="utf-8") as file:
        first = fetch(0)
        file.writelines(json.dumps(row) + "\n" for row in first["segments"])
        for page in pool.map(fetch, range(500, first["pagination"]["count"], 500)):
            file.writelines(json.dumps(row) + "\n" for row in page["segments"])


if __name__ == "__main__":
    run(extract)
