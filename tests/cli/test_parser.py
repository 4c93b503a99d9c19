"""Arguments: help, suggestions, and errors that name what can be written."""

from __future__ import annotations

import platform
import re
import resource
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from segment_fetch.cli import arguments, parser, version
from segment_fetch.cli.commands import COMMANDS, simulate
from segment_fetch.cli.exit_codes import MEANINGS
from segment_fetch.cli.failures import UsageError
from segment_fetch.cli.formatting import program, wrapped
from segment_fetch.wire import raw_rows
from tests.cli.conftest import Run
from tests.cli.support import SECRETS, command, process


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
    _, parsers = parser.build()
    for name, command_parser in parsers.items():
        for action in command_parser._actions:
            assert action.help, f"{name} {action.option_strings}"


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("segment-fetch 0.")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "a command is missing: write one of extract"),
        (("extrct",), "did you mean extract?"),
        (("zzz",), "there is no command 'zzz'\n"),
        (("--verson",), "did you mean --version?"),
        (("extract", "--form", "now-7d", "--out", "x"), "there is no option --form; did you mean --format or --from?"),
        (("extract", "--zzz=1"), "there is no option --zzz\n"),
        (("extract", "stray"), "argument 2, after the command, was not understood"),
        (("extract", "--from", "now-1d", "--out", "x", "verify"), "argument 6 (verify), after --out, was not"),
        (
            ("extract", "-o", "x"),
            "there is no option -o: options are written in full, as --name VALUE; did you mean --out?",
        ),
        (("extract", "-phush"), "there is no option -p: options"),
        (("extract", "--from", "now-7d"), "--out is missing"),
        (("extract",), "--from and --out are missing"),
        (("plan",), "--from is missing"),
        (("plan", "--fro", "now-7d"), "did you mean --from or --to?"),
        (("plan", "--from", "yesterday"), "argument --from: time 'yesterday': is not an RFC 3339 time"),
        (
            ("plan", "--from", "now-1d", "--window", "7"),
            "'7' is not a duration: write a number and one of s, m, h, d, w",
        ),
        (("plan", "--from", "now-1d", "--to", "25.10.2026"), "or now-7d (units s, m, h, d, w); write 2026-10-25"),
        (("plan", "--from", "10/25/2026"), "write the year first, then month and day: 2026-MM-DD"),
        (("plan", "--from", "now-1d", "--rate", "fast"), "write requests a second (10), auto, or none"),
        (("plan", "--from", "now-1d", "--retry-delays", "5;10"), "with commas (5,10,15), or none"),
        (("plan", "--from", "now-1d", "--timeout", "0"), "write seconds, more than zero"),
        (("plan", "--from", "now-1d", "--connections", "0"), "must be at least 1"),
        (("plan", "--from", "now-1d", "--connections", "two"), "'two' is not a whole number"),
        (("plan", "--from", "now-1d", "--log-level", "loud"), "argument --log-level: invalid choice"),
        (("simulate", "--limit", "forty"), "write 40/s, 40/s:10 (10 at once), 100/10s, or 5-at-once"),
        (("simulate", "--latency", "90-30"), "minimum and maximum (30-120)"),
        (("simulate", "--fault", "drop"), "write KIND=SHARE"),
        (("simulate", "--fault", "drop=2"), "'2' is not a share from 0 to 1"),
        (("simulate", "--port", "70000"), "must be at most 65535"),
        (("simulate", "--days", "-1"), "is not a number, 0 or more"),
    ],
)
def test_wrong_usage_says_what_to_write(argv: tuple[str, ...], said: str, run: Run) -> None:
    result = run(*argv)
    assert result.code == 2
    assert said in result.err
    assert "--help. [SF-USAGE]" in result.err
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
        (arguments.duration, "7d", timedelta(days=7)),
        (arguments.duration, "1.5h", timedelta(minutes=90)),
        (arguments.duration, "0", timedelta()),
        (arguments.rate, "none", "none"),
        (arguments.rate, "0.5", 0.5),
        (arguments.delays, "5,10,15", (5.0, 10.0, 15.0)),
        (arguments.delays, "none", ()),
        (arguments.whole, "60,000", 60_000),
        (simulate.limit, "40/s", ("rate", 40.0, 1.0)),
        (simulate.limit, "40/s:10", ("rate", 40.0, 10.0)),
        (simulate.limit, "100/10s", ("sliding", 100.0, 10.0)),
        (simulate.limit, "5-at-once", ("at-once", 5.0, 0.0)),
        (simulate.latency, "50", (50.0, 50.0)),
        (simulate.latency, "30-120", (30.0, 120.0)),
        (simulate.fault, "error-500=0.1", ("error_500", 0.1)),
    ],
)
def test_values_are_read(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "0", "1e9"])
def test_no_rate(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is not a rate"):
        arguments.rate(text)


def test_examples_can_be_parsed() -> None:
    for name in COMMANDS:
        examples = import_module(f"segment_fetch.cli.commands.{name.replace('-', '_')}").EXAMPLES
        joined = (
            examples.replace("\\\n", " ")
            .replace("|\n      gzip > yesterday.jsonl.gz", "")
            .replace(" > report.json", "")
        )
        for line in joined.splitlines():
            assert parser.parse(line.split()[1:]).command == name


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


def test_a_number_below_zero_is_named_as_such() -> None:
    with pytest.raises(UsageError, match="must be at least 0"):
        parser.parse(["demo", "--segments", "-5"])


def test_version_tells_what_is_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run("--version").out.splitlines()
    assert lines[1].startswith(f"Python {platform.python_version()} ")
    assert lines[2].startswith("scanner: compiled" if raw_rows.COMPILED else "scanner: not compiled")
    assert {"duckdb", "parquet", "zstd"} <= set(lines[3].removeprefix("extras: ").split(", "))
    monkeypatch.setattr(raw_rows, "COMPILED", not raw_rows.COMPILED)
    assert run("--version").out.splitlines()[2] != lines[2]

    def absent(name: str) -> Distribution:
        if name == "duckdb":
            raise PackageNotFoundError(name)
        return distribution(name)

    monkeypatch.setattr(version, "distribution", absent)
    told = run("--version").out.splitlines()
    assert "duckdb" not in told[3]
    assert "duckdb" in told[4]
    assert told[4].startswith("extras not installed: ")


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"SEGMENT_FETCH_BASE_URL": "http://127.0.0.1:1", "SEGMENT_FETCH_JSON": "1", "SEGMENT_FETCH_OUT": "there"}
    environ |= {"SEGMENT_FETCH_CONNECTIONS": "4", "SEGMENT_FETCH_ACCOUNT": "nobody", "SEGMENT_FETCH_FORMAT": "csv"}
    args = parser.parse(["extract", "--from", "now-1d", "--connections", "5"], environ)
    assert (args.base_url, args.json, args.out, args.format) == ("http://127.0.0.1:1", True, "there", "csv")
    assert (args.connections, args.account) == (5, None)
    assert parser.parse(["demo"], environ).out == "demo-out"
    args = parser.parse(["handle-time"], environ | {"SEGMENT_FETCH_EVERY": "1h", "SEGMENT_FETCH_NAMES": "x.csv"})
    assert (args.out, args.every, args.json, args.format, args.names) == ("there", "1h", True, None, [])
    report = parser.parse(["report", "--html", "x"], environ | {"SEGMENT_FETCH_TIMEZONE": "Asia/Kathmandu"})
    assert (report.out, report.timezone) == ("there", "Asia/Kathmandu")
    assert parser.parse(["fleet", "a.toml"], environ).connections == 4


