"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest

from segment_fetch.cli.app import main
from segment_fetch.simulator import OAuth1, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.support import ACCOUNT, SECRETS, Result, environ, settled

Run: TypeAlias = Callable[..., Result]

KEY = OAuth1(
    app_key=SECRETS["LIVEPERSON_APP_KEY"],
    app_secret=SECRETS["LIVEPERSON_APP_SECRET"],
    access_token=SECRETS["LIVEPERSON_ACCESS_TOKEN"],
    access_token_secret=SECRETS["LIVEPERSON_ACCESS_TOKEN_SECRET"],
)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An account and its key, and nothing of the machine that the output depends on."""
    for name in ("LIVEPERSON_CLIENT_ID", "LIVEPERSON_CLIENT_SECRET", "LIVEPERSON_BEARER", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"LIVEPERSON_ACCOUNT": ACCOUNT, **SECRETS}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def env() -> dict[str, str]:
    """The same environment for a process."""
    return environ(LIVEPERSON_ACCOUNT=ACCOUNT, **SECRETS)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process."""

    def run(*argv: str) -> Result:
        capsys.readouterr()
        code = main(argv)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def api(segment_simulator: SimulatorFactory) -> Simulator:
    """3,000 settled segments of three days, behind the key."""
    return segment_simulator(settled(3_000), auth=KEY)
