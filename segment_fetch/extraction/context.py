"""The context of a run: the parts of an open client that counting, reading and committing share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from msgspec import Struct, field, structs

from segment_fetch.api.endpoints import MAX_SKEW_S, SegmentApi
from segment_fetch.events import Event, FastPathUnused, PageRead
from segment_fetch.extraction.loop_turns import Turns
from segment_fetch.extraction.row_budget import RowBudget
from segment_fetch.extraction.telemetry import Call, Telemetry
from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.query import Window
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.timerange import CLAMP_MARGIN_MS, SETTLE_AFTER_MS, oldest_start
from segment_fetch.wire.pages import PageSource


class ReadOptions(Struct, frozen=True):
    """Segments asked for in a page, the most that a window may hold before it is split, and the settle margin."""

    limit: int
    split_above: int
    settle_after_ms: int = SETTLE_AFTER_MS


class PageCounts(Struct):
    """Pages of a run with segments, by the way in which they were decoded, and the reason of the first fallback."""

    fast: int = 0
    fallback: int = 0
    reason: str | None = None

    def take(self, event: Event) -> None:
        """Count a page; any other event is of no interest."""
        if isinstance(event, PageRead) and event.rows:
            self.fast += event.fallback is None
            self.fallback += event.fallback is not None
            self.reason = self.reason or event.fallback

    @property
    def unused(self) -> FastPathUnused | None:
        """The event for the end of a run in which no page took the fast path; None if one did, or none came."""
        return FastPathUnused(self.fallback, self.reason) if self.reason is not None and not self.fast else None


class RunContext(Struct, frozen=True):
    """An open client, as the functions of this package need it.

    `width` is that of the widest window (milliseconds), `clock` gives the time (seconds since the epoch).
    """

    api: SegmentApi
    limiter: Limiter
    retry: RetryPolicy
    connections: int
    options: ReadOptions
    width: int
    tell: Callable[[Event], None]
    tell_of_run: Callable[[Event, str], None]
    clock: Callable[[], float]
    turns: Turns
    telemetry: Telemetry
    rows: RowBudget | None = None
    pages: PageCounts = field(default_factory=PageCounts)

    @contextmanager
    def run(self, name: str) -> Iterator[RunContext]:
        """The context of one run, for the length of the block; `name` is that of the client's method."""
        run_id, pages = uuid4().hex, PageCounts()
        with self.telemetry.run(name, run_id) as telemetry:

            def tell(event: Event) -> None:
                telemetry.follow(event)
                pages.take(event)
                self.tell_of_run(event, run_id)

            yield structs.replace(self, telemetry=telemetry, tell=tell, pages=pages)
            if (unused := pages.unused) is not None:
                tell(unused)

    def workers(self, source: PageSource[Any], call: Callable[[Window], Call] | None = None) -> WorkerPool:
        """A pool of workers that sends what the source asks for; `call` measures an attempt at a page of a window."""
        return WorkerPool(
            self.api,
            self.limiter,
            source,
            connections=self.connections,
            retry=self.retry,
            tell=self.tell,
            call=call or self.telemetry.call,
        )

    def now_ms(self) -> int:
        """The time by the earlier of the local clock and the server's, as far as that is known, epoch milliseconds."""
        ahead = self.api.clock_ahead_s() or 0.0
        return int((self.clock() - (ahead if ahead > MAX_SKEW_S else 0.0)) * 1000)

    def oldest_ms(self) -> int:
        """The first moment that the API still serves when a run that begins now gets there, epoch milliseconds."""
        ahead = self.api.clock_ahead_s() or 0.0  # the server's clock decides where its month begins
        now = self.clock() - (ahead if abs(ahead) > MAX_SKEW_S else 0.0)
        return oldest_start(int(now * 1000)) + CLAMP_MARGIN_MS
