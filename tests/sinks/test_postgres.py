"""A table in PostgreSQL, on a real server: addresses, refusals, secrets, and connections that end at any moment."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest

from segment_fetch import (
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    InputError,
    MissingExtraError,
    Segment,
)
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.sinks.tables.dsn import Dsn
from segment_fetch.sinks.tables.postgres import PostgresSink
from tests.support_postgres import PASSWORD, Postgres
from tests.support_sinks import QUERY, hours
from tests.support_tables import ONE, TWO, commit, keys, put, rows, to_read

BOTH = hours(0, 2)


@pytest.fixture
def table() -> str:
    return f"table_{uuid4().hex}"


@pytest.fixture
def sink(postgres_server: Postgres, table: str) -> PostgresSink:
    return PostgresSink(postgres_server.url(), table)


def kinds(sink: PostgresSink) -> list[str]:
    return [finding.kind for finding in audit(sink).findings]


def told(error: BaseException) -> str:
    """All that a traceback shows of an error, apart from the lines of source."""
    shown = traceback.TracebackException.from_exception(error)
    causes = [str(shown)] + ([str(shown.__cause__)] if shown.__cause__ else [])
    return "".join(
        [*causes, "" if shown.__suppress_context__ else str(shown.__context__), repr(error), repr(vars(error))]
    )


def test_types_and_keys(postgres_server: Postgres, sink: PostgresSink, table: str) -> None:
    commit(sink, ONE, rows(ONE, "a"))
    found = postgres_server.ask(
        f"SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
    )
    assert found == [
        ("segment_id", "text"),
        ("start_time", "timestamp with time zone"),
        ("end_time", "timestamp with time zone"),
        ("conversation_id", "text"),
        ("agent_id", "bigint"),
        ("employee_id", "text"),
        ("skill_id", "bigint"),
        ("group_id", "bigint"),
        ("end_reason", "text"),
        ("total_handle_time_millis", "bigint"),
        ("extras", "json"),
    ]
    indexes = postgres_server.ask(f"SELECT indexname::text FROM pg_indexes WHERE tablename = '{table}' ORDER BY 1")
    assert indexes == [(f"{table}_end_time",), (f"{table}_pkey",)]


def test_a_schema_of_ones_own(postgres_server: Postgres, table: str) -> None:
    sink = PostgresSink(f"{postgres_server.url()}?schema=Warehouse&table={table}")
    with pytest.raises(DestinationError, match="there is no schema Warehouse; create it first"):
        sink.open()
    postgres_server.run('CREATE SCHEMA "Warehouse"')
    commit(sink, ONE, rows(ONE, "a"))
    assert postgres_server.ask(f'SELECT segment_id FROM "Warehouse".{table}') == [("a",)]
    assert keys(PostgresSink(postgres_server.url(), table, "Warehouse")) == ["a"]


STATEMENTS = ("CREATE TEMPORARY", "BEGIN", "DELETE", "INSERT INTO", 'INSERT INTO "table_{}_manifest"', "COMMIT", "DROP")


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_window_is_complete_or_absent_whenever_the_connection_ends(
    postgres_server: Postgres, sink: PostgresSink, statement: str, table: str
) -> None:
    commit(sink, ONE, rows(ONE, "a", "b"), "provisional")
    log = CommitLog(sink, QUERY, sink.open())
    run, beginning = sink._db.run, statement.format(table.removeprefix("table_"))
    ended: list[str] = []
    [(pid,)] = sink.ask("SELECT pg_backend_pid()")
    sink.held = 1

    def run_without_connection(sql: str, *values: str | int) -> None:
        if sql.startswith(beginning) and not ended:
            ended.append(sql)
            postgres_server.ask(f"SELECT pg_terminate_backend({pid}, 5000)")
        run(sql, *values)

    sink._db.run = run_without_connection  # type: ignore[method-assign]
    if statement == "DROP":  # all has been committed by then
        put(log, sink, ONE, rows(ONE, "b", "c"))
    else:
        with pytest.raises(DestinationUnavailableError, match="run again; what is committed stays"):
            put(log, sink, ONE, rows(ONE, "b", "c"))
    sink.close()
    assert ended
    assert keys(sink) == (["b", "c"] if statement == "DROP" else ["a", "b"])
    commit(sink, ONE, rows(ONE, "b", "c"))
    assert keys(sink) == ["b", "c"]
    assert audit(sink).sound


def test_a_segment_that_moved_is_in_the_window_that_was_read_last(sink: PostgresSink) -> None:
    commit(sink, ONE, rows(ONE, "moved", "stays"))
    commit(sink, TWO, rows(TWO, "moved"))
    assert keys(sink) == ["stays", "moved"]
    assert kinds(sink) == ["wrong row count"]
    assert to_read(sink, BOTH) == [ONE]
    commit(sink, ONE, rows(ONE, "stays"))
    assert kinds(sink) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE {} SET employee_id = ''", "changed"),
        ("UPDATE {} SET start_time = '-infinity'", "changed"),
        ("UPDATE {} SET start_time = end_time - interval '1 microsecond'", "changed"),
        ("DELETE FROM {} WHERE agent_id = 1", "wrong row count"),
        ("INSERT INTO {} (segment_id, end_time) VALUES ('x', '2020-01-01')", "extra rows"),
        ("UPDATE {}_manifest SET manifest = '{{}}'", "bad manifest"),
        ("DROP TABLE {0}_manifest; TRUNCATE {0}", "no manifest"),
    ],
)
def test_verify_finds_what_was_changed(
    postgres_server: Postgres, sink: PostgresSink, table: str, change: str, kind: str
) -> None:
    commit(sink, ONE, rows(ONE, "a", "b"))
    assert kinds(sink) == []
    for statement in change.format(table).split("; "):
        postgres_server.run(statement)
    assert kinds(sink) == [kind]


def test_two_runs_at_once(postgres_server: Postgres, sink: PostgresSink, table: str) -> None:
    sink.open()
    second = PostgresSink(postgres_server.url(), table)
    with pytest.raises(DestinationBusyError, match=f"another run is writing to postgresql://.*, table {table}"):
        second.open()
    assert kinds(second) == ["no manifest"]
    other = PostgresSink(postgres_server.url(), f"{table}_too")
    other.open()
    other.close()
    sink.close()
    second.open()
    second.close()


def test_a_table_with_other_columns(postgres_server: Postgres, sink: PostgresSink, table: str) -> None:
    commit(sink, ONE, rows(ONE, "a"))
    postgres_server.run(f"ALTER TABLE {table} ALTER agent_id TYPE integer, ADD note text, DROP extras")
    postgres_server.run(f"UPDATE {table} SET note = ''")
    postgres_server.run(f"ALTER TABLE {table} ALTER note SET NOT NULL")
    with pytest.raises(DestinationError) as raised:
        sink.open()
    for difference in (
        "agent_id is integer but must be bigint",
        "extras json is missing",
        "note text is unknown and has no default",
        "use another table",
    ):
        assert difference in raised.value.message


def test_a_user_who_may_not_write(postgres_server: Postgres, sink: PostgresSink, table: str) -> None:
    commit(sink, ONE, rows(ONE, "a"))
    reader = f"reader_{uuid4().hex}"
    postgres_server.run(f"CREATE ROLE {reader} LOGIN PASSWORD '{PASSWORD}'")
    postgres_server.run(f"GRANT SELECT ON {table}, {table}_manifest, {table}_windows TO {reader}")
    reading = PostgresSink(postgres_server.url(user=reader), table)
    assert keys(reading) == ["a"]
    with pytest.raises(DestinationError, match="permission denied for table"):
        commit(reading, TWO, rows(TWO, "b"))
    with pytest.raises(DestinationError, match="permission denied for schema public"):
        PostgresSink(postgres_server.url(user=reader), f"{table}_too").open()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Segment(segmentId="a", endTimeL=ONE.start, endReason="\0"), "endReason .*"),
        (Segment(segmentId="a\0", endTimeL=ONE.start), "segmentId .*"),
        (Segment(segmentId="a", endTimeL=ONE.start, startTimeL=2**62), "startTimeL 4611686018427387904"),
    ],
)
def test_values_without_a_place(sink: PostgresSink, value: Segment, reason: str) -> None:
    with pytest.raises(DestinationError, match=f"{reason} has no place in postgresql://.*JSON Lines can hold it"):
        sink.encode([*rows(ONE, "before"), value])


@pytest.mark.parametrize("last", [(2**63 - 1) // 1000, -210_866_803_200_000])
def test_the_first_and_the_last_time(sink: PostgresSink, last: int) -> None:
    commit(sink, ONE, [Segment(segmentId="a", endTimeL=ONE.start, startTimeL=last)])
    assert audit(sink).sound


@pytest.mark.parametrize("name", ["", "a;drop", 'a"b', "public.a", "a\0"])
def test_what_is_no_name_of_a_table(name: str) -> None:
    for url, given in (("postgresql://", name), (f"postgresql://?table={name}", None)):
        with pytest.raises(InputError, match="is not a table name: use letters, digits and underscores"):
            PostgresSink(url, given)


class TestAddresses:
    def test_a_wrong_password(self, postgres_server: Postgres) -> None:
        with pytest.raises(DestinationError, match=r"password authentication failed.*PGPASSWORD") as raised:
            PostgresSink(postgres_server.url(password="wr0ng-word")).open()
        assert "wr0ng-word" not in told(raised.value)
        assert not isinstance(raised.value, DestinationUnavailableError)

    def test_a_database_that_is_not_there(self, postgres_server: Postgres) -> None:
        with pytest.raises(DestinationError, match='database "nowhere" does not exist') as raised:
            PostgresSink(postgres_server.url("nowhere")).open()
        assert PASSWORD not in told(raised.value)

    def test_a_server_that_is_away(self) -> None:
        with pytest.raises(
            DestinationUnavailableError, match=r"cannot connect to .*Connection refused.*run again"
        ) as raised:
            PostgresSink("postgresql://me:pa55word@127.0.0.1:1/wfm").open()
        assert "pa55word" not in told(raised.value)

    def test_an_address_that_quotes_itself(self) -> None:
        with pytest.raises(DestinationError) as raised:
            PostgresSink("postgresql://me:pa55%zzword@127.0.0.1/wfm").open()
        assert "pa55" not in told(raised.value)

    def test_the_password_comes_from_where_libpq_looks(
        self, postgres_server: Postgres, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bare = PostgresSink(postgres_server.url(password=None), table)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
        with pytest.raises(DestinationError, match=r"requires a password.*set PGPASSWORD, or.*~/\.pgpass") as raised:
            bare.open()
        assert not isinstance(raised.value, DestinationUnavailableError)
        file = tmp_path / "pgpass"
        file.write_text(f"127.0.0.1:*:*:postgres:{PASSWORD}\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))
        commit(bare, ONE, rows(ONE, "a"))
        monkeypatch.delenv("PGPASSFILE")
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        assert keys(bare) == ["a"]

    def test_a_service(
        self, postgres_server: Postgres, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "pg_service.conf"
        parts = (
            "host=127.0.0.1",
            f"port={postgres_server.port}",
            "user=postgres",
            f"password={PASSWORD}",
            "dbname=postgres",
        )
        file.write_text("\n".join(["[wfm]", *parts]))
        monkeypatch.setenv("PGSERVICEFILE", str(file))
        sink = PostgresSink(f"postgresql://?service=wfm&table={table}")
        commit(sink, ONE, rows(ONE, "a"))
        assert keys(sink) == ["a"]

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("postgresql://me:pa55@host:5432/db", "postgresql://me@host:5432/db"),
            ("postgres://me@host/db?table=t&schema=s", "postgresql://me@host/db"),
            ("postgresql://host/db?password=pa55&sslpassword=pa55", "postgresql://host/db"),
            ("postgresql://me:p%40%2Fa55@/db", "postgresql://me@/db"),
            ("postgresql://", "postgresql://"),
        ],
    )
    def test_what_is_shown(self, url: str, shown: str) -> None:
        dsn = Dsn(url)
        assert (str(dsn), repr(dsn)) == (shown, f"Dsn('{shown}')")
        assert "a55" not in dsn.redacted(f"{url}: {' '.join(dsn.secrets)}")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:pa55@word@host/db",
            "postgresql://me:pa55/word@host/db",
            "postgresql://me:pa55?word@host/db",
            "postgresql://me:pa55#word@host/db",
            "postgresql://me:host:pa55/db",
            "postgresql://me%3Apa55word@host/db",
            "postgresql://me%3apa55word:more@host/db",
            "postgresql://me%3Apa55word%40host/db",
            "postgresql://host/db?user=me%3Apa55word",
            "postgresql://[pa55/db",
            "postgresql:pa55",
            "host=localhost password=pa55",
        ],
    )
    def test_addresses_that_cannot_be_read(self, url: str) -> None:
        with pytest.raises(InputError) as raised:
            PostgresSink(url)
        assert "pa55" not in told(raised.value)

    def test_nothing_of_a_sink_shows_the_password(self, sink: PostgresSink) -> None:
        assert PASSWORD not in repr(sink) + str(sink) + sink.place + repr(sink.settings())
        assert PASSWORD not in repr(commit(sink, ONE, rows(ONE, "a")))


@pytest.mark.parametrize("absent", ["adbc_driver_postgresql.dbapi", "pyarrow"])
def test_a_missing_extra_is_named(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "segment_fetch.sinks.tables.postgres")
    with pytest.raises(MissingExtraError, match=r"pip install 'segment-fetch\[postgres\]'"):
        import_module("segment_fetch.sinks.tables.postgres")
