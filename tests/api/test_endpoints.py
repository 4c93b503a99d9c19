"""The service's calls: where it is, what is asked, what is said when it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
from segment_fetch.api.endpoints import DOMAIN_URL, NotSentError, SegmentApi, domain_in
from segment_fetch.errors import (
    CredentialsError,
    InputError,
    RequestRefusedError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TransientError,
)
from segment_fetch.events import Event, Paused, Retrying
from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.query import Filters, Query, Window
from segment_fetch.simulator import AtOnce, Bearer, Dataset, Fault, OAuth1, Simulator
from segment_fetch.simulator import ClientCredentials as Issuer
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.windows.counting import Counting
from tests.conftest import Authority
from tests.support import (
    ACCOUNT,
    ANY_WINDOW,
    NO_WAITING,
    NOW,
    Asked,
    ManualClock,
    PortMap,
    http,
    opened,
    page_body,
    raw_server,
    without_waiting,
)

DATASET = Dataset(segments=90, start=ANY_WINDOW.start, end=ANY_WINDOW.end)
HOST = "va.agent.liveperson.net"


def simulator(**options: Any) -> Simulator:
    return Simulator(DATASET, clock=lambda: NOW, **options)


# ---------------------------------------------------------------------------------------------------- Domain API


@pytest.mark.parametrize(
    "host",
    [
        "va.agentactivity.liveperson.net",
        "z1.objectstorage.liveperson.com",
        "a.liveperson.net",
        "VA.Agent.LivePerson.NET",
        "0-a.b--c.liveperson.net",
    ],
)
def test_hosts_that_credentials_go_to(host: str) -> None:
    assert domain_in(json.dumps({"baseURI": host, "service": "x", "new": [1]}).encode()) == host.lower()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.com",
        "liveperson.net",
        "evilliveperson.net",
        "liveperson.net.evil.com",
        "va.liveperson.org",
        "va.liveperson.netx",
        "va-liveperson.net",
        "user@va.liveperson.net",
        "evil.com@va.liveperson.net",
        "evil.com#.liveperson.net",
        "evil.com/.liveperson.net",
        "evil.com?.liveperson.net",
        "evil.com\\.liveperson.net",
        "evil.com:443.liveperson.net",
        "va.liveperson.net:8080",
        "va.liveperson.net/path",
        "va.liveperson.net.",
        ".liveperson.net",
        "va..liveperson.net",
        "-va.liveperson.net",
        "va-.liveperson.net",
        "va.liveperson.net\n",
        " va.liveperson.net",
        "va.liveperson.net ",
        "va\u3002liveperson\uff0enet",
        "va.liveperson\uff0enet",
        "va.l\u0131veperson.net",
        "va.l\u0130veperson.net",
        "va.liveper\u017fon.net",
        "\u212a.liveperson.net",
        "https://va.liveperson.net",
        "*.liveperson.net",
        "va_1.liveperson.net",
        f"{'a' * 64}.liveperson.net",
        f"{'a.' * 120}liveperson.net",
        "127.0.0.1",
    ],
)
def test_hosts_that_they_never_go_to(host: str) -> None:
    with pytest.raises(ServiceError, match="outside liveperson"):
        domain_in(json.dumps({"baseURI": host}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"{}", b'{"baseURI":null}', b'{"baseURI":5}', b'{"baseURI":"\xff"}', b'{"a":' + b"[" * 100_000],
)
def test_an_answer_without_a_host_is_a_fault(body: bytes) -> None:
    with pytest.raises(TransientError, match="no baseURI"):
        domain_in(body)


@asynccontextmanager
async def liveperson(
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    auth: Auth,
    answer: str = HOST,
    **options: Any,
) -> AsyncIterator[tuple[Simulator, SegmentApi, PortMap]]:
    """liveperson.net as it is: a Domain API that names a host, and the services there, all of it over TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    issuer = Issuer() if isinstance(auth, ClientCredentials) else None
    async with simulator(auth=issuer, ssl_context=authority.server, domain_host=answer, **options) as server:
        resolver = PortMap({HOST: server.port})
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver))
        async with session, opened(None, auth, session=session, domain_url=server.base_url) as api:
            yield server, api, resolver


