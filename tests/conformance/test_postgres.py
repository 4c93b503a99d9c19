"""A table in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from segment_fetch import Segment
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import Sink
from segment_fetch.sinks.tables.database import Database
from segment_fetch.sinks.tables.postgres import PostgresSink
from segment_fetch.testing import Medium, Record, SinkConformance, as_columns
from tests.support_postgres import Postgres

ROWS = """
SELECT segment_id, (extract(epoch FROM start_time) * 1000)::bigint AS start_time,
       (extract(epoch FROM end_time) * 1000)::bigint AS end_time, conversation_id, agent_id, employee_id, skill_id,
       group_id, end_reason, total_handle_time_millis, extras::text
FROM {table} WHERE end_time >= '{start}' AND end_time < '{end}' ORDER BY end_time, segment_id COLLATE "C"
"""


class PostgresTable(Medium):
    refuses = frozenset({"numbers beyond 64 bits", "zero characters"})

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._table = f"table_{uuid4().hex}"

    def sink(self) -> Sink[Any]:
        sink = PostgresSink(self._server.url(), self._table)
        sink.held = 500  # so that windows of many pages go both ways
        return sink

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [record for entry in entries for record in self._records(entry)]

    def _records(self, entry: WindowEntry) -> Iterator[Record]:
        for row in self._server.ask(ROWS.format(table=self._table, start=entry.from_, end=entry.to)):
            record = dict(zip(as_columns(Segment(segmentId="", endTimeL=0)), row, strict=True))
            yield record | {"extras": json.loads(record["extras"]) if record["extras"] else None}

    def record(self, segment: Segment) -> Record:
        return as_columns(segment)

    def broken(self) -> Sink[Any]:
        return Killed(self._server, self._table)

    def harm(self, entry: WindowEntry) -> None:
        self._server.run(f"UPDATE {self._table} SET employee_id = upper(employee_id) WHERE end_time < '{entry.to}'")

    def litter(self) -> list[str]:
        mine = "(SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg_temp_%')"
        return [
            name for (name,) in self._server.ask(f"SELECT relname::text FROM pg_class WHERE relnamespace IN {mine}")
        ]


class Killed(PostgresSink):
    """A connection that the server ends as soon as rows come."""

    def __init__(self, server: Postgres, table: str) -> None:
        super().__init__(server.url(), table)
        self._server = server

    def connect(self, table: str, *, reading: bool) -> Database:
        database = super().connect(table, reading=reading)
        [(pid,)] = database.rows("SELECT pg_backend_pid()")
        load = database.load

        def kill_and_load(table: str, rows: pa.Table, *, temporary: bool) -> None:
            self._server.ask(f"SELECT pg_terminate_backend({pid}, 5000)")
            load(table, rows, temporary=temporary)

        database.load = kill_and_load  # type: ignore[method-assign]
        return database


class TestPostgres(SinkConformance):
    @pytest.fixture
    def medium(self, postgres_server: Postgres) -> Medium:
        return PostgresTable(postgres_server)
