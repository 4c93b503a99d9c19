"""Parquet in a folder, beside the shortest way from segments to a Parquet file with pyarrow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import UNSET

from benchmarks.sinks import Contest, Pages
from segment_fetch.arrow import COLUMNS, schema
from segment_fetch.sinks import ParquetSink
from segment_fetch.sinks.files.parquet import ROW_GROUP
from segment_fetch.wire.models import Segment

_FEW_VALUES = ["agent_id", "employee_id", "skill_id", "group_id", "end_reason"]
"""As the sink has it: pyarrow's own choice, a dictionary for each column, takes four times as long."""


def plain(folder: Path, rows: Pages) -> None:
    """A table, a list for each of its columns, and one call that writes it; nothing is checked."""
    segments = list(chain.from_iterable(rows))
    columns = {column: _values(segments, name) for name, column in COLUMNS.items()}
    table = pa.table({**columns, "extras": pa.nulls(len(segments), pa.string())}, schema())
    with (folder / "segments.parquet").open("wb") as file:
        pq.write_table(table, file, ROW_GROUP, compression="zstd", compression_level=1, use_dictionary=_FEW_VALUES)
        file.flush()
        os.fsync(file.fileno())


def _values(segments: list[Segment], name: str) -> list[Any]:
    """`employeeId` alone is absent in this data."""
    values = list(map(attrgetter(name), segments))
    return [None if value is UNSET else value for value in values] if name == "employeeId" else values


@contextmanager
def contest() -> Iterator[Contest]:
    """Needs nothing."""
    yield Contest(ParquetSink, plain)
