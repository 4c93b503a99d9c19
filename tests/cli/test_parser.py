"""Arguments: help, suggestions, and errors that name what can be written."""

from __future__ import annotations

import resource
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch.cli import arguments, texts, values
from segment_fetch.cli.commands import simulate_options
from segment_fetch.cli.exit_codes import MEANINGS
from segment_fetch.cli.formatting import program, wrapped
from tests.cli.conftest import Run
from tests.cli.support import SECRETS, command, process

COMMANDS = ("extract", "sync", "verify", "plan", "doctor", "simulate", "demo")


@pytest.mark.parametrize("argv", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_complete_and_fits_sixty_columns(argv: list[str], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    result = run(*argv)
    assert result.code == 0
    assert "examples:" in result.out
    for code, _ in MEANINGS:
        assert f"\n  {code} " in result.out
    assert max(map(len, result.out.splitlines())) <= 60


def test_help_names_every_command_and_variable(run: Run) -> None:
    out = run("--help").out
    for name in (*COMMANDS, "LIVEPERSON_ACCOUNT", "LIVEPERSON_BEARER", "LIVEPERSON_CLIENT_SECRET", *SECRETS):
        assert name in out


def test_every_option_has_a_help_text() -> None:
    _, parsers = arguments.build()
    for name, command_parser in parsers.items():
        for action in command_parser._actions:
            assert action.help, f"{name} {action.option_strings}"


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("segment-fetch 0.")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "which command? one of extract"),
        (("extrct",), "did you mean extract?"),
        (("zzz",), "no command 'zzz'\n"),
        (("--verson",), "did you mean --version?"),
        (("extract", "--form", "now-7d", "--out", "x"), "no option --form; did you mean --format or --from?"),
        (("extract", "--zzz=1"), "no option --zzz\n"),
        (("extract", "stray"), "an argument too many"),
        (("extract", "--from", "now-7d"), "--out is missing"),
        (("extract",), "--from and --out are missing"),
        (("plan",), "--from is missing"),
        (("plan", "--fro", "now-7d"), "did you mean --from or --to?"),
        (("plan", "--from", "yesterday"), "argument --from: time 'yesterday': is not an RFC 3339 time"),
        (("plan", "--from", "now-1d", "--window", "7"), "a number and s, m, h, d or w (7d)"),
        (("plan", "--from", "now-1d", "--rate", "fast"), "write requests a second (10), auto, or none"),
        (("plan", "--from", "now-1d", "--retry-delays", "5;10"), "with commas (5,10,15), or none"),
        (("plan", "--from", "now-1d", "--timeout", "0"), "write seconds above zero"),
        (("plan", "--from", "now-1d", "--connections", "0"), "must be at least 1"),
        (("plan", "--from", "now-1d", "--connections", "two"), "'two' is not a whole number"),
        (("plan", "--from", "now-1d", "--log-level", "loud"), "argument --log-level: invalid choice"),
        (("simulate", "--limit", "forty"), "write 40/s, 40/s:10 (10 at once), 100/10s, or 5-at-once"),
        (("simulate", "--latency", "90-30"), "the least and the most (30-120)"),
        (("simulate", "--fault", "drop"), "write KIND=SHARE"),
        (("simulate", "--fault", "drop=2"), "'2' is not a share from 0 to 1"),
        (("simulate", "--port", "70000"), "must be at most 65535"),
        (("simulate", "--days", "-1"), "is not a number from 0 up"),
    ],
)
def test_wrong_usage_says_what_to_write(argv: tuple[str, ...], said: str, run: Run) -> None:
    result = run(*argv)
    assert result.code == 2
    assert said in result.err
    assert "--help" in result.err
    assert result.out == ""


@pytest.mark.parametrize("argv", [("--app-secret", "hush-hush"), ("--bearer=hush-hush",), ("--password", "hush-hush")])
def test_a_secret_as_an_option_is_refused_and_not_repeated(argv: tuple[str, ...], run: Run) -> None:
    result = run("extract", "--from", "now-1d", "--out", "x", *argv)
    assert result.code == 2
    assert "secrets are never options" in result.err
    assert "hush" not in result.err


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.span, "7d", timedelta(days=7)),
        (values.span, "1.5h", timedelta(minutes=90)),
        (values.rate, "none", "none"),
        (values.rate, "0.5", 0.5),
        (values.delays, "5,10,15", (5.0, 10.0, 15.0)),
        (values.delays, "none", ()),
        (values.whole, "60,000", 60_000),
        (simulate_options.limit, "40/s", ("rate", 40.0, 1.0)),
        (simulate_options.limit, "40/s:10", ("rate", 40.0, 10.0)),
        (simulate_options.limit, "100/10s", ("sliding", 100.0, 10.0)),
        (simulate_options.limit, "5-at-once", ("at-once", 5.0, 0.0)),
        (simulate_options.latency, "50", (50.0, 50.0)),
        (simulate_options.latency, "30-120", (30.0, 120.0)),
        (simulate_options.fault, "error-500=0.1", ("error_500", 0.1)),
    ],
)
def test_values_are_read(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "0", "1e9"])
def test_no_rate(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no rate"):
        values.rate(text)


def test_examples_can_be_parsed() -> None:
    written = [value for name, value in vars(texts).items() if name.endswith("_EXAMPLES")]
    assert len(written) == len(COMMANDS)
    for examples in written:
        joined = examples.replace("\\\n", " ").replace("|\n      gzip > yesterday.jsonl.gz", "")
        for line in joined.splitlines():
            assert arguments.parse(line.split()[1:]).command in COMMANDS


def test_help_starts_fast() -> None:
    """In the processor's time, which other work of the machine lengthens less."""

    def took(argv: list[str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(argv, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    bare = min(took([sys.executable, "-c", "pass"]) for _ in range(5))
    helped = min(took(command("--help")) for _ in range(5))
    assert helped <= 1.5 * bare + 0.150


def test_help_into_a_closed_pipe_is_quiet(env: dict[str, str]) -> None:
    result = process("extract", "--help", env=env)
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("found", [True, False])
def test_the_program_is_named_as_it_can_be_called(found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "my bin" / "segment-fetch"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent if found else tmp_path))
    monkeypatch.setattr("sys.argv", [str(script)])
    assert program() == ("segment-fetch" if found else f"'{script}'")
    line = f"  {program()} verify --out {'x' * 80}"
    assert wrapped(line, 60) == line


def test_called_as_a_module_it_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/segment_fetch/__main__.py"])
    assert program() == "segment-fetch"


def test_a_number_below_zero_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments.parse(["demo", "--segments", "-5"])
    assert "must be at least 0" in capsys.readouterr().err
