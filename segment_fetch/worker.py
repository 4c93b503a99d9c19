"""One of several processes: reads the windows that it is dealt and writes their files, which it does not name.

It is started by `processes`, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import Any

from msgspec import structs

from segment_fetch.api import SegmentApi
from segment_fetch.cli import speed
from segment_fetch.errors import InputError
from segment_fetch.events import Event
from segment_fetch.feed import Feed
from segment_fetch.gate import Gate
from segment_fetch.pool import Pool, Tally
from segment_fetch.processes import Job, packed
from segment_fetch.query import Window
from segment_fetch.reader import Reads, read
from segment_fetch.reading import WindowRead
from segment_fetch.sinks.encoding import encoded
from segment_fetch.transport import Transport
from segment_fetch.writing import Drafts

_TOLD_EVERY_S = 0.05


def main() -> None:
    """Works until there is nothing left to do, or an error, which is told."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints something disturbs nobody

    def send(message: object) -> None:
        try:
            out.write(packed(message))
            out.flush()
        except OSError:
            os._exit(1)  # nobody is there any more

    try:
        job: Job = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    except (AttributeError, ImportError) as error:
        send(InputError(f"processes: what they need has to be in a module that can be imported ({error})"))
        return
    worker = Worker(job, send)
    speed.quicken_gzip()
    try:
        tally = asyncio.run(worker.work())
    except Exception as error:  # noqa: BLE001 - whatever it is, the one who started this raises it
        worker.tell_all()
        send(error)
    else:
        send(tally)


class Worker:
    """A job while it is done."""

    def __init__(self, job: Job, send: Callable[[object], None]) -> None:
        self._job = job
        self._send = send
        self._untold: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._drafts = Drafts(job.sink)
        self._done = Flag()

    async def work(self) -> Tally:
        """Reads and writes what it is dealt."""
        with ThreadPoolExecutor(1) as thread:
            async with self._reading(thread) as reads:
                Thread(target=self._listen, args=(asyncio.get_running_loop(), reads)).start()
                async for result in reads:
                    ended = await asyncio.get_running_loop().run_in_executor(thread, self._written, result)
                    reads.release(result.window)
                    self.tell_all()
                    self._send(ended)
        self.tell_all()
        self._done.set()
        return reads.tally

    def _written(self, result: WindowRead[Any]) -> WindowRead[Any]:
        self._drafts.check()
        parts = [] if result.status == "unproven" else [self._drafts.written(result)]
        return structs.replace(result, parts=parts)

    def _listen(self, loop: asyncio.AbstractEventLoop, reads: Reads[Any]) -> None:
        """Takes the windows that are dealt. Without the one who would name what it writes, the process ends."""
        try:
            while True:
                window: Window | None = pickle.load(sys.stdin.buffer)  # noqa: S301
                loop.call_soon_threadsafe(reads.give, window)
        except (EOFError, pickle.UnpicklingError):
            if not self._done.is_set():
                os._exit(1)

    @asynccontextmanager
    async def _reading(self, thread: Executor) -> AsyncIterator[Reads[Any]]:
        job = self._job
        transport = Transport(connections=job.connections, timeouts=job.timeouts)
        gate = Gate(None, tell=self._tell)
        api = SegmentApi(
            job.query,
            job.auth,
            transport,
            gate,
            retry=job.retry,
            base_url=job.base_url,
            tell=self._tell,
            clock=job.clock,
        )

        def pool(feed: Feed) -> Pool:
            return Pool(api, gate, feed, connections=job.connections, retry=job.retry, tell=self._tell)

        def more() -> None:
            self._send(None)

        outlet = _Outlet(self._drafts, thread)
        try:
            async with read(
                (), job.settings, partial(encoded, job.sink), tell=self._tell, pool_of=pool, outlet=outlet, more=more
            ) as reads:
                yield reads
        finally:
            await transport.close()

    def _tell(self, event: Event) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._pause, self.tell_all)
        self._untold.append(event)

    def tell_all(self) -> None:
        """Sends the events of the last moment."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._pause = None, _TOLD_EVERY_S
            self._send(self._untold)
            self._untold = []


class _Outlet:
    """Writes what is ready of a window in the thread."""

    def __init__(self, drafts: Drafts, thread: Executor) -> None:
        self._drafts = drafts
        self._thread = thread

    def put(self, window: Window, parts: Sequence[Any]) -> None:
        self._thread.submit(self._drafts.add, window, parts)

    def withdraw(self, window: Window) -> None:
        self._thread.submit(self._drafts.withdraw, [window])
