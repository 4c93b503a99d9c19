"""An event loop in a separate thread, for the duration of a block of synchronous code."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_TURNS = 100


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in another thread until the block ends; then tasks still running are cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="segment-simulator", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def all_accepted() -> None:
    """Wait until every accepted connection has its transport, so that a server can be closed immediately.

    asyncio leaves a connection open for ever if its server is closed between the two. Bounded: a TLS handshake that
    never ends has its transport from the beginning.
    """
    for _ in range(_TURNS):
        names = {getattr(task.get_coro(), "__name__", "") for task in asyncio.all_tasks()}
        if "_accept_connection2" not in names:
            return
        await asyncio.sleep(0)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
