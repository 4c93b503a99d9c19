"""Destinations and state files that version 0.1 wrote are read, gone on with and upgraded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit, manifest_of
from segment_fetch.sinks import CsvSink, DuckDbSink, FolderSink, JsonlSink, ParquetSink
from segment_fetch.throttle.pace_store import PaceStore
from tests.support_sinks import QUERY, hours, window_read
from tests.support_tables import commit, rows

SAMPLES = Path(__file__).parent.parent / "data" / "version_0_1"
SINKS: dict[str, Callable[[Path], FolderSink[Any]]] = {
    "jsonl": JsonlSink,
    "csv-by-day": lambda folder: CsvSink(folder, "gzip", partition="day"),
    "parquet": ParquetSink,
}


@pytest.mark.parametrize("name", SINKS)
def test_a_destination_is_gone_on_with_and_upgraded_by_the_first_commit(tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(SAMPLES / name, tmp_path / name)
    before = (folder / "manifest.json").read_bytes()
    found = audit(folder)
    assert [finding.kind for finding in found.findings] == ["unproven"]
    assert (found.windows, found.provisional, found.segments) == (3, 1, 9)

    sink = SINKS[name](folder)
    log = CommitLog(sink, QUERY, sink.open())
    assert log.resume(hours(0, 4).start, hours(0, 4).end, hours(0, 4).start) == ([hours(2, 4)], 2)
    assert (folder / "manifest.json").read_bytes() == before, "nothing is committed yet"
    log.commit(window_read(hours(2, 3), [sink.encode([])], segments=0))
    assert json.loads((folder / "manifest.json").read_bytes())["format_version"] == 2
    log.commit(window_read(hours(3, 4), [sink.encode([])], segments=0))
    log.close()
    sink.close()
    assert audit(folder).sound
    assert audit(folder).complete_before == "2026-11-01T04:00:00Z"


def test_a_table_with_its_manifest_in_one_row_is_gone_on_with(tmp_path: Path) -> None:
    path, window = tmp_path / "segments.duckdb", hours(0, 1)
    commit(DuckDbSink(path), window, rows(window, "a"))
    manifest = json.loads(msgspec.json.encode(manifest_of(DuckDbSink(path))))
    older = {name: manifest[name] for name in ("query", "windows")} | {"format_version": 1}
    with duckdb.connect(path) as connection:
        connection.execute("DROP TABLE agent_segments_windows")
        connection.execute("UPDATE agent_segments_manifest SET manifest = $1", [json.dumps(older)])
    assert audit(DuckDbSink(path)).sound
    commit(DuckDbSink(path), hours(1, 2), rows(hours(1, 2), "b"))
    assert [entry.window for entry in manifest_of(DuckDbSink(path)).windows] == [window, hours(1, 2)]
    assert audit(DuckDbSink(path)).sound
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM agent_segments_windows").fetchone() == (2,)


def test_the_state_of_the_pacer_is_read() -> None:
    learned = PaceStore(SAMPLES / "pace").load("111111", "https://example.test", 1_794_000_000.0)
    assert learned is not None
    assert (learned.rate, learned.cap) == (12.5, 8)
