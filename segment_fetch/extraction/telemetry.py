"""Spans and metrics of a client through opentelemetry-api, which does nothing unless the application installs an SDK.

This module imports it only when a client is opened. HTTP spans are left to aiohttp's own instrumentation: the span of a
window is current while a request for it is made, and so becomes their parent. No span of this library is current
anywhere else, so none leaks into the caller's code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from segment_fetch.errors import SegmentFetchError, ThrottledError, TransientError
from segment_fetch.events import Event, PaceChanged, Paused, WindowDone, WindowSplit
from segment_fetch.query import Query, Window
from segment_fetch.timerange import format_time

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from segment_fetch.wire.pages import PageAnswer

SCOPE = "segment_fetch"
"""The name of the tracer and of the meter, and the beginning of the name of every span, metric and attribute."""


class Call:
    """One attempt at a page, as a context manager. This one measures nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note the outcome."""

    def sent(self, *, again: bool) -> None:
        """Note that the request is about to be sent; `again` if it is a retry."""

    def received(self, answer: PageAnswer) -> None:
        """Note an accepted answer: its size, and how it was decoded."""


_NO_CALL = Call()


def no_call(window: Window) -> Call:
    """Return a call that measures nothing."""
    return _NO_CALL


class Telemetry:
    """The telemetry of an open client, or of one run of it. This one measures nothing."""

    @contextmanager
    def run(self, name: str, run_id: str) -> Iterator[Telemetry]:
        """Yield the telemetry of one run; `name` is the name of the client's method."""
        yield self

    def call(self, window: Window) -> Call:
        """Return an attempt at a page, which belongs to the run as a whole."""
        return no_call(window)

    def call_of_window(self, window: Window) -> Call:
        """Return an attempt at a page of a window that is being read."""
        return no_call(window)

    def commit(self, window: Window) -> AbstractContextManager[object]:
        """Return a context manager for the commit of a window. May be entered in any thread."""
        return nullcontext(window)

    def take(self, event: Event) -> None:
        """Count an event of the client."""

    def follow(self, event: Event) -> None:
        """End the span of a window at the event that reports its end."""

    def report(self, segments: int, complete_before: str | None) -> None:
        """Record the result of a run: segments read, and the time before which the destination is complete."""


def telemetry_of(query: Query, connections: int, *, enabled: bool) -> Telemetry:
    """Return the telemetry of a client: one that measures nothing if not `enabled`, or without opentelemetry-api."""
    if not enabled:
        return Telemetry()
    try:
        return _OpenTelemetry(query, connections)
    except ImportError:
        return Telemetry()


class _Instruments:
    """The metrics, as docs/telemetry.md lists them."""

    def __init__(self) -> None:
        from opentelemetry import metrics  # noqa: PLC0415 - optional

        meter = metrics.get_meter(SCOPE)
        self.segments = meter.create_counter("segment_fetch.segments", "{segment}", "Segments of proven windows")
        self.windows = meter.create_counter("segment_fetch.windows", "{window}", "Windows that ended, by status")
        self.requests = meter.create_counter("segment_fetch.requests", "{request}", "Page requests, by outcome")
        self.retries = meter.create_counter("segment_fetch.retries", "{request}", "Page requests that were repeated")
        self.bytes = meter.create_counter("segment_fetch.bytes", "By", "Size of accepted pages, decompressed")
        self.pages = meter.create_counter("segment_fetch.pages", "{page}", "Accepted pages with segments, by path")
        self.pauses = meter.create_counter("segment_fetch.pauses", "{pause}", "Pauses that the API requested (429)")
        self.pace = meter.create_gauge("segment_fetch.pace", "{request}/s", "Requests a second, at most")
        self.cap = meter.create_gauge("segment_fetch.cap", "{request}", "Requests in flight, at most")
        self.commits = meter.create_histogram("segment_fetch.commit.duration", "s", "Time to commit a window")
        self.complete_before = meter.create_gauge(
            "segment_fetch.complete_before", "s", "Unix time before which the destination is complete and final"
        )


class _OpenTelemetry(Telemetry):
    """The telemetry of a client that is measured."""

    def __init__(self, query: Query, connections: int) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - optional

        self.tracer = trace.get_tracer(SCOPE)
        self.instruments = _Instruments()
        self.labels = {"segment_fetch.account": query.account}
        self._source = query.source
        self._connections = connections

    @contextmanager
    def run(self, name: str, run_id: str) -> Iterator[Telemetry]:
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

        labels = self.labels | {"segment_fetch.source": self._source, "segment_fetch.run_id": run_id}
        span = self.tracer.start_span(f"segment_fetch.{name}", attributes=labels)
        run = _Run(self, span, set_span_in_context(span))
        try:
            yield run
        except BaseException as error:
            _note_failure(span, error)
            raise
        finally:
            run.end()

    def call(self, window: Window) -> Call:
        return _MeasuredCall(self, None)

    def take(self, event: Event) -> None:
        match event:
            case WindowDone():
                self.instruments.windows.add(1, self.labels | {"segment_fetch.window.status": event.status})
                if event.status != "unproven":
                    self.instruments.segments.add(event.segments, self.labels)
            case Paused():
                self.instruments.pauses.add(1, self.labels)
            case PaceChanged():
                self.instruments.pace.set(event.rate, self.labels)
                self.instruments.cap.set(self._connections if event.at_once is None else event.at_once, self.labels)
            case _:
                pass


