"""A plain script: bring a folder up to date, and end with 1 if something is missing.

Credentials come from the environment: LIVEPERSON_ACCOUNT and LIVEPERSON_BEARER.
"""

import os
import sys

from segment_fetch import BearerToken, SegmentClient, blocking
from segment_fetch.sinks import JsonlSink

client = SegmentClient(
    os.environ["LIVEPERSON_ACCOUNT"],
    auth=BearerToken(os.environ["LIVEPERSON_BEARER"]),
    source="script",
    base_url=os.environ.get("SEGMENT_FETCH_BASE_URL"),
)
report = blocking.sync(client, JsonlSink("segments"), "now-7d")
print(report.segments, "segments", "complete" if report.complete else "incomplete")
sys.exit(0 if report.complete else 1)
