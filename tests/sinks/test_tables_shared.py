"""Tables that are not ours alone: columns of the user's own, those of an older release, several accounts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import duckdb
import pyarrow as pa
import pytest

from segment_fetch import (
    DestinationBusyError,
    DestinationError,
    InputError,
    ManifestError,
    Segment,
    UnstorableValueError,
    arrow,
)
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.query import Query
from segment_fetch.sinks import DuckDbSink, PostgresSink, open_sink
from segment_fetch.sinks.tables.base import TableSink
from tests.support_postgres import Postgres
from tests.support_sinks import QUERY, hours
from tests.support_tables import ONE, TWO, commit, keys, put, rows, to_read

ACCOUNTS = [str(number) * 6 for number in range(10)]


class Database:
    """A place for tables of either kind."""

    def __init__(self, sink: Callable[..., TableSink], ask: Callable[[str], Sequence[tuple[object, ...]]]) -> None:
        self.sink = sink
        self.ask = ask
        self.table = f"table_{uuid4().hex[:8]}"

    def run(self, sql: str) -> None:
        self.ask(sql.format(table=self.table))

    def new(self, account_id: str | None = None) -> TableSink:
        return self.sink(self.table, account_id=account_id)


@pytest.fixture(params=["duckdb", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "duckdb":
        path = tmp_path / "segments.duckdb"

        def ask(sql: str) -> Sequence[tuple[object, ...]]:
            with duckdb.connect(str(path)) as db:
                return db.execute(sql).fetchall()

        return Database(lambda table, **options: DuckDbSink(path, table, **options), ask)
    server: Postgres = request.getfixturevalue("postgres_server")

    def run_or_ask(sql: str) -> Sequence[tuple[object, ...]]:
        if sql.startswith("SELECT"):
            return server.ask(sql)
        server.run(sql)
        return []

    return Database(lambda table, **options: PostgresSink(server.url(), table, **options), run_or_ask)


OWN = {
    "nullable": "note text",
    "with a default": "loaded_at timestamptz DEFAULT now()",
}


@pytest.mark.parametrize("held", [250_000, 1], ids=["in memory", "in a temporary table"])
@pytest.mark.parametrize("own", OWN.values(), ids=OWN.keys())
def test_columns_of_the_users_own_are_left_alone(database: Database, own: str, held: int) -> None:
    sink = database.new()
    sink.held = held
    commit(sink, ONE, rows(ONE, "a", "b"), "provisional")
    database.run(f"ALTER TABLE {{table}} ADD COLUMN {own}")
    name = own.split(maxsplit=1)[0]
    commit(sink, ONE, rows(ONE, "a", "c"))
    commit(sink, TWO, rows(TWO, "d"))
    assert keys(sink) == ["a", "c", "d"]
    assert audit(sink).sound
    found = database.ask(f"SELECT count({name}) FROM {database.table}")
    assert found == [(3 if "DEFAULT" in own else 0,)]


class OldColumns:
    """The release before, whose table has no `group_id`; of this one that column is version 2."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(arrow, "SINCE", MappingProxyType({"group_id": 2}))
        self._names = [name for name in arrow.schema().names if name != "group_id"]

    def on(self, sink: TableSink) -> TableSink:
        encode, names = sink.encode, self._names
        sink.schema = pa.schema([arrow.schema().field(name) for name in names])
        sink.encode = lambda segments: encode(segments).select(names)  # type: ignore[method-assign]
        return sink


def test_column_that_came_since_is_added(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(OldColumns(monkeypatch).on(database.new()), ONE, rows(ONE, "a"))
    monkeypatch.setattr(arrow, "SCHEMA_VERSION", 2)
    assert audit(database.new()).sound, "read before it was migrated"
    commit(database.new(), TWO, [Segment(segmentId="b", endTimeL=TWO.start, groupId=7)])
    assert audit(database.new()).sound, "what was there keeps its checksum"
    assert database.ask(f"SELECT segment_id, group_id FROM {database.table} ORDER BY 1") == [("a", None), ("b", 7)]


def test_newer_release_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(arrow, "SCHEMA_VERSION", 2)
        commit(database.new(), ONE, rows(ONE, "a"))
    with pytest.raises(ManifestError, match="schema_version was '2' and is now '1'"):
        commit(database.new(), TWO, rows(TWO, "b"))


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (Segment(segmentId="b", endTimeL=2**62), "endTimeL"),
        (Segment(segmentId="b", endTimeL=ONE.start, startTimeL=-(2**62)), "startTimeL"),
        (Segment(segmentId="b", endTimeL=ONE.start, agentId=2**63), "agentId"),
    ],
)
def test_value_without_a_place_names_segment_and_field(database: Database, row: Segment, field: str) -> None:
    sink = database.new()
    with pytest.raises(UnstorableValueError, match=f"segment 'b': {field} ") as caught:
        sink.encode([Segment(segmentId="a", endTimeL=ONE.start), row])
    assert (caught.value.segment_id, caught.value.field) == ("b", field)
    commit(sink, TWO, rows(TWO, "fine"))
    assert keys(sink) == ["fine"]


