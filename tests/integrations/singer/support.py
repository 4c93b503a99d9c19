"""Helpers for tests of the tap: a world with a clock, runs of the tap in it, and what a target makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from segment_fetch.integrations.singer import app
from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.timerange import format_time
from tests.support_runs import AT_ONCE, DAY_MS, NOW_MS

IMPATIENT = structs.replace(AT_ONCE, parked=(), patience=0.0)
BEARER = "b3arer-of-the-tests"
FIRST = NOW_MS - 20 * DAY_MS
"""The beginning of datasets and runs."""


class Result(NamedTuple):
    """The results of a run."""

    code: int
    out: str
    err: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Standard output, which holds whole messages only."""
        assert self.out == "" or self.out.endswith("\n")
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of a type."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [message["record"] for message in self.of("RECORD")]

    @property
    def ids(self) -> list[str]:
        return [record["segmentId"] for record in self.records]

    @property
    def state(self) -> dict[str, Any] | None:
        """Return the state that a target keeps: the last one, if nothing came behind it."""
        messages = self.messages
        return messages[-1]["value"] if messages and messages[-1]["type"] == "STATE" else None


def bookmark(state: Mapping[str, Any] | None) -> int:
    """Return the beginning of the next run by a state."""
    assert state is not None
    value: int = state["bookmarks"]["agent_segments"]["replication_key_value"]
    return value


class World:
    """A simulator whose clock a test sets, and the tap."""

    def __init__(self, factory: SimulatorFactory, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.now_ms = NOW_MS
        self.folder = folder
        self.capture = capture
        self._factory = factory
        self.simulator: Simulator

    def serve(self, dataset: Dataset, **options: Any) -> Simulator:
        """Starts a simulator, which the tap asks from now on."""
        self.simulator = self._factory(dataset, clock=self.clock, **options)
        return self.simulator

    def clock(self) -> float:
        return self.now_ms / 1000

    def config(self, **changes: Any) -> dict[str, Any]:
        """Settings for the simulator; None takes one away."""
        settings = {
            "account": "111111",
            "bearer": BEARER,
            "start_date": format_time(FIRST),
            "base_url": self.simulator.base_url,
            "rate": "none",
        }
        return {name: value for name, value in (settings | changes).items() if value is not None}

    def file(self, name: str, content: Any) -> str:
        path = self.folder / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    def tap(self, *argv: str, state: Any = None, catalog: Any = None, pace: Any = None, **changes: Any) -> Result:
        """Runs the tap in this process, at the world's moment."""
        argv = ("--config", self.file("config.json", self.config(**changes)), *argv)
        if state is not None:
            argv += ("--state", self.file("state.json", state))
        if catalog is not None:
            argv += ("--catalog", self.file("catalog.json", catalog))
        return self.call(*argv, pace=pace)

    def call(self, *argv: str, **options: Any) -> Result:
        """Runs the tap with these arguments only."""
        self.capture.readouterr()
        code = app.main(argv, clock=self.clock, retry=IMPATIENT, **options)
        return Result(code, *self.capture.readouterr())


def dataset(segments: int = 600, *, days: int = 20, **options: Any) -> Dataset:
    """Segments from FIRST on; at NOW all are closed and the younger ones are not settled."""
    return Dataset(segments=segments, start=FIRST, end=FIRST + days * DAY_MS, **options)
