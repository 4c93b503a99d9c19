"""The client for callers without an event loop: scripts, notebooks and threads. Each call blocks until it is done.

Each call runs a client in a separate event loop, in a thread that ends with the call, so it also works where a loop is
already running, as in a notebook. Called by scripts, the Singer tap and the dlt resource; calls `client`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future, wait
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from segment_fetch.client import SegmentClient
from segment_fetch.errors import check_type

if TYPE_CHECKING:
    import pyarrow as pa

    from segment_fetch.extraction.report import Report
    from segment_fetch.sinks.base import Sink
    from segment_fetch.timerange import TimeLike
    from segment_fetch.windows.planning import Plan
    from segment_fetch.wire.models import Segment

__all__ = ["count", "extract", "plan", "stream", "stream_arrow", "sync"]

T = TypeVar("T")

_AWAKE_S = 0.5


def count(client: SegmentClient, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> int:
    """Return the number of segments that closed in start <= t < end, as `SegmentClient.count` does."""
    return _result(client, lambda: client.count(start, end, clamp=clamp))


def plan(client: SegmentClient, start: TimeLike, end: TimeLike, *, clamp: bool = False) -> Plan:
    """Return the windows in which a range would be read, as `SegmentClient.plan` does."""
    return _result(client, lambda: client.plan(start, end, clamp=clamp))


def extract(client: SegmentClient, start: TimeLike, end: TimeLike, sink: Sink[Any], *, clamp: bool = False) -> Report:
    """Extract a range into a destination and return the report, as `SegmentClient.extract` does.

    `client` must not be open; it is open during the call, and can be used again. Its callbacks are called in the call's
    thread. An interrupt (Ctrl-C) ends the run cleanly: what is committed stays, no partial data is left, and the same
    call continues from there.
    """
    return _result(client, lambda: client.extract(start, end, sink, clamp=clamp))


def sync(
    client: SegmentClient,
    sink: Sink[Any],
    start: TimeLike | None = None,
    *,
    timezone: str = "UTC",
    clamp: bool = False,
) -> Report:
    """Bring a destination up to date and return the report, as `SegmentClient.sync` does. See `extract`."""
    return _result(client, lambda: client.sync(sink, start, timezone=timezone, clamp=clamp))


def stream(
    client: SegmentClient, start: TimeLike, end: TimeLike, *, clamp: bool = False
) -> Generator[list[Segment], None, None]:
    """Yield proven segments in batches of at most 500, as `SegmentClient.stream` does.

    The thread reads ahead by a bounded amount while the caller is busy. Closing the generator ends it cleanly.
    """
    return _items(client, lambda: client.stream(start, end, clamp=clamp))


def stream_arrow(
    client: SegmentClient, start: TimeLike, end: TimeLike, *, clamp: bool = False
) -> Generator[pa.RecordBatch, None, None]:
    """Yield the same as Arrow record batches, as `SegmentClient.stream_arrow` does. Needs the extra `arrow`."""
    return _items(client, lambda: client.stream_arrow(start, end, clamp=clamp))


def _result(client: SegmentClient, call: Callable[[], Awaitable[T]]) -> T:
    check_type("client", client, SegmentClient, "a SegmentClient that is not open")

    async def once() -> AsyncGenerator[T, None]:
        async with client:
            result = await call()
        yield result

    (result,) = in_thread(once)
    return result


def _items(client: SegmentClient, call: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    check_type("client", client, SegmentClient, "a SegmentClient that is not open")

    async def all_of_them() -> AsyncGenerator[T, None]:
        async with client, aclosing(call()) as items:
            async for item in items:
                yield item

    return in_thread(all_of_them)


def in_thread(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """Yield the items of an async generator whose event loop keeps running in a thread while the caller is busy.

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
        finally:  # even if the clean-up fails
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _serve(opened: Future[asyncio.AbstractEventLoop]) -> None:
    """Create the loop in this thread, where no interrupt can stop that halfway, and run it until it is stopped."""
    try:
        loop = asyncio.new_event_loop()
    except Exception as error:  # noqa: BLE001 - the waiting thread raises it
        opened.set_exception(error)
        return
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop()
        opened.set_result(loop)
        loop.run_forever()


def _awaited(future: Future[T]) -> T:
    """Return the result. A signal just before a wait is handled only after it, so each wait is short."""
    while not future.done():
        wait([future], timeout=_AWAKE_S)
    return future.result()


class _Steps(Generic[T]):
    """An async generator that is advanced from a thread other than its loop's."""

    def __init__(self, items: AsyncGenerator[T, None], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._step: asyncio.Task[Any] | None = None

    def next(self) -> tuple[T] | None:
        """Return the next item in a tuple; None after the last."""
        return _awaited(asyncio.run_coroutine_threadsafe(self._next(), self._loop))

    async def _next(self) -> tuple[T] | None:
        self._step = asyncio.current_task()
        try:
            return (await anext(self._items),)
        except StopAsyncIteration:
            return None

    def end(self) -> None:
        """Cancel the current step, and wait for the generator to end."""
        _awaited(asyncio.run_coroutine_threadsafe(self._end(), self._loop))

    async def _end(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait([self._step])
        await self._items.aclose()
