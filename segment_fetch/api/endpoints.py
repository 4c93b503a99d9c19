"""The service's calls: the host (Domain API), a token (OAuth 2.0), a page of segments. One attempt each: the caller
retries a failed page, and with it the look-up or the login that it needed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from urllib.parse import quote

import msgspec

from segment_fetch.api.auth import Auth, Token, parse_token
from segment_fetch.api.responses import raise_for_status, server_time
from segment_fetch.api.single_flight import SingleFlight
from segment_fetch.api.transport import Reply, Transport
from segment_fetch.errors import (
    CredentialsError,
    RequestRefusedError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
    lasting,
)
from segment_fetch.query import Query, Window
from segment_fetch.throttle.limiter import Limiter, Outcome
from segment_fetch.wire.pages import PageAnswer, read_page
from segment_fetch.wire.raw_rows import RawRows, why_fallback

DOMAIN_URL = "https://api.liveperson.net"
SEGMENTS_SERVICE = "agentActivityDomain"
LOGIN_SERVICE = "sentinel"
CLOCK_OFF_S = 180.0
"""Seconds by which a clock may be off before signatures are likely to be refused."""

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+liveperson\.(?:net|com)", re.IGNORECASE | re.ASCII)
_LONGEST_HOST = 253
_MOST_RENEWALS = 3
"""Number of previously accepted tokens with which one page may be refused before that counts as a refusal."""


class _Domain(msgspec.Struct):
    baseURI: str


class NotSentError(Exception):
    """A page was not requested: while it waited for its permit it became unneeded, or sending was stopped."""


def _always() -> bool:
    return True


MAX_SKEW_S = 60.0
"""Seconds by which the local clock and the server's may differ without a warning."""


