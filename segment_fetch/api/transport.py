"""HTTP: one attempt at one request; failures become this library's errors. The only user of aiohttp."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from msgspec import Struct
from yarl import URL

from segment_fetch.api.timeouts import Timeouts
from segment_fetch.errors import InputError, ProxyError, ServiceError, TooLargeError, TransientError, printable
from segment_fetch.query import is_loopback
from segment_fetch.throttle.defaults import CONNECTIONS

MAX_BODY = 32 * 1024 * 1024
"""Maximum bytes of one answer, after decompression. A page of 500 segments takes about 0.2 MB."""
SHARED_BODIES = 32 * 1024 * 1024
"""Maximum bytes of all answers that are read concurrently. Beyond that, they are read one at a time."""

_MOST_SCRATCH = 4 * 1024 * 1024
_LONGEST_HEADER = 64 * 1024
_MOST_HEADERS = 1_000

T = TypeVar("T")

Sign = Callable[[], Awaitable[str]]
"""Returns the `Authorization` header of one attempt."""

_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII)
_TO_HOST = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:/{0,2})?[^/\\?#;&]*", re.IGNORECASE)
_LONGEST_HOST = 253
_PORT = re.compile(r":(\d{1,9})/?$", re.ASCII)
_HIGHEST_PORT = 65_535
_USER_AGENT = f"segment_fetch/{version('segment-fetch')}"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


class _Proxy(Struct, frozen=True):
    """The proxy of requests, and the headers that authorise them to it."""

    url: URL | None = None
    headers: Mapping[str, str] | None = None


class _ProxyLogin:
    """Tries the user name and password of a proxy in one request alone: many refusals at once may lock the account.

    A refusal is final as long as no request has got through.
    """

    def __init__(self) -> None:
        self.works = False
        """True once a request has got through."""
        self.alone = asyncio.Lock()
        self._refused: str | None = None

    @contextmanager
    def first_try(self) -> Iterator[None]:
        """Remember a refusal in the block. Raises ProxyError if there was one before."""
        if self._refused is not None:
            raise ProxyError(self._refused, status=407)
        try:
            yield
        except ProxyError as error:
            self._refused = error.message
            raise


class _SharedConnector(aiohttp.TCPConnector):
    """The connections of many clients, which also share the login to their proxy."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit=limit)
        self.proxy_login = _ProxyLogin()


