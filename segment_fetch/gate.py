"""When the next request may go: never faster than the rate, and not at all after a 429 until the pause is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiolimiter import AsyncLimiter

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

    async def passed(self) -> None:
        """Returns when a request may be sent."""
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
