"""Errors as documentation: code, message, page and JSON say the same; `--json` ends with one object on failure, too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_fetch import errors
from segment_fetch.cli import failures
from segment_fetch.errors import SegmentFetchError
from segment_fetch.simulator import Faults, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import AT_ONCE, NO_DELAYS, lines_in, settled, spanning

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
SHARED = {
    errors.UnauthorizedError,
    errors.MalformedPageError,
}  # a caller need not tell it from the error that it is a kind of


def _classes(kind: type[SegmentFetchError] = SegmentFetchError) -> Iterator[type[SegmentFetchError]]:
    for below in kind.__subclasses__():
        if below.__module__ in (errors.__name__, failures.__name__):
            yield below
            yield from _classes(below)


def _sections() -> dict[str, str]:
    """The text below each heading of the page, in one line."""
    parts = re.split(r"^## (SF-[A-Z-]+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {code: " ".join(text.split()) for code, text in zip(parts[::2], parts[1::2], strict=True)}


def test_each_error_has_a_code_and_a_heading_of_its_own() -> None:
    own = [kind for kind in _classes() if kind not in SHARED]
    assert all("code" in vars(kind) for kind in own), [kind for kind in own if "code" not in vars(kind)]
    codes = [kind.code for kind in own]
    assert len(set(codes)) == len(codes)
    assert set(_sections()) == set(codes)


@pytest.mark.parametrize("kind", [*_classes()], ids=lambda kind: kind.__name__)
def test_the_page_says_what_the_error_says(kind: type[SegmentFetchError]) -> None:
    section = _sections()[kind.code]
    assert f"{kind.summary} {kind.advice}" in section
    for sentence in (kind.summary, kind.advice):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ". " not in sentence, f"two sentences: {sentence}"
    error = kind.__new__(kind)
    SegmentFetchError.__init__(error, "it broke")
    vars(error)["prog"] = "segment-fetch plan"
    told = failures.as_json(error)
    assert (told["code"], told["advice"], told["kind"]) == (kind.code, kind.advice, kind.__name__)


def test_running_again_is_advised_only_where_it_can_help() -> None:
    for kind in _classes():
        if re.search(r"run the same command|try it again|try again", kind.advice, re.IGNORECASE):
            assert kind.may_pass, kind


def _extract(api: Simulator, out: object, *more: str) -> list[str]:
    return ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(out), *AT_ONCE, "--json", *more]


@pytest.mark.parametrize(
    ("argv", "code", "exit_code", "command"),
    [
        (("extract", "--json", "--zzz"), "SF-USAGE", 2, "extract"),
        (("--json",), "SF-USAGE", 2, None),
        (("extract", "--from", "now-1d", "--out", "/proc/x", "--json"), "SF-DESTINATION", 2, "extract"),
        (("extract", "--from", "2999-01-01", "--out", "x", "--json"), "SF-INPUT", 2, "extract"),
        (("plan", "--from", "now-1d", "--base-url", "http://127.0.0.1:1", *AT_ONCE, "--json"), "SF-SERVICE", 5, "plan"),
        (("verify", "--out", "nowhere", "--json"), "SF-DESTINATION", 2, "verify"),
        (("doctor", "--account", "1/2", "--json"), "SF-INPUT", 2, "doctor"),
        (("doctor", "--source", "not so", "--json"), "SF-INPUT", 2, "doctor"),
        (("doctor", "--base-url", "ftp://x", "--json"), "SF-INPUT", 2, "doctor"),
        (("doctor", "--base-url", "http://127.0.0.1:1", *NO_DELAYS, "--json"), "SF-SERVICE", 5, "doctor"),
        (("simulate", "--port", "1", "--fault", "x=1", "--json"), "SF-INPUT", 2, "simulate"),
    ],
)
def test_json_ends_with_one_object(
    argv: tuple[str, ...], code: str, exit_code: int, command: str | None, run: Run, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    result = run(*argv)
    assert result.code == result.json["exit_code"] == exit_code
    assert result.json["command"] == command
    error = result.json["error"]
    assert error["code"] == code
    assert error["message"] in result.err or command == "doctor"
    assert error["advice"]


def test_what_was_committed_is_told(run: Run, api: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_later(_: object, text: str) -> None:
        if "segments committed" in text:
            api.faults = Faults(error_503=1.0)

    monkeypatch.setattr("segment_fetch.cli.console.Console._line", fail_later)
    result = run(*_extract(api, tmp_path, "--window", "1d", "--connections", "1", "--log-level", "debug"))
    assert result.code == result.json["exit_code"] == 3
    committed = result.json["committed"]
    files = len([*tmp_path.glob("segments-*")])
    assert files > 0
    assert committed == {"destination": str(tmp_path), "windows": files, "segments": len(lines_in(tmp_path))}


def test_an_incomplete_report_has_an_error_and_a_complete_one_has_none(
    run: Run, segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    api = segment_simulator(settled(200), auth=KEY)
    assert "error" not in run(*_extract(api, tmp_path / "good")).json
    next((tmp_path / "good").glob("segments-*")).unlink()
    found = run("verify", "--out", str(tmp_path / "good"), "--json")
    assert found.code == 3
    assert found.json["error"]["code"] == "SF-UNSOUND"


def test_the_code_stands_behind_the_message(run: Run, tmp_path: Path) -> None:
    argv = ["plan", "--from", "now-1d", "--base-url", "http://127.0.0.1:1", *AT_ONCE]
    assert run(*argv).err.rstrip().endswith("[SF-SERVICE]")
    logged = run(*argv, "--log-format", "json").events[-1]
    assert (logged["code"], logged["error"]) == ("SF-SERVICE", "ServiceError")


def test_advice_fits_the_cause(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    api = segment_simulator(settled(200), auth=KEY, faults=Faults(redirect=1.0))
    result = run(*_extract(api, tmp_path))
    assert result.json["error"]["code"] == "SF-REFUSED"
    assert "the same command continues" not in result.words
