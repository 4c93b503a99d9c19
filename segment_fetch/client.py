"""`SegmentClient`: plan, count, stream and extract the agent segments of one account."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime, timedelta
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from segment_fetch.api.auth import Auth
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.errors import InputError, NoStartError, check_callback, check_type
from segment_fetch.events import Event, Warned
from segment_fetch.query import MAX_PAGE_SIZE, MAX_WINDOW_MS, Filters, Query, Window
from segment_fetch.sinks.base import Sink
from segment_fetch.throttle.defaults import CONNECTIONS
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.pacer import Pacer
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.timerange import SETTLE_AFTER_MS, TimeLike, check_range, check_settle_after, parse_time, zone_of
from segment_fetch.windows import planning, splitting
from segment_fetch.wire.models import Part, Segment

if TYPE_CHECKING:
    import asyncio

    import aiohttp
    import pyarrow as pa

    from segment_fetch.extraction.context import RunContext
    from segment_fetch.extraction.opening import Opened
    from segment_fetch.extraction.report import Report
    from segment_fetch.manifest.committer import Committer
    from segment_fetch.windows.reader import WindowRead

Rate: TypeAlias = float | Literal["auto"] | None
ASSUMED_RATE = 10.0
"""Requests a second that a plan assumes while the API's limit is unknown."""

MOST_CONNECTIONS = 1_000
"""Maximum of `connections`: far more than the API serves, and still within what the event loop can handle."""

_BATCH = 500


