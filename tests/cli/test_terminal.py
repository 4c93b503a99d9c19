"""On a terminal: a live display that fits, and nothing left of it. In a file: lines."""

from __future__ import annotations

import base64
import io
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from segment_fetch.cli import progress_bar
from segment_fetch.cli.console import Console
from segment_fetch.cli.log import logging_to
from segment_fetch.cli.progress import Lines, RunProgress, numbers, sentence
from segment_fetch.events import (
    NewFields,
    PageRead,
    Paused,
    RangePlanned,
    Retrying,
    Warned,
    WindowDone,
    WindowOpened,
    WindowReread,
    WindowSplit,
)
from segment_fetch.extraction.event_log import EventLog
from segment_fetch.query import Window
from segment_fetch.simulator import Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY
from tests.cli.support import AT_ONCE, command, on_terminal, process, settled, shown, spanning

DAY = 86_400_000
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_INTERRUPTING = """
import os, signal, sys
from segment_fetch.cli import app, progress_bar

class Interrupting(progress_bar.LiveDisplay):
    def update(self):
        super().update()
        if self._progress.pages == 2:
            os.kill(os.getpid(), signal.SIGINT)

progress_bar.LiveDisplay = Interrupting
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.fixture
def slow(segment_simulator: SimulatorFactory) -> Simulator:
    return segment_simulator(settled(6_000, days=6), auth=KEY, latency_ms=80)


def _argv(api: Simulator, out: object, *more: str) -> list[str]:
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(out)]
    return [*argv, *AT_ONCE, "--window", "2d", "--connections", "2", *more]


def test_a_live_display_fits_sixty_columns(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    result = on_terminal(command(*_argv(slow, tmp_path / "o")), env)
    assert result.code == 0
    lines = shown(result.out)
    assert any("windows 1/3, retries 0" in line for line in lines)
    assert any("% " in line and "━" in line for line in lines)
    commands = [line for line in lines if str(tmp_path) in line]
    assert max(len(line) for line in lines if line not in commands) <= 60
    assert result.out.rindex(_SHOW) > result.out.rindex(_HIDE)
    assert "2026-" in result.out
    assert not lines[0].startswith("20"), "a terminal needs no time stamps"


def test_an_interrupt_gives_the_cursor_back(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    result = on_terminal([sys.executable, "-c", _INTERRUPTING, *_argv(slow, tmp_path)], env)
    assert result.code == 128 + signal.SIGINT
    assert result.out.rindex(_SHOW) > result.out.rindex(_HIDE)
    lines = shown(result.out)
    assert "interrupted: what is committed" in " ".join(" ".join(lines).split())
    assert lines[-1].startswith("  segment-fetch extract ")
    assert lines[-1].endswith("--connections 2"), "a command to copy stays on one line"


def test_quiet_on_a_terminal(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    assert on_terminal(command(*_argv(slow, tmp_path, "--quiet")), env).out == ""


def test_a_json_log_on_a_terminal_has_no_bar(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    result = on_terminal(command(*_argv(slow, tmp_path, "--log-format", "json")), env)
    assert "\x1b" not in result.out


def test_without_rich_there_are_lines(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    hiding = (
        "import sys; sys.modules['rich'] = None;from segment_fetch.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    result = on_terminal([sys.executable, "-c", hiding, *_argv(slow, tmp_path)], env)
    assert result.code == 0
    assert "\x1b" not in result.out
    assert "3 windows to read" in result.out


def test_a_log_file_has_lines_and_no_control_characters(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as file:
        argv = command(*_argv(slow, tmp_path / "out"))
        subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=file, timeout=30, check=True)
    lines = log.read_text().splitlines()
    assert lines[0].endswith("Z 3 windows to read")
    assert len(lines) == 4
    assert "\x1b" not in log.read_text()


def test_no_terminal_at_all(slow: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    result = process(*_argv(slow, tmp_path), env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    assert result.code == 0
    assert "Extracted 6,000 segments" in result.out


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_now_and_then() -> None:
    clock, said = _Clock(), list[str]()
    progress = RunProgress(clock)
    lines = Lines(io.StringIO(), progress, interval=5.0, clock=clock)
    with logging_to(said.append, level="info", form="text", timed=False):
        progress.take(RangePlanned(2, 0))
        progress.take(WindowOpened(Window(0, DAY), 1_000))
        for _ in range(12):
            clock.now += 1
            progress.take(PageRead(Window(0, DAY), 0, 50))
            lines.update()
    assert said == [
        "250 of about 2,000 segments, 0 of 2 windows, 5.0 s",
        "500 of about 2,000 segments, 0 of 2 windows, 10 s",
    ]


def test_progress_follows_splits_and_second_readings() -> None:
    clock = _Clock()
    progress = RunProgress(clock)
    whole, first, last = Window(0, 2 * DAY), Window(0, DAY), Window(DAY, 2 * DAY)
    progress.take(RangePlanned(1, 0))
    progress.take(WindowOpened(whole, 1_000))
    progress.take(PageRead(whole, 0, 500))
    progress.take(WindowSplit(whole, (first, last)))
    progress.take(WindowOpened(first, 500))
    progress.take(PageRead(first, 0, 400))
    assert (progress.read, progress.expected, progress.windows, progress.sure) == (500, 1_000, 2, True)
    progress.take(WindowReread(first, 1, "it moved"))
    assert progress.read == 500
    progress.take(WindowDone(first, "complete", 500))
    progress.take(WindowDone(last, "complete", 498))
    assert (progress.fraction, progress.done) == (1.0, 2)


def test_progress_follows_parts_that_are_opened_before_all_are_known() -> None:
    progress = RunProgress(_Clock())
    whole, first, last = Window(0, 2 * DAY), Window(0, DAY), Window(DAY, 2 * DAY)
    for event in (RangePlanned(1, 0), WindowOpened(whole, 1_000), WindowOpened(first, 500), PageRead(first, 0, 400)):
        progress.take(event)
    progress.take(WindowSplit(whole, (first, last)))
    progress.take(WindowOpened(last, 500))
    assert (progress.read, progress.expected, progress.windows, progress.sure) == (400, 1_000, 2, True)


def test_progress_counts_the_first_page_of_a_window_once() -> None:
    progress, window = RunProgress(_Clock()), Window(0, DAY)
    for event in (
        RangePlanned(1, 0),
        PageRead(window, 0, 500),
        WindowOpened(window, 9_000),
        PageRead(window, 500, 500),
    ):
        progress.take(event)
    assert progress.read == 1_000


def test_progress_counts_trouble_and_guesses_what_is_left() -> None:
    clock = _Clock()
    progress = RunProgress(clock)
    assert (progress.started, progress.fraction, progress.left) == (False, 0.0, None)
    window = Window(0, DAY)
    for event in (RangePlanned(1, 0), WindowOpened(window, 100), PageRead(window, 0, 25)):
        progress.take(event)
    progress.take(Retrying(window, 25, 1, 5.0, "it broke"))
    for clock.now in (0.0, 0.5, 1.2):  # the second makes the pause longer, so that the third is in it, too
        progress.take(Paused(1.0))
    clock.now = 10.0
    assert progress.left == pytest.approx(30.0)
    assert "retries 1, pauses 1" in sentence(progress)
    assert numbers(progress)["retries"] == 1
    progress.take(Paused(1.0))
    assert progress.pauses == 2


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_the_display_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    clock, stream = _Clock(), io.StringIO()
    progress = RunProgress(clock)
    window = Window(0, DAY)
    for event in (RangePlanned(43_000, 0), WindowOpened(window, 9_999), PageRead(window, 0, 500)):
        progress.take(event)
    clock.now = 4_000.0
    display = progress_bar.LiveDisplay(stream, progress)
    display.update()
    display.line("a line above")
    display.close()
    display.close()
    assert "a line above" in stream.getvalue()
    assert max(map(len, shown(stream.getvalue()))) <= columns


_FORGED = "\x1b[2J\x9b1m\u202ename\r\nerror: forged " + "x" * 5_000


def test_foreign_text_reaches_the_terminal_as_text() -> None:
    window = Window(0, DAY)
    said, stream = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", said)
        console = Console(Namespace(quiet=False, log_level="info", log_format="text", json=False), [], {})
        console.hide(["hush hush secret"])
        log = EventLog("111111")
        with console.logging():
            log.take(NewFields((_FORGED,)))
            log.take(WindowDone(window, "unproven", 0, _FORGED))
            log.take(Warned(f"said {base64.b64encode(b'hush hush secret').decode()} and hush%20hush%20secret"))
    console.out(_FORGED, stream)
    for text in (said.getvalue(), stream.getvalue()):
        assert not [sign for sign in text if not sign.isprintable() and sign != "\n"]
    assert len(said.getvalue().splitlines()) == 3
    assert max(map(len, said.getvalue().splitlines())) < 2_200
    assert "hush" not in said.getvalue().partition("said ")[2]
    assert "***" in said.getvalue()


def test_names_that_csv_leaves_out_are_one_short_line() -> None:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", said)
        args = Namespace(quiet=False, log_level="info", log_format="text", json=False, format="csv")
        console = Console(args, [], {})
        with console.logging():
            console.watch(NewFields((_FORGED,)))
    assert len(said.getvalue().splitlines()) == 1
    assert len(said.getvalue()) < 800


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, lambda raw: raw.hex().encode()])
def test_json_shows_no_secret_in_another_form(encode: Callable[[bytes], bytes]) -> None:
    form = encode(b"client:hush hush secret?>").decode()
    said, stream = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", said)
        console = Console(Namespace(quiet=False, log_level="info", log_format="json", json=True, out="x"), [], {})
        console.hide(["hush hush secret?>"])
        console.report("", {"name": form, "path": "a\\u0062&amp;%20"})
        with console.logging():
            EventLog("111111").take(NewFields((form,)))
    assert orjson.loads(stream.getvalue())["path"] == "a\\u0062&amp;%20"
    for text in (stream.getvalue(), said.getvalue()):
        assert "***" in text
        assert form not in text


def test_json_log_shortens_the_names_of_new_fields() -> None:
    said: list[str] = []
    with logging_to(said.append, level="info", form="json", timed=True):
        EventLog("111111").take(NewFields((_FORGED, "short")))
    names = orjson.loads(said[0])["names"]
    assert names[0].startswith("?[2J?1m?name?error: forged")
    assert (len(names[0]), names[1]) == (200, "short")


def test_json_escapes_what_a_terminal_obeys() -> None:
    console = Console(Namespace(quiet=False, log_level="info", log_format="json", json=True, out="x"), [], {})
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        console.report("", {"name": _FORGED + "\U000e0001"})
    assert stream.getvalue().isprintable() is False  # the line break at its end
    assert stream.getvalue().rstrip("\n").isprintable()
    assert orjson.loads(stream.getvalue())["name"] == _FORGED + "\U000e0001"
