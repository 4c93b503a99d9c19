"""Every command that asks the API says once that this machine's clock is wrong, and takes nothing for success that was
not read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from segment_fetch.cli import exit_codes
from segment_fetch.integrations.singer import app
from segment_fetch.simulator import Bearer, Dataset, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.timerange import settled_before
from tests.cli.conftest import Run
from tests.cli.support import ACCOUNT, AT_ONCE, SECRETS

TOKEN = "b3arer-of-the-tests"
HOUR_S, DAY_S = 3_600, 86_400
SKEWS = {"ahead": 3 * DAY_S, "behind": -3 * DAY_S, "an hour ahead": HOUR_S, "90 s behind": -90}


@pytest.fixture(params=list(SKEWS.values()), ids=list(SKEWS))
def skewed(
    request: pytest.FixtureRequest, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch
) -> tuple[Simulator, int]:
    """A simulator from whose clock this machine's differs, and by how many seconds."""
    return _simulator(segment_simulator, monkeypatch, request.param), request.param


def _simulator(factory: SimulatorFactory, monkeypatch: pytest.MonkeyPatch, skew: int) -> Simulator:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIVEPERSON_BEARER", TOKEN)
    now = time.time() - skew
    return factory(Dataset.recent(900, now=now, days=8), auth=Bearer(TOKEN), clock=lambda: time.time() - skew)


def _warnings(text: str) -> int:
    return " ".join(text.split()).count("clock of this machine is")


@pytest.mark.parametrize(
    "argv", [("extract", "--from", "now-4d"), ("sync", "--from", "now-4d")], ids=lambda argv: argv[0]
)
@pytest.mark.parametrize("out", ["folder", "duckdb:///{}/one.duckdb", "parquet"])
def test_a_destination_is_filled_and_the_skew_said_once(
    run: Run, skewed: tuple[Simulator, int], tmp_path: Path, argv: tuple[str, ...], out: str
) -> None:
    simulator, _ = skewed
    place = out.format(tmp_path) if ":" in out else str(tmp_path / out)
    shape = ("--format", "parquet") if out == "parquet" else ()
    where = ("--out", place, "--base-url", simulator.base_url, *AT_ONCE)
    first = run(*argv, *shape, *where)
    assert (first.code, _warnings(first.err)) == (0, 1)
    again = run(argv[0], *(argv[1:] if argv[0] == "extract" else ()), *shape, *where)
    assert (again.code, _warnings(again.err)) == (0, 1)
    verified = run("verify", "--against-api", *where)
    assert (verified.code, _warnings(verified.err)) == (0, 1)


def test_plan_standard_output_and_doctor_say_it(run: Run, skewed: tuple[Simulator, int]) -> None:
    simulator, _ = skewed
    where = ("--base-url", simulator.base_url, *AT_ONCE)
    for argv in (("plan", "--from", "now-4d"), ("extract", "--from", "now-4d", "--out", "-")):
        result = run(*argv, *where)
        assert (result.code, _warnings(result.err)) == (0, 1)
    result = run("doctor", "--base-url", simulator.base_url)
    assert result.code == 0
    assert "warning clock" in result.words
    assert _warnings(result.err) == 0, "the check has said it"


def test_the_tap_says_it_and_its_bookmark_stays_behind_both_clocks(
    skewed: tuple[Simulator, int], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    simulator, skew = skewed
    settings = {"account": ACCOUNT, "bearer": TOKEN, "base_url": simulator.base_url, "rate": "none"}
    (tmp_path / "config.json").write_text(json.dumps({**settings, "start_date": "now-6d"}))
    assert app.main(["--config", str(tmp_path / "config.json")]) == 0
    out, err = capfd.readouterr()
    state = json.loads(out.splitlines()[-1])
    assert state["type"] == "STATE"
    earlier = int((time.time() - max(skew, 0)) * 1000)
    assert state["value"]["bookmarks"]["agent_segments"]["replication_key_value"] <= settled_before(earlier)
    assert _warnings(err) == 1


def test_a_fleet_says_it_for_its_account(run: Run, skewed: tuple[Simulator, int], tmp_path: Path) -> None:
    simulator, _ = skewed
    text = f'[accounts.{ACCOUNT}]\nout = "{tmp_path}/out"\nfrom = "now-4d"\nbase_url = "{simulator.base_url}"\n'
    text += 'credentials = { env = "LIVEPERSON_" }\nrate = "none"\nstate = "none"\n'
    (tmp_path / "accounts.toml").write_text(text)
    result = run("fleet", str(tmp_path / "accounts.toml"))
    assert (result.code, _warnings(result.err)) == (0, 1)


def test_a_range_in_the_servers_future_is_refused_by_every_command(
    run: Run, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    simulator = _simulator(segment_simulator, monkeypatch, 3 * DAY_S)
    out = ("--out", str(tmp_path / "out"))
    for argv in (("plan",), ("extract", *out), ("extract", "--out", "-"), ("sync", *out)):
        result = run(*argv, "--from", "now-1d", "--base-url", simulator.base_url, *AT_ONCE)
        assert result.code == exit_codes.USAGE
        assert "the range starts in the future" in result.words
