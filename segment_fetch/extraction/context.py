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
    """The page size, the number of segments above which a window is split, and the settle margin (milliseconds)."""

    limit: int
    split_above: int
    settle_after_ms: int = SETTLE_AFTER_MS


class PageCounts(Struct):
    """The number of non-empty pages of a run, by decoding path, and the reason for the first fallback."""

    fast: int = 0
    fallback: int = 0
    reason: str | None = None

    def take(self, event: Event) -> None:
        """Count a page; ignore other events."""
        if isinstance(event, PageRead) and event.rows:
            self.fast += event.fallback is None
            self.fallback += event.fallback is not None
            self.reason = self.reason or event.fallback

    @property
    def unused(self) -> FastPathUnused | None:
        """The event for a run in which no page took the fast path; None if one did, or there were no pages."""
        return FastPathUnused(self.fallback, self.reason) if self.reason is not None and not self.fast else None


class RunContext(Struct, frozen=True):
    """The parts of an open client that the functions of this package need.

    `width` is that of the widest window (milliseconds), `clock` gives the time (seconds since the epoch), `begins` is
    the start of the range of a run (epoch milliseconds), None if it has none.
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
    begins: int | None = None

    @contextmanager
    def run(self, name: str, begins: int | None = None) -> Iterator[RunContext]:
        """Yield the context of one run; `name` is the name of the client's method, `begins` the start of its range."""
        run_id, pages = uuid4().hex, PageCounts()
        with self.telemetry.run(name, run_id) as telemetry:

            def tell(event: Event) -> None:
                telemetry.follow(event)
                pages.take(event)
                self.tell_of_run(event, run_id)

            yield structs.replace(self, telemetry=telemetry, tell=tell, pages=pages, begins=begins)
            if (unused := pages.unused) is not None:
                tell(unused)

    def workers(self, source: PageSource[Any], call: Callable[[Window], Call] | None = None) -> WorkerPool:
        """Return a pool of workers that sends the requests of a source; `call` measures each attempt."""
        return WorkerPool(
            self.api,
            self.limiter,
            source,
            connections=self.connections,
            retry=self.retry,
            tell=self.tell,
            call=call or self.telemetry.call,
            begins=self.begins,
        )

    def now_ms(self) -> int:
        """Return the time by the earlier of the local clock and the server's (if known), epoch milliseconds."""
        return self.api.earlier_ms()

    def oldest_ms(self) -> int:
        """Return the earliest time that the API will still serve by the time this run reads it, epoch milliseconds."""
        return oldest_start(self.server_now_ms()) + CLAMP_MARGIN_MS

    def server_now_ms(self) -> int:
        """Return the time by the server's clock, on which its month depends; until it is known, by the local one."""
        ahead = self.api.clock_ahead_s() or 0.0
        return int((self.clock() - (ahead if abs(ahead) > MAX_SKEW_S else 0.0)) * 1000)
