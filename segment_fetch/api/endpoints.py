"""The service's calls: where is it (Domain API), a token (OAuth 2.0), a page of segments. One attempt each for pages;
the two that come once a run are retried here.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from segment_fetch.api.auth import Auth, Token, parse_token
from segment_fetch.api.responses import raise_for_status, server_time
from segment_fetch.api.single_flight import SingleFlight
from segment_fetch.api.transport import Reply, Transport
from segment_fetch.errors import (
    CredentialsError,
    RequestRefusedError,
    ServiceError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
    lasting,
)
from segment_fetch.events import Event, Paused
from segment_fetch.query import Query, Window
from segment_fetch.throttle.limiter import Gate, Outcome
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.wire.pages import PageAnswer, read_page

DOMAIN_URL = "https://api.liveperson.net"
SEGMENTS_SERVICE = "agentActivityDomain"
LOGIN_SERVICE = "sentinel"

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+liveperson\.(?:net|com)", re.IGNORECASE | re.ASCII)
_LONGEST_HOST = 253

T = TypeVar("T")


class _Domain(msgspec.Struct):
    baseURI: str


class SegmentApi:
    """The API of one account. `base_url` stands in for the Domain API and serves both services."""

    def __init__(
        self,
        query: Query,
        auth: Auth,
        transport: Transport,
        gate: Gate,
        *,
        retry: RetryPolicy,
        base_url: str | None = None,
        domain_url: str = DOMAIN_URL,
        tell: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.server_ms: int | None = None
        """The server's clock in its last answer about segments, a refusal too: epoch milliseconds."""
        self._query = query
        self._auth = auth
        self._authorizer = auth.authorizer(self._token)
        self._transport = transport
        self._gate = gate
        self._retry = retry
        self._domain_url = domain_url
        self._tell = tell or (lambda _: None)
        self._clock = clock
        self._chance = chance
        self._sleep = sleep
        self._bases = {SEGMENTS_SERVICE: base_url, LOGIN_SERVICE: base_url} if base_url else {}
        self._asking = SingleFlight()

    async def base(self, service: str) -> str:
        """The base URL of a service, asked once a client of the Domain API."""

        async def ask() -> None:
            self._bases[service] = await self._retried(lambda: self._ask_domain(service))

        await self._asking.make(ask, needed=lambda: service not in self._bases)
        return self._bases[service]

    async def _ask_domain(self, service: str) -> str:
        path = f"/api/account/{self._query.account}/service/{service}/baseURI.json?version=1.0"
        reply = await self._transport.send("GET", self._domain_url + path)
        if reply.status == 404:
            raise CredentialsError(
                f"account {self._query.account} has no service {service}: check the account number, and that "
                "LivePerson has enabled the Agent Activity API for it",
                status=404,
            )
        try:
            raise_for_status(reply.status, reply.headers, bytes(reply.body), self._now_ms())
        except UnauthorizedError as error:
            raise CredentialsError(
                f"the Domain API does not look up account {self._query.account} ({error.status}): check the account "
                "number",
                status=error.status,
            ) from None
        return f"https://{domain_in(bytes(reply.body))}"

    async def page(self, window: Window, offset: int, limit: int) -> PageAnswer:
        """One page of a window; one attempt, and a second one if the token had to be renewed."""
        base = self._bases.get(SEGMENTS_SERVICE) or await self.base(SEGMENTS_SERVICE)
        search = _search(self._query.params(window, offset, limit))
        url = f"{base}/api/account/{self._query.account}/agent-segments?{search}"
        await self._authorizer.ready()  # a token's request takes its own time, not that of the page
        sent: list[str] = []
        try:
            return await self._attempt(url, sent)
        except UnauthorizedError as error:
            if not await self._authorizer.renew(sent[-1]):
                raise CredentialsError(error.message, status=error.status) from None
        try:
            return await self._attempt(url, sent)
        except UnauthorizedError as error:
            raise CredentialsError(f"{error.message}; a fresh token did not help", status=error.status) from None

    async def _attempt(self, url: str, sent: list[str]) -> PageAnswer:
        """One attempt, of which the gate learns."""
        ticket = await self._gate.enter()
        outcome: Outcome = "dropped"
        retry_after: float | None = None
        try:
            answer = await self._page(url, sent)
            outcome = "accepted"
        except ThrottledError as error:
            outcome, retry_after = "refused", error.retry_after
            raise
        finally:
            self._gate.left(ticket, outcome, retry_after)
        return answer

    async def _page(self, url: str, sent: list[str]) -> PageAnswer:
        passed = True

        async def sign() -> str:
            nonlocal passed
            if not passed:  # aiohttp repeats a request by itself when a kept connection turns out closed
                await self._gate.passed()
            passed = False
            sent.append(await self._authorizer.header("GET", url))
            return sent[-1]

        def take(reply: Reply) -> PageAnswer:
            at_ms = self.server_ms = server_time(reply.headers)
            if reply.status != 200:
                self._refuse(reply, sent)
            return PageAnswer(read_page(reply.body), self._now_ms() if at_ms is None else at_ms)

        return await self._transport.page(url, sign, take)

    async def _token(self, form: Mapping[str, str]) -> Token:
        base = await self.base(LOGIN_SERVICE)
        url = f"{base}/sentinel/api/v2/account/{self._query.account}/app/token"
        return await self._retried(lambda: self._ask_token(url, form))

    async def _ask_token(self, url: str, form: Mapping[str, str]) -> Token:
        reply = await self._transport.send("POST", url, form=form)
        try:
            self._refuse(reply)
        except (UnauthorizedError, RequestRefusedError) as error:
            raise CredentialsError(
                f"the login service refused the client id and secret ({error.status}); check both, and that the "
                "application is installed for this account",
                status=error.status,
            ) from None
        return parse_token(bytes(reply.body))

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The gate and the delays of pages, for a call that has no window. Its last error becomes a ServiceError."""
        failures = 0
        while True:
            await self._gate.passed()
            try:
                return await attempt()
            except TransientError as error:
                failures += 1
                delay = self._retry.delay(error.kind, failures, self._chance)
                if delay is None:
                    raise ServiceError(f"{error.message}, {failures} times", status=error.status) from error
                if isinstance(error, ThrottledError):
                    self._gate.pause(error.retry_after)
                    self._pauses(self._gate.closed_for())
                await self._sleep(delay)

    def _pauses(self, seconds: float) -> None:
        """ServiceError for a pause that is longer than a run waits for the service."""
        self._tell(Paused(seconds))
        if seconds > self._retry.patience:
            raise ServiceError(f"the service asks for a pause of {lasting(seconds)} (429): try again then", status=429)

    def _refuse(self, reply: Reply, sent: Sequence[str] = ()) -> None:
        """Raises for an answer that is not 200; the error shows nothing of what was sent, should the body repeat it."""
        secrets = (*self._auth.secrets(), *(header.partition(" ")[2] for header in sent))
        raise_for_status(reply.status, reply.headers, bytes(reply.body), self._now_ms(), secrets=secrets)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _search(params: Mapping[str, str]) -> str:
    """The query string as `urlencode` makes it, six times as fast: hardly any value holds a character to quote."""
    return "&".join(f"{name}={_quoted(value)}" for name, value in params.items())


def _quoted(value: str) -> str:
    return value if value.isascii() and value.isalnum() else quote(value, safe="")


def domain_in(body: bytes) -> str:
    """The host in the Domain API's answer. Only LivePerson's own names are trusted with credentials."""
    try:
        host = msgspec.json.decode(body, type=_Domain).baseURI
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TransientError("the Domain API's answer holds no baseURI") from None
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        raise ServiceError(
            "the Domain API named a host outside liveperson.net and liveperson.com; nothing was sent there"
        )
    return host.lower()
