"""The pace that the command keeps: where, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from segment_fetch.cli import arguments, progress_bar
from segment_fetch.cli.progress import RunProgress, numbers, sentence
from segment_fetch.events import Event, PaceChanged, PageRead, RangePlanned, WindowDone, WindowOpened, WindowReread
from segment_fetch.query import Window
from segment_fetch.simulator import Simulator
from tests.cli.conftest import Run
from tests.cli.support import NO_DELAYS, SECRETS, spanning

WEEK = Window(0, 604_800_000)


@pytest.mark.parametrize(
    ("named", "environ", "platform", "folder"),
    [
        (None, {"HOME": "/h", "XDG_STATE_HOME": "/x"}, "linux", "/x/segment_fetch"),
        (None, {"HOME": "/h"}, "linux", "/h/.local/state/segment_fetch"),
        (None, {"HOME": "/h", "XDG_STATE_HOME": ""}, "linux", "/h/.local/state/segment_fetch"),
        (None, {"HOME": "/h", "XDG_STATE_HOME": "relative"}, "linux", "/h/.local/state/segment_fetch"),
        (None, {"HOME": "/h"}, "darwin", "/h/Library/Application Support/segment_fetch"),
        ("here", {"HOME": "/h", "XDG_STATE_HOME": "/x"}, "linux", "here"),
    ],
)
def test_the_folder(named: str | None, environ: dict[str, str], platform: str, folder: str) -> None:
    store = arguments.pace_store(named, environ, platform)
    assert store is not None
    assert store.folder == Path(folder) / "pace"


@pytest.mark.parametrize(("named", "environ"), [("none", {"HOME": "/h"}), (None, {}), (None, {"HOME": ""})])
def test_no_folder(named: str | None, environ: dict[str, str]) -> None:
    assert arguments.pace_store(named, environ) is None


def _argv(api: Simulator, out: Path, *more: str) -> list[str]:
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(out), "--window", "3h"]
    return [*argv, *NO_DELAYS, "--log-format", "json", "--log-level", "debug", "--json", *more]


def test_the_next_run_begins_with_what_was_found(run: Run, api: Simulator, tmp_path: Path) -> None:
    keep = ("--state", str(tmp_path / "state"))
    first, second = (run(*_argv(api, tmp_path / name, *keep)) for name in "ab")
    begins = [next(event for event in done.events if event["event"] == "pace_changed") for done in (first, second)]
    assert [event["reason"] for event in begins] == ["started", "remembered"]
    assert begins[1]["rate"] > begins[0]["rate"]
    assert second.json["pace"]["rate"] >= begins[1]["rate"]
    (file,) = (tmp_path / "state" / "pace").iterdir()
    kept = file.name + file.read_text()
    assert not [secret for secret in SECRETS.values() if secret in kept]


def test_without_a_state_nothing_is_kept(
    run: Run, api: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert run(*_argv(api, tmp_path / "a", "--state", "none")).code == 0
    assert not (tmp_path / "state").exists()
    assert run(*_argv(api, tmp_path / "b")).code == 0
    assert len(list((tmp_path / "state" / "segment_fetch" / "pace").iterdir())) == 1


def test_a_state_that_cannot_be_written_is_no_failure(run: Run, api: Simulator, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(*_argv(api, tmp_path / "a", "--state", str(tmp_path / "file" / "state")))
    assert done.code == 0
    assert not [event for event in done.events if event["level"] in ("warning", "error")]
    told = [event["message"] for event in done.events if event["level"] == "info" and "not kept" in event["message"]]
    assert len(told) == 1


def _progress(*events: PaceChanged, segments: int = 60_000) -> RunProgress:
    progress = RunProgress(clock=lambda: 0.0)
    begun: list[Event] = [RangePlanned(2, 0), WindowOpened(WEEK, segments), PageRead(WEEK, 0, 500)]
    for event in [*begun, *events]:
        progress.take(event)
    return progress


@pytest.mark.parametrize(
    ("changed", "brief", "words"),
    [
        (PaceChanged(9.7345, None, "too_fast"), "9.7/s", "9.7 requests a second"),
        (PaceChanged(20.0, 5, "too_many_at_once"), "20/s, 5 at once", "20 requests a second, 5 at once"),
        (PaceChanged(831.4, None, "no_refusals"), "831/s", "831 requests a second"),
    ],
)
def test_progress_shows_the_pace(changed: PaceChanged, brief: str, words: str) -> None:
    progress = _progress(changed)
    assert progress_bar.beside(progress).endswith(f"500 of ~120,000 {brief}")
    assert f", {words}, " in sentence(progress)
    told = numbers(progress)
    assert (told["rate"], told["at_once"]) == (round(changed.rate, 3), changed.at_once)


def test_progress_without_a_pace() -> None:
    progress = _progress()
    assert progress_bar.beside(progress).endswith("~120,000")
    assert "second" not in sentence(progress)
    assert "rate" not in numbers(progress)
    assert progress.final_pace == {}


def test_the_largest_numbers_leave_the_bar_a_quarter_of_sixty_columns() -> None:
    progress = _progress(PaceChanged(99.9, 16, "too_many_at_once"), segments=9_000_000)
    assert len(progress_bar.beside(progress)) <= 45


def test_progress_never_exceeds_what_is_expected_and_never_falls_back() -> None:
    progress = RunProgress(clock=lambda: 0.0)
    pages = [PageRead(WEEK, 0, 500), PageRead(WEEK, 450, 500)]
    events: list[Event] = [RangePlanned(1, 0), WindowOpened(WEEK, 900), *pages]
    events += [WindowReread(WEEK, 1, "it changed"), PageRead(WEEK, 0, 500), WindowDone(WEEK, "complete", 899)]
    shown = []
    for event in events:
        progress.take(event)
        shown.append(progress.read)
        assert progress.expected in (0, 900)
    assert shown == [0, 0, 500, 900, 900, 900, 900]


def test_a_plan_reckons_with_the_pace_that_an_earlier_run_found(run: Run, api: Simulator, tmp_path: Path) -> None:
    keep = ("--state", str(tmp_path / "state"))
    assert run(*_argv(api, tmp_path / "a", *keep)).code == 0
    asked = ["--base-url", api.base_url, *spanning(api.dataset), *keep, *NO_DELAYS]
    planned = run("plan", *asked, "--log-format", "json", "--log-level", "debug", "--json")
    begins = next(event for event in planned.events if event["event"] == "pace_changed")
    assert begins["reason"] == "remembered"
    assert planned.json["assumed_rate"] == pytest.approx(begins["rate"], rel=0.01)
    assert "guess" not in run("plan", *asked).words
