"""Fixtures of all tests: reproducible examples, and a certificate authority of their own."""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import aiohttp
import pytest
import trustme
from aiohttp.compression_utils import ZLibBackend
from hypothesis import HealthCheck, settings
from msgspec import Struct

if TYPE_CHECKING:
    from tests.support_objects import Bucket
    from tests.support_postgres import Postgres

settings.register_profile(
    "reproducible", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("reproducible")


class Authority(Struct):
    """A certificate authority that nobody trusts yet: its file, and a server's context for liveperson.net."""

    file: Path
    server: ssl.SSLContext


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the pace that commands learn in a folder of this run, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Let tests interrupt themselves and their programs also where SIGINT is ignored, as in a shell's background."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _no_cover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that a test starts are measured only if the test is."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _zlib() -> Iterator[None]:
    """A command that runs inside the tests may choose another decompressor; the next test has the usual one."""
    before = ZLibBackend._zlib_backend
    yield
    aiohttp.set_zlib_backend(before)


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """A script of the documentation that runs inside the tests may set up the log; the next test has it as it was."""
    log = logging.getLogger("segment_fetch")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of this run of the tests."""
    issuer = trustme.CA()
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    issuer.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("va.agent.liveperson.net", "sentinel.liveperson.net", "127.0.0.1").configure_cert(context)
    return Authority(file, context)


_numbers = count(1)


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """The port of an S3 server on this machine."""
    from tests.support_objects import s3_server

    with s3_server() as port:
        yield port


@pytest.fixture
def bucket(s3_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket behind a proxy, which the environment names."""
    from tests.support_objects import Bucket, Proxy, environment, new_bucket

    name = f"bucket-{next(_numbers)}"
    new_bucket(s3_port, name)
    with Proxy(s3_port).running() as proxy:
        environment(monkeypatch, AWS_ENDPOINT_URL=proxy.url, AWS_MAX_ATTEMPTS="3")
        yield Bucket(name, proxy, s3_port)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server on this machine."""
    from tests.support_postgres import postgres

    with TemporaryDirectory() as folder, postgres(Path(folder) / "data") as server:
        yield server