class SegmentApi:
    """The API of one account. `base_url` replaces the Domain API's look-up and is used for both services.

    `login_pause` is the minimum number of seconds between a failed login and the next.
    """

    def __init__(
        self,
        query: Query,
        auth: Auth,
        transport: Transport,
        limiter: Limiter,
        *,
        login_pause: float = 0.0,
        base_url: str | None = None,
        domain_url: str = DOMAIN_URL,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.server_ms: int | None = None
        """The server's clock in the last dated answer to a page request, even a refusal; epoch milliseconds."""
        self._ahead_s: float | None = None  # measured when that answer arrived
        self._has_warned = False
        self.has_served = False
        """True once a page has been received: later refusals may be temporary."""
        self._query = query
        self._auth = auth
        self._authorizer = auth.authorizer(self._token)
        self._transport = transport
        self._limiter = limiter
        self._domain_url = domain_url
        self._clock = clock
        self._sleep = sleep
        self._login_pause = login_pause
        self._login_failed_at: float | None = None
        self._bases = {SEGMENTS_SERVICE: base_url, LOGIN_SERVICE: base_url} if base_url else {}
        self._look_up = SingleFlight()

    @property
    def known_base(self) -> str | None:
        """The base URL of the segments service; None until it has been looked up."""
        return self._bases.get(SEGMENTS_SERVICE)

    def clock_ahead_s(self) -> float | None:
        """Return the seconds by which the local clock is ahead of the server's; None if that is unknown."""
        return self._ahead_s

    def earlier_ms(self) -> int:
        """Return the time by the earlier of the local clock and the server's (if known), epoch milliseconds."""
        ahead = self._ahead_s or 0.0
        return int((self._clock() - (ahead + 0.5 if ahead > MAX_SKEW_S else 0.0)) * 1000)  # as `Date`, no later

    def clock_warning(self) -> str | None:
        """Return a warning, once, if the clocks differ by more than a minute; else None."""
        ahead = self.clock_ahead_s()
        if self._has_warned or ahead is None or abs(ahead) <= MAX_SKEW_S:
            return None
        self._has_warned = True
        where = "ahead of" if ahead > 0 else "behind"
        return (
            f"the clock of this machine is {lasting(abs(ahead))} {where} the server's: set it; until then, the earlier "
            "one decides what has settled"
        )

    async def base(self, service: str) -> str:
        """Return the base URL of a service, looked up once per client in the Domain API."""

        async def look_up() -> None:
            await self._limiter.passed()
            self._bases[service] = await self._ask_domain(service)

        await self._look_up.run(look_up, needed=lambda: service not in self._bases)
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
            self._raise_for_status(reply)
        except UnauthorizedError as error:
            raise CredentialsError(
                f"the Domain API does not look up account {self._query.account} ({error.status}): check the account "
                "number",
                status=error.status,
            ) from None
        return f"https://{domain_in(bytes(reply.body))}"

    async def page(
        self, window: Window, offset: int, limit: int, *, may_send: Callable[[], bool] = _always
    ) -> PageAnswer:
        """Return one page of a window. Raises NotSentError if `may_send`, called once the permit is granted, is False.

        Makes one attempt. A token that has expired is renewed, and the page is then requested again immediately.
        """
        base = self.known_base or await self.base(SEGMENTS_SERVICE)
        search = _search(self._query.params(window, offset, limit))
        url = f"{base}/api/account/{self._query.account}/agent-segments?{search}"
        sent: list[str] = []
        for _ in range(_MOST_RENEWALS):
            await self._authorizer.ready()  # before the permit: a login must not count as the page's time
            try:
                return await self._attempt(url, sent, may_send)
            except UnauthorizedError as error:
                refused = error
            if not self._authorizer.refused(sent[-1]):
                break
        if len(sent) > 1:
            refused.message += "; a fresh token did not help"
        raise CredentialsError(refused.message, status=refused.status, retry_after=refused.retry_after) from None

    async def _attempt(self, url: str, sent: list[str], may_send: Callable[[], bool]) -> PageAnswer:
        """Send a page's request when it gets its permit, and report the outcome to the limiter."""
        permit = await self._limiter.acquire()
        outcome: Outcome = "dropped"
        retry_after: float | None = None
        try:
            await self._authorizer.ready()  # the token may have expired while the request waited
            if not may_send():
                raise NotSentError
            answer = await self._page(url, sent)
            outcome = "accepted"
        except ThrottledError as error:
            outcome, retry_after = "refused", error.retry_after
            raise
        finally:
            self._limiter.release(permit, outcome, retry_after)
        self._authorizer.accepted(sent[-1])
        self.has_served = True
        return answer

    async def _page(self, url: str, sent: list[str]) -> PageAnswer:
        passed = True

        async def sign() -> str:
            nonlocal passed
            if not passed:  # aiohttp itself repeats a request if a kept-alive connection was closed
                await self._limiter.passed()
            passed = False
            sent.append(await self._authorizer.header("GET", url))
            return sent[-1]

        def take(reply: Reply) -> PageAnswer:
            server_ms = server_time(reply.headers)
            if server_ms is not None:  # without a date, the difference of the clocks stays the last one known
                self.server_ms = server_ms
                self._ahead_s = self._clock() - server_ms / 1000 - 0.5  # `Date` has whole seconds
            if reply.status != 200:
                self._refuse(reply, sent)
            # The earlier clock decides: one that is ahead must not settle a window.
            at_ms = self.earlier_ms() if server_ms is None else min(self._now_ms(), server_ms)
            page = read_page(reply.body)
            slow = bool(page.segments) and not isinstance(page.segments, RawRows)
            fallback = why_fallback(reply.body) if slow else None
            return PageAnswer(page, at_ms, server_ms, len(reply.body), fallback)

        return await self._transport.page(url, sign, take)

    def _refuse(self, reply: Reply, sent: Sequence[str]) -> None:
        try:
            self._raise_for_status(reply, sent)
        except UnauthorizedError as error:
            ahead = self.clock_ahead_s()
            if error.status == 401 and self._auth.needs_clock and ahead is not None and abs(ahead) > CLOCK_OFF_S:
                way = "ahead of" if ahead > 0 else "behind"
                error.message += (
                    f"; but first set this machine's clock, which is {lasting(abs(ahead))} {way} the server's: "
                    "signatures are refused for that"
                )
            raise

    async def _token(self, form: Mapping[str, str]) -> Token:
        """Log in once; the vendor requires a pause before a failed login is repeated."""
        base = await self.base(LOGIN_SERVICE)
        if self._login_failed_at is not None:
            await self._sleep(max(0.0, self._login_failed_at + self._login_pause - self._clock()))
        await self._limiter.passed()
        try:
            token = await self._ask_token(f"{base}/sentinel/api/v2/account/{self._query.account}/app/token", form)
        except SegmentFetchError:
            self._login_failed_at = self._clock()
            raise
        self._login_failed_at = None
        return token

    async def _ask_token(self, url: str, form: Mapping[str, str]) -> Token:
        try:
            reply = await self._transport.send("POST", url, form=form)
        except TransientError as error:
            raise TransientError(f"{error.message} (login service)", "server") from None
        if 200 <= reply.status < 300:
            return parse_token(bytes(reply.body))
        try:
            self._raise_for_status(reply)
        except RequestRefusedError as error:
            if error.status != 400:
                raise RequestRefusedError(
                    f"the login service answered {error.status} instead of a token; {error.message}",
                    status=error.status,
                    retry_after=error.retry_after,
                ) from None
            refused: SegmentFetchError = error
        except UnauthorizedError as error:
            refused = error
        raise CredentialsError(
            f"the login service refused the client id and secret ({refused.status}); check both, and that the "
            "application is installed for this account",
            status=refused.status,
            retry_after=refused.retry_after,
        )

    def _raise_for_status(self, reply: Reply, sent: Sequence[str] = ()) -> None:
        """Raise for an answer that is not 200; secrets that its body repeats are removed from the error."""
        secrets = (*self._auth.secrets(), *(header.partition(" ")[2] for header in sent))
        try:
            raise_for_status(reply.status, reply.headers, bytes(reply.body), self._now_ms(), secrets=secrets)
        except ThrottledError as error:
            if not sent:  # the 429 of a page is reported with its permit
                self._limiter.pause(error.retry_after)
            raise

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _search(params: Mapping[str, str]) -> str:
    """Return the query string as by `urlencode`, six times as fast: hardly any value needs quoting."""
    return "&".join(f"{name}={_quoted(value)}" for name, value in params.items())


def _quoted(value: str) -> str:
    return value if value.isascii() and value.isalnum() else quote(value, safe="")


def domain_in(body: bytes) -> str:
    """Return the host in the Domain API's answer. Credentials are only sent to LivePerson's own domains."""
    try:
        host = msgspec.json.decode(body, type=_Domain).baseURI
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TransientError("the Domain API's answer holds no baseURI") from None
    if len(host) > _LONGEST_HOST or not _HOST.fullmatch(host):
        raise ServiceError(
            "the Domain API named a host outside liveperson.net and liveperson.com; nothing was sent there"
        )
    return host.lower()
