"""A DuckDB file, beside one INSERT from Arrow into a table of the same columns and primary key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from benchmarks.sink_tables import table
from benchmarks.sinks import Contest, Pages
from segment_fetch.sinks.tables.duckdb import DuckDbSink

_COLUMNS = """
segment_id VARCHAR NOT NULL, start_time TIMESTAMPTZ, end_time TIMESTAMPTZ NOT NULL, conversation_id VARCHAR,
agent_id BIGINT, employee_id VARCHAR, skill_id BIGINT, group_id BIGINT, end_reason VARCHAR,
total_handle_time_millis BIGINT, extras JSON, PRIMARY KEY (segment_id)
"""


def plain(folder: Path, rows: Pages) -> None:
    """One file, one table, one statement."""
    with duckdb.connect(str(folder / "segments.duckdb")) as db:
        db.execute(f"CREATE TABLE agent_segments ({_COLUMNS})")
        db.register("rows", table(rows))
        db.execute("INSERT INTO agent_segments SELECT * FROM rows")


@contextmanager
def contest() -> Iterator[Contest]:
    """Needs nothing."""
    yield Contest(lambda folder: DuckDbSink(folder.with_suffix(".duckdb")), plain)