def test_the_domain_api_is_where_the_vendor_says() -> None:
    assert DOMAIN_URL == "https://api.liveperson.net"


async def test_the_domain_is_asked_once_for_each_service_and_https_is_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ClientCredentials("client", "client-secret", clock=lambda: NOW)
    async with liveperson(authority, monkeypatch, client) as (server, api, resolver):
        answers = await asyncio.gather(*(api.page(ANY_WINDOW, 0, 5) for _ in range(6)))
        assert [len(answer.page.segments) for answer in answers] == [5] * 6
        assert (server.stats.domain_requests, server.stats.token_requests) == (2, 1)
        assert set(resolver.asked) == {HOST}
        assert await api.base("agentActivityDomain") == f"https://{HOST}"


async def test_without_oauth2_the_login_service_is_not_looked_up(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with liveperson(authority, monkeypatch, BearerToken("a")) as (server, api, _):
        await api.page(ANY_WINDOW, 0, 5)
        assert server.stats.domain_requests == 1


async def test_nothing_is_sent_to_a_host_outside(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ClientCredentials("client", "client-secret")
    async with liveperson(authority, monkeypatch, client, answer="evilliveperson.net") as (server, api, resolver):
        with pytest.raises(ServiceError, match="outside liveperson"):
            await api.page(ANY_WINDOW, 0, 5)
        assert resolver.asked == []
        assert (server.stats.domain_requests, server.stats.token_requests, server.stats.requests) == (1, 0, 0)


async def test_no_credentials_go_to_the_domain_api() -> None:
    async with (
        raw_server(lambda _: http(404)) as server,
        opened(None, OAuth1Key("k", "s", "t", "u"), domain_url=server.url) as api,
    ):
        with pytest.raises(CredentialsError, match="account 111111 has no service agentActivityDomain"):
            await api.page(ANY_WINDOW, 0, 5)
    (asked,) = server.asked
    assert asked.path == f"/api/account/{ACCOUNT}/service/agentActivityDomain/baseURI.json?version=1.0"
    assert asked.authorization == ""


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("auth", [BearerToken("a"), ClientCredentials("id", "secret")], ids=repr)
async def test_a_domain_api_that_refuses_ends_it(status: int, auth: Auth) -> None:
    async with (
        raw_server(lambda _: http(status, '{"message":"no"}')) as server,
        opened(None, auth, domain_url=server.url) as api,
    ):
        with pytest.raises(CredentialsError, match="the Domain API does not look up account 111111"):
            await api.page(ANY_WINDOW, 0, 5)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "times"),
    [
        (http(302, Location="http://127.0.0.1/"), RequestRefusedError, 1),
        (http(400, '{"causes":["bad"]}'), RequestRefusedError, 1),
        (http(200, "<html>"), ServiceError, 4),
        (http(503), ServiceError, 4),
        (None, ServiceError, 4),
    ],
)
async def test_a_domain_api_that_does_not_answer(
    answer: bytes | None, kind: type[SegmentFetchError], times: int
) -> None:
    async with raw_server(lambda _: answer) as server, opened(None, domain_url=server.url) as api:
        with pytest.raises(kind):
            await run(api)
    assert len(server.asked) == times * (2 if answer is None else 1)  # aiohttp itself repeats what was not answered


# ------------------------------------------------------------------------------------ what a page needs before it


async def run(api: SegmentApi, told: list[Event] | None = None, limiter: Limiter | None = None, **options: Any) -> None:
    """Count a window through a pool, which repeats what fails."""
    tell = (told if told is not None else []).append
    defaults: dict[str, Any] = {"connections": 4, "retry": NO_WAITING, "chance": lambda: 0.0}
    await WorkerPool(api, limiter or Limiter(None), Counting([ANY_WINDOW]), tell=tell, **(defaults | options)).run()


def delays(told: list[Event]) -> list[float]:
    return [event.delay for event in told if isinstance(event, Retrying)]