def test_every_option_that_can_come_from_the_environment_is_known() -> None:
    options = {
        name.removeprefix("--")
        for command, each in parser.build()[1].items()
        for name in each.names()
        if command not in parser._WITHOUT_ENVIRONMENT
        and name not in parser._NOT_FROM_ENVIRONMENT
        and not isinstance(each._option_string_actions[name].default, list)
    }
    assert options == parser._WITH_VARIABLE


def test_a_variable_that_no_option_has_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMENT_FETCH_CONECTIONS", "4")
    monkeypatch.setenv("SEGMENT_FETCH_ACCOUNT", "4")
    monkeypatch.setenv("SEGMENT_FETCH_SCANNER", "skip")
    monkeypatch.setenv("SEGMENT_FETCH_FROM", "now-1d")
    err = run("verify", "--out", "nothing-there").err
    assert (
        "warning: SEGMENT_FETCH_CONECTIONS: no option has this variable, it is ignored; did you mean SEGMENT_FETCH_CONN"
    ) in err
    assert "SEGMENT_FETCH_ACCOUNT: no option has this variable" in err
    assert err.count("no option has this variable") == 2


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONNECTIONS", "two", "SEGMENT_FETCH_CONNECTIONS: 'two' is not a whole number"),
        ("FORMAT", "xml", "SEGMENT_FETCH_FORMAT: invalid choice: 'xml'"),
        ("JSON", "maybe", "SEGMENT_FETCH_JSON: write 1 or 0"),
    ],
)
def test_a_bad_variable_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parser.parse(["extract", "--from", "now-1d", "--out", "x"], {f"SEGMENT_FETCH_{name}": value})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command_and_option(shell: str, run: Run, tmp_path: Path) -> None:
    script = run("--print-completion", shell).out
    for name, each in parser.build()[1].items():
        assert name in script
        for option in each.names():
            assert option.removeprefix("--") in script
    if which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, capture_output=True)


def test_completion_needs_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    result = run("--print-completion", "bash")
    assert result.code == 2
    assert "pip install 'segment-fetch[completion]' [SF-EXTRA]" in result.err


def test_the_manual_page_has_every_command(tmp_path: Path) -> None:
    tool = [str(Path(sys.executable).parent / "argparse-manpage"), "--module", "segment_fetch.cli.parser"]
    page = tmp_path / "segment-fetch.1"
    options = ["--function", "whole", "--prog", "segment-fetch", "--format", "single-commands-section"]
    subprocess.run([*tool, *options, "--output", str(page)], check=True, capture_output=True)
    text = page.read_text().replace("\\-", "-")
    assert text.startswith(".TH")
    for name, each in parser.build()[1].items():
        assert f"segment-fetch {name}" in text
        assert all(option in text for option in each.names())


TOO_MANY = "window: the range divides into 120,960 windows"


@pytest.mark.parametrize(
    ("command", "width", "said"),
    [
        (["plan"], "0.01s", "window: must be at least one second"),
        (["plan"], "5s", f"{TOO_MANY}, and a plan has an entry for each"),
        (["extract", "--out", "out"], "5s", f"{TOO_MANY}, and the manifest has an entry for each"),
    ],
)
def test_windows_that_are_too_many_are_refused(
    command: list[str], width: str, said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, "--from", "now-7d", "--to", "now", "--window", width, "--base-url", "http://127.0.0.1:1")
    assert result.code == 2
    assert said in result.err
