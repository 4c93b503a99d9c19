"""`doctor`: one line for each step, the mend for the one that fails, and the exit code of it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.simulator import Bearer, ClientCredentials, Dataset, Fault, Faults, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import NO_DELAYS, SECRETS, Result, assert_no_secret, settled


def _doctor(run: Run, api: Simulator, *more: str) -> Result:
    result = run("doctor", "--base-url", api.base_url, *NO_DELAYS, *more)
    assert_no_secret(result)
    return result


def _statuses(result: Result) -> dict[str, str]:
    return {check["name"]: check["status"] for check in result.json["checks"]}


def _use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def _domain_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = SegmentApi.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "domain_url", url)


def test_all_is_well(run: Run, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    api = segment_simulator(Dataset.recent(700, now=time.time(), days=7), auth=KEY)
    result = _doctor(run, api)
    assert result.code == 0
    lines = result.out.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("ok ")]
    assert names == ["settings", "domain", "clock", "credentials", "permission", "query"]
    assert "segments closed in the last 24 hours" in result.words
    assert max(map(len, lines)) <= 60


def test_all_is_well_as_json(run: Run, api: Simulator) -> None:
    result = _doctor(run, api, "--json")
    assert result.json["ok"] is True
    assert set(_statuses(result).values()) == {"ok"}


def test_quiet_shows_only_what_fails(run: Run, api: Simulator) -> None:
    assert _doctor(run, api, "--quiet") == Result(0, "", "")


def test_no_credentials(run: Run, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch)
    result = _doctor(run, api)
    assert result.code == 4
    assert result.out.startswith("failed   settings")
    assert "LIVEPERSON_APP_KEY" in result.out


def test_wrong_credentials(run: Run, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPERSON_APP_SECRET", "hush-hush")
    result = _doctor(run, api, "--json")
    assert result.code == 4
    assert _statuses(result) == {"settings": "ok", "domain": "ok", "clock": "ok", "credentials": "failed"}
    assert "compare the values in the environment" in result.json["checks"][-1]["mend"]
    assert "hush" not in result.out


@pytest.mark.parametrize(("off_s", "said"), [(-3_630, "ahead of"), (3_630, "behind")])
def test_a_wrong_clock(off_s: float, said: str, run: Run, segment_simulator: SimulatorFactory) -> None:
    api = segment_simulator(settled(10), auth=KEY, clock=lambda: time.time() + off_s)
    result = _doctor(run, api)
    assert result.code == 4
    assert f"failed clock 1 h {said} the server's" in result.words
    assert "fix: set this machine's clock" in result.words
    assert "fix: set the clock first" in result.words


def test_a_clock_that_matters_to_nobody_yet(
    run: Run, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, LIVEPERSON_BEARER="hush-hush")
    api = segment_simulator(settled(10), auth=Bearer("hush-hush"), clock=lambda: time.time() + 600)
    result = _doctor(run, api, "--json")
    assert result.code == 0
    assert _statuses(result)["clock"] == "warning"


def test_no_permission(run: Run, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    api = segment_simulator(settled(10), auth=KEY, permitted=False)
    result = _doctor(run, api)
    assert result.code == 4
    assert "let an administrator give the API key the permission Data > Workforce" in result.words
    oauth2 = ClientCredentials(client_id="an-id", client_secret="hush-hush")
    _use(monkeypatch, LIVEPERSON_CLIENT_ID="an-id", LIVEPERSON_CLIENT_SECRET="hush-hush")
    result = _doctor(run, segment_simulator(settled(10), auth=oauth2, permitted=False), "--json")
    assert result.code == 4
    assert _statuses(result)["credentials"] == "ok"
    assert _statuses(result)["permission"] == "failed"


def test_a_client_that_is_not_known(
    run: Run, segment_simulator: SimulatorFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, LIVEPERSON_CLIENT_ID="an-id", LIVEPERSON_CLIENT_SECRET="wrong")
    result = _doctor(run, segment_simulator(settled(10), auth=ClientCredentials()), "--json")
    assert result.code == 4
    assert _statuses(result) == {"settings": "ok", "domain": "ok", "credentials": "failed"}
    assert "the login service refused the client id and secret" in result.out


def test_a_dead_port(run: Run) -> None:
    result = run("doctor", "--base-url", "http://127.0.0.1:1", *NO_DELAYS, "--json")
    assert result.code == 5
    assert _statuses(result) == {"settings": "ok", "domain": "ok", "query": "failed"}


@pytest.mark.parametrize("fault", [Fault.HTML, Fault.ERROR_503])
def test_a_service_that_fails(fault: Fault, run: Run, segment_simulator: SimulatorFactory) -> None:
    shares: dict[str, Any] = {fault.value: 1.0}
    result = _doctor(run, segment_simulator(settled(10), auth=KEY, faults=Faults(**shares)), "--json")
    assert result.code == 5
    assert "4 times" in result.json["checks"][-1]["detail"]


def test_a_service_that_fails_once(run: Run, api: Simulator) -> None:
    api.fail_next(Fault.ERROR_500)
    result = _doctor(run, api, "--log-format", "json")
    assert result.code == 0
    assert [event["event"] for event in result.events] == ["retrying"]


def test_a_refused_request(run: Run, segment_simulator: SimulatorFactory) -> None:
    api = segment_simulator(settled(10), auth=KEY, faults=Faults(redirect=1.0))
    result = _doctor(run, api, "--json")
    assert result.code == 2
    assert _statuses(result)["query"] == "failed"


def test_settings_that_cannot_work(run: Run) -> None:
    assert run("doctor", "--base-url", "http://example.org").code == 2
    assert run("doctor", "--source", "not so").code == 2


def test_the_domain_is_asked(run: Run, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    _domain_at(api.base_url, monkeypatch)
    unknown = run("doctor", "--account", "222222", *NO_DELAYS, "--json")
    assert unknown.code == 4
    assert _statuses(unknown) == {"settings": "ok", "domain": "failed"}
    _domain_at("http://127.0.0.1:1", monkeypatch)
    unreachable = run("doctor", *NO_DELAYS, "--json")
    assert unreachable.code == 5
    assert "HTTPS_PROXY" in unreachable.json["checks"][-1]["mend"]


def test_a_domain_is_found(run: Run, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(*_: object) -> str:
        return api.base_url

    monkeypatch.setattr(SegmentApi, "_ask_domain", found)
    result = run("doctor", *NO_DELAYS)
    assert result.code == 0
    assert "found by the Domain API" in result.words
