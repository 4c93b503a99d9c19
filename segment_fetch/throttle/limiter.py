"""The limiter of a client's requests: follows the pacer, stays below the user's own limit, and stops during a pause."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, Literal, TypeAlias

from aiolimiter import AsyncLimiter

from segment_fetch.events import PaceChanged, PaceReason
from segment_fetch.throttle.defaults import MIN_PAUSE_S
from segment_fetch.throttle.pacer import GRAIN, Learned, Pacer, Permit

Outcome: TypeAlias = Literal["accepted", "refused", "dropped"]
"""The outcome of a request: an answer, a 429, or neither (which says nothing about the limit)."""


def _async_limiter(ceiling: float) -> AsyncLimiter:
    """Return a limiter that admits at most `ceiling` requests in any second, rounded up.

    `AsyncLimiter` admits its whole capacity at once, so the capacity is one request. Above 100 requests a second it is
    10 ms' worth, because timers are no finer; the capacity counts towards the second.
    """
    capacity = max(1.0, ceiling * GRAIN)
    return AsyncLimiter(capacity, capacity / (ceiling - capacity + 1))


class Limiter:
    """Grants permits: each attempt at each request of a client takes one. Without a pacer, only a pause delays it."""

    def __init__(
        self,
        pacer: Pacer | None = None,
        *,
        tell: Callable[[PaceChanged], None] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._pacer = pacer
        self._ceiling = None if pacer is None or pacer.ceiling is None else _async_limiter(pacer.ceiling)
        self._watch = None if pacer is None or tell is None else PaceWatch(pacer, tell)
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._open_at = 0.0
        self._turn = asyncio.Lock()
        self._answered = asyncio.Event()

    async def acquire(self) -> Permit | None:
        """Wait until a request may be sent. The caller must always `release` the permit, with the request's outcome."""
        if self._pacer is None:
            await self.passed()
            return None
        async with self._turn:  # one caller waits for the pacer, the others for the lock
            await self._paced(self._pacer)
            await self.passed()
            now = self._clock()
            permit = self._pacer.sent(now)
            if self._watch is not None:
                self._watch.sent(now)
            return permit

    async def _paced(self, pacer: Pacer) -> None:
        while True:
            self._answered.clear()
            wait = pacer.next_send(self._clock())
            if wait <= 0:
                return
            await (self._answered.wait() if wait == inf else self._sleep(wait))

    def release(self, permit: Permit | None, outcome: Outcome, retry_after: float | None = None) -> None:
        """Return a permit with the request's outcome; a refusal starts a pause of at least `retry_after` seconds."""
        if permit is None or self._pacer is None:
            if outcome == "refused":
                self.pause(retry_after)
            return
        now = self._clock()
        match outcome:
            case "accepted":
                self._pacer.accepted(permit, now)
            case "refused":
                self._pacer.refused(permit, now, retry_after)
                self._open_at = max(self._open_at, self._pacer.resumes_at)
                if self._watch is not None:
                    self._watch.refused()
            case "dropped":
                self._pacer.dropped(permit, now)
        self._answered.set()

    async def passed(self) -> None:
        """Wait until a request may be sent that takes no permit and does not count for the pacer, such as a login."""
        while True:
            while (wait := self.closed_for()) > 0:
                await self._sleep(wait)
            if self._ceiling is None:
                return
            await self._ceiling.acquire()
            if self.closed_for() <= 0:
                return

    def pause(self, retry_after: float | None) -> None:
        """Close the limiter for max(1 s, `retry_after`)."""
        self._open_at = max(self._open_at, self._clock() + max(MIN_PAUSE_S, retry_after or 0.0))

    def closed_for(self) -> float:
        """Return the seconds for which the limiter stays closed; 0 if it is open."""
        return max(0.0, self._open_at - self._clock())

    def expected_rate(self) -> float | None:
        """Return the rate expected for the next minutes, in requests a second; None without a pacer."""
        return None if self._pacer is None else self._pacer.expected

    def learned(self, at: float) -> Learned | None:
        """Return the limit learned so far; None if no answer has revealed anything about it."""
        return None if self._pacer is None or not self._pacer.has_learned else self._pacer.learned(at)


_NOTABLE: Final = 0.1  # smallest relative change of the rate that is reported
_INTERVAL: Final = 1.0  # seconds between two reports, unless a 429 caused the change


class PaceWatch:
    """Watches a pacer and reports its changes. Times are seconds of the caller's clock."""

    def __init__(self, pacer: Pacer, tell: Callable[[PaceChanged], None]) -> None:
        self._pacer = pacer
        self._tell = tell
        self._last: PaceChanged | None = None
        self._quiet_until = -math.inf
        self._was_refused = False

    def refused(self) -> None:
        """Note a 429; the change it causes is reported with the first request after the pause."""
        self._was_refused = True

    def sent(self, now: float) -> None:
        """Note that a request was sent; report the pace the first time, and whenever it has changed."""
        if now < self._quiet_until and not self._was_refused:
            return
        rate, at_once = self._pacer.rate, self._pacer.at_once
        notable = 0.0 if self._was_refused else _NOTABLE
        if self._last is None or at_once != self._last.at_once or abs(rate / self._last.rate - 1) > notable:
            self._last = PaceChanged(rate, at_once, self._reason())
            self._tell(self._last)
        self._quiet_until, self._was_refused = now + _INTERVAL, False

    def _reason(self) -> PaceReason:
        if self._was_refused:
            return "too_many_at_once" if self._pacer.cause == "at_once" else "too_fast"
        if self._last is None:
            return "remembered" if self._pacer.remembers else "started"
        return "no_refusals"
