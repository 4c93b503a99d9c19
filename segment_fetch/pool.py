"""Workers that keep every connection busy: each takes the next request of a feed, makes one attempt, hands the answer
back. A page that failed waits its delay in a queue while its worker goes on with others.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from segment_fetch.api import PageAnswer, SegmentApi
from segment_fetch.errors import (
    CredentialsError,
    InputError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TransientError,
)
from segment_fetch.events import Event, Paused, Retrying
from segment_fetch.gate import Gate
from segment_fetch.query import Window
from segment_fetch.retry import RetryPolicy

PATIENCE_S = 900.0
"""How long the API may answer nothing but 429 before the run gives up."""


class PageRequest(Struct, frozen=True):
    """A page that a feed wants. `reading` and `mark` are the feed's own, for what it belongs to."""

    window: Window
    offset: int
    limit: int
    reading: Any
    mark: Any = None


class Feed(Protocol):
    """Says what to ask next and takes the answers. Called from one event loop only; never waits."""

    def next(self) -> PageRequest | None:
        """The next request; None where nothing can be asked before an answer comes or `Pool.wake` is called."""

    def wants(self, request: PageRequest) -> bool:
        """Whether a request that waits to be repeated is still of use."""

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes an answer. Raises TransientError where the page is faulty and should be asked for again."""

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        """Takes it that this page cannot be had."""

    def finished(self) -> bool:
        """Whether nothing more will be asked, whatever comes."""


class Tally(Struct):
    """What a pool did: requests sent, of them repeated ones, and answers that were 429."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0


class _Attempt(Struct):
    """A request on its way through its attempts. `since` is when it first failed."""

    request: PageRequest
    failures: int = 0
    tries: int = 0
    since: float | None = None


class Pool:
    """Runs one feed to its end with at most `connections` requests in flight."""

    def __init__(
        self,
        api: SegmentApi,
        gate: Gate,
        feed: Feed,
        *,
        connections: int,
        retry: RetryPolicy,
        tell: Callable[[Event], None],
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._gate = gate
        self._feed = feed
        self._connections = connections
        self._retry = retry
        self._tell = tell
        self._chance = chance
        self._clock = clock
        self._waiting: list[tuple[float, int, _Attempt]] = []
        self._order = 0
        self._idle: set[asyncio.Future[None]] = set()
        self._succeeded_at: float | None = None
        self.tally = Tally()

    async def run(self) -> None:
        """Returns when the feed is finished; raises the first error that ends everything, all workers stopped."""
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
            await self._try(attempt)
            self.wake()

    async def _take(self) -> _Attempt | None:
        while True:
            attempt = self._due()
            if attempt is not None:
                return attempt
            request = self._feed.next()
            if request is not None:
                return _Attempt(request)
            if self._feed.finished():
                return None
            await self._rest()

    def _due(self) -> _Attempt | None:
        while self._waiting and self._waiting[0][0] <= self._clock():
            attempt = heapq.heappop(self._waiting)[2]
            if self._feed.wants(attempt.request):
                return attempt
        return None

    async def _rest(self) -> None:
        """Until woken, or until a delayed page is due."""
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.add(idle)
        timer = None
        if self._waiting:
            delay = self._waiting[0][0] - self._clock()
            timer = asyncio.get_running_loop().call_later(max(0.0, delay), self.wake)
        try:
            await idle
        finally:
            self._idle.discard(idle)
            if timer is not None:
                timer.cancel()

    async def _try(self, attempt: _Attempt) -> None:
        request = attempt.request
        self.tally.requests += 1
        self.tally.retries += attempt.tries > 0
        attempt.tries += 1
        try:
            answer = await self._api.page(request.window, request.offset, request.limit)
            self._feed.answered(request, answer)
        except ThrottledError as error:
            self._throttled(attempt, error)
        except TransientError as error:
            self._failed(attempt, error)
        except (CredentialsError, InputError) as error:
            raise error.at(request.window, request.offset) from None
        except SegmentFetchError as error:
            self._feed.failed(request, error.at(request.window, request.offset))
        else:
            self._succeeded_at = self._clock()

    def _throttled(self, attempt: _Attempt, error: ThrottledError) -> None:
        """429 is no failure of the page: it is asked for again when the pause is over, however often."""
        self.tally.throttled += 1
        closed = self._gate.pause(error.retry_after)
        self._tell(Paused(closed))
        now = self._clock()
        if attempt.since is None:
            attempt.since = now
        if now - max(attempt.since, self._succeeded_at or attempt.since) > PATIENCE_S:
            raise ServiceError(f"the API answered nothing but 429 for {PATIENCE_S / 60:.0f} minutes", status=429)
        self._later(attempt, closed)

    def _failed(self, attempt: _Attempt, error: TransientError) -> None:
        attempt.failures += 1
        if attempt.since is None:
            attempt.since = self._clock()
        delay = self._retry.delay(error.kind, attempt.failures, self._chance)
        request = attempt.request
        if delay is not None:
            self._tell(Retrying(request.window, request.offset, attempt.failures, delay, error.message))
            self._later(attempt, delay)
            return
        final = ServiceError(f"{error.message}, {attempt.failures} times", status=error.status)
        final.at(request.window, request.offset)
        if self._succeeded_at is None or self._succeeded_at < attempt.since:
            raise final  # nothing at all came through since this page first failed: the service is down
        self._feed.failed(request, final)

    def _later(self, attempt: _Attempt, delay: float) -> None:
        self._order += 1
        heapq.heappush(self._waiting, (self._clock() + delay, self._order, attempt))
