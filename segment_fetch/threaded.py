"""An async generator for callers that are not: its event loop runs on in a thread while they are busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def in_thread(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """The items of an async generator that runs in a thread of its own; also for callers who have a loop themselves.

    Closing this generator, or an exception in the caller's thread, cancels it and waits until it has cleaned up.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_serve, args=(loop,), name="segment_fetch", daemon=True)
    thread.start()
    steps = _Steps(make(), loop)
    try:
        while (found := steps.next()) is not None:
            yield from found
    finally:
        try:
            steps.end()
        finally:  # also where the clean-up fails
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


class _Steps(Generic[T]):
    """Calls an async generator from a thread that is not its loop's."""

    def __init__(self, items: AsyncGenerator[T, None], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._step: asyncio.Task[Any] | None = None

    def next(self) -> tuple[T] | None:
        """The next item, by itself; None behind the last."""
        return asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()

    async def _next(self) -> tuple[T] | None:
        self._step = asyncio.current_task()
        try:
            return (await anext(self._items),)
        except StopAsyncIteration:
            return None

    def end(self) -> None:
        """Cancels what is under way; returns when the generator has ended."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()

    async def _end(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._items.aclose()
