"""Each attempt is authorised afresh, tokens are shared, and no secret is ever shown."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, unquote

import oauthlib.oauth1
import pytest

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key, Token, parse_token
from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.errors import CredentialsError, InputError, SegmentFetchError, TransientError
from segment_fetch.query import Filters, Query
from segment_fetch.simulator import Bearer, Dataset, Fault, OAuth1, Simulator
from segment_fetch.simulator import ClientCredentials as Issuer
from segment_fetch.throttle.limiter import Limiter
from tests.support import (
    ACCOUNT,
    ANY_WINDOW,
    NOW,
    Asked,
    ManualClock,
    everything_said,
    http,
    opened,
    page_body,
    raw_server,
)

KEYS = ("app+key/1", "app&secret=2", "access~token%3", "access'token*secret!4")
OAUTH1 = OAuth1(app_key=KEYS[0], app_secret=KEYS[1], access_token=KEYS[2], access_token_secret=KEYS[3])
DATASET = Dataset(segments=50, start=ANY_WINDOW.start, end=ANY_WINDOW.end)
CLIENT = ("client", "client-secret")


def at_now() -> float:
    return NOW


def simulator(auth: Any, **options: Any) -> Simulator:
    return Simulator(DATASET, auth=auth, clock=options.pop("clock", at_now), **options)


async def ask(api: SegmentApi, offset: int = 0, limit: int = 10) -> int:
    return len((await api.page(ANY_WINDOW, offset, limit)).page.segments)


@pytest.fixture
def signing_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oauthlib.oauth1.rfc5849.generate_timestamp", lambda: str(int(NOW)))


@pytest.mark.usefixtures("signing_time")
@pytest.mark.parametrize("method", ["HMAC-SHA1", "HMAC-SHA256"])
@pytest.mark.parametrize("employee", ["abcd123", "a b+c&d=e/f?g%h", "Łukasz-李雷", "~!*'()-._", '"quoted", comma'])
async def test_signatures_are_what_the_server_computes(method: Any, employee: str) -> None:
    query = Query(ACCOUNT, "tests", Filters(employee_id=employee))
    async with simulator(OAUTH1) as server:
        async with opened(server.base_url, OAuth1Key(*KEYS, signature_method=method), query=query) as api:
            assert await ask(api) == 0
        assert server.stats.refusals == {}
        assert server.stats.log[0].query is not None
        assert server.stats.log[0].query.filters == (("EmployeeId", employee),)


@pytest.mark.usefixtures("signing_time")
@pytest.mark.parametrize("wrong", range(4))
async def test_a_wrong_secret_is_refused_by_name_of_the_permission(wrong: int) -> None:
    keys = [key + "x" if at == wrong else key for at, key in enumerate(KEYS)]
    async with simulator(OAUTH1) as server, opened(server.base_url, OAuth1Key(*keys)) as api:
        with pytest.raises(CredentialsError, match="Data > Workforce Management > Agent Activity API"):
            await ask(api)
        assert server.stats.requests == 1


def _signed(asked: Asked) -> dict[str, str]:
    scheme, _, fields = asked.authorization.partition(" ")
    assert scheme == "OAuth"
    pairs = (field.strip().partition("=") for field in fields.split(","))
    return {name: unquote(value.strip('"')) for name, _, value in pairs}


async def test_each_attempt_has_a_nonce_and_signature_of_its_own() -> None:
    async with raw_server(lambda _: http(503)) as server, opened(server.url, OAuth1Key(*KEYS)) as api:
        for _ in range(3):
            with pytest.raises(TransientError):
                await ask(api)
    signed = [_signed(asked) for asked in server.asked]
    assert len({each["oauth_nonce"] for each in signed}) == 3
    assert len({each["oauth_signature"] for each in signed}) == 3


async def test_the_silent_repeat_on_a_stale_connection_is_signed_anew() -> None:
    hung_up: list[Asked] = []

    def respond(asked: Asked) -> bytes | None:
        if len(server.asked) == 2:  # the connection was kept, and turns out to be closed
            hung_up.append(asked)
            return None
        return http(200, page_body())

    async with raw_server(respond) as server, opened(server.url, OAuth1Key(*KEYS)) as api:
        await ask(api)
        await ask(api)
    assert len(server.asked) == 3
    assert server.connections == 2
    assert hung_up[0].line == server.asked[2].line
    assert len({_signed(asked)["oauth_nonce"] for asked in server.asked}) == 3


async def test_a_bearer_token_is_sent_as_it_is_and_never_renewed() -> None:
    async with simulator(Bearer("the-token")) as server:
        async with opened(server.base_url, BearerToken("the-token")) as api:
            assert await ask(api) == 10
        async with opened(server.base_url, BearerToken("another")) as api:
            with pytest.raises(CredentialsError):
                await ask(api)
        assert server.stats.requests == 2


async def test_one_token_is_fetched_however_many_wait_for_it() -> None:
    async with simulator(Issuer(), latency_ms=5) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=at_now)) as api:
            assert await asyncio.gather(*(ask(api) for _ in range(20))) == [10] * 20
        assert server.stats.token_requests == 1
        assert server.stats.requests == 20
        assert server.stats.refusals == {}


@pytest.mark.parametrize("expires_in", [True, False], ids=["expires_in", "exp"])
@pytest.mark.parametrize(
    ("lifetime", "passed", "fetched"), [(3600, 3500.0, 1), (3600, 3545.0, 2), (100, 85.0, 1), (100, 91.0, 2)]
)
async def test_a_token_is_renewed_before_it_ends(lifetime: int, passed: float, fetched: int, expires_in: bool) -> None:
    now = [NOW]
    issuer = Issuer(lifetime_s=lifetime, expires_in=expires_in)
    async with simulator(issuer, clock=lambda: now[0]) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=lambda: now[0])) as api:
            await ask(api)
            now[0] += passed
            assert await asyncio.gather(*(ask(api) for _ in range(5))) == [10] * 5
        assert server.stats.token_requests == fetched
        assert server.stats.refusals == {}


async def test_a_revoked_token_is_renewed_once_for_all_that_were_refused() -> None:
    async with simulator(Issuer(), latency_ms=5) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=at_now)) as api:
            await ask(api)
            server.revoke_tokens()
            assert await asyncio.gather(*(ask(api) for _ in range(8))) == [10] * 8
        assert server.stats.token_requests == 2
        assert server.stats.refusals == {"invalid_token": 8}


async def test_a_401_to_a_token_just_issued_ends_it() -> None:
    async with simulator(Issuer(), permitted=False) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=at_now)) as api:
            with pytest.raises(CredentialsError, match="permission"):
                await ask(api)
        assert (server.stats.token_requests, server.stats.requests) == (1, 1)


async def test_a_token_that_served_is_renewed_once_and_a_401_to_the_new_one_ends_it() -> None:
    async with simulator(Issuer()) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=at_now)) as api:
            await ask(api)
            server.fail_next(Fault.UNAUTHORIZED, 9)
            with pytest.raises(CredentialsError, match=r"permission.*fresh token did not help"):
                await ask(api)
        assert (server.stats.token_requests, server.stats.requests) == (2, 3)


async def test_a_token_that_dies_while_requests_wait_for_their_turn_is_renewed_and_not_counted() -> None:
    """It says that it lasts an hour, and is worthless after a second."""
    clock = ManualClock(NOW)
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    async with simulator(Issuer(dies_after_s=1), clock=clock) as server:
        async with opened(server.base_url, ClientCredentials(*CLIENT, clock=clock), limiter=limiter) as api:
            for _ in range(5):
                limiter.pause(2.0)
                assert await ask(api) == 10
        assert server.stats.refusals == {"invalid_token": 4}
        assert server.stats.token_requests == 5


async def test_a_wrong_client_secret_is_refused() -> None:
    async with simulator(Issuer()) as server:
        async with opened(server.base_url, ClientCredentials("client", "wrong-secret")) as api:
            with pytest.raises(CredentialsError, match="client id and secret"):
                await ask(api)
        assert (server.stats.token_requests, server.stats.requests) == (1, 0)


async def test_what_is_asked_of_the_login_service() -> None:
    def respond(asked: Asked) -> bytes:
        return http(200, '{"access_token":"abc"}') if "token" in asked.path else http(200, page_body())

    async with raw_server(respond) as server, opened(server.url, ClientCredentials("an+id", "a&b=c%")) as api:
        await ask(api)
    token, segments = server.asked
    assert token.line == f"POST /sentinel/api/v2/account/{ACCOUNT}/app/token HTTP/1.1"
    assert token.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in token.headers
    assert parse_qs(token.body) == {
        "client_id": ["an+id"],
        "client_secret": ["a&b=c%"],
        "grant_type": ["client_credentials"],
    }
    assert segments.authorization == "Bearer abc"


def _jwt(claims: bytes) -> str:
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", claims, b"x"))


@pytest.mark.parametrize(
    ("answer", "lifetime"),
    [
        ({"access_token": "a", "expires_in": 3600}, 3600.0),
        ({"access_token": "a", "expires_in": "3600"}, 3600.0),
        ({"access_token": "a", "expires_in": 0}, 600.0),
        ({"access_token": "a", "expires_in": -5}, 600.0),
        ({"access_token": "a", "expires_in": "soon"}, 600.0),
        ({"access_token": "a", "expires_in": "nan"}, 600.0),
        ({"access_token": "a", "expires_in": [1]}, 600.0),
        ({"access_token": "a", "expires_in": True}, 1.0),
        ({"access_token": _jwt(b'{"iat":1000,"exp":1000}')}, 600.0),
        ({"access_token": "a"}, 600.0),
        ({"access_token": "a", "expires_in": None, "token_type": "Bearer", "new": []}, 600.0),
        ({"access_token": _jwt(b'{"exp":5000,"sub":"x"}')}, 4000.0),
        ({"access_token": _jwt(b'{"exp":5000}'), "expires_in": 60}, 60.0),
        ({"access_token": _jwt(b'{"exp":1000}')}, 600.0),
        ({"access_token": _jwt(b'{"exp":"soon"}')}, 600.0),
        ({"access_token": _jwt(b"{}")}, 600.0),
        ({"access_token": _jwt(b"\xff")}, 600.0),
        ({"access_token": _jwt(b'{"a":' + b"[" * 100_000)}, 600.0),
        ({"access_token": "a.b.c"}, 600.0),
        ({"access_token": "a.!.c"}, 600.0),
    ],
)
def test_how_long_a_token_lasts(answer: Mapping[str, Any], lifetime: float) -> None:
    token = parse_token(json.dumps(answer).encode())
    assert token.value == answer["access_token"]
    assert token.lifetime(1000.0) == lifetime


GARBAGE = [
    b"",
    b"<html>",
    b"null",
    b"[]",
    b"{}",
    b'{"access_token":null}',
    b'{"access_token":5}',
    b'{"access_token":""}',
    b'{"access_token":"a\\nb"}',
    b'{"access_token":"\xc3\xa9"}',
    b'{"access_token":"\xff"}',
    b'{"access_token":"a","expires_in":1e400}',
    b'{"access_token":"a"',
    b'{"a":' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:30]))
def test_an_answer_without_a_token_is_a_fault_and_no_refusal(body: bytes) -> None:
    with pytest.raises(TransientError, match="access_token"):
        parse_token(body)


SECRETS = ("s3cret-one/1", "s3cret-two+2", "s3cret-three=3", "s3cret-four&4")
KINDS: list[Auth] = [OAuth1Key(*SECRETS), ClientCredentials(*SECRETS[:2]), BearerToken(SECRETS[0])]
ISSUED = "s3cret-issued-token"


@pytest.mark.parametrize("auth", KINDS, ids=repr)
def test_credentials_do_not_show_themselves(auth: Auth) -> None:
    assert repr(auth) == str(auth) == f"{type(auth).__name__}(...)"
    assert "s3cret" not in repr(Token(ISSUED, None, None))


@pytest.mark.parametrize("value", ["", " ", "s3cret\n", "s3cret\r\nX: 1", " s3cret", "s3cret ", "s3crét", "s3cret\x00"])
def test_credentials_that_would_break_a_header_are_refused_without_being_shown(value: str) -> None:
    for make in (
        lambda: OAuth1Key("k", value, "t", "s"),
        lambda: BearerToken(value),
        lambda: ClientCredentials("id", value),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert "s3cr" not in str(caught.value) + repr(caught.value)


async def test_only_the_signing_of_this_library_is_kept_out_of_oauthlibs_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    signer = KINDS[0].authorizer(_no_token)
    assert (await signer.header("GET", "https://host/")).startswith("OAuth ")
    assert caplog.text == ""
    oauthlib.oauth1.Client("their-key").sign("https://host/")
    assert "their-key" in caplog.text


async def _no_token(form: Mapping[str, str]) -> Token:
    raise AssertionError(form)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "encoded": lambda text: quote(text, safe=""),
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "html": html.escape,
    "json": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
}


def _echo(status: int, form: str, known: Sequence[str]) -> Any:
    """A service that repeats in its answer what was sent to it."""

    def respond(asked: Asked) -> bytes:
        if "token" in asked.path and status != 0:
            return http(200, json.dumps({"access_token": ISSUED}))
        secrets, header, body = map(ENCODINGS[form], (" ".join(known), asked.authorization, asked.body))
        words: dict[str, Any] = {"message": secrets, "reason": header, "causes": [secrets, header, body]}
        if form == "encoded":
            words |= {"message": header, "internalCode": secrets, "segments": secrets}
        return http(status or 400, json.dumps(words), Location=f"http://127.0.0.1/?{secrets}".replace(" ", "+"))

    return respond


@pytest.mark.parametrize("form", ENCODINGS)
@pytest.mark.parametrize("status", [0, 200, 204, 302, 400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize("auth", KINDS, ids=repr)
async def test_no_error_shows_a_secret_even_where_the_service_repeats_it(
    auth: Auth, status: int, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_server(_echo(status, form, auth.secrets())) as server, opened(server.url, auth) as api:
        with pytest.raises(SegmentFetchError) as caught:
            await ask(api)
    said = everything_said(caught.value) + caplog.text
    assert "s3cret" not in said.lower()
    for secret in (*auth.secrets(), ISSUED):
        assert secret not in said
        assert quote(secret, safe="") not in said
        assert html.escape(secret) not in said
        assert secret.encode().hex() not in said
        for before in range(3):  # the letters of base64 that depend on the secret alone
            whole = base64.b64encode(bytes(before) + secret.encode() + bytes(2)).decode()
            assert whole[4 : len(secret) * 4 // 3] not in said


@pytest.mark.parametrize("auth", KINDS, ids=repr)
async def test_no_broken_connection_shows_a_secret(auth: Auth) -> None:
    answers = [
        None,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad\r\n\r\n",
    ]
    async with raw_server(lambda _: answers[0]) as server, opened(server.url, auth) as api:
        while answers:
            with pytest.raises(SegmentFetchError) as caught:
                await ask(api)
            assert "s3cret" not in everything_said(caught.value)
            del answers[0]
