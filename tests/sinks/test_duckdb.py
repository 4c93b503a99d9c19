"""The DuckDB file: what it refuses, and that a window is there as a whole or not at all, whenever the process dies."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import import_module
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import duckdb
import pytest

from segment_fetch import DestinationBusyError, DestinationError, InputError, ManifestError, MissingExtraError
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from tests.support_sinks import QUERY, hours
from tests.support_tables import ONE, TWO, commit, keys, put, rows, to_read

BOTH = hours(0, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "segments.duckdb"


def execute(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as db:
        for statement in statements:
            db.execute(statement)


def kinds(path: Path) -> list[str]:
    return [finding.kind for finding in audit(DuckDbSink(path)).findings]


def test_the_table_can_be_queried_at_once(path: Path) -> None:
    commit(DuckDbSink(path), ONE, rows(ONE, "a", "b"))
    with duckdb.connect(str(path), read_only=True) as db:
        assert db.execute(
            "SELECT segment_id, epoch_ms(end_time), agent_id FROM agent_segments ORDER BY 1"
        ).fetchall() == [
            ("a", ONE.start, 0),
            ("b", ONE.start + 1, 1),
        ]
        found = db.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'agent_segments'")
        assert dict(found.fetchall()) == {
            "segment_id": "VARCHAR",
            "start_time": "TIMESTAMP WITH TIME ZONE",
            "end_time": "TIMESTAMP WITH TIME ZONE",
            "conversation_id": "VARCHAR",
            "agent_id": "BIGINT",
            "employee_id": "VARCHAR",
            "skill_id": "BIGINT",
            "group_id": "BIGINT",
            "end_reason": "VARCHAR",
            "total_handle_time_millis": "BIGINT",
            "extras": "JSON",
        }


def test_names_of_tables_have_letters_of_any_language(path: Path) -> None:
    sink = DuckDbSink(path, "Año_1")
    commit(sink, ONE, rows(ONE, "a"))
    assert keys(sink) == ["a"]
    assert sink.table_name == '"Año_1"'
    commit(DuckDbSink(path), ONE, rows(ONE, "b"))
    assert keys(sink) == ["a"]


DIES = """
import os, sys
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from tests.support_sinks import QUERY
from tests.support_tables import ONE, put, rows

sink, end = DuckDbSink(sys.argv[1]), sys.argv[2]
log = CommitLog(sink, QUERY, sink.open())
run = sink._db.run

def run_or_die(sql, *values):
    if sql.startswith(end):
        os._exit(9)
    run(sql, *values)