class SegmentClient:
    """One account of the agent-segments API. Use it with `async with`, in the event loop in which it was entered.

    `source` names the caller to the API: 1 to 20 letters, digits or underscores, unique to the job. `filters`
    restrict the segments. A `session` passed in is used and never closed; certificates are always verified.
    `base_url` replaces the look-up of the account's domain. `rate` "auto" finds the API's limit from its
    answers; so does a number, but with at most that many requests a second; None sends as fast as answers arrive.
    `connections` is the maximum of requests in flight. `pace` stores the limit found, for later runs. `window` is the
    widest time frame of a request (at most a week), `split_above` the number of segments above which a window is
    divided. `settle_after` is how long after its end a window can still change, at most 31 days; until then it is
    provisional. `on_event` is called in the event loop with each `Event`; it must not block. `telemetry` False
    sends nothing to OpenTelemetry, even if opentelemetry-api is installed. `clock` returns the time
    as seconds since the epoch.

    Raises InputError for invalid settings, before anything is sent.
    """

    def __init__(
        self,
        account: str,
        *,
        auth: Auth,
        source: str,
        filters: Filters | None = None,
        session: aiohttp.ClientSession | None = None,
        base_url: str | None = None,
        rate: Rate = "auto",
        connections: int = CONNECTIONS,
        pace: PaceStore | None = None,
        window: timedelta = timedelta(milliseconds=MAX_WINDOW_MS),
        limit: int = MAX_PAGE_SIZE,
        split_above: int = splitting.SPLIT_ABOVE,
        settle_after: timedelta = timedelta(milliseconds=SETTLE_AFTER_MS),
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        on_event: Callable[[Event], None] | None = None,
        telemetry: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_type("auth", auth, Auth, "OAuth1Key, ClientCredentials or BearerToken")
        _check_optional(filters=filters, base_url=base_url, pace=pace, retry=retry, timeouts=timeouts)
        _check_session(session)
        if on_event is not None:
            check_callback("on_event", on_event, "a function that takes an event")
        check_type("telemetry", telemetry, bool, "True or False")
        check_callback("clock", clock, "a function that returns seconds since the epoch")
        self._query = Query(account, source, filters or Filters(), limit)
        self._auth = auth
        self._session = session
        self._base_url = base_url
        self._rate = _checked_rate(rate)
        self._connections = _checked_count("connections", connections, MOST_CONNECTIONS)
        self._pace = pace
        self._width = planning.check_width(_milliseconds(window))
        self._split_above = _checked_count("split_above", split_above)
        self._settle_after_ms = check_settle_after(settle_after)
        self._retry = retry or RetryPolicy()
        self._timeouts = timeouts
        self._tell = on_event or _ignore
        self._telemetry = telemetry
        self._clock = clock
        self._opened: Opened | None = None
        self._is_opening = self._has_ended = False

    def __repr__(self) -> str:
        return f"SegmentClient({self._query.account!r}, source={self._query.source!r})"

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415 - already loaded where a loop runs

        from segment_fetch.extraction.loop_turns import in_thread  # noqa: PLC0415

        if self._opened is not None or self._is_opening:
            raise InputError("this client is in use; create another one, or enter this one again after its end")
        self._is_opening = True
        try:
            loop = asyncio.get_running_loop()
            self._opened = await in_thread(lambda: self._made(loop))
        finally:
            self._is_opening = False
        return self

    def _made(self, loop: asyncio.AbstractEventLoop) -> Opened:
        """Import, load and build everything an open client needs. Runs in a thread, as it first takes 200 ms."""
        from segment_fetch.extraction.opening import Opened  # noqa: PLC0415

        if self._session is not None and getattr(self._session, "_loop", loop) is not loop:
            raise InputError("session: belongs to another event loop; create it in the one in which the client is used")
        return Opened(
            loop,
            query=self._query,
            auth=self._auth,
            session=self._session,
            base_url=self._base_url,
            pacer=self._pacer(),
            connections=self._connections,
            width=self._width,
            split_above=self._split_above,
            settle_after_ms=self._settle_after_ms,
            retry=self._retry,
            timeouts=self._timeouts,
            tell=self._tell,
            telemetry=self._telemetry,
            clock=self._clock,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._opened = self._opened, None
        if opened is None:
            return
        self._has_ended = True
        try:
            await self._keep_pace(opened)
        finally:
            await opened.close()

    def _pacer(self) -> Pacer | None:
        if self._rate is None:
            return None
        ceiling = None if self._rate == "auto" else self._rate
        learned, query = None, self._query
        if self._pace is not None:
            learned = self._pace.load(query.account, self._base_url or "", self._clock(), query.source)
        return Pacer(ceiling, self._connections, learned)

    async def _keep_pace(self, opened: Opened) -> None:
        from segment_fetch.extraction.loop_turns import in_thread  # noqa: PLC0415

        pace, query, learned = self._pace, self._query, opened.context.limiter.learned(self._clock())
        if pace is not None and learned is not None:
            await in_thread(lambda: pace.save(query.account, self._base_url or "", learned, query.source))

    async def count(self, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> int:
        """Return the number of segments that closed in start <= t < end; exact if nothing changes meanwhile.

        Requests only pages of one segment.

        Raises InputError for an invalid range, and the errors of the service.
        """
        from segment_fetch.windows.counting import ExactCounting  # noqa: PLC0415

        whole = Window(*await self._range(start, end, clamp))
        counting = ExactCounting(planning.windows(whole.start, whole.end, self._width))
        with self._context().run("count", whole.start) as context:
            await context.workers(counting).run()
        return counting.total

    async def counts(self, windows: Iterable[Window]) -> dict[Window, int]:
        """Return the API's count for each window, with segments at both ends included; takes one small request each."""
        from segment_fetch.windows.counting import Counting  # noqa: PLC0415

        counting = Counting(_checked_windows(windows))
        with self._context().run("counts") as context:
            await context.workers(counting).run()
        return counting.counts

    async def plan(self, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> planning.Plan:
        """Return the windows in which a range would be read, with the API's counts. Keeps no segments."""
        from segment_fetch.windows.counting import Survey  # noqa: PLC0415

        whole = Window(*await self._range(start, end, clamp))
        windows = self._weeks(whole)
        planning.check_few(windows, "a plan")
        survey = Survey(windows, self._query.limit, self._split_above)
        with self._context().run("plan", whole.start) as context:
            await context.workers(survey).run()
        planned = survey.planned()
        pages = sum(window.pages for window in planned)
        if self._rate is None:
            return planning.Plan(planned, None)
        expected = context.limiter.expected_rate()
        rate = expected or ASSUMED_RATE
        return planning.Plan(planned, pages / rate, rate, rate_known=expected is not None)

    async def stream(
        self, start: TimeLike, end: TimeLike, *, clamp: bool = False
    ) -> AsyncGenerator[list[Segment], None]:
        """Yield proven segments in batches of at most 500, by close time, then segmentId; each once.

        Reads ahead by a bounded amount while the consumer is busy, and yields to the event loop before each batch. A
        window that cannot be proven is left out; the others are delivered, and IncompleteError at the end names it. Use
        `contextlib.aclosing` if you may leave the loop early.
        """
        from segment_fetch.extraction.stream import stream_segments  # noqa: PLC0415

        whole = Window(*await self._range(start, end, clamp))
        with self._context().run("stream", whole.start) as context:
            async with aclosing(stream_segments(context, whole, self._weeks(whole))) as batches:
                async for batch in batches:
                    yield batch

    async def stream_arrow(
        self, start: TimeLike, end: TimeLike, *, clamp: bool = False
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """Yield the same as Arrow record batches, with the columns of `segment_fetch.arrow`. Needs the extra `arrow`.

        A batch holds at most 65,536 segments, all of one window, and is never empty. Also raises MissingExtraError, and
        DestinationError for a number beyond 64 bits.
        """
        from segment_fetch.extraction.stream import stream_batches  # noqa: PLC0415

        whole = Window(*await self._range(start, end, clamp))
        with self._context().run("stream_arrow", whole.start) as context:
            async with aclosing(stream_batches(context, whole, self._weeks(whole))) as batches:
                async for batch in batches:
                    yield batch

    async def windows(
        self, start: TimeLike, end: TimeLike, encode: Callable[[Sequence[Segment]], Part], *, clamp: bool = False
    ) -> AsyncGenerator[WindowRead[Part], None]:
        """Yield the windows of a range as they are proven or given up, oldest first, without gap.

        `encode` turns segments, in order, into one of a window's `parts`; `list` keeps them. It is called in the event
        loop, page by page, before the proof, so it must have no side effects. An unproven window has no parts, and a
        `reason`. Reads ahead by a bounded amount while the consumer is busy. Use `contextlib.aclosing` if you may
        leave the loop early.
        """
        from segment_fetch.extraction.stream import stream_windows  # noqa: PLC0415

        check_callback("encode", encode, "a function of a sequence of segments")
        whole = Window(*await self._range(start, end, clamp))
        with self._context().run("windows", whole.start) as context:
            async with aclosing(stream_windows(context, whole, self._weeks(whole), encode)) as reads:
                async for read in reads:
                    yield read

    async def extract(self, start: TimeLike, end: TimeLike, sink: Sink[Any], *, clamp: bool = False) -> Report:
        """Read the parts of a range that a destination lacks into it, and return the report.

        A window that could not be proven is `unproven` in the report and not in the destination. Raises InputError,
        CredentialsError, ServiceError or DestinationError if the run cannot continue; what is committed stays, and the
        same call continues from there.
        """
        from segment_fetch.extraction.run import fill  # noqa: PLC0415

        check_type("sink", sink, Sink, "a Sink, such as JsonlSink(folder)")
        started = time.monotonic()
        asked = Window(*await self._range(start, end, clamp))
        divide = self._days if sink.utc_days else self._weeks
        with self._context().run("extract", asked.start) as context:
            async with self._committing(sink, context) as committer:
                report = await fill(context, committer, asked, divide, started=started)
            context.telemetry.report(report.segments, report.complete_before)
        return report

    async def sync(
        self, sink: Sink[Any], start: TimeLike | None = None, *, timezone: str = "UTC", clamp: bool = False
    ) -> Report:
        """Bring a destination up to date, in windows of whole days of a time zone (an IANA name); return the report.

        Reads from the end of the destination until now.

        `start` is the beginning of an empty destination. A provisional window takes one small request if nothing has
        changed; otherwise it is read again and replaced, and so is the day in which the last run ended. The report says
        what was settled, added, removed and, after too long a pause, lost. Raises the same errors as `extract`.
        """
        from segment_fetch.extraction.sync import sync  # noqa: PLC0415

        check_type("sink", sink, Sink, "a Sink, such as JsonlSink(folder)")
        check_type("timezone", timezone, str, "an IANA name, such as Europe/Berlin")
        check_type("clamp", clamp, bool, "True or False")
        if start is not None:
            check_type("start", start, (datetime, str, int), "a moment: a datetime, epoch milliseconds or text")
        started, now, zone = time.monotonic(), self.now_ms(), zone_of(timezone)
        if sink.utc_days and zone is not UTC:
            raise InputError(
                f"the destination stores UTC days, not days of {timezone}: choose another destination or timezone UTC"
            )
        with self._context().run("sync") as context:
            async with self._committing(sink, context) as committer:
                first = None if committer.entries else await self._first_range(start, now, clamp)
                report = await sync(context, committer, first, zone, now=now, started=started)
            context.telemetry.report(report.segments, report.complete_before)
        return report

    def _committing(self, sink: Sink[Any], context: RunContext) -> AbstractAsyncContextManager[Committer]:
        from segment_fetch.manifest.committer import committing  # noqa: PLC0415

        return committing(sink, self._query, settle_after_ms=self._settle_after_ms, oldest=context.oldest_ms())

    async def _first_range(self, start: TimeLike | None, now: int, clamp: bool) -> Window:
        if start is None:
            raise NoStartError("the destination is empty: set the time to begin at (`start`)")
        return Window(*await self._range(start, now, clamp))

    def _weeks(self, whole: Window) -> planning.Windows:
        weeks = planning.windows(whole.start, whole.end, self._width)
        return planning.shorten_oldest(weeks, self._context().oldest_ms())

    def _days(self, whole: Window) -> planning.Windows:
        days = planning.days(whole.start, whole.end, UTC, self._width)
        return planning.shorten_oldest(days, self._context().oldest_ms())

    def _context(self) -> RunContext:
        """Return the context of the open client. Raises InputError if it is not open, or not in this event loop."""
        if self._opened is None:
            state = "has ended, it is not open" if self._has_ended else "is not open"
            raise InputError(f"the client {state}: use it inside `async with`")
        self._opened.check_loop()
        return self._opened.context

    async def _range(self, start: TimeLike, end: TimeLike, clamp: bool) -> tuple[int, int]:
        """Return the checked range. Before a start is clamped, one small request shows the server's clock, whose month
        counts.
        """
        context, now = self._context(), self.now_ms()

        def warn(message: str) -> None:
            context.tell(Warned(message))

        typed = clamp is True and isinstance(start, (datetime, str, int))
        if typed and context.api.server_ms is None and parse_time(start, now) < context.oldest_ms():
            await self.counts([Window(now - 1, now)])
        month_to = context.server_now_ms() if clamp else now
        return check_range(start, end, now_ms=now, month_to_ms=month_to, clamp=clamp, warn=warn)

    @property
    def settle_after(self) -> timedelta:
        """The time after its end in which a window can still change."""
        return timedelta(milliseconds=self._settle_after_ms)

    def now_ms(self) -> int:
        """Return the time of the client's clock, epoch milliseconds."""
        return int(self._clock() * 1000)


_OPTIONAL: dict[str, tuple[type, str]] = {
    "filters": (Filters, "Filters(...) or None"),
    "base_url": (str, "a URL as text, or None"),
    "pace": (PaceStore, "PaceStore(folder) or None"),
    "retry": (RetryPolicy, "RetryPolicy(...) or None"),
    "timeouts": (Timeouts, "Timeouts(...) or None"),
}


def _check_optional(**settings: object) -> None:
    """Raise InputError, which names the setting, if one is neither None nor of its type."""
    for name, value in settings.items():
        if value is not None:
            check_type(name, value, *_OPTIONAL[name])


def _check_session(session: object) -> None:
    aiohttp = sys.modules.get("aiohttp")  # not imported here: without it, there can be no session
    if session is not None and (aiohttp is None or not isinstance(session, aiohttp.ClientSession)):
        raise InputError(f"session: must be an aiohttp.ClientSession or None, not {type(session).__name__}")


def _ignore(event: Event) -> None:
    """Do nothing: the callback of a client without one."""


def _checked_windows(windows: Iterable[Window]) -> list[Window]:
    check_type("windows", windows, Iterable, "an iterable of Window")
    listed = list(windows)
    for window in listed:
        check_type("windows", window, Window, "an iterable of Window")
    return listed


def _checked_count(name: str, value: int, most: int | None = None) -> int:
    if type(value) is not int or value < 1:
        raise InputError(f"{name}: must be a whole number of at least 1")
    if most is not None and value > most:
        raise InputError(f"{name}: must be at most {most:,}")
    return value


def _milliseconds(window: timedelta) -> int:
    if not isinstance(window, timedelta):
        raise InputError("window: must be a datetime.timedelta")
    return window // timedelta(milliseconds=1)


def _checked_rate(rate: Rate) -> Rate:
    if rate is None or rate == "auto" or (type(rate) in (int, float) and 0 < rate < inf):
        return rate
    raise InputError("rate: must be more than zero requests a second, auto, or none")