SERVER, NETWORK = [5.0, 10.0, 15.0], [0.5, 1.0, 2.0]


@pytest.mark.parametrize("fault", [Fault.ERROR_503, Fault.ERROR_500, Fault.TRUNCATED, Fault.HTML, Fault.NOT_FOUND])
@without_waiting
async def test_a_login_that_failed_is_not_repeated_within_five_seconds_whatever_was_wrong(fault: Fault) -> None:
    told: list[Event] = []
    auth = ClientCredentials("client", "client-secret", clock=lambda: NOW)
    async with simulator(auth=Issuer()) as server, opened(server.base_url, auth) as api:
        await run(api)
        server.revoke_tokens()
        server.fail_next(fault, 3, of="token")
        await run(api, told, retry=RetryPolicy())
        assert server.stats.token_requests == 5
    assert delays(told) == SERVER


@pytest.mark.parametrize(
    ("fault", "waits"), [(Fault.ERROR_500, SERVER), (Fault.TRUNCATED, NETWORK), (Fault.HTML, NETWORK)]
)
@without_waiting
async def test_the_delays_of_pages_hold_for_the_domain_too(fault: Fault, waits: list[float]) -> None:
    told: list[Event] = []
    async with simulator(domain_host="another.example") as server:
        server.fail_next(fault, 3, of="domain")
        async with opened(None, domain_url=server.base_url) as api:
            with pytest.raises(ServiceError, match="outside liveperson"):
                await run(api, told, retry=RetryPolicy())
    assert delays(told) == waits


@without_waiting
async def test_logins_that_fail_are_five_seconds_apart_however_many_pages_wait_for_one() -> None:
    clock = asyncio.get_running_loop().time
    at: list[float] = []

    def respond(asked: Asked) -> bytes:
        if "token" not in asked.path:
            return http(200, page_body())
        at.append(clock())
        return http(503) if len(at) < 4 else http(200, '{"access_token":"a"}')

    async with raw_server(respond) as server:
        auth = ClientCredentials("id", "secret", clock=clock)
        async with opened(server.url, auth, login_pause=5.0, clock=clock) as api:
            api.has_served = True
            pages = [Window(ANY_WINDOW.start, ANY_WINDOW.start + at) for at in range(1, 40)]
            counting = Counting(pages)
            limiter = Limiter(None)
            await WorkerPool(api, limiter, counting, connections=16, retry=RetryPolicy(), tell=lambda _: None).run()
    assert len(counting.counts) == 39
    assert len(at) == 4
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(at))


@pytest.mark.parametrize("status", [201, 202])
async def test_a_token_is_taken_from_any_good_answer(status: int) -> None:
    async with (
        raw_server(lambda asked: http(status if "token" in asked.path else 200, BOTH)) as server,
        opened(server.url, ClientCredentials("id", "secret")) as api,
    ):
        await run(api)


BOTH = page_body(access_token="a")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, RequestRefusedError), (409, RequestRefusedError), (400, CredentialsError), (401, CredentialsError)],
)
async def test_a_login_service_that_refuses_from_the_start_ends_it_at_once(
    status: int, kind: type[SegmentFetchError]
) -> None:
    async with (
        raw_server(lambda _: http(status)) as server,
        opened(server.url, ClientCredentials("id", "secret")) as api,
    ):
        with pytest.raises(kind, match=str(status)) as caught:
            await run(api)
    assert type(caught.value) is kind
    assert len(server.asked) == 1


@without_waiting
async def test_a_429_of_the_login_service_pauses_all_requests() -> None:
    told: list[Event] = []
    async with raw_server(lambda _: answers.pop(0)) as server:
        answers = [http(429, Retry_After="7"), http(200, '{"access_token":"a"}'), http(200, page_body())]
        limiter = Limiter(None)
        start = asyncio.get_running_loop().time()
        async with opened(server.url, ClientCredentials("id", "secret"), limiter=limiter) as api:
            await run(api, told, limiter)
        assert asyncio.get_running_loop().time() - start == pytest.approx(7.0, abs=0.1)
    assert [event.seconds for event in told if isinstance(event, Paused)] == [pytest.approx(7.0, abs=0.01)]
    assert len(server.asked) == 3


