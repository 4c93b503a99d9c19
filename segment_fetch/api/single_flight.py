"""Single flight: one call for all callers that need its result at the same time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

from segment_fetch.errors import SegmentFetchError


class SingleFlight:
    """Makes one call at a time for all callers that arrive during it; they share its outcome, even an error.

    It is not a shared task: when the caller that makes the call is cancelled, the next one makes it again.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._error: SegmentFetchError | None = None
        self._failures = 0

    async def run(self, call: Callable[[], Awaitable[None]], *, needed: Callable[[], bool]) -> None:
        """Make the call, unless it is no longer `needed` when this caller's turn comes. Raises the call's errors."""
        failures = self._failures
        async with self._lock:
            if not needed():
                return
            if self._error is not None and self._failures != failures:
                raise copy.copy(self._error)  # a copy, because each caller adds its own window
            try:
                await call()
            except SegmentFetchError as error:
                self._error, self._failures = copy.copy(error), self._failures + 1
                raise
