"""The tap's errors: no traceback, no secret, nothing lost; and the tap as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segment_fetch.integrations.singer.config import SECRETS, TapConfig
from segment_fetch.integrations.singer.state import State
from segment_fetch.query import Filters
from segment_fetch.simulator import Bearer, ClientCredentials, Dataset, OAuth1, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.pacer import Learned
from tests.integrations.singer.support import BEARER, Result, World, dataset

VALUES = {
    "app_key": "k3y-of-the-app",
    "app_secret": "s3cret/of+the=app",
    "access_token": "t0ken-of-access",
    "access_token_secret": "s3cret-of-the-token",
    "client_id": "cl1ent-id",
    "client_secret": "s3cret-of-the-client",
    "bearer": BEARER,
}
OAUTH1 = {name: VALUES[name] for name in ("app_key", "app_secret", "access_token", "access_token_secret")}
CLIENT = {name: VALUES[name] for name in ("client_id", "client_secret")}
KINDS: dict[str, tuple[dict[str, str], Any]] = {
    "oauth 1.0": (OAUTH1, msgspec.convert(OAUTH1, OAuth1)),
    "oauth 2.0": (CLIENT, msgspec.convert(CLIENT, ClientCredentials)),
    "bearer": ({"bearer": BEARER}, Bearer(BEARER)),
}


def assert_no_secret(result: Result) -> None:
    assert [value for value in VALUES.values() if value in result.out + result.err] == []
    assert "Traceback" not in result.err


@pytest.mark.parametrize("kind", KINDS)
def test_credentials_come_from_the_config_else_from_the_environment(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    values, auth = KINDS[kind]
    world.now_ms = int(time.time() * 1000)  # which the signatures of OAuth 1.0 tell
    world.serve(Dataset.recent(20, now=world.clock()), auth=auth)
    start = {"start_date": "now-8d"}
    monkeypatch.setenv("LIVEPERSON_BEARER", "not-looked-at")
    assert len(world.tap(**{"bearer": None, **values, **start}).records) == 20
    monkeypatch.delenv("LIVEPERSON_BEARER")
    for name, value in {"account": "111111", **values}.items():
        monkeypatch.setenv(f"LIVEPERSON_{name.upper()}", value)
    result = world.tap(account=None, bearer=None, **start)
    assert len(result.records) == 20
    assert_no_secret(result)
    for name, value in {"account": "111111", **values}.items():
        monkeypatch.setenv(f"LIVEPERSON_{name.upper()}", f"'{value}'  # as docker --env-file leaves it")
    assert len(world.tap(account=None, bearer=None, **start).records) == 20


@pytest.mark.parametrize("kind", KINDS)
def test_refused_credentials_are_not_shown(world: World, kind: str) -> None:
    values, auth = KINDS[kind]
    world.serve(dataset(20), auth=auth, permitted=False)
    result = world.tap("--log-level", "debug", **{"bearer": None, **values})
    assert result.code == 4
    assert result.of("RECORD") == result.of("STATE") == []
    assert "Agent Activity API" in result.err
    assert [value for value in VALUES.values() if value in result.out + result.err] == []


CONFIGS: dict[str, tuple[dict[str, Any], int, str]] = {
    "no account": ({"account": None}, 2, "account is missing; set it, or LIVEPERSON_ACCOUNT"),
    "an odd account": ({"account": "../1"}, 2, "account '../1'"),
    "no credentials": ({"bearer": None}, 4, "there are no credentials: set app_key, app_secret"),
    "half of them": ({"bearer": None, "client_id": "x"}, 4, "OAuth 2.0 client is incomplete: set client_secret, too"),
    "two kinds": ({**CLIENT}, 4, "more than one set of credentials: OAuth 2.0 client and bearer token; keep one"),
    "a secret with a line break": ({"bearer": BEARER + "\n"}, 4, "copy bearer again"),
    "a secret that is no text": ({"bearer": 5}, 2, "`$.bearer`"),
    "an unknown setting": ({"agents": "5"}, 2, "unknown field `agents`; `--about` lists the settings"),
    "no start": ({"start_date": None}, 2, "missing required field `start_date`"),
    "a start that is no time": ({"start_date": "last week"}, 2, "start_date: time 'last week': is not an RFC 3339"),
    "a start in the future": ({"start_date": "2027-01-01"}, 2, "start_date 2027-01-01T00:00:00Z: is in the future"),
    "a long source": ({"source": "a" * 21}, 2, "1 to 20 letters"),
    "a rate that is none": ({"rate": "fast"}, 2, "rate: 'fast' is not a rate"),
    "an address that is none": ({"base_url": "ftp://" + BEARER}, 2, "base URL"),
    "an address of nobody": ({"base_url": "http://127.0.0.1:9"}, 5, "no connection to 127.0.0.1"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_wrong_setting_is_named_and_nothing_is_asked(world: World, case: str) -> None:
    changes, code, says = CONFIGS[case]
    world.serve(dataset(20))
    result = world.tap(**changes)
    assert result.code == code, result.err
    assert says in result.err
    assert result.of("RECORD") == []
    assert world.simulator.stats.requests == 0
    assert_no_secret(result)


FILES: dict[str, tuple[str, str, str]] = {
    "config that is no JSON": ("--config", f'{{"bearer": "{BEARER}" 5', "JSON is malformed"),
    "config that is a list": ("--config", f'["{BEARER}"]', "Expected `object`"),
    "config of bytes": ("--config", "\udcff", "--config"),
    "catalog that is no JSON": ("--catalog", "{", "is not a Singer catalog"),
    "catalog without streams": ("--catalog", "{}", "missing required field `streams`"),
    "catalog of another tap": ("--catalog", '{"streams": []}', "has no stream agent_segments"),
    "catalog with odd properties": (
        "--catalog",
        '{"streams": [{"tap_stream_id": "agent_segments", "schema": {"properties": 5}}]}',
        "`$.streams[0].schema.properties`",
    ),
    "state that is no JSON": ("--state", "{", "is not a state of this tap"),
    "state that is a list": ("--state", "[1]", "is not a state of this tap"),
    "state that is null": ("--state", "null", "is not a state of this tap: Expected `object`, got `null`"),
    "state of no bytes": ("--state", "", "is empty, so it does not say where the last run ended"),
    "state of white space": ("--state", " \n", "in the first run omit the option, or write {} to the file"),
    "state without bookmarks": ("--state", '{"singer_state": {}}', "missing required field `bookmarks`; start again"),
    "state with bookmarks of null": ("--state", '{"bookmarks": null}', "`$.bookmarks`; start again without it"),
    "state messages, all of a run": ("--state", '{"type":"STATE","value":{}}\n' * 2, "is not a state of this tap"),
    "state message without a value": ("--state", '{"type": "STATE"}', "is not a state of this tap"),
    "state message that is a state, too": (
        "--state",
        '{"type": "STATE", "value": {"bookmarks": {}}, "bookmarks": {}}',
        "is a STATE message with bookmarks beside its value",
    ),
    "state message in another": (
        "--state",
        '{"type": "STATE", "value": {"type": "STATE", "value": {"bookmarks": {}}}}',
        "missing required field `bookmarks`",
    ),
    "another message": ("--state", '{"type": "RECORD", "record": {}}', "missing required field `bookmarks`"),
    "bookmark that is a list": ("--state", '{"bookmarks": {"agent_segments": []}}', "`$.bookmarks.agent_segments`"),
    "bookmark that is no time": (
        "--state",
        '{"bookmarks": {"agent_segments": {"replication_key_value": "soon"}}}',
        "the bookmark cannot be read: time 'soon'",
    ),
    "bookmark in the future": (
        "--state",
        '{"bookmarks": {"agent_segments": {"replication_key_value": "2027-01-01"}}}',
        "the state's bookmark 2027-01-01T00:00:00Z: is in the future",
    ),
    "state of a newer release": (
        "--state",
        '{"bookmarks": {"agent_segments": {"replication_key_value": 1, "version": 2}}}',
        "was made by a newer release",
    ),
    "state of another account": (
        "--state",
        '{"bookmarks": {"agent_segments": {"replication_key_value": 1, "account": "2"}}}',
        'belongs to account "2", not "111111"; start again without it (meltano: --full-refresh)',
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_used_is_named_and_nothing_is_asked(world: World, case: str) -> None:
    option, content, says = FILES[case]
    world.serve(dataset(20))
    path = world.folder / "odd.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    result = world.call("--config", world.file("config.json", world.config()), option, str(path))
    assert (result.code, result.out) == (2, "")
    assert says in result.err
    assert f"{option} {path}" in result.err or "bookmark" in says
    assert world.simulator.stats.requests == 0
    assert_no_secret(result)


@pytest.mark.parametrize("option", ["--config", "--catalog", "--state"])
def test_a_file_that_is_not_there_is_named(world: World, option: str) -> None:
    world.serve(dataset(20))
    result = world.call("--config", world.file("config.json", world.config()), option, str(world.folder / "none"))
    assert (result.code, result.out) == (2, "")
    assert f"{option} {world.folder / 'none'}: cannot be read: No such file or directory" in result.err


def test_without_a_config_it_says_what_is_missing(world: World) -> None:
    result = world.call()
    assert (result.code, result.out) == (2, "")
    assert "--config FILE is missing" in result.err


def test_about_lists_every_setting_and_marks_the_secrets(world: World) -> None:
    about = json.loads(world.call("--about", "--format", "json").out)
    assert about["name"] == "tap-liveperson-segments"
    assert {"catalog", "discover", "state"} <= set(about["capabilities"])
    settings = about["settings"]["properties"]
    assert list(settings) == list(TapConfig.__struct_fields__)
    assert {name for name, words in settings.items() if words.get("secret")} == set(SECRETS) == set(VALUES)
    assert all(words["description"] for words in settings.values())
    text = world.call("--about").out
    assert [name for name in settings if f"  {name} " not in text] == []
    assert world.call("--version").out.startswith("tap-liveperson-segments 0.")
    assert world.call("--nonsense").code == 2


def test_no_rate_is_set_unless_the_config_does(world: World, tmp_path: Path) -> None:
    about = json.loads(world.call("--about", "--format", "json").out)["settings"]["properties"]["rate"]
    assert about["default"] == "auto"
    assert "auto (the default) finds the API's limit" in world.call("--about").out
    world.serve(dataset(20))
    store = PaceStore(tmp_path / "pace")
    store.save("111111", world.simulator.base_url, Learned(500.0, limited=True, cap=None, at=world.clock()))
    for rate, says in ((None, "490 requests a second"), ("10", "now 9.8 requests a second")):
        result = world.tap("--log-level", "debug", pace=store, rate=rate)
        assert result.code == 0
        assert says in result.err


def test_nothing_that_holds_a_secret_shows_it() -> None:
    assert repr(TapConfig(start_date="now-1d", bearer=BEARER)) == "TapConfig(...)"
    assert BEARER not in str(State("1", Filters()).behind(5))


@pytest.fixture
def real(segment_simulator: SimulatorFactory) -> Simulator:
    """A simulator on the clock of this machine, for processes."""
    return segment_simulator(Dataset.recent(3_000, now=time.time(), days=20))


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(real: Simulator, tmp_path: Path) -> Start:
    config = {"account": "111111", "bearer": BEARER, "start_date": "now-21d", "base_url": real.base_url, "rate": "none"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))

    def start(*argv: str, **options: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "segment_fetch.integrations.singer", "--config", str(path), *argv]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **(pipes | options))

    return start


@pytest.mark.parametrize("lines", [1, 2, 500, 1_200, 2_500])
def test_killed_in_the_middle_no_state_says_more_than_was_emitted(
    real: Simulator, start: Start, tmp_path: Path, lines: int
) -> None:
    first = start()
    assert first.stdout is not None
    seen = [first.stdout.readline() for _ in range(lines)]
    first.kill()
    seen += first.stdout.readlines()
    first.communicate(timeout=30)
    messages = [json.loads(line) for line in seen if line.endswith(b"\n")]
    state, emitted = None, set()
    for message in messages:
        if message["type"] == "RECORD":
            emitted.add(message["record"]["segmentId"])
        elif message["type"] == "STATE":
            state = message["value"]
            before = state["bookmarks"]["agent_segments"]["replication_key_value"]
            assert set(real.ids(0, before)) <= emitted
    options = []
    if state is not None:
        (tmp_path / "state.json").write_text(json.dumps(state))
        options = ["--state", str(tmp_path / "state.json")]
    again, _ = start(*options).communicate(timeout=30)
    later = {message["record"]["segmentId"] for message in map(json.loads, again.splitlines()) if "record" in message}
    assert emitted | later == set(real.ids(0, int(time.time() * 1000)))


def test_a_target_that_goes_away_ends_it_quietly(start: Start) -> None:
    running = start()
    assert running.stdout is not None
    assert running.stderr is not None
    assert running.stdout.readline().startswith(b'{"type":"SCHEMA"')
    running.stdout.close()
    err = running.stderr.read().decode()
    running.stderr.close()
    assert running.wait(30) == 3
    assert "the reader of standard output closed it before the end" in err
    assert_no_secret(Result(3, "", err))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_is_named(start: Start) -> None:
    with Path("/dev/full").open("wb") as full:
        running = start(stdout=full)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 3
    assert "cannot write to standard output: No space left on device" in err.decode()


def test_interrupted_while_the_target_is_busy_it_ends_at_once(start: Start) -> None:
    running = start()
    assert running.stdout is not None
    running.stdout.readline()
    os.kill(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"interrupted; records after the last state will be emitted again" in err
    assert b"Traceback" not in err
