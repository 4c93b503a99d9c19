"""Parquet folders: in one folder, and in one a day."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment_fetch import Segment
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import Sink
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.parquet import ParquetSink
from segment_fetch.testing import Medium, Record, SinkConformance, as_columns
from tests.conformance.test_folders import Folder
from tests.support_runs import manifest


def rows_of(file: Any) -> list[Record]:
    """Return the rows that pyarrow reads, times as epoch milliseconds and extras decoded."""
    table = pq.ParquetFile(file).read()
    for name in ("start_time", "end_time"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table.column(name).cast(pa.int64()))
    return [row | {"extras": row["extras"] and json.loads(row["extras"])} for row in table.to_pylist()]


class ParquetFolder(Folder):
    refuses = frozenset({"numbers beyond 64 bits"})
    partition = "none"

    def on(self, disk: Disk) -> Sink[Any]:
        return ParquetSink(self.folder, self.compress, partition=self.partition, disk=disk)

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [row for entry in entries for row in rows_of(self.folder / str(entry.file))]

    def record(self, segment: Segment) -> Record:
        return as_columns(segment)


class Days(ParquetFolder):
    partition = "day"

    def litter(self) -> list[str]:
        named = {entry.get("file") for entry in manifest(self.folder)["windows"]} | {".lock", "_manifest.json"}
        found = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        return sorted(found - named)


@pytest.mark.parametrize("compress", ["zstd", "none"])
class TestParquet(SinkConformance):
    @pytest.fixture(params=[ParquetFolder, Days])
    def medium(self, request: pytest.FixtureRequest, tmp_path: Path, compress: str) -> Medium:
        made: Medium = request.param(tmp_path / "out", compress)
        return made
