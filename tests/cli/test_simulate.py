"""`simulate` as a process: what it announces, whom it lets in, what it spoils, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from segment_fetch.cli import parser
from segment_fetch.cli.commands import simulate
from segment_fetch.cli.console import Console
from segment_fetch.simulator import AtOnce, Dataset, OAuth1, RateLimit, Simulator, SlidingWindow
from tests.cli.conftest import Run
from tests.cli.support import AT_ONCE, SECRETS, environ, lines_in, started


@contextmanager
def _simulating(*argv: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    with started("simulate", *argv, env=env, stdin=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def _line(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline()


def test_a_program_starts_it_and_extracts(run: Run, env: dict[str, str], tmp_path: Path) -> None:
    argv = ["--json", "--until-stdin-closes", "--segments", "700", "--to", "now-3d", "--days", "2"]
    with _simulating(*argv, env=env) as running:
        announced = orjson.loads(_line(running))
        assert announced["segments"] == 700
        assert announced["credentials"] == {}
        times = ["--from", announced["from"], "--to", announced["to"]]
        result = run("extract", "--base-url", announced["base_url"], *times, "--out", str(tmp_path), *AT_ONCE)
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(5) == 0
    assert result.code == 0
    assert len(lines_in(tmp_path)) == 700


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_people_are_shown_credentials_and_a_command(signum: int) -> None:
    with _simulating(env=environ()) as running:
        first = _line(running)
        assert re.fullmatch(r"The agent-segments API is at http://127\.0\.0\.1:\d+\n", first)
        running.send_signal(signum)
        assert running.wait(5) == 0
        assert running.stdout is not None
        assert running.stderr is not None
        rest, said = running.stdout.read(), running.stderr.read()
    exported = dict(re.findall(r"^  export (\w+)=(\S+)$", rest, re.MULTILINE))
    assert set(exported) == {"LIVEPERSON_ACCOUNT", *SECRETS}
    assert first.split()[-1] in rest
    assert "segment-fetch extract --base-url" in rest
    assert said == ""


def test_given_credentials_are_not_shown(env: dict[str, str]) -> None:
    with _simulating("--auth", "oauth1", env=env) as running:
        assert "127.0.0.1" in _line(running)
        running.send_signal(signal.SIGINT)
        assert running.stdout is not None
        rest = running.stdout.read()
    assert not [value for value in SECRETS.values() if value in rest]


def test_quiet_gives_only_the_address(env: dict[str, str]) -> None:
    with _simulating("--quiet", env=env) as running:
        assert _line(running).startswith("http://127.0.0.1:")


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("simulate", "--port", str(taken.getsockname()[1]))
    assert result.code == 2
    assert "choose another, or 0 for a free one" in result.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--fault", "earthquake=0.1"), "--fault earthquake: is not one of too_many"),
        (("--fault", "drop=0.9", "--fault", "reset=0.9"), "must be at most 1 together"),
        (("--from", "now", "--to", "now-1d"), r"start must be before end, not 20"),
        (("--segments", "99000000"), "segments must be between"),
        (("--clock", "now-2d"), "OAuth 1.0 signs the real time; add --auth bearer"),
        (("--speed", "60"), "OAuth 1.0 signs the real time"),
        (("--auth", "bearer", "--credentials", "/none"), "cannot be read"),
    ],
)
def test_settings_that_cannot_work(argv: tuple[str, ...], said: str, run: Run) -> None:
    result = run("simulate", *argv)
    assert result.code in (2, 4)
    assert said in result.err


def test_a_part_of_a_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVEPERSON_APP_SECRET")
    result = run("simulate")
    assert result.code == 2
    assert "--auth oauth1: LIVEPERSON_APP_SECRET not set" in result.err


def _settings(monkeypatch: pytest.MonkeyPatch, *argv: str) -> dict[str, Any]:
    """Return the arguments that a simulator would be made with."""
    made: dict[str, Any] = {}

    def note(dataset: Dataset, **settings: Any) -> Simulator:
        made.update(settings, dataset=dataset)
        return Simulator(dataset, **settings)

    monkeypatch.setattr(simulate, "Simulator", note)
    args = parser.parse(["simulate", *argv])
    console = Console(args, argv, {})
    simulate._simulator(args, console, simulate._access(args, console))
    return made


def test_options_reach_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = "--fault error-500=0.1 --fault drop=0.2 --late 0.3 --late-delay 1h --inserts 1 --vanish 2 --swaps 3"
    service = "--latency 30-120 --limit 40/s:10 --limit 100/10s --limit 5-at-once --no-retry-after --to-exclusive"
    data = "--segments 1,000 --seed 7 --ties 0.5 --burst 10 --new-field-from 3 --daily-load --account abc --no-gzip"
    made = _settings(monkeypatch, *f"{trouble} {service} {data} --shuffle-ties --no-permission".split())
    assert made["limit"] == [RateLimit(40.0, 10, "none"), SlidingWindow(100, 10.0, "none"), AtOnce(5, "none")]
    assert (made["faults"].error_500, made["faults"].drop, made["faults"].seed) == (0.1, 0.2, 7)
    drift = made["drift"]
    assert (drift.late_share, drift.late_delay_s, drift.shuffle_ties) == (0.3, 3600.0, True)
    assert (drift.inserts_per_s, drift.removals_per_s, drift.swaps_per_s) == (1.0, 2.0, 3.0)
    assert (made["to_inclusive"], made["gzip"], made["permitted"]) == (False, False, False)
    dataset = made["dataset"]
    assert (dataset.segments, dataset.seed, dataset.account, dataset.new_field_from) == (1_000, 7, "abc", 3)
    assert isinstance(made["auth"], OAuth1)


def test_days_pass_from_run_to_run(run: Run, tmp_path: Path) -> None:
    """A nightly job in a minute: each run finds the day that has passed meanwhile, and settles an older one."""
    argv = ["--auth", "none", "--json", "--until-stdin-closes", "--segments", "600", "--days", "6"]
    seconds_a_day = 1.0
    with _simulating(*argv, "--clock", "now-3d", "--speed", str(86_400 / seconds_a_day), env=environ()) as running:
        url = orjson.loads(_line(running))["base_url"]
        reports: list[dict[str, Any]] = []
        while not (reports and reports[-1]["complete_before"] > reports[0]["complete_before"]) and len(reports) < 60:
            result = run("sync", "--from", "now-5d", "--base-url", url, "--out", str(tmp_path), "--json", *AT_ONCE)
            reports.append(result.json)
    assert all(report["exit_code"] == 0 for report in reports)
    assert reports[-1]["complete_before"] > reports[0]["complete_before"]
    assert sum(report["added"] for report in reports) > 0


def test_segments_of_the_future_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _settings(monkeypatch, "--to", "now+5d", "--days", "6", "--auth", "bearer", "--speed", "2")
    ahead = made["dataset"].end / 1000 - time.time()
    assert ahead == pytest.approx(5 * 86_400, abs=60)
    first = made["clock"]()
    assert first == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize("kind", ["none", "bearer", "client-credentials"])
def test_kinds_of_credentials(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _settings(monkeypatch, "--auth", kind)
    expected = {"none": "NoneType", "bearer": "Bearer", "client-credentials": "ClientCredentials"}
    assert type(made["auth"]).__name__ == expected[kind]
