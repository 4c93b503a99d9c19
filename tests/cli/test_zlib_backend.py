"""The extra `speed`: used by the command where it is installed, and missed by nobody where it is not."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest
from aiohttp.compression_utils import ZLibBackend, ZLibDecompressor
from isal import isal_zlib

from segment_fetch.cli import zlib_backend


def absent(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)


def test_answers_are_decompressed_with_isal_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "isal")
    assert not zlib_backend.use_fast_gzip()
    assert ZLibBackend._zlib_backend is not isal_zlib
    monkeypatch.undo()
    assert zlib_backend.use_fast_gzip()
    assert ZLibBackend._zlib_backend is isal_zlib
    data = b"segments " * 10_000
    assert ZLibDecompressor(encoding="gzip").decompress_sync(gzip.compress(data)) == data


def test_the_library_leaves_the_decompression_of_its_application_alone() -> None:
    code = (
        "import aiohttp.compression_utils as c, segment_fetch, segment_fetch.api.transport, zlib, sys;"
        "sys.exit(c.ZLibBackend._zlib_backend is not zlib)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