@pytest.mark.parametrize("of", ["token", "domain"])
async def test_a_pause_longer_than_the_patience_is_told_and_not_waited_for(of: str) -> None:
    told: list[Event] = []
    limiter = Limiter(None)
    async with (
        raw_server(lambda _: http(429, Retry_After="999999")) as server,
        opened(
            server.url if of == "token" else None,
            ClientCredentials("id", "secret"),
            domain_url=server.url,
            limiter=limiter,
        ) as api,
    ):
        with pytest.raises(ServiceError, match="a pause of 277 h 46 min") as caught:
            await run(api, told, limiter, retry=RetryPolicy(patience=999_000))
    assert caught.value.status == 429
    assert [event.seconds for event in told if isinstance(event, Paused)] == [pytest.approx(999_999, abs=1)]
    assert len(server.asked) == 1


@pytest.mark.parametrize(("ahead_s", "said"), [(3_630, "1 h ahead of"), (-3_630, "1 h behind")])
async def test_a_401_names_a_clock_that_is_off(ahead_s: float, said: str) -> None:
    async with (
        simulator(auth=OAuth1()) as server,
        opened(server.base_url, OAuth1Key("k", "s", "t", "u"), clock=lambda: NOW + ahead_s) as api,
    ):
        with pytest.raises(CredentialsError, match=f"set this machine's clock, which is {said} the server's"):
            await api.page(ANY_WINDOW, 0, 5)


@pytest.mark.parametrize(
    ("auth", "ahead_s"), [(OAuth1Key("k", "s", "t", "u"), 100.0), (BearerToken("wrong"), 3_630.0)], ids=repr
)
async def test_a_clock_that_is_not_to_blame_is_not_named(auth: Auth, ahead_s: float) -> None:
    issuer = OAuth1() if isinstance(auth, OAuth1Key) else Bearer("right")
    async with (
        simulator(auth=issuer) as server,
        opened(server.base_url, auth, clock=lambda: NOW + ahead_s) as api,
    ):
        with pytest.raises(CredentialsError) as caught:
            await api.page(ANY_WINDOW, 0, 5)
    assert "clock" not in str(caught.value)


async def test_a_page_that_may_no_longer_be_sent_is_not_sent() -> None:
    async with simulator() as server, opened(server.base_url) as api:
        with pytest.raises(NotSentError):
            await api.page(ANY_WINDOW, 0, 5, may_send=lambda: False)
        assert server.stats.requests == 0


async def test_tokens_and_domains_pass_the_gate() -> None:
    clock = ManualClock(NOW)
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    at: list[float] = []

    def respond(asked: Asked) -> bytes:
        at.append(clock.now)
        limiter.pause(10.0)
        return http(200, '{"access_token":"a"}') if "token" in asked.path else http(200, page_body())

    limiter.pause(5.0)
    async with (
        raw_server(respond) as server,
        opened(server.url, ClientCredentials("id", "secret", clock=clock), limiter=limiter) as api,
    ):
        await api.page(ANY_WINDOW, 0, 5)
    assert at == [NOW + 5.0, NOW + 15.0]


async def test_the_silent_repeat_on_a_stale_connection_passes_the_gate() -> None:
    clock = ManualClock(NOW)
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    at: list[float] = []

    def respond(_: Asked) -> bytes | None:
        at.append(clock.now)
        limiter.pause(10.0)
        return None if len(at) == 2 else http(200, page_body())

    async with raw_server(respond) as server, opened(server.url, limiter=limiter) as api:
        await api.page(ANY_WINDOW, 0, 5)
        await api.page(ANY_WINDOW, 0, 5)
    assert at == [NOW, NOW + 10.0, NOW + 20.0]


