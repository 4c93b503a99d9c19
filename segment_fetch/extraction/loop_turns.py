"""Turns of the event loop: work is done one slice at a time, so that other tasks of the loop are not delayed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

SLICE_S = 0.001
"""Seconds of work in one turn of the loop, after which the remaining work waits for a later turn."""


class Turns:
    """Lets one task run in each turn of the event loop, first come, first served.

    All clients in a loop share one, so that a hundred of them block the loop no longer than one does.
    """

    def __init__(self, slice_s: float = SLICE_S) -> None:
        self._slice_s = slice_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False
        self._ends = 0.0

    async def take(self) -> None:
        """Wait for a turn of the loop in which no other task has worked."""
        loop = asyncio.get_running_loop()
        if self._is_taken:
            turn: asyncio.Future[None] = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._is_taken = True
            loop.call_soon(self._next)
        self._ends = perf_counter() + self._slice_s

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task was cancelled
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken = False

    @property
    def is_over(self) -> bool:
        """True if the time slice of this turn is used up."""
        return perf_counter() >= self._ends


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the `Turns` of an event loop, which all clients in it share."""
    return _turns.setdefault(loop, Turns())


async def in_thread(call: Callable[[], T]) -> T:
    """Run a call in a separate thread and return its result. If cancelled, wait for the call to end first."""
    with ThreadPoolExecutor(1, thread_name_prefix="segment_fetch") as thread:
        future = asyncio.get_running_loop().run_in_executor(thread, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await ended(future)
            raise


async def ended(future: asyncio.Future[Any]) -> None:
    """Wait for a future even if cancelled, any number of times; then raise the cancellation."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    with suppress(asyncio.CancelledError):
        future.exception()  # retrieved, so that the loop does not warn about it
    if cancelled:
        raise asyncio.CancelledError
