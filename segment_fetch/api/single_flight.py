"""One call for all who want its result at the same time."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

from segment_fetch.errors import SegmentFetchError


class SingleFlight:
    """One call at a time, made for all who ask while it is under way; they share its outcome, an error too.

    It is no shared task: when the caller that makes the call is cancelled, the next in the line makes it anew.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._error: SegmentFetchError | None = None
        self._failures = 0

    async def run(self, call: Callable[[], Awaitable[None]], *, needed: Callable[[], bool]) -> None:
        """Make the call, unless it is no longer `needed` when this caller's turn comes. Raises what the call raises."""
        failures = self._failures
        async with self._lock:
            if not needed():
                return
            if self._error is not None and self._failures != failures:
                raise copy.copy(self._error)  # a copy, as each caller notes its own window in it
            try:
                await call()
            except SegmentFetchError as error:
                self._error, self._failures = copy.copy(error), self._failures + 1
                raise