class Reply(Struct, frozen=True):
    """An answer as received, with its `body` decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes | memoryview


def _is_host(host: str) -> bool:
    """Return True if a host is a valid name or an address."""
    return ":" in host or (len(host) <= _LONGEST_HOST and _NAME.fullmatch(host) is not None)


def checked_base(url: str) -> str:
    """Return a base URL to which credentials may be sent: https, or http on this machine. Raises InputError if not."""
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError:
        port_given = _PORT.search(url)
        if port_given and int(port_given[1]) > _HIGHEST_PORT:
            raise InputError(f"base URL: port {port_given[1]} is out of range: 65535 is the highest") from None
        raise InputError("base URL: is not a URL; write https://host or http://127.0.0.1:8080") from None
    if "@" in url:
        raise InputError("base URL: must not hold a user name or password; credentials have their own settings")
    if not host or not port or parsed.scheme not in ("http", "https") or not _is_host(host):
        raise InputError(f"base URL {_shown(url)}: write https://host or http://127.0.0.1:8080")
    if parsed.path not in ("", "/") or parsed.query_string or parsed.fragment:
        raise InputError(f"base URL {_shown(url)}: give the scheme, host and port only, without a path or query")
    if parsed.scheme == "http" and not is_loopback(host):
        raise InputError(f"base URL {_shown(url)}: plain http would expose the credentials on the network; use https")
    return str(parsed.origin())


def _shown(url: str) -> str:
    """Return a URL up to its host: the rest may hold a token."""
    found = _TO_HOST.match(url)
    return repr(printable(found[0] if found else "", 80))


class Transport:
    """Sends requests through a session, the caller's or its own, with at most `connections` in flight.

    `turn` is awaited before an answer is handed over, so that many answers together do not block the event loop.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession | None = None,
        connections: int = CONNECTIONS,
        timeouts: Timeouts | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        timeouts = timeouts or Timeouts()
        self._scratch = bytearray()
        self._held = 0
        self._overflow = asyncio.Lock()
        self._turn = turn
        self._given = session
        shared = session.connector if session is not None else None
        self._proxy_login = shared.proxy_login if isinstance(shared, _SharedConnector) else _ProxyLogin()
        self._own: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(connections)
        self._timeout = aiohttp.ClientTimeout(
            total=timeouts.total, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        self._tls: ssl.SSLContext | None = None
        self._proxies: dict[str, _Proxy | None] = {}
        self._headers = {
            "Accept": "application/json",
            "User-Agent": _USER_AGENT,
        }

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._given is not None:
            if self._given.closed:
                raise InputError("the session passed in is closed")
            return self._given
        if self._own is None:
            connector = aiohttp.TCPConnector(limit=0)  # the slots are the limit, and do not apply to a login
            self._own = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._own

    async def close(self) -> None:
        """Close the session, unless it is the caller's."""
        if self._own is not None:
            await self._own.close()
            self._own = None

    async def page(self, url: str, sign: Sign, take: Callable[[Reply], T]) -> T:
        """Make one attempt at a page, and pass the reply to `take`; the memory of its body is reused for the next one.

        Waits while `connections` others are in flight. Raises the same errors as `send`, and those of `take`.
        """
        async with self._slots:
            return await self._sent("GET", url, sign, None, take)

    async def send(self, method: str, url: str, *, form: Mapping[str, str] | None = None) -> Reply:
        """Make one attempt. Raises TransientError for a network failure, ServiceError if a retry would be useless."""
        return await self._sent(method, url, None, form, _kept)

    async def _sent(
        self, method: str, url: str, sign: Sign | None, form: Mapping[str, str] | None, take: Callable[[Reply], T]
    ) -> T:
        if not self._proxy_login.works and (proxy := self._proxy(URL(url, encoded=True))) and proxy.headers:
            async with self._proxy_login.alone:
                if not self._proxy_login.works:
                    with self._proxy_login.first_try():
                        return await self._attempt(method, url, sign, form, take)
        return await self._attempt(method, url, sign, form, take)

    async def _attempt(
        self, method: str, url: str, sign: Sign | None, form: Mapping[str, str] | None, take: Callable[[Reply], T]
    ) -> T:
        try:
            return await self._send(method, url, sign, form, take)
        except aiohttp.ClientConnectorCertificateError:
            raise ServiceError(
                f"the certificate of {URL(url).host} is not trusted; for a company's own authority name its file "
                "in SSL_CERT_FILE"
            ) from None
        except aiohttp.ClientHttpProxyError as error:
            raise _proxy_fault(error.status, URL(url).host) from None
        except aiohttp.ClientProxyConnectionError:
            raise TransientError("no connection to the proxy that HTTPS_PROXY names") from None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise TransientError(_fault(error, URL(url).host)) from None

    async def _send(
        self, method: str, url: str, sign: Sign | None, form: Mapping[str, str] | None, take: Callable[[Reply], T]
    ) -> T:
        async def signed(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            # Here, because aiohttp itself repeats a request if a kept-alive connection was closed,
            # and a repeated nonce would be refused.
            if sign is not None:
                request.headers["Authorization"] = await sign()
            return await handler(request)

        target = URL(url, encoded=True)
        proxy = self._proxy(target) or _Proxy()
        async with (
            self._session.request(
                method,
                target,
                data=form,
                headers=self._headers,
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._timeout,
                ssl=self._context() if target.scheme == "https" else True,
                proxy=proxy.url,
                proxy_headers=proxy.headers,
                auto_decompress=True,
                middlewares=(signed,),
                max_line_size=_LONGEST_HEADER,
                max_field_size=_LONGEST_HEADER,
                max_headers=_MOST_HEADERS,
            ) as response,
            self._pieces(response) as pieces,
        ):
            self._proxy_login.works |= proxy.headers is not None
            if self._turn is not None:
                await self._turn()
            with self._joined(pieces) as body:
                return take(Reply(response.status, _headers(response), body))

    @asynccontextmanager
    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
        """Read the body, and count its memory for the duration of the block."""
        pieces: list[bytes] = []
        size, is_alone = 0, False
        try:
            while piece := await response.content.readany():
                pieces.append(piece)
                size += len(piece)
                self._held += len(piece)
                if size > MAX_BODY:
                    raise TooLargeError(f"the answer is larger than {MAX_BODY >> 20} MiB, and was not read to its end")
                if self._held > SHARED_BODIES and not is_alone:
                    await self._overflow.acquire()
                    is_alone = True
            yield pieces
        finally:
            pieces.clear()
            self._held -= size
            if is_alone:
                self._overflow.release()

    def _joined(self, pieces: Sequence[bytes]) -> memoryview:
        """Return the body; several pieces are joined in a reused buffer, because allocating memory takes time."""
        if len(pieces) == 1:
            return memoryview(pieces[0])
        size = sum(map(len, pieces))
        if not size <= len(self._scratch) <= max(size, _MOST_SCRATCH):
            self._scratch = bytearray()  # first, so that the old and the new buffer are never held together
            self._scratch = bytearray(size + size // 8)
        body, end = memoryview(self._scratch), 0
        for piece in pieces:
            begin, end = end, end + len(piece)
            body[begin:end] = piece
        return body[:size]

    def load_certificates(self) -> None:
        """Load the trusted certificates: about 20 ms, better spent in a thread than in the event loop."""
        self._context()

    def _context(self) -> ssl.SSLContext:
        """Return the context that verifies certificates, even if the caller's session would not."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            for name in _CA_VARIABLES:
                _trust(self._tls, name, os.environ.get(name))
        return self._tls

    def _proxy(self, url: URL) -> _Proxy | None:
        """Return the environment's proxy for a host, looked up once; aiohttp would do so for each request."""
        host = url.host or ""
        if host not in self._proxies:
            local = is_loopback(host)
            if local and self._session.trust_env and _environment_proxy(url.scheme, host):
                raise InputError(f"the session passed in uses a proxy for {host}; add the host to NO_PROXY")
            self._proxies[host] = None if local else _environment_proxy(url.scheme, host)
        return self._proxies[host]


def _trust(context: ssl.SSLContext, variable: str, path: str | None) -> None:
    if not path:
        return
    try:
        context.load_verify_locations(**{"capath" if Path(path).is_dir() else "cafile": path})
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"{variable} names {path!r}, which cannot be read as certificates: {error}") from None


def _environment_proxy(scheme: str, host: str) -> _Proxy | None:
    named = urllib.request.getproxies().get(scheme)
    if not named or urllib.request.proxy_bypass(host):
        return None
    try:
        url = URL(named if "://" in named else f"http://{named}")
        bare = url.origin()
    except ValueError:
        raise InputError(f"{scheme.upper()}_PROXY: is not a URL; write http://host:port") from None
    if bare.scheme not in ("http", "https"):
        raise InputError(f"{scheme.upper()}_PROXY: a proxy of the kind {bare.scheme} is not supported; only http is")
    if not url.user:
        return _Proxy(bare)
    basic = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    return _Proxy(bare, {"Proxy-Authorization": f"Basic {basic}"})


def _kept(reply: Reply) -> Reply:
    return Reply(reply.status, reply.headers, bytes(reply.body))


def _headers(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    """Return the headers, with several `Retry-After` joined, as a mapping shows only the first."""
    repeated = response.headers.getall("Retry-After", ())
    if len(repeated) < 2:
        return response.headers
    headers = response.headers.copy()
    headers["Retry-After"] = ", ".join(repeated)
    return headers


def _proxy_fault(status: int, host: str | None) -> ServiceError | TransientError:
    proxy = "the proxy that HTTPS_PROXY names"
    match status:
        case 407:
            text = "does not accept the user name and password in it (407), and was not tried again: correct them first"
            return ProxyError(f"{proxy} {text}", status=407)
        case 403:
            return ServiceError(f"{proxy} forbids connections to {host} (403): get the host allowed", status=403)
        case 502 | 503 | 504:
            return TransientError(f"{proxy} cannot reach {host} ({status})", "server", status=status)
    return TransientError(f"{proxy} did not connect to {host} ({status})", "server", status=status)


def _fault(error: Exception, host: str | None) -> str:
    """Describe a failure without the request, whose URL or headers could contain secrets."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            said = f"the name {host} cannot be resolved"
        case aiohttp.ClientSSLError():
            said = f"the TLS connection to {host} failed"
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError():
            said = f"no connection to {host}: {getattr(error, 'strerror', None) or 'timed out'}"
        case TimeoutError():
            said = "the answer stalled"
        case aiohttp.ClientPayloadError(__cause__=ContentEncodingError() as cause):
            said = f"the answer cannot be decoded: {_said(cause.message)}"
        case aiohttp.ClientPayloadError():
            said = "the answer was cut off"
        case aiohttp.ClientResponseError():
            said = f"the answer is not valid HTTP: {_said(error.message)}"
        case _:
            said = "the connection was dropped"
    return said


def _said(message: str) -> str:
    """Return aiohttp's message, without the part of the answer that it quotes."""
    return printable(message.strip().partition("\n")[0].partition(" b'")[0].rstrip(":"))


@asynccontextmanager
async def shared_session(connections: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session for many clients, with a common limit of `connections`; further requests wait."""
    connector = _SharedConnector(connections)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session
