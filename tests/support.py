"""Helpers for several test files: time that does not pass by itself, a server that says what a test tells it to."""

from __future__ import annotations

import asyncio
import functools
import json
import random
import selectors
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct

from segment_fetch.api.auth import Auth, BearerToken
from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.api.transport import Transport
from segment_fetch.query import Query, Window
from segment_fetch.simulator.background import all_accepted
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.wire.models import Pagination, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer
from segment_fetch.wire.raw_rows import scan_page

P = ParamSpec("P")

ACCOUNT = "111111"
NOW = 1_790_000_000.0
"""Epoch seconds: 2026-09-21T14:13:20Z."""
NO_WAITING = RetryPolicy(server=(0.0, 0.0, 0.0), network=(0.0, 0.0, 0.0))

_GRACE_S = 0.002
_TURN_S = 1e-6
"""Seconds that a turn of the loop takes, so that time goes on even where there is always something to do."""


class _ImpatientSelector(selectors.DefaultSelector):
    """Let the time that was to be waited pass at once if nothing is ready."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += _TURN_S
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(min(timeout, _GRACE_S))
        if not ready:
            self.now += timeout
        return ready


class ImpatientLoop(asyncio.SelectorEventLoop):
    """An event loop in which sockets are real and time is not: with nothing to do, its clock jumps ahead.

    Both ends of a connection have to be in this loop, so that "nothing to do" is true of the other end, too. How busy
    the machine is makes no difference to its clock.
    """

    def __init__(self) -> None:
        self._impatient = _ImpatientSelector()
        super().__init__(self._impatient)

    def time(self) -> float:
        return self._impatient.now


def without_waiting(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Runs an asynchronous test in an `ImpatientLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=ImpatientLoop) as runner:
            runner.run(main())

    return run


class ManualClock:
    """Seconds that pass when a test says so, or when somebody sleeps by it."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Passes at once."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def row(close: int = 1, **fields: Any) -> dict[str, Any]:
    """A segment as it is on the wire, with no more than it has to have."""
    return {"segmentId": f"id-{close}", "endTimeL": close, **fields}


def page_body(*rows: Mapping[str, Any], count: int | None = None, **fields: Any) -> bytes:
    """A page as it is on the wire."""
    pagination = {"count": len(rows) if count is None else count}
    return json.dumps({"segments": rows, "pagination": pagination, **fields}).encode()


def page(closes: Sequence[int], count: int) -> PageAnswer:
    """A page as a source gets it."""
    rows = [Segment(segmentId=f"id-{close}-{at}", endTimeL=close) for at, close in enumerate(closes)]
    return PageAnswer(SegmentPage(rows, Pagination(count)), int(NOW * 1000))


class Asked(Struct):
    """A request as it came over the wire; the names of headers are in lower case."""

    line: str
    headers: dict[str, str]
    body: str

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


Respond = Callable[[Asked], bytes | None]


def shuffled_page(
    rows: Sequence[Segment], window: Window, offset: int, limit: int, chance: random.Random, *, quick: float
) -> SegmentPage:
    """The page of a server that has these rows: ties in any order, and a share of the pages by the fast path."""
    found = [row for row in rows if window.start <= row.endTimeL <= window.end]
    chance.shuffle(found)
    found.sort(key=lambda row: -row.endTimeL)
    page = SegmentPage(found[offset : offset + limit], Pagination(count=len(found)))
    return (scan_page(msgspec.json.encode(page)) if chance.random() < quick else None) or page


def http(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """An answer; underscores in the names of headers are written as hyphens."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": str(len(data)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} Any", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class RawServer:
    """Says what `respond` returns for each request; where that is None, or does not say its length, it hangs up."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await _read_request(reader)) is not None:
                self.asked.append(asked)
                answer = self._respond(asked)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                if not _is_whole(answer):
                    return
        except ConnectionError:
            pass
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(line, headers, body.decode())


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    return f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n"


@asynccontextmanager
async def raw_server(respond: Respond) -> AsyncIterator[RawServer]:
    """A `RawServer` on loopback for the length of the block."""
    raw = RawServer(respond)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await raw.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    raw.url = f"http://127.0.0.1:{raw.port}"
    try:
        yield raw
    finally:
        await all_accepted()
        server.close()
        await asyncio.sleep(0)  # a connection that was accepted last gets its task
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)
        await server.wait_closed()


class PortMap(AbstractResolver):
    """Finds every host, on this machine and on the port given for it. `asked` are the names looked up."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self._ports:
            raise OSError(f"{host} is not a name of this test")
        found = ResolveResult(hostname=host, host="127.0.0.1", port=self._ports[host], family=2, proto=0, flags=0)
        return [found]

    async def close(self) -> None:
        """Nothing is held."""


def session_for(ports: Mapping[str, int], **connector: Any) -> aiohttp.ClientSession:
    """A caller's session in which these hosts are on these ports of this machine."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=PortMap(ports), **connector))


@asynccontextmanager
async def opened(
    url: str | None,
    auth: Auth | None = None,
    *,
    account: str = ACCOUNT,
    session: aiohttp.ClientSession | None = None,
    limiter: Limiter | None = None,
    query: Query | None = None,
    timeouts: Timeouts | None = None,
    connections: int = 16,
    **options: Any,
) -> AsyncIterator[SegmentApi]:
    """The API of an account, at a base URL or, without one, wherever the Domain API says."""
    transport = Transport(session=session, connections=connections, timeouts=timeouts)
    options = {"base_url": url, **options}
    query = query or Query(account, "tests")
    try:
        yield SegmentApi(query, auth or BearerToken("token-value"), transport, limiter or Limiter(None), **options)
    finally:
        await transport.close()


ANY_WINDOW = Window(int(NOW * 1000) - 3_600_000, int(NOW * 1000))


def everything_said(error: BaseException) -> str:
    """All that a log, a traceback or a debugger's first look shows of an error and of what led to it."""
    seen: list[str] = ["".join(traceback.format_exception(error))]
    at: BaseException | None = error
    while at is not None:
        seen += [str(at), repr(at), repr(at.args), repr({k: v for k, v in vars(at).items() if not k.startswith("__")})]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(seen)
