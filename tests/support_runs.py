"""Helpers for tests of whole runs: a fixed moment, a settled dataset, a client of a simulator, what a folder holds."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from segment_fetch import BearerToken, RetryPolicy, SegmentClient
from segment_fetch.manifest.reader import read_committed
from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.sinks.registry import file_sink

NOW = 1_794_000_000.0
"""The moment at which every run takes place, epoch seconds; no test looks at the real clock."""
NOW_MS = int(NOW * 1000)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START, END = NOW_MS - 9 * DAY_MS, NOW_MS - 3 * DAY_MS
"""A range that is settled at NOW and fits into one window."""

AT_ONCE = RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, jitter=0.0)
"""As many attempts as usual, without the waiting."""


def now() -> float:
    return NOW


def settled(segments: int = 60, **options: Any) -> Dataset:
    """Segments of the settled range."""
    return Dataset(segments=segments, start=START, end=END, **options)


def served(dataset: Dataset, **options: Any) -> Simulator:
    """A simulator of it, at NOW."""
    return Simulator(dataset, **({"clock": now} | options))


def client(simulator: Simulator, **options: Any) -> SegmentClient:
    """A client of the simulator, at NOW, as fast as it goes."""
    defaults: dict[str, Any] = {
        "auth": BearerToken("the-token"),
        "source": "tests",
        "base_url": simulator.base_url,
        "rate": None,
        "retry": AT_ONCE,
        "clock": now,
    }
    return SegmentClient(simulator.account, **(defaults | options))


def names(folder: Path) -> list[str]:
    """The files of a folder, the lock aside."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, the lock aside, with their bytes."""
    return {name: (folder / name).read_bytes() for name in names(folder)}


def without_count(found: dict[str, bytes]) -> dict[str, bytes]:
    """A folder's contents without the number of commits: an interrupted run makes more of them."""
    manifest = json.loads(found["manifest.json"])
    del manifest["commits"]
    return found | {"manifest.json": json.dumps(manifest).encode()}


def unpacked(name: str, data: bytes) -> bytes:
    """A file's bytes without the compression that its name tells of."""
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def manifest(folder: Path) -> dict[str, Any]:
    """The manifest as JSON, with what has been appended to it."""
    sink = file_sink(folder)
    value: dict[str, Any] = json.loads(sink.look() or b"")
    entries = read_committed(json.dumps(value).encode(), sink.appended()).entries
    value["windows"] = json.loads(msgspec.json.encode(list(entries)))
    return value


def data(folder: Path) -> bytes:
    """All that the manifest names, unpacked, one file behind the other."""
    files = [entry["file"] for entry in manifest(folder)["windows"] if "file" in entry]
    return b"".join(unpacked(name, (folder / name).read_bytes()) for name in files)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The segments that the manifest names, in its order; for JSON Lines."""
    return [json.loads(line) for line in data(folder).splitlines()]


async def until(condition: Callable[[], bool], what: str = "the moment") -> None:
    """Returns as soon as something is so; fails if it does not come about."""
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, f"{what} never came"
        await asyncio.sleep(0.001)
