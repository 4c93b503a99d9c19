"""A table in PostgreSQL, beside one binary COPY from Arrow into a table of the same columns, primary key and index.

The server is started for it, with its usual settings, and gets the first core.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from adbc_driver_postgresql import dbapi

from benchmarks import measure
from benchmarks.sink_tables import table
from benchmarks.sinks import Contest, Pages
from segment_fetch.sinks.tables.postgres import PostgresSink
from tests.support_postgres import postgres

_COLUMNS = """
segment_id text COLLATE "C" NOT NULL, start_time timestamptz, end_time timestamptz NOT NULL, conversation_id text,
agent_id bigint, employee_id text, skill_id bigint, group_id bigint, end_reason text, total_handle_time_millis bigint,
extras json, PRIMARY KEY (segment_id)
"""


def plain(url: str, name: str, rows: Pages) -> None:
    """One table, one COPY."""
    with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} ({_COLUMNS})")
        cursor.execute(f"CREATE INDEX {name}_end_time ON {name} (end_time)")
        cursor.adbc_ingest(name, table(rows), mode="append")


@contextmanager
def contest() -> Iterator[Contest]:
    """A server, and a table for each round."""
    measure.pin(0)
    with TemporaryDirectory() as folder, postgres(Path(folder) / "data", settings="") as server:
        measure.pin(-1)
        url = server.url()
        yield Contest(lambda at: PostgresSink(url, at.name), lambda at, rows: plain(url, at.name, rows))
