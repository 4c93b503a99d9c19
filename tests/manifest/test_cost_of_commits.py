"""A commit writes as many bytes and makes as many calls when 50,000 windows are there as when 100 are."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from obstore.store import MemoryStore

from benchmarks.commits import QUERY, commit, prepared, window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.duplicate_ids import Duplicates
from segment_fetch.sinks import DuckDbSink, JsonLines, JsonlSink, ObjectSink, Sink
from tests.support_sinks import LoggedDisk

FEW, MANY, COMMITS = 100, 50_000, 8


class CountedDisk(LoggedDisk):
    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def write(self, file: BinaryIO, data: bytes) -> None:
        super().write(file, data)
        self.bytes += len(data)


class CountedStore:
    """Passes calls on to a store and counts them, and the bytes that are put."""

    def __init__(self, store: Any, seen: Counter[str]) -> None:
        self._store, self._seen = store, seen

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._seen[name] += 1
            if name == "put":
                self._seen["bytes"] += len(args[1])
            return getattr(self._store, name)(*args, **options)

        return call


def in_a_folder(place: Path, count: int) -> Counter[str]:
    disk = CountedDisk()
    prepared(JsonlSink(place), count)
    with_commits(JsonlSink(place, disk=disk), count, disk.calls.clear)
    seen = Counter(call.split()[0] for call in disk.calls)
    return seen + Counter(bytes=disk.bytes)


def in_a_store(place: Path, count: int) -> Counter[str]:
    store, seen = MemoryStore(), Counter[str]()
    prepared(ObjectSink("gs://bucket", JsonLines(), store=store), count)
    sink = ObjectSink("gs://bucket", JsonLines(), store=store)

    def begin() -> None:
        sink._manifest._store = CountedStore(store, seen)

    with_commits(sink, count, begin)
    return seen


def in_a_table(place: Path, count: int) -> Counter[str]:
    prepared(DuckDbSink(place), count)
    sink, seen = DuckDbSink(place), Counter[str]()

    def begin() -> None:
        for name in ("run", "rows", "load"):
            counted(sink._db, name, seen)

    with_commits(sink, count, begin)
    return seen


def counted(database: Any, name: str, seen: Counter[str]) -> None:
    """Count the calls of a method, and the bytes that it is given."""
    method = getattr(database, name)

    def call(first: str, *more: Any, **options: Any) -> Any:
        seen[name] += 1
        seen["bytes"] += len(first) + sum(getattr(each, "nbytes", 0) or len(str(each)) for each in more)
        return method(first, *more, **options)

    setattr(database, name, call)


def with_commits(sink: Sink[Any], count: int, begin: Callable[[], object]) -> None:
    log = CommitLog(sink, QUERY, sink.open())
    begin()
    for number in range(COMMITS):
        commit(log, sink, window(40_000 + MANY + number))
    log.withdraw()
    sink.close()


@pytest.mark.parametrize("cost", [in_a_folder, in_a_store, in_a_table])
def test_a_commit_costs_the_same_however_many_windows_are_there(
    tmp_path: Path, cost: Callable[[Path, int], Counter[str]]
) -> None:
    few, many = cost(tmp_path / "few", FEW), cost(tmp_path / "many", MANY)
    assert few == many
    assert few["bytes"] < 5_000 * COMMITS


def test_fifty_thousand_windows_are_opened_at_once_in_little_memory(tmp_path: Path) -> None:
    """Half a second on a machine of its own; here others may be running."""
    prepared(JsonlSink(tmp_path), MANY)
    taken = []
    for _ in range(3):
        sink = JsonlSink(tmp_path)
        began = time.process_time()
        CommitLog(sink, QUERY, sink.open())
        taken.append(time.process_time() - began)
        sink.close()
    assert min(taken) < 1.0
    tracemalloc.start()
    sink = JsonlSink(tmp_path)
    CommitLog(sink, QUERY, sink.open())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sink.close()
    assert peak < 100e6


def test_a_resumed_range_looks_at_its_own_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(JsonlSink(tmp_path), 1_000)
    looked: list[str] = []
    sink = JsonlSink(tmp_path)
    log = CommitLog(sink, QUERY, sink.open())
    size = sink.size

    def looking(name: str) -> int | None:
        looked.append(name)
        return size(name)

    monkeypatch.setattr(sink, "size", looking)
    log.resume(window(500).start, window(502).end, window(0).start)
    assert set(looked) == {sink.name(window(number)) for number in (500, 501, 502)}
    sink.close()


def test_doubled_ids_are_found_in_bounded_memory() -> None:
    """Most of 400,000 ids, 3.2 MB of hashes, are in the temporary file."""
    tracemalloc.start()
    with Duplicates(in_memory=20_000) as seen:
        for number in range(400_000):
            seen.add(f"{number:08}")
        seen.add("00000007")
        seen.add("00015000")
        assert seen.find() == {hash("00000007"), hash("00015000")}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5e6