def test_times_at_the_bounds_of_the_database_are_stored(database: Database) -> None:
    sink = database.new()
    bounds = [
        Segment(segmentId=str(number), endTimeL=ONE.start + number, startTimeL=time)
        for number, time in enumerate((sink.earliest, sink.latest))
    ]
    commit(sink, ONE, bounds)
    assert audit(sink).sound
    for beyond in (sink.earliest - 1, sink.latest + 1):
        with pytest.raises(UnstorableValueError):
            sink.encode([Segment(segmentId="b", endTimeL=ONE.start, startTimeL=beyond)])


def run_of(database: Database, account: str) -> None:
    """Two nights of an account: the same ids and windows as the others have."""
    sink = database.new(account)
    for names in (("a", "gone"), ("a", "b", account)):
        log = CommitLog(sink, Query(account, "tests"), sink.open())
        try:
            for window in (ONE, TWO):
                put(log, sink, window, rows(window, *(f"{name} {window.start}" for name in names)), "provisional")
        finally:
            sink.close()


def test_ten_accounts_write_to_one_table_at_once(database: Database) -> None:
    with ThreadPoolExecutor(len(ACCOUNTS)) as pool:
        for done in [pool.submit(run_of, database, account) for account in ACCOUNTS]:
            done.result()
    found = database.ask(f"SELECT account_id, count(*) FROM {database.table} GROUP BY 1 ORDER BY 1")
    assert found == [(account, 6) for account in ACCOUNTS]
    for account in ACCOUNTS:
        assert audit(database.new(account)).sound


def test_account_touches_its_own_rows_alone(database: Database) -> None:
    for account in ("1", "2"):
        run_of(database, account)
    database.run("DELETE FROM {table} WHERE account_id = '1' AND segment_id LIKE 'b %'")
    assert [finding.kind for finding in audit(database.new("1")).findings] == ["wrong row count"] * 2
    assert audit(database.new("2")).sound
    log = CommitLog(sink := database.new("2"), Query("2", "tests"), sink.open())
    put(log, sink, ONE, [])
    sink.close()
    assert database.ask(f"SELECT account_id, count(*) FROM {database.table} GROUP BY 1 ORDER BY 1") == [
        ("1", 4),
        ("2", 3),
    ]


def test_second_run_of_one_account_is_refused(database: Database) -> None:
    first, other = database.new("1"), database.new("2")
    first.open()
    with pytest.raises(DestinationBusyError, match="another run is writing"):
        database.new("1").open()
    other.open()
    other.close()
    first.close()


def test_account_that_is_not_the_clients(database: Database) -> None:
    with closing(sink := database.new("222222")) as opened:
        stored = opened.open()
        with pytest.raises(InputError, match="the destination belongs to account 222222, not to 111111"):
            CommitLog(sink, QUERY, stored)


def test_table_without_the_column_stays_without(database: Database) -> None:
    commit(database.new(), ONE, rows(ONE, "a"))
    with pytest.raises(DestinationError, match=r"account_id .* is missing.*the primary key is segment_id"):
        database.new(QUERY.account).open()
    assert to_read(database.new(), hours(0, 2)) == [TWO]


def test_url_names_the_account() -> None:
    for url in ("duckdb:///x.duckdb?table=t&account_id=7", "postgresql://h/d?account_id=7&table=t"):
        sink = open_sink(url)
        assert isinstance(sink, TableSink)
        assert (sink.account_id, sink.table_name, sink.settings()["account_id"]) == ("7", "t", "7")
    assert open_sink("duckdb:///x.duckdb", account_id="8").settings()["account_id"] == "8"
    with pytest.raises(InputError, match="account_id"):
        open_sink("duckdb:///x.duckdb?account_id=a'b")
    with pytest.raises(InputError, match="more than 63 bytes"):
        open_sink(f"duckdb:///x.duckdb?table={'t' * 50}&account_id=1234")
