"""`SegmentClient`: plan, count, stream and extract the agent segments of one account."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, timedelta
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from segment_fetch.api.auth import Auth
from segment_fetch.errors import IncompleteError, InputError, NoStartError
from segment_fetch.events import Event, Warned
from segment_fetch.query import MAX_LIMIT, MAX_WINDOW_MS, Filters, Query, Window
from segment_fetch.throttle.pacing import Pacer
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.timerange import TimeLike, check_range, zone_of
from segment_fetch.windows import planning
from segment_fetch.wire.models import Part, Segment

if TYPE_CHECKING:
    import aiohttp
    import pyarrow as pa

    from segment_fetch.api.endpoints import SegmentApi
    from segment_fetch.api.transport import Timeouts
    from segment_fetch.extraction.context import RunContext
    from segment_fetch.extraction.report import Report
    from segment_fetch.sinks.base import Sink
    from segment_fetch.throttle.pace_store import PaceStore
    from segment_fetch.windows.reader import WindowRead

Rate: TypeAlias = float | Literal["auto"] | None
ASSUMED_RATE = 10.0
"""Requests a second that a plan reckons with while nothing is known of the API's limit."""

MOST_CONNECTIONS = 1_000
"""Far beyond what the API serves, and the event loop keeps up with it."""

_BATCH = 500


