"""The common part of the contests of databases: the rows as one Arrow table, the shortest way."""

from itertools import chain
from operator import attrgetter
from typing import Any

import pyarrow as pa
from msgspec import UNSET

from benchmarks.sinks import Pages
from segment_fetch.arrow import COLUMNS, schema
from segment_fetch.wire.models import Segment


def table(rows: Pages) -> pa.Table:
    """A list for each column; nothing is checked."""
    segments = list(chain.from_iterable(rows))
    columns = {column: _values(segments, name) for name, column in COLUMNS.items()}
    return pa.table({**columns, "extras": pa.nulls(len(segments), pa.string())}, schema())


def _values(segments: list[Segment], name: str) -> list[Any]:
    """`employeeId` alone is absent in this data."""
    values = list(map(attrgetter(name), segments))
    return [None if value is UNSET else value for value in values] if name == "employeeId" else values
