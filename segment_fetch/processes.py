"""Several processes that read one range: each reads windows and writes their files, which this process alone names.

A window is dealt out when a process has nothing left to ask for. The processes hold what the destination is locked by,
so that nobody else can take it while one of them lives. They end with this one, however it ends.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct, structs

from segment_fetch.auth import Auth
from segment_fetch.errors import InputError, SegmentFetchError
from segment_fetch.events import Event, NewFields
from segment_fetch.feed import Feed, PageAnswer, PageRequest
from segment_fetch.pool import Pool, Tally
from segment_fetch.query import Query, Window
from segment_fetch.reader import Settings
from segment_fetch.reading import WindowRead
from segment_fetch.retry import RetryPolicy
from segment_fetch.sinks.base import Sink, Written
from segment_fetch.splitting import Splitting
from segment_fetch.survey import Survey
from segment_fetch.transport import Timeouts

_MANY = 8
"""Windows for each process from which on it does not matter much how different they are."""

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from segment_fetch.worker import main; main()"
)
_OWN_VARIABLES = "LIVEPERSON_"
_LENGTH = 4


class Job(Struct, frozen=True):
    """What a process has to know; it goes through a pipe, as neither a command line nor an environment keeps secrets.

    What comes back are lists of events, windows as they end, None where another window is wanted, an error that ends
    everything, and at the end the tally.
    """

    query: Query
    auth: Auth
    base_url: str | None
    connections: int
    retry: RetryPolicy
    timeouts: Timeouts | None
    settings: Settings
    clock: Callable[[], float]
    sink: Sink[Any]

    def shared(self, processes: int) -> Job:
        """The same for each of so many processes: all of them together send no more requests at once."""
        return structs.replace(self, connections=self.connections // processes)


def helper(sink: Sink[Any]) -> Sink[Any]:
    """A destination for the processes. InputError where only one can write to it."""
    if (found := sink.helper()) is None:
        raise InputError("processes: only into a folder can several write at once; leave it at 1 here")
    return found


def packed(message: object) -> bytes:
    """A message as `Crew` reads it."""
    data = pickle.dumps(message)
    return len(data).to_bytes(_LENGTH) + data


def are_few(windows: Sequence[Window], processes: int) -> bool:
    """Whether windows that are too large have to be divided before they are dealt out, to give each process its share.

    It costs a request for each window, and one for each part.
    """
    return len(windows) < processes * _MANY


class Dividing(Survey):
    """Finds windows as an extraction would; one of which a page cannot be had stays as it is."""

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        if request.reading is self or request.reading in self._splitting:
            super().answered(request, answer)

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        if isinstance(request.reading, Splitting):
            if request.reading not in self._splitting:
                return
            self._splitting.remove(request.reading)
        self._add(request.window, 0)
        self._due -= 1


class Crew:
    """The processes of a run. Give it windows with `deal`; it gives them back as they end, written but not named."""

    def __init__(self, job: Job, processes: int, handles: Sequence[int], tell: Callable[[Event], None]) -> None:
        self.tally = Tally()
        self._settings = job.settings
        self._job = pickle.dumps(sys.path) + _pickled(job.shared(processes))
        self._handles = handles
        self._tell = tell
        self._named: set[str] = set()
        self._dealt: asyncio.Future[deque[Window]] = asyncio.get_running_loop().create_future()
        self._results: asyncio.Queue[WindowRead[Written] | None] = asyncio.Queue()
        self._running = asyncio.create_task(self._run(processes))
        self._running.add_done_callback(lambda _: self._results.put_nowait(None))

    async def divided(self, windows: Sequence[Window], pool_of: Callable[[Feed], Pool]) -> list[Window]:
        """The windows, and of those that are too large their parts: what one process finds as it goes."""
        found = Dividing(windows, self._settings.limit, self._settings.split_above)
        pool = pool_of(found)
        await pool.run()
        self._count(pool.tally)
        return [planned.window for planned in found.planned()]

    def deal(self, windows: Iterable[Window]) -> None:
        """The windows to be read."""
        if not self._dealt.done():  # else a process could not be started, which ends the run
            self._dealt.set_result(deque(windows))

    async def __aiter__(self) -> AsyncIterator[WindowRead[Written]]:
        while (result := await self._results.get()) is not None:
            yield result
        await self._running

    def release(self, window: Window) -> None:
        """Nothing of it is held here."""

    async def stop(self) -> None:
        """Ends every process."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self, processes: int) -> None:
        members = [asyncio.create_task(self._attend()) for _ in range(processes)]
        try:
            await asyncio.gather(*members)
        finally:
            for member in members:
                member.cancel()
            await asyncio.gather(*members, return_exceptions=True)

    async def _attend(self) -> None:
        """One process, from its start to its end."""
        process = await _started(self._handles)
        try:
            await self._converse(process)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise SegmentFetchError(_ended(await process.wait())) from None
        finally:
            await _gone(process)

    async def _converse(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        process.stdin.write(self._job)
        while not isinstance(message := await _received(process.stdout), Tally):
            if message is None:
                windows = await self._dealt
                process.stdin.write(pickle.dumps(windows.popleft() if windows else None))
            else:
                self._take(message)
        self._count(message)
        process.stdin.close()
        await process.wait()

    def _take(self, message: list[Event] | WindowRead[Written] | BaseException) -> None:
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, WindowRead):
            self._results.put_nowait(message)
            return
        for event in message:
            self._pass_on(event)

    def _pass_on(self, event: Event) -> None:
        """Tells an event; names of new fields, which each process finds for itself, only once."""
        if isinstance(event, NewFields):
            names = set(event.names) - self._named
            self._named |= names
            event = NewFields(tuple(sorted(names)))
            if not names:
                return
        self._tell(event)

    def _count(self, more: Tally) -> None:
        for name in Tally.__struct_fields__:
            setattr(self.tally, name, getattr(self.tally, name) + getattr(more, name))


@asynccontextmanager
async def crew(job: Job, processes: int, handles: Sequence[int], tell: Callable[[Event], None]) -> AsyncIterator[Crew]:
    """So many processes for the length of the block; leaving it ends them."""
    members = Crew(job, processes, handles, tell)
    try:
        yield members
    finally:
        await members.stop()


def _pickled(job: Job) -> bytes:
    try:
        return pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(f"processes: what they need cannot be taken to another process ({error})") from None


async def _started(handles: Sequence[int]) -> Process:
    """A process of its own session, so that Ctrl-C in a terminal reaches it only by way of this one."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    command = [sys.executable, "-I", "-c", _START]
    try:
        return await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, env=environ, pass_fds=handles, start_new_session=True
        )
    except OSError as error:
        raise SegmentFetchError(f"cannot start a process: {error.strerror}; run with fewer") from error


async def _gone(process: Process) -> None:
    """Ends a process. However often cancelled, it has ended then: it writes to the destination."""
    with suppress(ProcessLookupError):
        process.kill()
    ending = asyncio.ensure_future(process.communicate())
    while not ending.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([ending])


async def _received(stdout: asyncio.StreamReader) -> Any:
    """The next message. IncompleteReadError where the process has ended."""
    length = int.from_bytes(await stdout.readexactly(_LENGTH))
    return pickle.loads(await stdout.readexactly(length))  # noqa: S301 - from this program's own process


def _ended(code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"one of the processes {how}"
