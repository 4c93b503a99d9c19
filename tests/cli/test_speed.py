"""The extra `speed`: used by the command where it is installed, and missed by nobody where it is not."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys

import pytest
import uvloop
from aiohttp.compression_utils import ZLibBackend, ZLibDecompressor
from isal import isal_zlib

from segment_fetch.cli import speed, stopping


def absent(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)


async def loop_in_use() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def ignore(signum: int) -> None:
    raise AssertionError(signum)


def test_the_command_runs_on_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopping.run(loop_in_use(), ignore) is uvloop.Loop
    absent(monkeypatch, "uvloop")
    assert stopping.run(loop_in_use(), ignore) is not uvloop.Loop


def test_answers_are_decompressed_with_isal_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "isal")
    assert not speed.quicken_gzip()
    assert ZLibBackend._zlib_backend is not isal_zlib
    monkeypatch.undo()
    assert speed.quicken_gzip()
    assert ZLibBackend._zlib_backend is isal_zlib
    data = b"segments " * 10_000
    assert ZLibDecompressor(encoding="gzip").decompress_sync(gzip.compress(data)) == data


def test_the_library_leaves_the_decompression_of_its_application_alone() -> None:
    code = (
        "import aiohttp.compression_utils as c, segment_fetch, segment_fetch.transport, zlib, sys;"
        "sys.exit(c.ZLibBackend._zlib_backend is not zlib or 'uvloop' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
