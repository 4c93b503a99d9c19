"""Spans and metrics: what a run, a window and a commit leave, and how aiohttp's own instrumentation fits in."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import Struct
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode

from segment_fetch import InputError
from segment_fetch.simulator import Fault, Faults
from segment_fetch.sinks import JsonlSink
from tests.support_runs import END, NOW, START, client, served, settled


class Recorded(Struct):
    """The telemetry that the SDK of this test was given."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    collected: dict[str, Metric] = {}

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """The ended spans of a name; of aiohttp's instrumentation where that is empty."""
        ended = self.exporter.get_finished_spans()
        return [span for span in ended if (span.name == name if name else span.kind is SpanKind.CLIENT)]

    def metrics(self) -> dict[str, Metric]:
        """The last metrics of this library: an older SDK gives the data of a gauge once."""
        data = self.reader.get_metrics_data()
        resources = [] if data is None else data.resource_metrics
        scopes = [scope for each in resources for scope in each.scope_metrics if scope.scope.name == "segment_fetch"]
        self.collected |= {metric.name: metric for scope in scopes for metric in scope.metrics}
        return self.collected

    def points(self) -> dict[str, list[Any]]:
        """The last data points of each metric."""
        return {name: list(metric.data.data_points) for name, metric in self.metrics().items()}

    def values(self, name: str, label: str) -> dict[Any, Any]:
        """The values of a metric by the value of one of its attributes."""
        points = self.points()[name]
        assert all(isinstance(point, NumberDataPoint) for point in points)
        return {point.attributes[label]: point.value for point in points}

    def value(self, name: str) -> Any:
        """The value of a metric of one account."""
        (value,) = self.values(name, "segment_fetch.account").values()
        return value


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """An SDK for the length of a test, and aiohttp instrumented with it."""
    found = Recorded(InMemorySpanExporter(), InMemoryMetricReader())
    tracers, meters = TracerProvider(), MeterProvider([found.reader])
    tracers.add_span_processor(SimpleSpanProcessor(found.exporter))
    monkeypatch.setattr(trace, "get_tracer", tracers.get_tracer)
    monkeypatch.setattr(metrics, "get_meter", meters.get_meter)
    AioHttpClientInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    try:
        yield found
    finally:
        AioHttpClientInstrumentor().uninstrument()
        tracers.shutdown()
        meters.shutdown()