class _Run(Telemetry):
    """The telemetry of a run that is measured. Its spans are children of the run's, by explicit contexts."""

    def __init__(self, client: _OpenTelemetry, span: Span, context: Context) -> None:
        self._client = client
        self._span = span
        self._context = context
        self._windows: dict[Window, Span] = {}

    def call(self, window: Window) -> Call:
        return _MeasuredCall(self._client, self._span)

    def call_of_window(self, window: Window) -> Call:
        span = self._windows.get(window)
        if span is None:
            span = self._windows[window] = self._start("segment_fetch.window", window)
        return _MeasuredCall(self._client, span)

    def _start(self, name: str, window: Window) -> Span:
        labels = self._client.labels | {
            "segment_fetch.window.start": format_time(window.start),
            "segment_fetch.window.end": format_time(window.end),
        }
        return self._client.tracer.start_span(name, self._context, attributes=labels)

    @contextmanager
    def commit(self, window: Window) -> Iterator[None]:
        from opentelemetry.trace import use_span  # noqa: PLC0415

        begun = time.perf_counter()
        span = self._start("segment_fetch.commit", window)
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            _note_failure(span, error)
            raise
        finally:
            span.end()
            self._client.instruments.commits.record(time.perf_counter() - begun, self._client.labels)

    def follow(self, event: Event) -> None:
        if not isinstance(event, WindowDone | WindowSplit):
            return
        span = self._windows.pop(event.window, None)
        if span is None:
            return
        if isinstance(event, WindowSplit):
            span.set_attributes(
                {"segment_fetch.window.status": "split", "segment_fetch.window.parts": len(event.parts)}
            )
        else:
            span.set_attributes({"segment_fetch.window.status": event.status, "segment_fetch.segments": event.segments})
            if event.status == "unproven":
                _set_failed(span, event.reason or "unproven")
        span.end()

    def report(self, segments: int, complete_before: str | None) -> None:
        self._span.set_attribute("segment_fetch.segments", segments)
        if complete_before is not None:
            self._span.set_attribute("segment_fetch.complete_before", complete_before)
            moment = datetime.fromisoformat(complete_before).timestamp()
            self._client.instruments.complete_before.set(moment, self._client.labels)

    def end(self) -> None:
        """End the run's span, and those of windows that it did not finish."""
        for span in self._windows.values():
            span.set_attribute("segment_fetch.window.status", "cancelled")
            span.end()
        self._windows.clear()
        self._span.end()


class _MeasuredCall(Call):
    """One attempt at a page, during which `span` is current."""

    def __init__(self, client: _OpenTelemetry, span: Span | None) -> None:
        self._client = client
        self._span = span
        self._sent = False
        self._current: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> Self:
        if self._span is not None:
            from opentelemetry.trace import use_span  # noqa: PLC0415

            self._current = use_span(self._span, record_exception=False, set_status_on_exception=False)
        self._current.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current.__exit__(kind, error, trace)
        if self._sent:
            labels = self._client.labels | {"segment_fetch.outcome": _outcome(error)}
            self._client.instruments.requests.add(1, labels)

    def sent(self, *, again: bool) -> None:
        self._sent = True
        if again:
            self._client.instruments.retries.add(1, self._client.labels)

    def received(self, answer: PageAnswer) -> None:
        self._client.instruments.bytes.add(answer.size, self._client.labels)
        if answer.page.segments:
            path = "fast" if answer.fallback is None else "fallback"
            self._client.instruments.pages.add(1, self._client.labels | {"segment_fetch.path": path})


def _outcome(error: BaseException | None) -> str:
    match error:
        case None:
            return "accepted"
        case ThrottledError():
            return "throttled"
        case TransientError():
            return "failed"
        case asyncio.CancelledError():
            return "cancelled"
        case _:
            return "refused"


def _note_failure(span: Span, error: BaseException) -> None:
    """Mark a span as failed. The text of a foreign exception may contain anything, so only its type is recorded."""
    if isinstance(error, GeneratorExit | asyncio.CancelledError):
        span.set_attribute("segment_fetch.cancelled", value=True)
        return
    span.set_attribute("error.type", type(error).__qualname__)
    _set_failed(span, str(error) if isinstance(error, SegmentFetchError) else type(error).__qualname__)


def _set_failed(span: Span, text: str) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    span.set_status(Status(StatusCode.ERROR, text))
