"""Ctrl-C, SIGTERM and SIGHUP: a quick end that can be gone on from, whatever hangs."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import orjson
import pytest

from segment_fetch.simulator import Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import AT_ONCE, lines_in, settled, spanning, started, until


@pytest.fixture
def slow(segment_simulator: SimulatorFactory) -> Simulator:
    """Six windows of a day, and time to interrupt between them."""
    return segment_simulator(settled(6_000, days=6), auth=KEY, latency_ms=150)


def _argv(api: Simulator, out: object) -> list[str]:
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(out), *AT_ONCE]
    return [*argv, "--window", "1d", "--connections", "1"]


def _read_until(running: Popen[str], word: str) -> None:
    assert running.stderr is not None
    while word not in (line := running.stderr.readline()):
        assert line, "it ended before it said so"


def _ended(running: Popen[str], signum: int) -> tuple[int, str]:
    """Sends a signal; the exit code and what was said, within two seconds."""
    sent = time.monotonic()
    running.send_signal(signum)
    code = running.wait(10)
    assert time.monotonic() - sent < 2.0
    assert running.stderr is not None
    return code, running.stderr.read()


@pytest.mark.parametrize(
    ("signum", "word"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "terminated")],
)
def test_an_interrupted_run_goes_on(
    signum: int, word: str, slow: Simulator, env: dict[str, str], run: Run, tmp_path: Path
) -> None:
    with started(*_argv(slow, tmp_path), env=env, stdout=DEVNULL) as running:
        until(lambda: list(tmp_path.glob("segments-*")))
        ended, said = _ended(running, signum)
    assert ended == 128 + signum
    assert f"{word}: what is committed in {tmp_path} stays" in said
    assert f"\n  segment-fetch extract --base-url {slow.base_url}" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob(".*partial"))
    result = run(*_argv(slow, tmp_path))
    assert result.code == 0
    assert "more were already complete" in result.words
    assert len(lines_in(tmp_path)) == 6_000


def test_without_its_terminal_a_run_goes_on_if_it_was_started_so(
    slow: Simulator, env: dict[str, str], tmp_path: Path
) -> None:
    """As nohup starts it."""
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with started(*_argv(slow, tmp_path), env=env, stdout=DEVNULL, **ignoring) as running:
        until(lambda: list(tmp_path.glob("segments-*")))
        running.send_signal(signal.SIGHUP)
        assert running.wait(30) == 0
    assert len(lines_in(tmp_path)) == 6_000


def test_a_reader_that_hangs_cannot_hold_it(api: Simulator, env: dict[str, str]) -> None:
    reader, writer = os.pipe()
    try:
        argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", "-", *AT_ONCE]
        with started(*argv, env=env, stdout=writer) as running:
            _read_until(running, "proven")
            code, said = _ended(running, signal.SIGINT)
    finally:
        os.close(reader)
        os.close(writer)
    assert code == 130
    assert "the output is cut off" in said


def test_interrupted_with_a_json_log(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    argv = [*_argv(slow, tmp_path), "--log-format", "json", "--json"]
    with started(*argv, env=env) as running:
        until(lambda: list(tmp_path.glob("segments-*")))
        code, said = _ended(running, signal.SIGTERM)
        assert running.stdout is not None
        report = orjson.loads(running.stdout.read())
    assert code == report["exit_code"] == 143
    assert report["error"]["code"] == "SF-INTERRUPTED"
    committed = report["committed"]
    assert committed["destination"] == str(tmp_path)
    assert committed["windows"] == len(list(tmp_path.glob("segments-*"))) > 0
    assert committed["segments"] == len(lines_in(tmp_path))
    assert '"event":"terminated"' in said.splitlines()[-1]


def test_a_plan_changes_nothing(slow: Simulator, env: dict[str, str]) -> None:
    argv = ["plan", "--base-url", slow.base_url, *spanning(slow.dataset), "--window", "1h", "--rate", "5"]
    with started(*argv, env=env, stdout=DEVNULL) as running:
        until(lambda: slow.stats.requests)
        code, said = _ended(running, signal.SIGINT)
    assert code == 130
    assert "interrupted: nothing was changed" in said


_SLOW_GOODBYE = """
import signal, sys, time
from segment_fetch.cli import app, console
import segment_fetch.cli.signals as signals

signals._PATIENCE_S = 0.3
report = console.Console.report

def slowly(self, *of):
    time.sleep(0.8)
    report(self, *of)

console.Console.report = slowly
sys.exit(app.main(sys.argv[1:]))
"""


def test_a_run_that_ended_in_order_is_not_killed(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _SLOW_GOODBYE, *_argv(slow, tmp_path), "--json"]
    with Popen(argv, env=env, stdout=PIPE, stderr=PIPE, text=True) as running:
        until(lambda: list(tmp_path.glob("segments-*")))
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=10)
    assert running.returncode == 143
    assert orjson.loads(out)["error"]["code"] == "SF-INTERRUPTED"
