"""An async generator for callers that are not: its event loop runs on in a thread while they are busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_AWAKE_S = 0.5


def in_thread(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """The items of an async generator that runs in a thread of its own; also for callers who have a loop themselves.

    Closing this generator, or an exception in the caller's thread, cancels it and waits until it has cleaned up.
    """
    opened: Future[asyncio.AbstractEventLoop] = Future()
    thread = threading.Thread(target=_serve, args=(opened,), name="segment_fetch", daemon=True)
    thread.start()
    loop = _awaited(opened)
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


def _serve(opened: Future[asyncio.AbstractEventLoop]) -> None:
    """Makes the loop here, where no interrupt can leave it half made."""
    try:
        loop = asyncio.new_event_loop()
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        opened.set_exception(error)
        return
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        opened.set_result(loop)
        loop.run_forever()


def _awaited(future: Future[T]) -> T:
    """The result. A signal that comes just before the wait is seen only when that ends, so it ends now and then."""
    while not future.done():
        wait([future], timeout=_AWAKE_S)
    return future.result()


class _Steps(Generic[T]):
    """Calls an async generator from a thread that is not its loop's."""

    def __init__(self, items: AsyncGenerator[T, None], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._step: asyncio.Task[Any] | None = None

    def next(self) -> tuple[T] | None:
        """The next item, by itself; None behind the last."""
        return _awaited(asyncio.run_coroutine_threadsafe(self._next(), self._loop))

    async def _next(self) -> tuple[T] | None:
        self._step = asyncio.current_task()
        try:
            return (await anext(self._items),)
        except StopAsyncIteration:
            return None

    def end(self) -> None:
        """Cancels what is under way; returns when the generator has ended."""
        _awaited(asyncio.run_coroutine_threadsafe(self._end(), self._loop))

    async def _end(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._items.aclose()