sink._db.run = run_or_die
sink.held = 1
put(log, sink, ONE, rows(ONE, "b", "c"))
"""


@pytest.mark.parametrize(
    ("end", "left"),
    [
        ("BEGIN", ["a", "b"]),
        ('INSERT INTO "agent_segments"', ["a", "b"]),
        ("COMMIT", ["a", "b"]),
        ("DROP", ["b", "c"]),
    ],
)
def test_a_window_is_complete_or_absent_whenever_the_process_dies(path: Path, end: str, left: list[str]) -> None:
    commit(DuckDbSink(path), ONE, rows(ONE, "a", "b"), "provisional")
    done = subprocess.run([sys.executable, "-c", DIES, str(path), end], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (9, "")
    assert keys(DuckDbSink(path)) == left
    assert audit(DuckDbSink(path)).sound
    commit(DuckDbSink(path), ONE, rows(ONE, "b", "c"))
    assert keys(DuckDbSink(path)) == ["b", "c"]


def test_a_segment_that_moved_is_in_the_window_that_was_read_last(path: Path) -> None:
    sink = DuckDbSink(path)
    commit(sink, ONE, rows(ONE, "moved", "stays"))
    commit(sink, TWO, rows(TWO, "moved"))
    assert keys(sink) == ["stays", "moved"]
    assert kinds(path) == ["wrong row count"]
    assert to_read(sink, BOTH) == [ONE]
    commit(sink, ONE, rows(ONE, "stays"))
    assert keys(sink) == ["stays", "moved"]
    assert kinds(path) == []


def test_rows_that_somebody_deleted_are_read_again(path: Path) -> None:
    sink = DuckDbSink(path)
    for window, name in ((ONE, "a"), (TWO, "b")):
        commit(sink, window, rows(window, name))
    execute(path, "DELETE FROM agent_segments WHERE segment_id = 'b'")
    assert to_read(sink, BOTH) == [TWO]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ("UPDATE agent_segments SET employee_id = 'x'", "changed"),
        ("UPDATE agent_segments SET employee_id = ''", "changed"),
        ("UPDATE agent_segments SET agent_id = NULL", "changed"),
        ("UPDATE agent_segments SET extras = '{}'", "changed"),
        ("UPDATE agent_segments SET start_time = end_time - INTERVAL 1 MICROSECOND", "changed"),
        ("DELETE FROM agent_segments WHERE agent_id = 1", "wrong row count"),
        ("INSERT INTO agent_segments (segment_id, end_time) VALUES ('x', '2020-01-01')", "extra rows"),
        ("UPDATE agent_segments_manifest SET manifest = '{}'", "bad manifest"),
        ("UPDATE agent_segments_windows SET entry = replace(entry, '\"segments-', '\"other-')", "bad manifest"),
        ("UPDATE agent_segments_windows SET entry = '{}'", "bad manifest"),
    ],
)
def test_verify_finds_what_was_changed(path: Path, change: str, kind: str) -> None:
    commit(DuckDbSink(path), ONE, rows(ONE, "a", "b"))
    assert kinds(path) == []
    execute(path, change)
    assert kinds(path) == [kind]


def test_verify_of_nothing(path: Path) -> None:
    with pytest.raises(DestinationError, match="there is no such file"):
        audit(DuckDbSink(path))
    assert not path.exists()
    execute(path, "CREATE TABLE other (n INTEGER)")
    assert kinds(path) == ["no manifest"]


def test_verify_while_a_run_of_this_process_writes(path: Path) -> None:
    sink = DuckDbSink(path)
    log = CommitLog(sink, QUERY, sink.open())
    put(log, sink, ONE, rows(ONE, "a"))
    assert audit(DuckDbSink(path)).sound
    sink.close()


def test_a_damaged_manifest(path: Path) -> None:
    commit(DuckDbSink(path), ONE, rows(ONE, "a"))
    execute(path, "UPDATE agent_segments_manifest SET manifest = 'nonsense'")
    with pytest.raises(ManifestError, match="the manifest is damaged"):
        DuckDbSink(path).open()


def test_rows_without_a_manifest_are_left_alone(path: Path) -> None:
    commit(DuckDbSink(path), ONE, rows(ONE, "a"))
    execute(path, "DELETE FROM agent_segments_manifest")
    with pytest.raises(DestinationError, match="agent_segments has rows, but agent_segments_manifest has no manifest"):
        DuckDbSink(path).open()


def test_a_table_with_other_columns(path: Path) -> None:
    execute(
        path,
        "CREATE TABLE agent_segments (segment_id INTEGER, end_time TIMESTAMP WITH TIME ZONE, note VARCHAR NOT NULL)",
    )
    with pytest.raises(DestinationError) as raised:
        DuckDbSink(path).open()
    for told in (
        "table agent_segments does not match",
        "segment_id is INTEGER but must be VARCHAR",
        "agent_id BIGINT is missing",
        "note VARCHAR is unknown and has no default",
        "the primary key is missing but must be segment_id",
        "use another table",
    ):
        assert told in raised.value.message
    assert "end_time" not in raised.value.message


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none/x.duckdb", "there is no folder"),
        ("file/x.duckdb", "Not a directory"),
        ("folder", "cannot be opened"),
        ("text", "not a valid DuckDB database file"),
    ],
)
def test_places_that_cannot_be_one(tmp_path: Path, name: str, reason: str) -> None:
    for file in ("file", "text"):
        (tmp_path / file).write_text("something else")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DestinationError, match=reason):
        DuckDbSink(tmp_path / name).open()


@pytest.mark.parametrize("path", ["", " ", ":memory:"])
def test_a_path_is_needed(path: str) -> None:
    with pytest.raises(InputError, match="needs the path of a file"):
        DuckDbSink(path)


@pytest.mark.parametrize("name", ["", " ", "a;drop", 'a"b', "main.a", "a-b", "a b", "a\0", "a\n"])
def test_what_is_no_name_of_a_table(path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a table name: use letters, digits and underscores"):
        DuckDbSink(path, name)
    assert not path.exists()


LOOKS = """
import sys
from segment_fetch import DestinationError
from segment_fetch.sinks.tables.duckdb import DuckDbSink