async def test_fetching_a_token_takes_none_of_the_pages_time() -> None:
    order: list[str] = []

    class Noting(Limiter):
        async def passed(self) -> None:
            order.append("limiter")

    def respond(asked: Asked) -> bytes:
        order.append("token" if "token" in asked.path else "page")
        return http(200, '{"access_token":"a"}') if "token" in asked.path else http(200, page_body())

    async with (
        raw_server(respond) as server,
        opened(server.url, ClientCredentials("id", "secret"), limiter=Noting(None)) as api,
    ):
        await api.page(ANY_WINDOW, 0, 5)
    assert order == ["limiter", "token", "limiter", "page"]


# ---------------------------------------------------------------------------------------------------- pages


async def test_what_is_asked_for_a_page() -> None:
    query = Query(ACCOUNT, "nightly_wfm", Filters(employee_id="a b&c=d+é/", agent_id="7"))
    async with raw_server(lambda _: http(200, page_body())) as server, opened(server.url, query=query) as api:
        await api.page(Window(1000, 2000), 500, 250)
    (asked,) = server.asked
    assert asked.line == (
        f"GET /api/account/{ACCOUNT}/agent-segments?source=nightly_wfm&fromMillis=1000&toMillis=2000&sort=Date"
        "&offset=500&limit=250&AgentId=7&EmployeeId=a%20b%26c%3Dd%2B%C3%A9%2F HTTP/1.1"
    )
    assert asked.authorization == "Bearer token-value"


@pytest.mark.parametrize(
    ("date", "at_ms"),
    [
        ("Wed, 21 Oct 2026 07:28:00 GMT", int(NOW * 1000)),
        ("Thu, 10 Sep 2026 07:28:00 GMT", 1_789_025_280_000),
        ("Fri, 31 Dec 9999 23:59:59 -0100", int(NOW * 1000)),
        ("never", int(NOW * 1000)),
    ],
)
async def test_a_page_comes_with_the_earlier_of_the_servers_clock_and_this_ones(date: str, at_ms: int) -> None:
    async with (
        raw_server(lambda _: http(200, page_body(), Date=date)) as server,
        opened(server.url, clock=lambda: NOW) as api,
    ):
        assert (await api.page(ANY_WINDOW, 0, 1)).at_ms == at_ms


async def test_a_400_says_why_and_is_asked_once() -> None:
    ancient = Window(0, 1000)
    async with simulator() as server, opened(server.base_url) as api:
        with pytest.raises(InputError, match=r"\(400\): from: must be no more than 1 month in the past") as caught:
            await api.page(ancient, 0, 500)
        assert server.stats.requests == 1
    assert isinstance(caught.value, RequestRefusedError)
    assert caught.value.causes == ("from: must be no more than 1 month in the past",)


async def test_a_401_names_the_permission_and_is_asked_once() -> None:
    async with simulator(auth=OAuth1()) as server, opened(server.base_url, OAuth1Key("k", "s", "t", "u")) as api:
        with pytest.raises(CredentialsError, match="Data > Workforce Management > Agent Activity API") as caught:
            await api.page(ANY_WINDOW, 0, 500)
        assert server.stats.requests == 1
    assert type(caught.value) is CredentialsError
    assert caught.value.status == 401


async def test_another_account_is_refused() -> None:
    async with simulator() as server, opened(server.base_url, account="222222") as api:
        with pytest.raises(CredentialsError):
            await api.page(ANY_WINDOW, 0, 500)


@pytest.mark.parametrize("retry_after", ["seconds", "date", "none"])
async def test_a_429_is_told_with_what_it_says(retry_after: Any) -> None:
    limit = AtOnce(requests=0, retry_after=retry_after)
    async with simulator(limit=limit) as server, opened(server.base_url) as api:
        with pytest.raises(ThrottledError) as caught:
            await api.page(ANY_WINDOW, 0, 500)
        assert server.stats.requests == 1
    assert caught.value.retry_after == (None if retry_after == "none" else 1.0)


async def test_a_5xx_is_one_attempt_here() -> None:
    async with simulator() as server, opened(server.base_url) as api:
        server.fail_next(Fault.ERROR_500)
        with pytest.raises(TransientError, match="internalCode 1017") as caught:
            await api.page(ANY_WINDOW, 0, 500)
        assert server.stats.requests == 1
    assert caught.value.kind == "server"
