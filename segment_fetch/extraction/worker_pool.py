"""Keeps a request in flight on every connection: a source supplies page requests and takes the answers. A page that
failed waits in a queue while its connection serves others. This is the only place that retries.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from segment_fetch.api.endpoints import MAX_SKEW_S, NotSentError, SegmentApi
from segment_fetch.errors import (
    CredentialsError,
    InputError,
    MalformedPageError,
    ProxyError,
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TooLargeError,
    TransientError,
    lasting,
)
from segment_fetch.events import Event, Paused, Retrying, ServiceBack, ServiceDown, Warned
from segment_fetch.extraction.telemetry import Call, no_call
from segment_fetch.query import Window
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.throttle.retry_queue import Again, Attempt, Down, Lost, RetryQueue
from segment_fetch.timerange import format_time
from segment_fetch.wire.pages import PageAnswer, PageRequest, PageSource

_SAME_PAUSE_S = 0.001
"""Pauses that end within this many seconds of each other count as one, requested by several answers."""


class RequestCounts(Struct):
    """The number of requests that a pool sent, of retries among them, and of answers that were 429."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0


class WorkerPool:
    """Runs one source to its end with at most `connections` requests in flight.

    `begins` is the start of the range of the run, epoch milliseconds. Raises InputError if it lies in the server's
    future: an empty answer would mean nothing.
    """

    def __init__(
        self,
        api: SegmentApi,
        limiter: Limiter,
        source: PageSource[Any],
        *,
        connections: int,
        retry: RetryPolicy,
        tell: Callable[[Event], None],
        call: Callable[[Window], Call] = no_call,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
        begins: int | None = None,
    ) -> None:
        self._api = api
        self._limiter = limiter
        self._source = source
        self._connections = connections
        self._patience = retry.patience
        self._tell = tell
        self._call = call
        self._clock = clock or asyncio.get_running_loop().time
        self._begins = begins
        self._queue = RetryQueue(retry, chance, source.wants, served=api.has_served)
        self._refused_first: tuple[Attempt, SegmentFetchError] | None = None
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._paused_until = 0.0
        self.counts = RequestCounts()

    async def run(self) -> None:
        """Run until the source is finished. Raise the first error that ends the run, with nothing left in flight."""
        first: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                await self._dispatch(group)
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
        if first is not None:
            raise first

    def wake(self) -> None:
        """Check the source for new requests."""
        self._changed.set()

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        """Send requests as soon as they may be sent, until the source is finished."""
        while not self._source.finished():
            attempt = None
            if self._in_flight < self._connections:
                attempt = self._queue.take(self._clock(), self._source.next, idle=self._in_flight == 0)
            if attempt is None:
                await self._wait_for_change()
            else:
                self._in_flight += 1
                group.create_task(self._work(attempt))

    async def _wait_for_change(self) -> None:
        """Wait for an answer, a call of `wake`, or the time at which a request becomes eligible."""
        at = None if self._in_flight == self._connections else self._queue.next_at(self._clock())
        timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(0.0, at - self._clock()), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._changed.clear()

    async def _work(self, attempt: Attempt) -> None:
        try:
            await self._try(attempt)
        finally:
            self._in_flight -= 1
            self._changed.set()

    async def _try(self, attempt: Attempt) -> None:
        request: PageRequest = attempt.request
        attempt.tries += 1
        call = self._call(request.window)

        def may_send() -> bool:
            allowed = self._queue.may_send(attempt)
            self.counts.requests += allowed
            self.counts.retries += allowed and attempt.tries > 1
            if allowed:
                call.sent(again=attempt.tries > 1)
            return allowed

        try:
            with call:
                answer = await self._api.page(request.window, request.offset, request.limit, may_send=may_send)
                call.received(answer)
            self._take(attempt, answer)
        except NotSentError:
            attempt.tries -= 1
            self._queue.put_back(attempt, self._clock())
        except ThrottledError as error:
            self._throttled(attempt, error)
        except MalformedPageError as error:
            self._broken(attempt, SchemaError(error.message, error.path, status=error.status))
        except TransientError as error:
            self._failed(attempt, error)
        except SegmentFetchError as error:
            self._refused(attempt, error)

    def _take(self, attempt: Attempt, answer: PageAnswer) -> None:
        """Give a page to the source. One that it finds faulty is requested again; the service is up all the same."""
        self._refuse_future(answer)
        fault = None
        try:
            self._source.answered(attempt.request, answer)
        except TransientError as error:
            fault = error
        self._succeeded()
        if fault is not None:
            self._decide(attempt, fault, self._queue.refused(attempt, fault, self._clock(), parks=True))

    def _refuse_future(self, answer: PageAnswer) -> None:
        begins, now = self._begins, answer.server_ms
        if begins is None or now is None or answer.page.pagination.count or begins <= now + MAX_SKEW_S * 1000:
            return
        raise InputError(
            f"the range starts in the future: {format_time(begins)}; by the server's clock it is {format_time(now)}: "
            "set the clock of this machine"
        )

    def _refused(self, attempt: Attempt, error: SegmentFetchError) -> None:
        """Handle an error that is not transient in itself: retry the page, give up its window, or end the run."""
        match error:
            case InputError() if not isinstance(error, RequestRefusedError):
                raise error
            case ProxyError():
                raise error.at(attempt.request.window, attempt.request.offset)
            case SchemaError():
                self._broken(attempt, error)
            case TooLargeError():
                passing = TransientError(error.message, status=error.status)
                self._decide(attempt, error, self._queue.failed(attempt, passing, self._clock()))
            case RequestRefusedError() if error.page_limit(attempt.request.limit) is not None:
                self._give_up(attempt, error)
            case _ if not self._queue.has_served:
                self._refused_unserved(attempt, error)
            case _:
                self._refused_midway(attempt, error)

    def _refused_midway(self, attempt: Attempt, error: SegmentFetchError) -> None:
        """Handle a refusal by a service that has served other pages: gateways sometimes refuse."""
        match error:
            case CredentialsError():
                self._decide(attempt, error, self._queue.rejected(attempt, error, self._clock()))
            case RequestRefusedError() if error.status == 400 and error.causes:
                self._give_up(attempt, error)  # the API says what is wrong: the window is now too old, for example
            case RequestRefusedError(status=400):
                self._decide(attempt, error, self._queue.refused(attempt, _passing(error), self._clock()))
            case RequestRefusedError():
                self._decide(attempt, error, self._queue.failed(attempt, _passing(error), self._clock(), refused=True))
            case ServiceError():  # a proxy's certificate, for example: other requests were served, so it may pass
                self._failed(attempt, _passing(error))
            case _:
                raise error.at(attempt.request.window, attempt.request.offset)

    def _broken(self, attempt: Attempt, error: SchemaError) -> None:
        """Request an unreadable page again, until it has had the same fault several times."""
        if (times := attempt.met(error.message)) >= attempt.request.most_faults:
            error.message += ", each time it was requested" if times > 1 else ""
            self._give_up(attempt, error)
        else:
            passing = TransientError(error.message, status=error.status)
            self._decide(attempt, error, self._queue.refused(attempt, passing, self._clock()))

    def _refused_unserved(self, attempt: Attempt, error: SegmentFetchError) -> None:
        """Let the newest window decide if the first one was refused before anything was served.

        The oldest data may be too old for the API; credentials and settings are the same for all windows.
        """
        newest = None
        of_window = self.counts.requests > 0 and not isinstance(error, ServiceError) and error.status != 401
        if of_window and self._refused_first is None:
            newest = self._source.newest()
        if newest is None:
            raise error.at(attempt.request.window, attempt.request.offset)
        self._refused_first = attempt, error
        self._queue.put_back(Attempt(newest), self._clock())

    def _give_up(self, attempt: Attempt, error: SegmentFetchError) -> None:
        request: PageRequest = attempt.request
        self._queue.given_up(attempt)
        self._source.failed(request, error.at(request.window, request.offset))

    def _succeeded(self) -> None:
        back_after = self._queue.succeeded(self._clock())
        if back_after is not None:
            self._tell(ServiceBack(back_after))
        if (warning := self._api.clock_warning()) is not None:
            self._tell(Warned(warning))
        if self._refused_first is not None:
            refused, self._refused_first = self._refused_first, None
            self._refused(*refused)

    def _throttled(self, attempt: Attempt, error: ThrottledError) -> None:
        self.counts.throttled += 1
        pause = self._limiter.closed_for()
        resumes_at = self._clock() + pause
        if pause > 0 and resumes_at > self._paused_until + _SAME_PAUSE_S:
            self._paused_until = resumes_at
            self._tell(Paused(pause))
        if pause > self._patience:
            raise ServiceError(f"the API asks for a pause of {lasting(pause)} (429): try again then", status=429)
        if self._queue.throttled(attempt, self._clock(), pause) > self._patience:
            raise ServiceError(f"the API has returned only 429 for {lasting(self._patience)}", status=429)

    def _failed(self, attempt: Attempt, error: TransientError) -> None:
        self._decide(attempt, error, self._queue.failed(attempt, error, self._clock()))

    def _decide(self, attempt: Attempt, error: SegmentFetchError, outcome: Again | Down | Lost) -> None:
        """Report the queue's decision on a page; raise if it ends the run."""
        request: PageRequest = attempt.request
        match outcome:
            case Again(delay, parked):
                self._tell(Retrying(request.window, request.offset, attempt.tries, delay, error.message, parked))
            case Down(seconds):
                self._tell(ServiceDown(seconds, self._patience, error.message))
            case Lost(alone, down):
                often = f", {attempt.tries} times" if attempt.tries > 1 else ""
                waited = "" if down is None else f"; no request has succeeded for {lasting(down)}"
                final = _final(error, f"{error.message}{waited or often}")
                final.at(request.window, request.offset)
                if not alone:
                    raise final
                self._source.failed(request, final)


def _passing(error: SegmentFetchError) -> TransientError:
    """Return the same error as a transient one."""
    return TransientError(error.message, "server", status=error.status, retry_after=error.retry_after)


def _final(error: SegmentFetchError, message: str) -> SegmentFetchError:
    """Return the error for a page that is given up."""
    match error:
        case SchemaError():
            return SchemaError(message, error.path, status=error.status)
        case RequestRefusedError(status=400):
            return RequestRefusedError(message, error.causes, status=error.status)
        case CredentialsError() | TooLargeError():
            return type(error)(message, status=error.status)
    return ServiceError(message, status=error.status)
