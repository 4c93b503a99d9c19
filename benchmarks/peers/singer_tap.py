"""A Singer SDK tap for the endpoint: RESTStream with OffsetPaginator, and its own back-off on 429.

A stream asks one page after the other; the SDK offers nothing side by side. As its page on performance says, messages
are written with msgspec and records are not conformed to the schema again. What is written are Singer messages, one a
line, as a target would read them. The end is the first empty page, which saves decoding each page a second time.
"""

import os
import sys
from collections.abc import Iterable
from typing import Any

import requests
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import BearerTokenAuthenticator
from singer_sdk.contrib.msgspec import MsgSpecWriter
from singer_sdk.pagination import OffsetPaginator
from singer_sdk.streams.core import TypeConformanceLevel

from benchmarks.measure import PAGE, TOKEN, Job, run

_TEXTS = ["segmentId", "conversationId", "employeeId", "endReason", "startTime", "endTime"]
_NUMBERS = ["startTimeL", "endTimeL", "agentId", "skillId", "groupId", "totalHandleTimeMillis"]


class Offsets(OffsetPaginator):
    """0, 500, 1000, ... until a page is empty."""

    def has_more(self, response: requests.Response) -> bool:
        """The stream ends at a page without records."""
        return True


class Segments(RESTStream[int]):
    """Agent segments."""

    name = "segments"
    path = ""
    schema = th.PropertiesList(
        *(th.Property(name, th.StringType) for name in _TEXTS),
        *(th.Property(name, th.IntegerType) for name in _NUMBERS),
    ).to_dict()
    TYPE_CONFORMANCE_LEVEL = TypeConformanceLevel.NONE

    @property
    def url_base(self) -> str:
        """Return the address of pages."""
        return str(self.config["url"])

    @property
    def authenticator(self) -> BearerTokenAuthenticator:
        """A fixed token."""
        return BearerTokenAuthenticator(token=TOKEN)

    def get_new_paginator(self) -> Offsets:
        """From the first row on."""
        return Offsets(start_value=0, page_size=PAGE)

    def get_url_params(self, context: Any, next_page_token: int | None) -> dict[str, Any]:
        """Return the parameters of a page's request."""
        return {**self.config["query"], "offset": next_page_token or 0}

    def parse_response(self, response: requests.Response) -> Iterable[dict[str, Any]]:
        """The rows of a page."""
        yield from response.json()["segments"]


class SegmentsTap(Tap):
    """The tap of one stream."""

    name = "tap-segments"
    message_writer_class = MsgSpecWriter
    config_jsonschema = th.PropertiesList(
        th.Property("url", th.StringType), th.Property("query", th.ObjectType())
    ).to_dict()

    def discover_streams(self) -> list[Segments]:
        """The one stream."""
        return [Segments(self)]


def extract(job: Job) -> None:
    """Write the tap's standard output into a file."""
    told = sys.stdout
    with job.file.open("w", encoding="utf-8") as sys.stdout:
        SegmentsTap(config={"url": job.url, "query": job.query}).sync_all()
    sys.stdout = told


if __name__ == "__main__":
    os.environ["TAP_SEGMENTS_LOGLEVEL"] = "WARNING"
    run(extract)
