"""`demo`: the real program against a simulator in a process of its own, which ends with it."""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from segment_fetch.cli.commands import demo
from segment_fetch.timerange import oldest_start, parse_time, settled_before
from tests.cli.conftest import Run
from tests.cli.support import command, environ, lines_in, on_terminal, process, shown, started, until

COUNT = 6_000 + os.getpid() % 1_000
"""Segments: a number by which the simulators of this run are found."""
SMALL = ("--segments", str(COUNT))


def _simulators() -> list[str]:
    """The command lines of simulators that programs have started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--until-stdin-closes" in words and str(COUNT).encode() in words:
            found.append(b" ".join(words).decode())
    return found


def test_all_of_it_on_a_terminal_of_sixty_columns(tmp_path: Path) -> None:
    began = time.monotonic()
    result = on_terminal(command("demo", "--out", "d"), environ(), folder=tmp_path)
    assert time.monotonic() - began < 25
    assert result.code == 0
    lines = shown(result.out)
    assert [line for line in lines if len(line) > 60] == []
    words = " ".join(" ".join(lines).split())
    assert "a shorter time than usual" in words
    assert "Extracted 60,000 segments into d" in words
    assert "proven 3 windows" in words
    assert re.search(r"requests [\d,]+, [\d,]+ of them retries", words)  # a 429 comes only where the machine is fast
    assert len(lines_in(tmp_path / "d")) == 60_000
    again = process("demo", "--out", "d", env=environ(), cwd=str(tmp_path))
    assert again.code == 0
    assert "Nothing to do" in again.out
    assert "0 requests made" in again.words


def test_trouble_is_really_there(tmp_path: Path) -> None:
    result = process("demo", "--out", str(tmp_path), *SMALL, "--json", env=environ(LIVEPERSON_BEARER="hush"))
    assert result.code == 0
    report = result.json
    assert report["command"] == "demo"
    assert (report["segments"], report["unproven"]) == (COUNT, 0)
    assert report["retries"] > 0
    assert _simulators() == []


def test_the_next_command_is_shown(tmp_path: Path) -> None:
    result = process("demo", "--out", str(tmp_path / "a b"), "--segments", "10", env=environ())
    assert f"head -qn 1 '{tmp_path}/a b'/*.jsonl" in result.out
    assert "segment-fetch doctor" in result.out


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_the_simulator_never_outlives_it(signum: int, code: int, tmp_path: Path) -> None:
    with started("demo", "--out", str(tmp_path), *SMALL, env=environ()) as running:
        assert running.stderr is not None
        assert "Demo:" in running.stderr.readline()
        assert "to read" in running.stderr.readline()
        assert len(_simulators()) == 1
        running.send_signal(signum)
        assert running.wait(5) == code
    until(lambda: not _simulators())


def test_an_older_demo_in_the_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    yesterday = demo._range(datetime.now(UTC) - timedelta(days=1))
    with monkeypatch.context() as patch:
        patch.setattr(demo, "_range", lambda _: yesterday)
        assert run("demo", "--out", str(tmp_path), "--segments", "600").code == 0
    result = run("demo", "--out", str(tmp_path), "--segments", "600")
    assert result.code == 0
    assert re.search(r"windows 1 read; 3 more were already complete", result.words)


@pytest.mark.parametrize(
    "now", ["2026-03-01T00:00:00", "2026-03-29T23:59:59", "2028-03-01T12:00:00", "2026-11-23T00:01"]
)
def test_the_range_is_settled_and_within_the_month(now: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    now_ms = int(moment.timestamp() * 1000)
    start, end = (parse_time(day, 0) for day in demo._range(moment))
    assert end <= settled_before(now_ms)
    assert start > oldest_start(now_ms)
    assert end - start == 20 * 86_400_000


def test_a_simulator_that_does_not_start(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_FAULTS", ("earthquake=1",))
    result = run("demo", "--out", str(tmp_path))
    assert result.code == 5
    assert "the simulator did not start" in result.err
    assert "earthquake" in result.err


def test_a_folder_that_belongs_to_another_query(run: Run, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 1, "query": {"account": "1"}, "windows": []}')
    result = run("demo", "--out", str(tmp_path), "--segments", "10")
    assert result.code == 2
    assert "made by another query" in result.err
