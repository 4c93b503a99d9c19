"""Workers that keep every connection busy: each takes the next request of a source, makes one attempt, hands the answer
back. A page that failed waits its delay in a queue while its worker goes on with others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from msgspec import Struct

from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.errors import (
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TooLargeError,
    TransientError,
    lasting,
)
from segment_fetch.events import Event, Paused, Retrying, ServiceBack, ServiceDown
from segment_fetch.throttle.limiter import Gate
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.throttle.retry_queue import Again, Attempt, Down, Lost, RetryQueue
from segment_fetch.wire.pages import PageRequest, PageSource


class RequestCounts(Struct):
    """What a pool did: requests sent, of them repeated ones, and answers that were 429."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0


class WorkerPool:
    """Runs one source to its end with at most `connections` requests in flight."""

    def __init__(
        self,
        api: SegmentApi,
        gate: Gate,
        source: PageSource,
        *,
        connections: int,
        retry: RetryPolicy,
        tell: Callable[[Event], None],
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._api = api
        self._gate = gate
        self._source = source
        self._connections = connections
        self._patience = retry.patience
        self._tell = tell
        self._clock = clock or asyncio.get_running_loop().time
        self._queue = RetryQueue(retry, chance, source.wants)
        self._idle: set[asyncio.Future[None]] = set()
        self._in_flight = 0
        self.counts = RequestCounts()

    async def run(self) -> None:
        """Returns when the source is finished; raises the first error that ends everything, all workers stopped."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._connections)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def wake(self) -> None:
        """Idle workers look again for something to do."""
        for idle in self._idle:
            if not idle.done():
                idle.set_result(None)
        self._idle.clear()

    async def _work(self) -> None:
        while (attempt := await self._take()) is not None:
            self._in_flight += 1
            try:
                await self._try(attempt)
            finally:
                self._in_flight -= 1
            self.wake()

    async def _take(self) -> Attempt | None:
        while not self._source.finished():
            attempt = self._queue.take(self._clock(), self._source.next, idle=self._in_flight == 0)
            if attempt is not None:
                return attempt
            await self._rest()
        return None

    async def _rest(self) -> None:
        """Until woken, or until time lets something be sent."""
        loop = asyncio.get_running_loop()
        idle: asyncio.Future[None] = loop.create_future()
        self._idle.add(idle)
        at = self._queue.next_at(self._clock())
        timer = None if at is None else loop.call_later(max(0.0, at - self._clock()), self.wake)
        try:
            await idle
        finally:
            self._idle.discard(idle)
            if timer is not None:
                timer.cancel()

    async def _try(self, attempt: Attempt) -> None:
        request: PageRequest = attempt.request
        self.counts.requests += 1
        self.counts.retries += attempt.tries > 0
        attempt.tries += 1
        try:
            answer = await self._api.page(request.window, request.offset, request.limit)
            self._source.answered(request, answer)
        except ThrottledError as error:
            self._throttled(attempt, error)
        except TransientError as error:
            self._failed(attempt, error)
        except SegmentFetchError as error:
            self._refused(attempt, error)
        else:
            self._succeeded()

    def _refused(self, attempt: Attempt, error: SegmentFetchError) -> None:
        """Takes an error that asking again does not mend: of one page, of one window, or of the whole run."""
        request: PageRequest = attempt.request
        match error:
            case ServiceError() if self._gate.closed_for() > self._patience:
                raise error.at(request.window, request.offset)
            case ServiceError() if self._queue.has_succeeded and not isinstance(error, TooLargeError):
                # Not of the page: the login service, or the way to it, which may come back.
                self._failed(attempt, TransientError(error.message, "server", status=error.status))
            case TooLargeError() | SchemaError():
                self._give_up(request, error)
            case RequestRefusedError() if self._queue.has_succeeded:
                self._give_up(request, error)  # others were served: the API's month has moved on, say
            case _:
                raise error.at(request.window, request.offset)

    def _give_up(self, request: PageRequest, error: SegmentFetchError) -> None:
        self._queue.given_up()
        self._source.failed(request, error.at(request.window, request.offset))

    def _succeeded(self) -> None:
        back_after = self._queue.succeeded(self._clock())
        if back_after is not None:
            self._tell(ServiceBack(back_after))

    def _throttled(self, attempt: Attempt, error: ThrottledError) -> None:
        self.counts.throttled += 1
        pause = self._gate.closed_for()
        if pause > 0:
            self._tell(Paused(pause))
        if pause > self._patience:
            raise ServiceError(f"the API asks for a pause of {lasting(pause)} (429): try again then", status=429)
        if self._queue.refused(attempt, self._clock(), pause) > self._patience:
            raise ServiceError(f"the API answered nothing but 429 for {lasting(self._patience)}", status=429)

    def _failed(self, attempt: Attempt, error: TransientError) -> None:
        request: PageRequest = attempt.request
        match self._queue.failed(attempt, error, self._clock()):
            case Again(delay, parked):
                self._tell(Retrying(request.window, request.offset, attempt.tries, delay, error.message, parked))
            case Down(seconds):
                self._tell(ServiceDown(seconds, self._patience, error.message))
            case Lost(alone, down):
                often = f", {attempt.tries} times" if attempt.tries > 1 else ""
                waited = "" if down is None else f"; nothing has come through for {lasting(down)}"
                final = ServiceError(f"{error.message}{waited or often}", status=error.status)
                final.at(request.window, request.offset)
                if not alone:
                    raise final
                self._source.failed(request, final)
