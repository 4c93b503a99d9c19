"""Fixtures of the tap's tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.integrations.singer.support import World


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine that a run depends on."""
    for name in [name for name in os.environ if name.startswith("LIVEPERSON_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def world(segment_simulator: SimulatorFactory, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> World:
    return World(segment_simulator, tmp_path, capfd)