def parent(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def own(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


@pytest.mark.parametrize("given", [False, True], ids=["own session", "session of the caller"])
async def test_http_spans_have_the_windows_as_parents_each_once(
    recorded: Recorded, tmp_path: Path, given: bool
) -> None:
    async with served(settled(1_200)) as simulator, aiohttp.ClientSession() as session:
        options: dict[str, Any] = {"session": session} if given else {}
        async with client(simulator, split_above=500, **options) as opened:
            report = await opened.extract(START, END, JsonlSink(tmp_path / "out"))
        sent = simulator.stats.requests
    (run,) = recorded.spans("segment_fetch.extract")
    windows, commits, http = (
        recorded.spans("segment_fetch.window"),
        recorded.spans("segment_fetch.commit"),
        recorded.spans(),
    )
    assert len(http) == sent == report.requests
    assert {parent(span) for span in http} == {own(span) for span in windows}
    assert {parent(span) for span in [*windows, *commits]} == {own(run)}
    assert len(commits) == len(report.windows) > 1
    statuses = Counter(str((span.attributes or {})["segment_fetch.window.status"]) for span in windows)
    assert statuses == {"complete": len(report.windows), "split": 1}
    assert (run.attributes or {})["segment_fetch.segments"] == 1_200
    assert (run.attributes or {})["segment_fetch.account"] == simulator.account


async def test_metrics_are_those_of_the_report(recorded: Recorded, tmp_path: Path) -> None:
    async with served(settled(1_200)) as simulator, client(simulator, rate=500.0, split_above=500) as opened:
        simulator.fail_next(Fault.ERROR_503)
        simulator.fail_next(Fault.TOO_MANY)
        report = await opened.extract(START, END, JsonlSink(tmp_path / "out"))
        body = sum(window.bytes or 0 for window in report.windows)
    assert recorded.value("segment_fetch.segments") == report.segments == 1_200
    assert recorded.values("segment_fetch.windows", "segment_fetch.window.status") == {"complete": len(report.windows)}
    outcomes = recorded.values("segment_fetch.requests", "segment_fetch.outcome")
    assert outcomes == {"accepted": report.requests - 2, "failed": 1, "throttled": 1}
    assert recorded.value("segment_fetch.retries") == report.retries == 2
    assert recorded.value("segment_fetch.pauses") == 1
    assert recorded.value("segment_fetch.bytes") > body / 2
    assert recorded.values("segment_fetch.pages", "segment_fetch.path") == {"fast": report.fast_pages}
    assert report.fast_pages == report.requests - 2
    assert 0 < recorded.value("segment_fetch.pace") <= 500
    assert recorded.value("segment_fetch.cap") >= 1
    (commits,) = recorded.points()["segment_fetch.commit.duration"]
    assert commits.count == len(report.windows)
    assert commits.sum > 0
    assert recorded.value("segment_fetch.complete_before") == END / 1000
    assert all(
        name.startswith("segment_fetch.") for name in recorded.points()
    )  # never http.client.*: that is aiohttp's


async def test_the_page_lists_the_metrics_as_they_are(recorded: Recorded, tmp_path: Path) -> None:
    """Their names, kinds and units, and no other: the table of docs/telemetry.md beside what an SDK is given."""
    async with served(settled(1_200)) as simulator, client(simulator, rate=500.0) as opened:
        simulator.fail_next(Fault.TOO_MANY)
        await opened.extract(START, END, JsonlSink(tmp_path / "out"))
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    listed = set(re.findall(r"^\| `(segment_fetch\.[\w.]+)` \| (\w+) \| `([^`]+)` \|", page, re.MULTILINE))
    kinds = {Sum: "counter", Gauge: "gauge", Histogram: "histogram"}
    assert {(metric.name, kinds[type(metric.data)], metric.unit) for metric in recorded.metrics().values()} == listed


async def test_a_sync_is_a_run_and_its_counts_belong_to_it(recorded: Recorded, tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        async with client(simulator) as opened:
            await opened.sync(JsonlSink(tmp_path / "out"), START)
        later = NOW + 60
        async with client(simulator, clock=lambda: later) as opened:
            await opened.sync(JsonlSink(tmp_path / "out"))
        sent = simulator.stats.requests
    runs = {own(span) for span in recorded.spans("segment_fetch.sync")}
    assert len(runs) == 2
    windows = {own(span) for span in recorded.spans("segment_fetch.window")}
    parents = [parent(span) for span in recorded.spans()]
    assert len(parents) == sent
    assert set(parents) <= runs | windows
    assert runs & set(parents)  # the provisional days were counted


async def test_no_span_is_current_in_the_callers_code(recorded: Recorded) -> None:
    async with served(settled(1_200)) as simulator, client(simulator) as opened:
        async with aclosing(opened.stream(START, END)) as batches:
            async for _ in batches:
                assert trace.get_current_span() is INVALID_SPAN
                break
        assert trace.get_current_span() is INVALID_SPAN
    (run,) = recorded.spans("segment_fetch.stream")
    assert (run.attributes or {})["segment_fetch.cancelled"] is True
    assert run.status.status_code is StatusCode.UNSET


async def test_the_callers_span_is_the_parent_of_a_run(recorded: Recorded) -> None:
    async with served(settled()) as simulator, client(simulator) as opened:
        with trace.get_tracer("app").start_as_current_span("request") as outer:
            await opened.count(START, END)
        (run,) = recorded.spans("segment_fetch.count")
    assert parent(run) == outer.get_span_context().span_id


async def test_concurrent_runs_keep_their_windows_apart(recorded: Recorded, tmp_path: Path) -> None:
    async with served(settled(1_200)) as simulator, client(simulator) as opened:
        await asyncio.gather(*(opened.extract(START, END, JsonlSink(tmp_path / name)) for name in "ab"))
    runs = {own(span) for span in recorded.spans("segment_fetch.extract")}
    assert {parent(span) for span in recorded.spans("segment_fetch.window")} == runs
    assert len(runs) == 2


async def test_a_run_that_fails_says_why(recorded: Recorded, tmp_path: Path) -> None:
    async with served(settled(), faults=Faults(forbidden=1.0)) as simulator, client(simulator) as opened:
        with pytest.raises(Exception, match="403") as caught:
            await opened.extract(START, END, JsonlSink(tmp_path / "out"))
    (run,) = recorded.spans("segment_fetch.extract")
    assert run.status.status_code is StatusCode.ERROR
    assert run.status.description == str(caught.value)
    assert (run.attributes or {})["error.type"] == type(caught.value).__qualname__
    assert recorded.values("segment_fetch.requests", "segment_fetch.outcome") == {"refused": simulator.stats.requests}


async def test_one_setting_turns_it_off(recorded: Recorded) -> None:
    async with served(settled()) as simulator, client(simulator, telemetry=False) as opened:
        assert await opened.count(START, END) == 60
    assert [span.kind for span in recorded.exporter.get_finished_spans()] == [
        SpanKind.CLIENT
    ] * simulator.stats.requests
    assert not recorded.points()


async def test_without_the_package_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with served(settled()) as simulator, client(simulator) as opened:
        assert await opened.count(START, END) == 60


def test_the_setting_is_checked() -> None:
    with pytest.raises(InputError, match="telemetry: must be True or False"):
        client(served(settled()), telemetry="no")
