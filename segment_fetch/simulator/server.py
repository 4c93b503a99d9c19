"""The simulator: the agent-segments API on 127.0.0.1, in the caller's event loop or in a separate thread."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

from aiohttp import web

from segment_fetch.simulator.answers import Answer
from segment_fetch.simulator.auth import Bearer, ClientCredentials, TokenIssuer
from segment_fetch.simulator.background import all_accepted, running_loop
from segment_fetch.simulator.checks import check_not_negative
from segment_fetch.simulator.dataset import Dataset
from segment_fetch.simulator.drift import Drift
from segment_fetch.simulator.faults import Fault, Faults
from segment_fetch.simulator.limits import Limit
from segment_fetch.simulator.oauth1 import OAuth1, SignatureVerifier
from segment_fetch.simulator.page_renderer import PageRenderer
from segment_fetch.simulator.population import Population
from segment_fetch.simulator.service import Service, Settings
from segment_fetch.simulator.stats import Stats

Auth = OAuth1 | ClientCredentials | Bearer
Limits = Limit | Sequence[Limit] | None

_SHUTDOWN_S = 0.05


class Simulator:
    """The agent-segments API over a dataset, on loopback.

    `async with` serves in the running loop, `with simulator.in_thread()` in a separate thread. Each object
    can be used once. A segment that closes in the future, by `clock`, does not exist yet.

    `auth`: the credentials required; None for none. `permitted`: False refuses even valid ones, as for
    a key without the permission.
    `latency_ms`: the latency of each answer, or its minimum and maximum.
    `limit`: one limit, or several that all apply; a request beyond one of them gets 429.
    `faults`, `token_faults`, `domain_faults`: the faults of segments, token and Domain API requests.
    `drift`: the changes of the segments over time.
    `to_inclusive`: True if a segment that closed exactly at `to` belongs to the answer.
    `gzip`: True to compress pages for clients that accept it.
    `ssl_context`: serve over TLS.
    `clock`: epoch seconds, for the `Date` header, the month that is served, limits, tokens and drift.
    `domain_host`: the answer of the Domain API; by default the simulator's own host and port.
    `keep_bytes`: size in bytes of the cache of rendered pages; 0 for no cache.
    `log_size`: the number of requests that `stats.log` holds.

    Raises `ValueError`, naming the value, if one is out of its range.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        dataset: Dataset,
        *,
        auth: Auth | None = None,
        permitted: bool = True,
        latency_ms: float | tuple[float, float] = 0.0,
        limit: Limits = None,
        faults: Faults | None = None,
        token_faults: Faults | None = None,
        domain_faults: Faults | None = None,
        drift: Drift | None = None,
        to_inclusive: bool = True,
        gzip: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        port: int = 0,
        domain_host: str | None = None,
        keep_bytes: int = 0,
        log_size: int = 10_000,
    ) -> None:
        check_not_negative("keep_bytes", keep_bytes)
        self.dataset = dataset
        self.account = dataset.account
        self.port = port
        self._ssl_context = ssl_context
        self._domain_host = domain_host
        self._verifier = auth.verifier() if auth else None
        self.stats = Stats(log_size)
        self._population = Population(dataset, drift or Drift(), clock=clock, to_inclusive=to_inclusive)
        self._pages = PageRenderer(self._population, dataset.writer, keep_bytes)
        settings = Settings(self.account, clock, gzip, permitted, _latency(latency_ms), dataset.seed)
        self._service = Service(settings, pages=self._pages, verifier=self._verifier, stats=self.stats)
        self._plans = self._service.segment_faults, self._service.token_faults, self._service.domain_faults
        for plan, given in zip(self._plans, (faults, token_faults, domain_faults), strict=True):
            plan.exchange(given or Faults())
        self.set_limit(limit)
        if isinstance(self._verifier, SignatureVerifier):
            self.stats.nonces = self._verifier.nonces
        self._runner: web.ServerRunner | None = None

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"{'https' if self._ssl_context else 'http'}://{self.host}:{self.port}"

    @property
    def faults(self) -> Faults:
        """The faults of segments requests; may be replaced while the simulator runs."""
        return self._service.segment_faults.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._service.segment_faults.exchange(faults)

    def fail_next(
        self, fault: Fault | str, count: int = 1, *, of: Literal["segments", "token", "domain"] = "segments"
    ) -> None:
        """Apply a fault to the next `count` requests of a kind; it takes precedence over the shares."""
        plans = dict(zip(("segments", "token", "domain"), self._plans, strict=True))
        plans[of].fail_next(Fault(fault), count)

    def answer_next(
        self,
        status: int,
        count: int = 1,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        of: Literal["segments", "token", "domain"] = "segments",
    ) -> None:
        """Send an answer to the next `count` requests of a kind, before any share applies. Headers may repeat."""
        plans = dict(zip(("segments", "token", "domain"), self._plans, strict=True))
        plans[of].answer_next(Answer(status, body, headers), count)

    def set_limit(self, limit: Limits) -> None:
        """Replace the limits; the counters of the new ones start at zero."""
        self._service.set_limits(() if limit is None else limit if isinstance(limit, Sequence) else (limit,))

    def insert(self, close: int) -> str:
        """Add a segment that closed at `close` (epoch ms); return its `segmentId`."""
        return self._population.insert(close)

    def remove(self, segment_id: str) -> None:
        """Remove a segment. Raises `LookupError` if it does not exist."""
        self._population.remove(segment_id)

    def ids(self, start: int, end: int) -> list[str]:
        """Return the ids of the segments that exist now and closed in `[start, end)` (epoch ms), oldest first."""
        return list(self._population.ids(start, end))

    def mark(self) -> int:
        """Return a mark for the current state of the segments, for `ids_throughout`."""
        return self._population.mark()

    def ids_throughout(self, start: int, end: int, *, since: int, until: int | None = None) -> set[str]:
        """Return the ids of segments that existed from one mark to another (default: now), closed in `[start, end)`."""
        last = self.mark() if until is None else until
        return self._population.ids_throughout(start, end, since=since, until=last)

    def revoke_tokens(self) -> None:
        """Revoke every OAuth 2.0 token issued so far."""
        if isinstance(self._verifier, TokenIssuer):
            self._verifier.revoke()

    async def start(self) -> None:
        """Start to listen; `port` and `base_url` are known afterwards. Raises `OSError` if the port is taken."""
        server = web.Server(self._service.handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port, ssl_context=self._ssl_context, backlog=1024)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]
        self.serve_at(self.base_url)

    def serve_at(self, base_url: str) -> None:
        """Set the address in links and in the answers of the Domain API; `start` sets the simulator's own."""
        self._pages.url = f"{base_url}/api/account/{self.account}/agent-segments"
        self._service.domain = self._domain_host or base_url.partition("://")[2]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, for use in the caller's own server."""
        return await self._service.handle(request)

    async def stop(self) -> None:
        """Stop listening and close every connection, including those stalled by a fault."""
        if self._runner is not None:
            await all_accepted()
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a separate thread until the block ends, for synchronous code."""
        with running_loop() as loop:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.stop(), loop).result()


async def serve(simulator: Simulator, on_ready: Callable[[Simulator], Awaitable[None] | None]) -> None:
    """Serve until cancelled; `on_ready` is called, and awaited if it is a coroutine, once the port is known."""
    async with simulator:
        waiting = on_ready(simulator)
        if waiting is not None:
            await waiting
        await asyncio.Event().wait()


def _latency(given: float | tuple[float, float]) -> tuple[float, float]:
    least, most = given if isinstance(given, tuple) else (given, given)
    if not 0 <= least <= most:
        raise ValueError(f"latency_ms must be a number, or a pair of minimum and maximum, not {given}")
    return float(least), float(most)
