"""One attempt at one request over real sockets: what breaks, what is refused, and what is never sent anywhere."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import tracemalloc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import msgspec
import pytest

from segment_fetch.api import transport as transport_module
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.api.transport import MAX_BODY, Transport, checked_base
from segment_fetch.errors import (
    InputError,
    ProxyError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TooLargeError,
    TransientError,
)
from segment_fetch.query import is_loopback
from segment_fetch.simulator import Bearer, Dataset, Fault, Faults, Simulator
from segment_fetch.wire.pages import LARGEST_UNUSUAL
from tests.conftest import Authority
from tests.support import (
    ANY_WINDOW,
    NOW,
    Asked,
    everything_said,
    http,
    opened,
    page_body,
    raw_server,
    row,
    session_for,
    without_waiting,
)

DATASET = Dataset(segments=400, start=ANY_WINDOW.start, end=ANY_WINDOW.end)
HOST = "va.agent.liveperson.net"


def simulator(**options: object) -> Simulator:
    return Simulator(DATASET, clock=lambda: NOW, **options)  # type: ignore[arg-type]


def only(fault: Fault) -> Faults:
    """Faults of one kind, in every answer."""
    return msgspec.convert({fault.value: 1.0}, Faults)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the proxies and certificates of the machine it runs on."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


# ---------------------------------------------------------------------------------------------------- base URL


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://va.agent.liveperson.net", "https://va.agent.liveperson.net"),
        ("https://VA.Agent.LivePerson.net/", "https://va.agent.liveperson.net"),
        ("https://host:8443", "https://host:8443"),
        ("https://host:443", "https://host"),
        ("https://host/?", "https://host"),
        ("https://10.1.2.3", "https://10.1.2.3"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.9.9:1", "http://127.9.9.9:1"),
        ("http://localhost:80", "http://localhost"),
        ("HTTP://LOCALHOST:65535", "http://localhost:65535"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_base_urls_that_credentials_may_be_sent_to(given: str, base: str) -> None:
    assert checked_base(given) == base


@pytest.mark.parametrize(
    "given",
    [
        "",
        "host",
        "https://",
        "https://:443",
        "https://[::1",
        "https://host:0",
        "https://host:65536",
        "https://host:http",
        "https://host/path",
        "https://host?a=1",
        "https://host#a",
        "https://a..b",
        "https://.",
        "https://a b",
        f"https://{'a' * 64}.com",
        f"https://{'a.' * 127}com",
        "https://host\\.liveperson.net",
        "ftp://host",
        "file:///etc/passwd",
        "http://va.agent.liveperson.net",
        "http://10.0.0.1",
        "http://0.0.0.0:1",
        "http://localhost.",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[::2]",
    ],
)
def test_base_urls_that_they_may_not(given: str) -> None:
    with pytest.raises(InputError, match="base URL"):
        checked_base(given)


@pytest.mark.parametrize(
    "given",
    [
        "https://user:s3cret@host",
        "https://s3cret@host",
        "https://:s3cret@host",
        "//user:s3cret@host",
        "user:s3cret@host",
        "https:user:s3cret@host",
        "ftp://user:s3cret@host",
        "https://user:s3cret@host:99999",
        "http://localhost@example.com/s3cret",
        "https://host\\@s3cret",
    ],
)
def test_a_base_url_with_a_password_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(InputError, match="base URL") as caught:
        checked_base(given)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("host", False), (None, False)],
)
def test_what_is_this_machine(host: str | None, local: bool) -> None:
    assert is_loopback(host) is local


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.DROP, "the connection was dropped"),
        (Fault.RESET, "the connection was dropped|the answer was cut off"),
        (Fault.TRUNCATED, "the answer was cut off"),
        (Fault.STALL, "the answer stalled"),
        (Fault.STALL_BODY, "the answer stalled"),
        (Fault.BAD_JSON, "the answer is not JSON"),
        (Fault.HTML, "the answer is not JSON"),
        (Fault.ERROR_BODY, "not a page"),
    ],
)
@without_waiting
async def test_what_breaks_on_the_way_is_said_in_a_sentence(fault: Fault, says: str) -> None:
    async with simulator(faults=only(fault)) as server, opened(server.base_url) as api:
        with pytest.raises(TransientError, match=says) as caught:
            await api.page(ANY_WINDOW, 0, 400)
    assert caught.value.kind == "network"
    assert "aiohttp" not in everything_said(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02",
    ],
    ids=lambda answer: repr(answer and answer[:60]),
)
async def test_what_is_no_answer_is_a_fault_of_the_network(answer: bytes | None) -> None:
    async with raw_server(lambda _: answer) as server, opened(server.url) as api:
        with pytest.raises(TransientError, match=r"dropped|cut off|not valid HTTP|be decoded") as caught:
            await api.page(ANY_WINDOW, 0, 1)
    assert caught.value.kind == "network"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "not valid HTTP: Duplicate Content-Length",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "Transfer-Encoding can't be present with Content-Length",
        ),
        (b"HTTP/1.1 200 OK\r\nX: s3cret" + b"a" * 100_000 + b"\r\n\r\n", "Got more than 65536 bytes when reading"),
        (b"HTTP/1.1 200 OK\r\nX: s3cret\0a\r\n\r\n", "Invalid HTTP header"),
        (b"SSH-2.0-s3cret\r\n", "Bad status line"),
        (http(200, b"not br", Content_Encoding="br"), "Can not decode content-encoding: brotli"),
        (http(200, b"not gzip!", Content_Encoding="gzip"), "cannot be decoded: Can not decode content-encoding: gzip"),
    ],
)
async def test_what_was_wrong_with_an_answer_is_said_without_a_word_of_it(answer: bytes, says: str) -> None:
    async with raw_server(lambda _: answer) as server, opened(server.url) as api:
        with pytest.raises(TransientError, match=says) as caught:
            await api.page(ANY_WINDOW, 0, 1)
    assert "s3cret" not in everything_said(caught.value)


@pytest.mark.parametrize("fault", [Fault.BIG_HEADER, Fault.ZSTD])
async def test_what_can_be_read_is_read(fault: Fault) -> None:
    """A header of 9 kB; zstd that nobody asked for."""
    async with simulator(faults=only(fault)) as server, opened(server.base_url) as api:
        assert len((await api.page(ANY_WINDOW, 0, 400)).page.segments) == 400


async def test_many_headers_are_read() -> None:
    many = {f"X-{number}": "1" for number in range(500)}
    async with raw_server(lambda _: http(200, page_body(), **many)) as server, opened(server.url) as api:
        assert (await api.page(ANY_WINDOW, 0, 1)).page.segments == []


async def test_of_two_retry_after_headers_the_longer_counts() -> None:
    async with simulator() as server, opened(server.base_url) as api:
        server.answer_next(429, headers=[("Retry-After", "2"), ("Retry-After", "6")])
        with pytest.raises(ThrottledError) as caught:
            await api.page(ANY_WINDOW, 0, 1)
    assert caught.value.retry_after == 6.0


@pytest.mark.parametrize(
    "url",
    [
        "https://host?token=s3cret",
        "https://host/s3cret",
        "http://host#s3cret",
        "x://h/s3cret",
        "host/s3cret",
        "host:443/s3cret",
        "https:/host/s3cret",
        "https:///s3cret",
        "https://host\\s3cret",
        "https://ho st;s3cret",
    ],
)
def test_what_follows_the_host_of_a_base_url_is_not_shown(url: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_base(url)
    assert "s3cret" not in everything_said(caught.value)


async def test_nobody_listens() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{free.getsockname()[1]}") as api:
            with pytest.raises(TransientError, match=r"no connection to 127\.0\.0\.1"):
                await api.page(ANY_WINDOW, 0, 1)


async def test_a_name_that_does_not_exist() -> None:
    async with session_for({}) as session, opened("https://nowhere.test", session=session) as api:
        with pytest.raises(TransientError, match=r"the name nowhere\.test cannot be resolved"):
            await api.page(ANY_WINDOW, 0, 1)


async def _took(api_timeouts: Timeouts, url: str) -> tuple[float, str]:
    start = asyncio.get_running_loop().time()
    async with opened(url, timeouts=api_timeouts) as api:
        with pytest.raises(TransientError) as caught:
            await api.page(ANY_WINDOW, 0, 400)
    return asyncio.get_running_loop().time() - start, str(caught.value)


@without_waiting
async def test_the_connect_timeout() -> None:
    with closing(socket.socket()) as full, closing(socket.socket()) as one, closing(socket.socket()) as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # nobody accepts: what does not fit into the backlog waits for its connection
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        took, says = await _took(Timeouts(connect=7.0), f"http://127.0.0.1:{full.getsockname()[1]}")
    assert took == pytest.approx(7.0, abs=1.1)  # aiohttp rounds up to whole seconds
    assert says == "no connection to 127.0.0.1: timed out"


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.STALL_BODY])
@without_waiting
async def test_the_read_timeout(fault: Fault) -> None:
    async with simulator(faults=only(fault)) as server:
        took, says = await _took(Timeouts(read=9.0), server.base_url)
    assert took == pytest.approx(9.0, abs=1.1)  # aiohttp rounds up to whole seconds
    assert says == "the answer stalled"


@without_waiting
async def test_the_total_timeout_ends_an_answer_that_only_trickles() -> None:
    async with simulator(faults=Faults(slow_body=1.0, slow_body_s=100.0)) as server:
        took, says = await _took(Timeouts(read=9.0, total=20.0), server.base_url)
        assert took == pytest.approx(20.0, abs=1.1)  # aiohttp rounds up to whole seconds
        assert says == "the answer stalled"
        async with opened(server.base_url) as api:
            assert (await api.page(ANY_WINDOW, 0, 400)).page.pagination.count == 400


@pytest.mark.parametrize("wrong", [{"connect": 0.0}, {"read": -1.0}, {"total": 0.0}, {"total": float("nan")}])
def test_timeouts_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="timeouts"):
        Timeouts(**wrong)


async def test_a_body_of_more_than_32_mib_is_refused_without_being_held() -> None:
    async with simulator(faults=Faults(huge=1.0)) as server, opened(server.base_url) as api:
        with pytest.raises(ServiceError):
            await api.page(ANY_WINDOW, 0, 1)  # the simulator prepares its answer
        tracemalloc.start()
        try:
            with pytest.raises(ServiceError, match="larger than 32 MiB"):
                await api.page(ANY_WINDOW, 0, 1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < MAX_BODY + 8 * 1024 * 1024


async def test_answers_far_too_large_on_all_connections_take_no_more_memory_than_a_few() -> None:
    """Each is read to its end: one by one, where 16 side by side would take half a gigabyte."""
    answer = http(200, gzip.compress(page_body().ljust(MAX_BODY), 1), Content_Encoding="gzip")
    async with raw_server(lambda _: answer) as server, opened(server.url, connections=16) as api:
        tracemalloc.start()
        try:
            pages = await asyncio.gather(*(api.page(ANY_WINDOW, 0, 1) for _ in range(16)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [page.page.segments for page in pages] == [[]] * 16
    assert peak < 4 * MAX_BODY  # the shared bodies, the one that is read on, and its copy in one piece


async def test_a_large_page_of_unknown_fields_is_not_made_into_objects() -> None:
    """A list of empty lists takes thirty times its bytes."""
    body = page_body(row(newField=[[]])).replace(b"[[]]", b"[" + b"[]," * (LARGEST_UNUSUAL // 3) + b"[]]")
    async with raw_server(lambda _: http(200, body)) as server, opened(server.url) as api:
        with pytest.raises(TooLargeError, match="unknown fields and is larger than 4 MiB"):
            await api.page(ANY_WINDOW, 0, 1)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("size", "good"), [(1000, True), (1001, False), (100_000, False)])
async def test_the_bound_holds_for_the_body_as_it_is_read(
    size: int, good: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY", 1000)
    body = page_body().ljust(size)
    answer = http(200, gzip.compress(body), Content_Encoding="gzip") if packed else http(200, body)
    async with raw_server(lambda _: answer) as server, opened(server.url) as api:
        if good:
            assert (await api.page(ANY_WINDOW, 0, 1)).page.segments == []
        else:
            with pytest.raises(ServiceError, match="larger than"):
                await api.page(ANY_WINDOW, 0, 1)


async def test_a_connection_with_an_unread_answer_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY", 1000)
    bodies = [page_body().ljust(1_000_000), page_body()]
    async with raw_server(lambda _: http(200, bodies.pop(0))) as server, opened(server.url) as api:
        with pytest.raises(ServiceError):
            await api.page(ANY_WINDOW, 0, 1)
        await api.page(ANY_WINDOW, 0, 1)
    assert server.connections == 2


# ---------------------------------------------------------------------------------------------------- sessions


async def test_a_given_session_is_used_and_not_closed() -> None:
    seen: list[str] = []

    async def note(_: aiohttp.ClientSession, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        seen.append(params.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    async with simulator() as server, aiohttp.ClientSession(trace_configs=[trace]) as session:
        async with opened(server.base_url, session=session) as api:
            await api.page(ANY_WINDOW, 0, 1)
        assert not session.closed
    assert seen == ["/api/account/111111/agent-segments"]


async def test_its_own_session_is_closed_and_nothing_is_left_open() -> None:
    async with simulator() as server:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with opened(server.base_url) as api:
                await asyncio.gather(*(api.page(ANY_WINDOW, 0, 1) for _ in range(3)))
            del api
            gc.collect()
    assert len(asyncio.all_tasks()) == 1


async def test_what_a_given_session_does_by_itself_does_not_spoil_the_answers() -> None:
    async with simulator() as server:
        session = aiohttp.ClientSession(auto_decompress=False, raise_for_status=True, headers={"X-Own": "1"})
        async with session, opened(server.base_url, session=session) as api:
            assert len((await api.page(ANY_WINDOW, 0, 50)).page.segments) == 50
            server.fail_next(Fault.ERROR_500)
            with pytest.raises(TransientError, match="internalCode 1017"):
                await api.page(ANY_WINDOW, 0, 50)


async def test_a_closed_session_is_an_error_of_the_input() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    async with opened("http://127.0.0.1:1", session=session) as api:
        with pytest.raises(InputError, match="session passed in is closed"):
            await api.page(ANY_WINDOW, 0, 1)


async def test_no_more_than_its_connections_are_in_use_at_once() -> None:
    async with simulator(latency_ms=5) as server, opened(server.base_url, connections=3) as api:
        await asyncio.gather(*(api.page(ANY_WINDOW, 0, 1) for _ in range(12)))
        assert server.stats.most_in_flight == 3


async def test_cookies_are_not_kept() -> None:
    answer = http(200, page_body(), Set_Cookie="session=abc; Path=/")
    async with raw_server(lambda _: answer) as server, opened(f"http://localhost:{server.port}") as api:
        await api.page(ANY_WINDOW, 0, 1)
        await api.page(ANY_WINDOW, 0, 1)
    assert len(server.asked) == 2
    assert all("cookie" not in asked.headers for asked in server.asked)


# ---------------------------------------------------------------------------------------------------- certificates


@asynccontextmanager
async def over_tls(authority: Authority, **connector: object) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    """A simulator with a certificate, and a session in which liveperson.net is that simulator."""
    async with (
        simulator(auth=Bearer("token-value"), ssl_context=authority.server) as server,
        session_for({HOST: server.port, "other.test": server.port}, **connector) as session,
    ):
        yield server, session


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_a_companys_own_authority(authority: Authority, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(authority.file))
    async with over_tls(authority) as (_, session), opened(f"https://{HOST}", session=session) as api:
        assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400


async def test_a_folder_of_authorities(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file.parent))
    async with opened("https://127.0.0.1:1") as api:
        with pytest.raises(TransientError, match="no connection"):
            await api.page(ANY_WINDOW, 0, 1)


@pytest.mark.parametrize("lax", [False, True], ids=["session", "session that does not check"])
async def test_an_unknown_authority_is_refused_whatever_the_session_says(authority: Authority, lax: bool) -> None:
    options = {"ssl": False} if lax else {}
    async with over_tls(authority, **options) as (server, session):
        async with opened(f"https://{HOST}", session=session) as api:
            with pytest.raises(ServiceError, match=rf"certificate of {HOST} is not trusted.*SSL_CERT_FILE"):
                await api.page(ANY_WINDOW, 0, 1)
        assert server.stats.requests == 0


async def test_a_certificate_of_another_host_is_refused(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with (
        over_tls(authority, ssl=False) as (server, session),
        opened("https://other.test", session=session) as api,
    ):
        with pytest.raises(ServiceError, match="certificate of other"):
            await api.page(ANY_WINDOW, 0, 1)
        assert server.stats.requests == 0


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_file_of_authorities_that_cannot_be_read(
    variable: str, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(variable, str(file))
    async with opened("https://127.0.0.1:1") as api:
        with pytest.raises(InputError, match=rf"{variable} names .*ca\.pem"):
            await api.page(ANY_WINDOW, 0, 1)


async def test_plain_http_where_tls_is_expected() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400, "plain"))
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        session = session_for({HOST: server.sockets[0].getsockname()[1]})
        async with session, opened(f"https://{HOST}", session=session) as api:
            with pytest.raises(TransientError, match=f"the TLS connection to {HOST} failed"):
                await api.page(ANY_WINDOW, 0, 1)


# ---------------------------------------------------------------------------------------------------- proxies


class Proxy:
    """A proxy that lets every CONNECT through to one port of this machine, or answers with a status of its own."""

    def __init__(self, target: int, status: int = 200) -> None:
        self._target = target
        self._status = status
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {self._status} Any\r\n\r\n".encode())
        if self._status == 200:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxied(target: int, status: int = 200) -> AsyncIterator[Proxy]:
    proxy = Proxy(target, status)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=1)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
async def test_the_environments_proxy(name: str, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with simulator(auth=Bearer("token-value"), ssl_context=authority.server) as server:
        async with proxied(server.port) as proxy:
            monkeypatch.setenv(name, f"http://user:p%40ss%20wörd@127.0.0.1:{proxy.port}")
            async with opened(f"https://{HOST}") as api:
                assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400
        assert server.stats.requests == 1
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwQHNzIHfDtnJk\r\n" in asked
    assert "token-value" not in asked


@pytest.mark.parametrize("exempt", ["liveperson.net", ".liveperson.net", "*", HOST])
async def test_hosts_that_go_around_the_proxy(
    exempt: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", exempt)
    async with over_tls(authority) as (_, session), opened(f"https://{HOST}", session=session) as api:
        assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400


@pytest.mark.parametrize("tls", [False, True])
async def test_this_machine_is_never_reached_through_a_proxy(
    tls: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")
    async with simulator(ssl_context=authority.server if tls else None) as server, opened(server.base_url) as api:
        assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400


async def test_a_session_that_would_use_a_proxy_for_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(lambda _: http(200, page_body())) as proxy, simulator() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        session = aiohttp.ClientSession(trust_env=True)
        async with session, opened(server.base_url, session=session) as api:
            with pytest.raises(InputError, match=r"127\.0\.0\.1; add the host to NO_PROXY"):
                await api.page(ANY_WINDOW, 0, 1)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (403, ServiceError, "forbids connections to va"),
        (407, ProxyError, "does not accept the user name and password"),
        (502, TransientError, "cannot reach va"),
        (418, TransientError, "did not connect to va"),
        (0, TransientError, "no connection to the proxy that HTTPS_PROXY names"),
    ],
)
async def test_a_proxy_that_does_not_work_is_named_without_its_password(
    status: int, kind: type[SegmentFetchError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(1, status) as proxy:
        port = proxy.port if status else 1
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{port}")
        async with opened(f"https://{HOST}") as api:
            with pytest.raises(kind, match=says) as caught:
                await api.page(ANY_WINDOW, 0, 1)
    assert type(caught.value) is kind
    assert "s3cret" not in everything_said(caught.value)
    assert "czNjcmV0" not in everything_said(caught.value)


async def test_a_password_that_a_proxy_refuses_is_tried_once_by_all_clients_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with proxied(1, 407) as proxy, transport_module.shared_session(64) as session:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        clients = [Transport(session=session) for _ in range(6)]
        requests = (client.send("GET", f"https://{HOST}/") for client in clients for _ in range(4))
        answers = await asyncio.gather(*requests, return_exceptions=True)
        assert {type(answer) for answer in answers} == {ProxyError}
        assert len(proxy.asked) == 1


async def test_after_one_connection_through_a_proxy_the_others_begin_at_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with simulator(ssl_context=authority.server, latency_ms=50) as server, proxied(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        async with opened(f"https://{HOST}") as api:
            pages = await asyncio.gather(*(api.page(ANY_WINDOW, offset, 10) for offset in range(0, 60, 10)))
        assert [len(answer.page.segments) for answer in pages] == [10] * 6
        assert server.stats.most_in_flight > 1


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ("http://user:s3cret@host:99999", "HTTPS_PROXY: is not a URL"),
        ("http://", "HTTPS_PROXY: is not a URL"),
        ("socks5://user:s3cret@127.0.0.1:1", "HTTPS_PROXY: a proxy of the kind socks5 is not supported"),
        ("ftp://user:s3cret@127.0.0.1:1", "HTTPS_PROXY: a proxy of the kind ftp is not supported|is not a URL"),
    ],
)
async def test_a_proxy_that_cannot_be_used(named: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    async with opened(f"https://{HOST}") as api:
        with pytest.raises(InputError, match=says) as caught:
            await api.page(ANY_WINDOW, 0, 1)
    assert "s3cret" not in everything_said(caught.value)


async def test_a_proxy_may_be_written_without_its_scheme(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with simulator(ssl_context=authority.server) as server, proxied(server.port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
        async with opened(f"https://{HOST}") as api:
            assert (await api.page(ANY_WINDOW, 0, 1)).page.pagination.count == 400
    assert "Proxy-Authorization" not in proxy.asked[0]


# ---------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with raw_server(lambda _: http(200, page_body())) as other:

        def elsewhere(_: Asked) -> bytes:
            return http(status, "", Location=f"{other.url}/api")

        async with raw_server(elsewhere) as server, opened(server.url) as api:
            with pytest.raises(SegmentFetchError, match=rf"redirects \({status}\), which is never followed"):
                await api.page(ANY_WINDOW, 0, 1)
        assert other.connections == 0


async def test_the_library_names_itself_and_accepts_json() -> None:
    async with raw_server(lambda _: http(200, page_body())) as server, opened(server.url) as api:
        await api.page(ANY_WINDOW, 0, 1)
    headers = server.asked[0].headers
    assert headers["user-agent"].startswith("segment_fetch/")
    assert headers["accept"] == "application/json"
    assert "gzip" in headers["accept-encoding"]


async def test_a_transport_that_was_never_used_closes() -> None:
    await Transport().close()


def test_a_port_out_of_range_is_named() -> None:
    with pytest.raises(InputError, match="port 99999 is out of range: 65535 is the highest"):
        checked_base("http://127.0.0.1:99999")