for act in (DuckDbSink(sys.argv[1]).open, DuckDbSink(sys.argv[1]).look):
    try:
        act()
    except DestinationError as error:
        print(error.message)
"""


def asked_of_the_network(script: str, path: Path) -> tuple[str, list[bytes]]:
    """Return the output of a process without extensions, and its requests to the proxy, its only network."""
    asked: list[bytes] = []

    class Refusing(StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with ThreadingTCPServer(("127.0.0.1", 0), Refusing) as proxy:
        thread = Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        env = {**os.environ, "HOME": str(path.parent), **dict.fromkeys(names, address)}
        command = [sys.executable, "-c", script, str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
        proxy.shutdown()
        thread.join()
    return done.stdout, asked


def test_a_file_of_sqlite_downloads_nothing(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE x (a)")
    before = path.read_bytes()
    told, asked = asked_of_the_network(LOOKS, path)
    assert told == f"{path} exists and is not a valid DuckDB database file: choose another file\n" * 2
    assert asked == []
    assert path.read_bytes() == before


@pytest.mark.skipif(duckdb.__version__ < "2", reason="DuckDB 1 asks nothing of the proxy that is watched here")
def test_duckdb_left_to_itself_would_download(path: Path) -> None:
    """That the proxy sees what the test above says is not there."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE x (a)")
    plain = "import duckdb, sys; duckdb.connect(sys.argv[1])"
    assert b"sqlite_scanner" in asked_of_the_network(plain, path)[1][0]


@pytest.mark.parametrize("setting", ["autoinstall_known_extensions", "autoload_known_extensions"])
def test_extensions_are_off_for_every_connection(path: Path, setting: str) -> None:
    sink = DuckDbSink(path)
    for act in (sink.open, sink.look):
        act()
        assert sink.ask(f"SELECT current_setting('{setting}')") == [(False,)]
        sink.close()


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commit(DuckDbSink("md:here"), ONE, rows(ONE, "a"))
    assert (tmp_path / "md:here").is_file()


def test_a_file_that_this_process_has_open(path: Path) -> None:
    with duckdb.connect(str(path)):
        commit(DuckDbSink(path), ONE, rows(ONE, "a"))
        assert keys(DuckDbSink(path)) == ["a"]


HOLDS = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


def test_another_process_has_it_open(path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        for opened in (DuckDbSink(path).open, DuckDbSink(path).look):
            with pytest.raises(DestinationBusyError, match=f"is open in another process.*PID {other.pid}"):
                opened()
        other.communicate("")
    commit(DuckDbSink(path), ONE, rows(ONE, "a"))


@pytest.mark.parametrize("absent", ["duckdb", "pyarrow"])
def test_a_missing_extra_is_named(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "segment_fetch.sinks.tables.duckdb")
    with pytest.raises(MissingExtraError, match=r"pip install 'segment-fetch\[duckdb\]'"):
        import_module("segment_fetch.sinks.tables.duckdb")


def test_a_sink_that_is_not_open(path: Path) -> None:
    with pytest.raises(DestinationError, match="is not open"):
        DuckDbSink(path).ask("SELECT 1")