class SegmentClient:
    """One account of the agent-segments API. Use it with `async with`, in the event loop that it was entered in.

    `source` names the caller to the API: 1 to 20 letters, digits or underscores, unique to the job. `filters`
    narrow what is asked. A given `session` is used and never closed; certificates are checked whatever it says.
    `base_url` replaces the look-up of the account's domain. `rate` "auto" finds the API's limit from its
    answers; a number does too, but never sends more requests a second than that; None sends as fast as answers come.
    `connections` is the most requests in flight. `pace` keeps what was found for the next client. `window` is the
    widest time frame asked at once (at most a week), `split_above` the most segments a window may hold before it is
    divided. `on_event` is called in the event loop with each `Event`; it must not block. `clock` gives the time
    as seconds since the epoch.

    Raises InputError for settings that cannot work, before anything is sent.
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
        connections: int = 16,
        pace: PaceStore | None = None,
        window: timedelta = timedelta(milliseconds=MAX_WINDOW_MS),
        limit: int = MAX_LIMIT,
        split_above: int = planning.SPLIT_ABOVE,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | None = None,
        on_event: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._query = Query(account, source, filters or Filters(), limit)
        self._auth = auth
        self._session = session
        self._base_url = base_url
        self._rate = _checked_rate(rate)
        self._connections = _checked_count("connections", connections, MOST_CONNECTIONS)
        self._pace = pace
        self._width = planning.check_width(_milliseconds(window))
        self._split_above = _checked_count("split_above", split_above)
        self._retry = retry or RetryPolicy()
        self._timeouts = timeouts
        self._tell = on_event or _nobody
        self._clock = clock
        self._api: SegmentApi | None = None
        self._close: Callable[[], Any] | None = None

    def __repr__(self) -> str:
        return f"SegmentClient({self._query.account!r}, source={self._query.source!r})"

    async def __aenter__(self) -> Self:
        from segment_fetch.api.endpoints import SegmentApi  # noqa: PLC0415 - brings aiohttp, which importing need not pay
        from segment_fetch.api.transport import Transport, checked_base  # noqa: PLC0415
        from segment_fetch.throttle.limiter import Gate  # noqa: PLC0415

        if self._api is not None:
            raise InputError("this client is in use; make another one")
        base_url = None if self._base_url is None else checked_base(self._base_url)
        transport = Transport(session=self._session, connections=self._connections, timeouts=self._timeouts)
        self._gate = Gate(self._pacer(), tell=self._tell)
        self._api = SegmentApi(
            self._query,
            self._auth,
            transport,
            self._gate,
            retry=self._retry,
            base_url=base_url,
            tell=self._tell,
            clock=self._clock,
        )
        self._close = transport.close
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._keep_pace()
            if self._close is not None:
                await self._close()
        finally:
            self._api = self._close = None

    def _pacer(self) -> Pacer | None:
        if self._rate is None:
            return None
        ceiling = None if self._rate == "auto" else self._rate
        learned = None
        if self._pace is not None:
            learned = self._pace.load(self._query.account, self._base_url or "", self._clock())
        return Pacer(ceiling, self._connections, learned)

    def _keep_pace(self) -> None:
        if self._pace is None or self._api is None:
            return
        if (learned := self._gate.learned(self._clock())) is not None:
            self._pace.save(self._query.account, self._base_url or "", learned)

    async def count(self, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> int:
        """How many segments closed in start <= t < end, by small requests; exact if nothing changes meanwhile.

        Raises InputError for a range that cannot be asked, and the errors of the service.
        """
        from segment_fetch.windows.counting import ExactCounting  # noqa: PLC0415

        windows = planning.windows(*self._range(start, end, clamp), self._width)
        counting = ExactCounting(windows)
        await self._context().workers(counting).run()
        return counting.total

    async def counts(self, windows: Iterable[Window]) -> dict[Window, int]:
        """How many segments the API reports for each window, ends included as the API has it, by small requests."""
        from segment_fetch.windows.counting import Counting  # noqa: PLC0415

        counting = Counting(windows)
        await self._context().workers(counting).run()
        return counting.counts

    async def plan(self, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> planning.Plan:
        """The windows that reading a range takes, with the counts that the API reports now. Keeps no segment."""
        from segment_fetch.windows.counting import Survey  # noqa: PLC0415

        windows = planning.windows(*self._range(start, end, clamp), self._width)
        survey = Survey(windows, self._query.limit, self._split_above)
        await self._context().workers(survey).run()
        planned = survey.planned()
        pages = sum(window.pages for window in planned)
        if self._rate is None:
            return planning.Plan(planned, None)
        expected = self._gate.expected_rate()
        rate = expected or ASSUMED_RATE
        return planning.Plan(planned, pages / rate, rate, rate_known=expected is not None)

    async def stream(
        self, start: TimeLike, end: TimeLike, *, clamp: bool = False
    ) -> AsyncGenerator[list[Segment], None]:
        """Proven segments in batches of at most 500, by close time, then segmentId; each once.

        Reads ahead by a bounded amount while the consumer is busy. A window that cannot be proven is left out, the
        others are delivered, and IncompleteError at the end names it. Use `contextlib.aclosing` if you may
        leave the loop early.
        """
        async with aclosing(self._proven(start, end, list, clamp)) as proven:
            async for parts in proven:
                for batch in _batches(parts):
                    yield batch

    async def stream_arrow(
        self, start: TimeLike, end: TimeLike, *, clamp: bool = False
    ) -> AsyncGenerator[pa.RecordBatch, None]:
        """The same as Arrow record batches, with the columns of `segment_fetch.arrow`. Needs the extra `arrow`.

        A batch holds at most 65,536 segments, all of one window, and is never empty. Also raises MissingExtraError, and
        DestinationError for a number beyond 64 bits.
        """
        from segment_fetch.arrow import joined, record_batch  # noqa: PLC0415 - an optional extra

        async with aclosing(self._proven(start, end, record_batch, clamp)) as proven:
            async for parts in proven:
                for batch in joined(parts):
                    yield batch

    async def _proven(
        self, start: TimeLike, end: TimeLike, encode: Callable[[Sequence[Segment]], Part], clamp: bool
    ) -> AsyncGenerator[list[Part], None]:
        """The parts of each proven window, oldest first; IncompleteError at the end names the others."""
        unproven: list[WindowRead[Any]] = []
        async with aclosing(self.windows(start, end, encode, clamp=clamp)) as windows:
            async for read in windows:
                if read.status == "unproven":
                    unproven.append(read)
                yield read.parts
        if unproven:
            raise _incomplete(unproven)

    async def windows(
        self, start: TimeLike, end: TimeLike, encode: Callable[[Sequence[Segment]], Part], *, clamp: bool = False
    ) -> AsyncGenerator[WindowRead[Part], None]:
        """The windows of a range as they are proven or given up, oldest first, without gap: for loaders of your own.

        `encode` turns segments, in order, into a part of a window's `parts`; `list` keeps them. It is called in the
        event loop, page by page, before the proof, so it must do nothing else. An unproven window has no parts, and a
        `reason`. Reads ahead by a bounded amount while the consumer is busy. Use `contextlib.aclosing` if you may
        leave the loop early.
        """
        from segment_fetch.extraction.run import OldestFirst  # noqa: PLC0415
        from segment_fetch.extraction.window_queue import read  # noqa: PLC0415
        from segment_fetch.wire.raw_rows import decoded  # noqa: PLC0415

        whole = Window(*self._range(start, end, clamp))
        queue = OldestFirst[Part]([whole])

        def encoded(rows: Sequence[Segment]) -> Part:
            return encode(decoded(rows))

        async with read(self._context(), self._weeks(whole), encoded) as stream:
            async for come in stream:
                for ready in queue.after(come):
                    yield ready
                    stream.release(ready.window)

    async def extract(self, start: TimeLike, end: TimeLike, sink: Sink[Any], *, clamp: bool = False) -> Report:
        """A range into a destination, going on from what is there. The report says what was done.

        A window that could not be proven is `unproven` in the report and not in the destination. Raises InputError,
        CredentialsError, ServiceError or DestinationError where the run could not go on; what is committed stays, and
        the same call goes on from there.
        """
        from segment_fetch.extraction.run import fill  # noqa: PLC0415
        from segment_fetch.manifest.committer import committing  # noqa: PLC0415

        started = time.monotonic()
        context, asked = self._context(), Window(*self._range(start, end, clamp))
        async with committing(sink, self._query) as committer:
            divide = self._days if sink.utc_days else self._weeks
            return await fill(context, committer, asked, divide, started=started)

    async def sync(
        self, sink: Sink[Any], start: TimeLike | None = None, *, timezone: str = "UTC", clamp: bool = False
    ) -> Report:
        """From where the destination ends until now, in windows of whole days of a time zone (an IANA name).

        `start` says where an empty destination begins. A provisional window costs one small request if nothing
        changed, and is read again and replaced if something did; so is the day in which the last run ended. The
        report says what was settled, added, removed and, after too long a pause, lost. Raises as `extract` does.
        """
        from segment_fetch.extraction.sync import sync  # noqa: PLC0415
        from segment_fetch.manifest.committer import committing  # noqa: PLC0415

        started, now, zone = time.monotonic(), self.now_ms(), zone_of(timezone)
        if sink.utc_days and zone is not UTC:
            raise InputError(f"the destination keeps days of UTC, not of {timezone}: leave out the one or the other")
        context = self._context()
        async with committing(sink, self._query) as committer:
            first = None if committer.entries else self._first_range(start, now, clamp)
            return await sync(context, committer, first, zone, now=now, started=started)

    def _first_range(self, start: TimeLike | None, now: int, clamp: bool) -> Window:
        if start is None:
            raise NoStartError("the destination is empty: say where to begin (`start`)")
        return Window(*self._range(start, now, clamp))

    def _weeks(self, whole: Window) -> list[Window]:
        return planning.windows(whole.start, whole.end, self._width)

    def _days(self, whole: Window) -> list[Window]:
        return planning.days(whole.start, whole.end, UTC, self._width)

    def _context(self) -> RunContext:
        """The parts of the open client; InputError where it is not open."""
        from segment_fetch.extraction.context import ReadOptions, RunContext  # noqa: PLC0415

        return RunContext(
            api=self._opened(),
            gate=self._gate,
            retry=self._retry,
            connections=self._connections,
            options=ReadOptions(self._query.limit, self._split_above),
            width=self._width,
            tell=self._tell,
            clock=self._clock,
        )

    def _opened(self) -> SegmentApi:
        if self._api is None:
            raise InputError("the client is not open: use it inside `async with`")
        return self._api

    def _range(self, start: TimeLike, end: TimeLike, clamp: bool) -> tuple[int, int]:
        self._opened()

        def warn(message: str) -> None:
            self._tell(Warned(message))

        return check_range(start, end, now_ms=self.now_ms(), clamp=clamp, warn=warn)

    def now_ms(self) -> int:
        """The client's clock, epoch milliseconds."""
        return int(self._clock() * 1000)


def _nobody(event: Event) -> None:
    """The callback of a client without one."""


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
    raise InputError("rate: must be above zero requests a second, auto, or none")


def _batches(parts: list[list[Segment]]) -> list[list[Segment]]:
    rows = [row for part in parts for row in part]
    return [rows[at : at + _BATCH] for at in range(0, len(rows), _BATCH)]


def _incomplete(unproven: Sequence[WindowRead[Any]]) -> IncompleteError:
    windows = [read.window for read in unproven]
    listed = "; ".join(f"{read.window}: {read.reason}" for read in unproven[:5])
    how_many = f"{len(windows)} window{'' if len(windows) == 1 else 's'}"
    return IncompleteError(f"{how_many} could not be proven complete: {listed}", windows)
