"""An S3 server on 127.0.0.1, and a proxy before it that can fail in the ways in which networks and stores do."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from msgspec import Struct
from obstore.store import S3Store

KEY = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t/+=key", "AWS_REGION": "us-east-1"}
QUICK: Any = {"max_retries": 2, "backoff": {"init_backoff": timedelta(milliseconds=1)}}


class Asked(Struct, frozen=True):
    """A request: `path` has the query, `key` is the access key that signed it."""

    method: str
    path: str
    key: str = ""

    @property
    def name(self) -> str:
        """The object's name, without prefix and query."""
        return self.path.partition("?")[0].rpartition("/")[2]


class Answer(Struct, frozen=True):
    """An answer that the server did not give; it did what it was asked all the same if it is `taken`."""

    status: int
    code: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    taken: bool = False


DROP_BEFORE = Answer(0, "before")
"""The connection breaks in the middle of the request; the server never sees it."""
DROP_AFTER = Answer(0, "after", taken=True)
"""The server does what it is asked, but the connection breaks before the answer."""

Fault = Callable[[Asked], Answer | None]


class Proxy:
    """Passes requests on to a server, unless `fault` says what to do instead. `asked` is all that came.

    `heedless` leaves conditions out, as a store does that does not know them.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.fault: Fault = lambda asked: None
        self.asked: list[Asked] = []
        self.heedless = False
        proxy = self

        class Handler(_Handler):
            server_port, owner = port, proxy

            def log_message(self, *_: object) -> None:
                """Nothing: it would go to standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def methods(self, name: str = "") -> list[str]:
        """The methods that were asked for, of one object or of all."""
        return [asked.method for asked in self.asked if not name or asked.name == name]

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """The proxy, for the length of the block."""
        thread = threading.Thread(target=lambda: self._server.serve_forever(0.01))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: the client does not wait for the rest
    server_port: int
    owner: Proxy

    def handle_any(self) -> None:
        signed = re.search(r"Credential=(\w+)/", self.headers.get("Authorization", ""))
        asked = Asked(self.command, self.path, signed[1] if signed else "")
        self.owner.asked.append(asked)
        answer = self.owner.fault(asked)
        length = int(self.headers.get("Content-Length") or 0)
        if answer is DROP_BEFORE:
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        reply = self._passed_on(body) if answer is None or answer.taken else None
        if answer is DROP_AFTER:
            self.close_connection = True
        elif answer is not None:
            self._reply(answer.status, answer.headers, f"<Error><Code>{answer.code}</Code></Error>".encode())
        elif reply is not None:
            self._reply(*reply)

    def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.server_port)
        try:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if self.owner.heedless and name.lower() in ("if-match", "if-none-match"):
                    continue
                server.putheader(name, value)
            server.endheaders(body)
            reply = server.getresponse()
            kept = [(name, value) for name, value in reply.getheaders() if name.lower() not in _HOP]
            return reply.status, kept, reply.read()
        finally:
            server.close()

    def _reply(self, status: int, headers: Sequence[tuple[str, str]], data: bytes) -> None:
        self.send_response_only(status)
        length = {name.lower(): value for name, value in headers}.get("content-length", "0")
        for name, value in headers:
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that the base class calls


_HOP = ("connection", "transfer-encoding", "date", "server", "keep-alive")


class Bucket:
    """A bucket of its own behind a proxy, and what is in it."""

    def __init__(self, name: str, proxy: Proxy, port: int) -> None:
        self.name = name
        self.proxy = proxy
        self.url = f"s3://{name}/some/prefix"
        self.port = port
        self._direct = self._client(f"http://127.0.0.1:{port}")

    def store(self) -> Any:
        """A client of its own, by way of the proxy; it repeats a failed request twice, and soon."""
        return self._client(self.proxy.url)

    def _client(self, url: str) -> Any:
        reached: Any = {"endpoint": url, "client_options": {"allow_http": True}, "retry_config": QUICK}
        return S3Store(self.name, prefix="some/prefix", **reached)

    def names(self) -> list[str]:
        """Return the objects below the prefix."""
        return sorted(each["path"] for batch in self._direct.list() for each in batch)

    def contents(self) -> dict[str, bytes]:
        """All that is below the prefix."""
        return {name: self.read(name) for name in self.names()}

    def read(self, name: str) -> bytes:
        return bytes(self._direct.get(name).bytes())

    def put(self, name: str, data: bytes) -> None:
        self._direct.put(name, data)

    def delete(self, name: str) -> None:
        self._direct.delete(name)

    def uploads(self) -> int:
        """Return the number of multipart uploads that are neither complete nor aborted."""
        server = http.client.HTTPConnection("127.0.0.1", self.port)
        server.request("GET", f"/{self.name}?uploads")
        listed = server.getresponse().read()
        server.close()
        assert b"ListMultipartUploadsResult" in listed
        return listed.count(b"<UploadId>")


@contextmanager
def s3_server() -> Iterator[int]:
    """Moto's S3 server on a port of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()


def environment(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Keys for a made-up account, and nothing of the machine's own settings."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        **KEY,
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        **more,
    }.items():
        monkeypatch.setenv(name, value)


def new_bucket(port: int, name: str) -> None:
    """Makes a bucket."""
    server = http.client.HTTPConnection("127.0.0.1", port)
    server.request("PUT", f"/{name}", headers={"Content-Length": "0"})
    assert server.getresponse().status == 200
    server.close()
