"""Databases through the command line: extract, sync, verify, demo; what is refused; and that no password is shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import duckdb
import orjson
import pytest

from segment_fetch.simulator import Simulator
from tests.cli.conftest import Run
from tests.cli.support import AT_ONCE, Result, environ, process, spanning
from tests.support_postgres import PASSWORD, Postgres


class Place(NamedTuple):
    """A destination, and the ids of what is in it, in order."""

    out: str
    ids: str
    server: Postgres | None

    def stored(self) -> list[str]:
        if self.server is not None:
            return [name for (name,) in self.server.ask(self.ids)]
        with duckdb.connect(self.ids) as db:
            query = "SELECT segment_id FROM agent_segments ORDER BY end_time, segment_id"
            return [name for (name,) in db.execute(query).fetchall()]


@pytest.fixture(params=["duckdb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "duckdb":
        monkeypatch.chdir(tmp_path)
        yield Place("duckdb:///out.duckdb", str(tmp_path / "out.duckdb"), None)
        return
    server: Postgres = request.getfixturevalue("postgres_server")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    table = f"table_{uuid4().hex}"
    query = f'SELECT segment_id FROM {table} ORDER BY end_time, segment_id COLLATE "C"'
    yield Place(f"{server.url(password=None)}?table={table}", query, server)


def extract(run: Run, api: Simulator, out: str, *more: str) -> Result:
    return run("extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", out, *AT_ONCE, *more)


def test_extract_goes_on_and_verify_agrees(run: Run, api: Simulator, place: Place) -> None:
    half = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((api.dataset.start + api.dataset.end) // 2000))
    assert extract(run, api, place.out, "--to", half).code == 0
    result = extract(run, api, place.out)
    assert "windows 1 read; 1 more were already complete" in result.words
    assert place.stored() == list(api.dataset.ids())
    assert "Nothing to do" in extract(run, api, place.out).out
    result = run("verify", "--out", place.out)
    assert (result.code, "is sound: 2 windows, 3,000 segments" in result.words) == (0, True)


def test_verify_against_the_api(run: Run, api: Simulator, place: Place) -> None:
    assert extract(run, api, place.out).code == 0
    result = run("verify", "--out", place.out, "--against-api", "--base-url", api.base_url, *AT_ONCE)
    assert "1 window compared with the API" in result.words


def test_sync_goes_on_from_where_it_ended(run: Run, api: Simulator, place: Place) -> None:
    first = run("sync", "--from", "now-7d", "--out", place.out, "--base-url", api.base_url, *AT_ONCE)
    assert first.code == 0
    assert place.stored() == list(api.dataset.ids())
    again = run("sync", "--out", place.out, "--base-url", api.base_url, *AT_ONCE, "--json")
    assert again.json["exit_code"] == 0
    assert again.json["lost"] == []
    assert place.stored() == list(api.dataset.ids())


@pytest.mark.parametrize("option", [("--format", "jsonl"), ("--compress", "none"), ("--partition", "day")], ids="".join)
def test_options_of_files_are_refused(run: Run, api: Simulator, place: Place, option: tuple[str, str]) -> None:
    result = extract(run, api, place.out, *option)
    assert result.code == 2
    assert f"{option[0]}: for files only" in result.words
    assert api.stats.requests == 0


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("mysql://host/db", "mysql:// is not a known destination; use a folder or one of s3://"),
        ("duckdb:out.duckdb", "duckdb: is not a known destination; use a folder"),
        ("duckdb://out.duckdb", "write duckdb:///FILE, or duckdb:////FILE for an absolute path"),
        ("duckdb:///", "write duckdb:///FILE"),
        ("duckdb:///x?tabel=y", "write duckdb:///FILE"),
        ("duckdb:///x?table=a;drop", "'a;drop' is not a table name"),
        ("duckdb:///x?table=", "'' is not a table name"),
        ("postgresql://host/db?table=a;drop", "'a;drop' is not a table name"),
        ("duckdb:///none/out.duckdb", "there is no folder none; create it first"),
        ("postgresql://me@127.0.0.1:port/db", "the URL of the PostgreSQL server is invalid"),
    ],
)
def test_addresses_that_are_none(run: Run, api: Simulator, out: str, reason: str) -> None:
    for result in (extract(run, api, out), run("sync", "--out", out), run("verify", "--out", out)):
        assert result.code == 2
    assert reason in extract(run, api, out).words
    assert api.stats.requests == 0


@pytest.mark.parametrize("command", ["extract", "sync", "verify", "demo"])
@pytest.mark.parametrize(
    ("out", "shown"),
    [
        ("jdbc:postgresql://127.0.0.1/wfm?password=hunter2", "jdbc: is not a known destination; use a folder"),
        ("mysql+pymysql://me:hunter2@host/wfm", "mysql+pymysql:// is not a known destination"),
        ("me@hunter2/jdbc://host", "the part before :// is not a known destination"),
        ("duckdb://me:hunter2@host/db", "write duckdb:///FILE"),
        ("duckdb:///x?motherduck_token=hunter2", "write duckdb:///FILE"),
        ("postgresql://loader%3Ahunter2@host/wfm", "has a colon, %3A, in the user name"),
    ],
)
def test_nothing_of_a_refused_address_is_shown_or_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: str, shown: str
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    needed = ["--from", "now-1d"] if command == "extract" else []
    result = run(command, *needed, "--out", out, "--log-level", "debug")
    assert result.code == 2
    assert shown in result.words
    assert "hunter2" not in result.out + result.err
    assert list(folder.iterdir()) == []


def test_without_a_password_it_says_where_to_put_it(
    run: Run, api: Simulator, postgres_server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    result = extract(run, api, postgres_server.url(password=None))
    assert result.code == 2
    assert "requires a password, and none is set; set PGPASSWORD, or write" in result.words
    assert "run again" not in result.words


def test_a_server_that_is_away_may_come_back(run: Run, api: Simulator) -> None:
    result = extract(run, api, "postgresql://me@127.0.0.1:1/db")
    assert result.code == 3
    assert "cannot connect to postgresql://me@127.0.0.1:1/db" in result.words


@pytest.mark.parametrize("command", ["extract", "sync", "verify", "demo"])
@pytest.mark.parametrize("where", ["me:wr0ng-word@127.0.0.1/db", "127.0.0.1/db?user=me&password=wr0ng-word"])
def test_a_password_in_the_command_is_refused(run: Run, command: str, where: str) -> None:
    needed = ["--from", "now-1d"] if command == "extract" else []
    for scheme in ("postgresql", "postgres", "postgresql+psycopg2"):
        result = run(command, *needed, "--out", f"{scheme}://{where}", "--log-level", "debug")
        assert result.code == 2
        assert "a password is never part of a command" in result.words
        assert "PGPASSWORD" in result.words
        assert "wr0ng-word" not in result.out + result.err


def test_no_output_shows_the_password(
    run: Run, api: Simulator, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{postgres_server.url(password=None)}?table=table_{uuid4().hex}"
    monkeypatch.setenv("PGPASSWORD", "wr0ng-word")
    failed = extract(run, api, out, "--log-level", "debug")
    assert failed.code == 2
    assert "password authentication failed" in failed.words
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    done = extract(run, api, out, "--log-level", "debug", "--json")
    assert done.code == 0
    for result in (failed, done):
        assert not any(secret in result.out + result.err for secret in ("wr0ng-word", PASSWORD))


def test_the_commands_of_the_documentation(
    run: Run, api: Simulator, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "databases.md").read_text(encoding="utf-8")
    found = re.findall(r"^segment-fetch (.*postgresql://loader@db.example.com/wfm.*)$", page, re.MULTILINE)
    assert [line.split()[0] for line in found] == ["extract", "sync", "verify"]
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    address = f"{postgres_server.url(password=None)}?table=table_{uuid4().hex}"
    for line in found:
        argv = shlex.split(line.replace("postgresql://loader@db.example.com/wfm", address))
        result = run(*argv, "--base-url", api.base_url, *AT_ONCE)
        assert result.code == 0, result.err
    assert "is sound" in result.words


@pytest.mark.parametrize(("scheme", "extra"), [("duckdb", "duckdb"), ("postgresql", "postgres")])
def test_a_missing_extra_is_named(run: Run, scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"segment_fetch.sinks.tables.{extra}", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run("verify", "--out", f"{scheme}:///out")
    assert result.code == 2
    assert f"pip install 'segment-fetch[{extra}]'" in result.words


def test_the_demo_ends_with_a_question(tmp_path: Path) -> None:
    result = process("demo", "--out", "duckdb:///demo.duckdb", "--segments", "300", env=environ(), cwd=tmp_path)
    assert result.code == 0, result.err
    answered = result.out.partition("Handle time by skill, queried from the table:\n")[2].partition("\n\n")[0]
    heading, *rows = [line.split() for line in answered.splitlines()]
    assert heading == ["skill_id", "segments", "hours", "minutes", "each"]
    assert len(rows) == 10
    assert len({row[0] for row in rows}) == 10
    command = next(line for line in result.out.splitlines() if "import duckdb" in line)
    answer = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert all(row[0] in answer for row in rows)
    again = process(
        "demo", "--out", "duckdb:///demo.duckdb", "--segments", "300", "--json", env=environ(), cwd=tmp_path
    )
    assert [str(row["skill_id"]) for row in orjson.loads(again.out)["handle_time_by_skill"]] == [row[0] for row in rows]
