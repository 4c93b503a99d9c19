"""When the next request may go: not faster than the rate, and not at all after a 429 until the pause is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Literal, TypeAlias

from aiolimiter import AsyncLimiter

from segment_fetch.concurrency import Ticket
from segment_fetch.pacing import Pacer

Outcome: TypeAlias = Literal["accepted", "refused", "dropped"]
"""What came of a request: an answer, a 429, or nothing that says anything about the limit."""

MIN_PAUSE_S = 1.0
"""The vendor's advice after a 429 that does not say how long to wait."""

_BURST_S = 0.01


def _limiter(rate: float) -> AsyncLimiter:
    """`AsyncLimiter` admits its whole capacity at once, so the capacity is what 10 ms admit, and at least one."""
    burst = max(1.0, rate * _BURST_S)
    return AsyncLimiter(burst, burst / rate)


class Gate:
    """Passed by every attempt at every request of a client. `rate` is in requests a second, None for no limit."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limiter = None if rate is None else _limiter(rate)
        self._clock = clock or asyncio.get_running_loop().time
        self._sleep = sleep
        self._open_at = 0.0

    async def enter(self) -> Ticket | None:
        """Returns when a request may be sent; what came of it is to be told to `left`, whatever happens."""
        await self.passed()
        return None

    def left(self, ticket: Ticket | None, outcome: Outcome, retry_after: float | None = None) -> None:
        """Takes what came of a request."""

    async def passed(self) -> None:
        """As `enter`, for a request that nothing is to be learned from."""
        while True:
            await self._opened()
            if self._limiter is None:
                return
            await self._limiter.acquire()
            if self._clock() >= self._open_at:
                return

    async def _opened(self) -> None:
        while (wait := self._open_at - self._clock()) > 0:
            await self._sleep(wait)

    def pause(self, retry_after: float | None) -> float:
        """Closes the gate for max(1 s, `retry_after`); returns the seconds for which it is closed now."""
        now = self._clock()
        self._open_at = max(self._open_at, now + max(MIN_PAUSE_S, retry_after or 0.0))
        return self._open_at - now


class AdaptiveGate(Gate):
    """A gate whose rate, and number of requests at once, are found from the answers; at most `connections` at once."""

    def __init__(
        self,
        connections: int,
        *,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(None, clock=clock, sleep=sleep)
        self._pacer = Pacer(connections=connections)
        self._turn = asyncio.Lock()
        self._answered = asyncio.Event()

    async def enter(self) -> Ticket | None:
        async with self._turn:  # one waits for the pacer, the others for their turn
            while True:
                await self._opened()
                self._answered.clear()
                wait = self._pacer.next_send(self._clock())
                if wait <= 0:
                    return self._pacer.sent(self._clock())
                await (self._answered.wait() if wait == inf else self._sleep(wait))

    def left(self, ticket: Ticket | None, outcome: Outcome, retry_after: float | None = None) -> None:
        if ticket is None:
            return
        now = self._clock()
        match outcome:
            case "accepted":
                self._pacer.accepted(ticket, now)
            case "refused":
                self._pacer.refused(ticket, now, retry_after)
            case "dropped":
                self._pacer.dropped(ticket, now)
        self._answered.set()
