"""One call for all who want it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from segment_fetch.errors import ServiceError


class SingleFlight:
    """Those who ask while the call is made wait for it, and share its outcome, a ServiceError too.

    Unlike a shared task it dies with whoever makes it: the next in the line then makes it anew.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._failed: ServiceError | None = None
        self._failures = 0

    async def make(self, call: Callable[[], Awaitable[None]], *, needed: Callable[[], bool]) -> None:
        """Makes the call unless it is no longer `needed` when its turn comes."""
        failures = self._failures
        async with self._lock:
            if not needed():
                return
            if self._failed is not None and self._failures != failures:
                raise ServiceError(self._failed.message, status=self._failed.status)
            try:
                await call()
            except ServiceError as error:
                self._failed, self._failures = error, self._failures + 1
                raise
