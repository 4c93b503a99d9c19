"""The DuckDB file."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from segment_fetch import Segment, Window
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import Sink
from segment_fetch.sinks.tables.drafts import TableDraft
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from segment_fetch.testing import Medium, Record, SinkConformance, as_columns

ROWS = """SELECT * REPLACE (epoch_ms(start_time) AS start_time, epoch_ms(end_time) AS end_time) FROM agent_segments
          WHERE epoch_ms(end_time) >= $1 AND epoch_ms(end_time) < $2 ORDER BY end_time, segment_id"""


class DuckDbFile(Medium):
    refuses = frozenset({"numbers beyond 64 bits"})

    def __init__(self, path: Path) -> None:
        self._path = path

    def sink(self) -> Sink[Any]:
        sink = DuckDbSink(self._path)
        sink.held = 500  # so that windows of many pages go both ways
        return sink

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [record for entry in entries for record in self._records(entry)]

    def _records(self, entry: WindowEntry) -> Iterator[Record]:
        with duckdb.connect(str(self._path)) as db:
            rows = db.execute(ROWS, [entry.window.start, entry.window.end])
            names = [column[0] for column in rows.description]
            for row in rows.fetchall():
                record = dict(zip(names, row, strict=True))
                yield record | {"extras": json.loads(record["extras"]) if record["extras"] else None}

    def record(self, segment: Segment) -> Record:
        return as_columns(segment)

    def broken(self) -> Sink[Any]:
        return FullDisk(self._path)

    def harm(self, entry: WindowEntry) -> None:
        with duckdb.connect(str(self._path)) as db:
            db.execute(
                "UPDATE agent_segments SET employee_id = upper(employee_id) || '?' WHERE epoch_ms(end_time) < $1",
                [entry.window.end],
            )

    def litter(self) -> list[str]:
        with duckdb.connect(str(self._path)) as db:
            return [
                name
                for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()
                if not name.startswith("agent_segments")
            ]


class FullDisk(DuckDbSink):
    """A file that can grow no more from the moment at which a window begins."""

    def begin(self, window: Window) -> TableDraft:
        limit_files(4096)
        return super().begin(window)

    def close(self) -> None:
        try:
            super().close()
        finally:
            limit_files(None)


def limit_files(size: int | None) -> None:
    """Limit the size of this process's files, as a quota does."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


class TestDuckDb(SinkConformance):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> Medium:
        return DuckDbFile(tmp_path / "out.duckdb")
