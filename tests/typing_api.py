"""Typed calls of the public surface. Nothing here is run; `make types` checks it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import aiohttp
from msgspec import UnsetType

from segment_fetch import (
    BearerToken,
    ClientCredentials,
    Event,
    ExtendedSegment,
    Filters,
    IncompleteError,
    OAuth1Key,
    PaceStore,
    Plan,
    PlannedWindow,
    RetryPolicy,
    Segment,
    SegmentClient,
    SegmentFetchError,
    Window,
)
from segment_fetch.extraction.report import Report
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import Csv, CsvSink, FolderSink, JsonlSink, Parquet, ParquetSink, Sink, StreamSink, Written
from segment_fetch.windows.reader import WindowRead


def heard(event: Event) -> None:
    """A callback for events."""


async def every_setting(session: aiohttp.ClientSession) -> None:
    client = SegmentClient(
        "111111",
        auth=OAuth1Key("key", "secret", "token", "token secret", signature_method="HMAC-SHA256"),
        source="nightly_wfm",
        filters=Filters(agent_id="1", skill_id="2", group_id="3", employee_id="4", conversation_id="5"),
        session=session,
        base_url="https://example.com",
        rate=None,
        pace=PaceStore("state"),
        connections=4,
        window=timedelta(days=1),
        limit=100,
        split_above=10_000,
        settle_after=timedelta(hours=48),
        retry=RetryPolicy(server=(1.0, 2.0), network=(), jitter=0.1),
        on_event=heard,
        clock=lambda: 0.0,
    )
    async with client as entered:
        assert_type(entered, SegmentClient)


async def every_call(client: SegmentClient, sink: Sink[bytes]) -> None:
    assert_type(await client.count("now-7d", "now", clamp=True), int)
    plan = await client.plan(datetime(2026, 11, 1, tzinfo=UTC), 1_793_491_200_000)
    assert_type(plan, Plan)
    assert_type(plan.windows, tuple[PlannedWindow, ...])
    assert_type(plan.windows[0].window, Window)
    assert_type(plan.seconds, float | None)
    report = await client.extract("2026-11-01", "2026-11-08", sink)
    assert_type(report, Report)
    assert_type(report.unproven, tuple[WindowEntry, ...])
    assert_type(report.windows[0].file, str | None)


async def the_windows(client: SegmentClient) -> None:
    async for read in client.windows("now-1d", "now", list, clamp=True):
        assert_type(read, WindowRead[list[Segment]])
        assert_type(read.window, Window)
    async for encoded in client.windows("now-1d", "now", repr):
        assert_type(encoded.parts, list[str])


async def a_stream(client: SegmentClient) -> None:
    try:
        async for batch in client.stream("now-1d", "now"):
            assert_type(batch, list[Segment])
            assert_type(batch[0].segmentId, str)
            assert_type(batch[0].endTimeL, int)
            assert_type(batch[0].agentId, int | UnsetType | None)
    except IncompleteError as error:
        assert_type(error.status, int | None)
    except SegmentFetchError as error:
        assert_type(error.message, str)
    async with aclosing(client.stream("now-1d", "now")) as batches:
        assert_type(await anext(batches), list[Segment])


def destinations() -> list[Sink[bytes]]:
    return [
        JsonlSink("out"),
        JsonlSink(Path("out"), "gzip"),
        CsvSink("out", compress="zstd", safe=True),
        FolderSink("out", Csv(safe=True), "none"),
        JsonlSink("out", partition="day"),
        StreamSink(sys.stdout.buffer),
        Own(),
    ]


def with_columns() -> list[Sink[Any]]:
    return [ParquetSink("out"), ParquetSink(Path("out"), "gzip", partition="day"), FolderSink("out", Parquet(), "zstd")]


class Own(Sink[bytes]):
    """A destination of the caller's own."""

    def settings(self) -> dict[str, str]:
        return {}

    def open(self) -> bytes | None:
        return None

    def encode(self, segments: Sequence[Segment]) -> bytes:
        return b"".join(b"new" if isinstance(segment, ExtendedSegment) else b"" for segment in segments)

    def write(self, window: Window, parts: Iterable[bytes]) -> Written:
        return Written(file=str(window), bytes=0, sha256="")

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def other_credentials() -> None:
    SegmentClient("1", auth=BearerToken("token"), source="a")
    SegmentClient("1", auth=ClientCredentials("id", "secret", clock=lambda: 0.0), source="a")
    SegmentClient("1", auth="token", source="a")  # type: ignore[arg-type]
    SegmentClient("1", BearerToken("token"), "a")  # type: ignore[call-arg]
    JsonlSink(1)  # type: ignore[arg-type]
