"""The dlt resource in real pipelines: extracted from the simulator, loaded into DuckDB files."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

from segment_fetch import BearerToken, Filters, IncompleteError, InputError
from segment_fetch.events import Event, PaceChanged
from segment_fetch.simulator import Dataset, Drift, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.pacer import Learned
from segment_fetch.timerange import settled_before
from tests.support import everything_said
from tests.support_runs import AT_ONCE, DAY_MS, NOW_MS

TOKEN = "t0ken-of-the-tests"
FIRST = NOW_MS - 20 * DAY_MS


def dataset(segments: int = 600, *, days: int = 20, **options: Any) -> Dataset:
    return Dataset(segments=segments, start=FIRST, end=FIRST + days * DAY_MS, **options)


class Warehouse:
    """A pipeline into a DuckDB file, and a simulator whose clock a test sets."""

    def __init__(self, factory: SimulatorFactory, folder: Path) -> None:
        self.now_ms = NOW_MS
        self.folder = folder
        self._factory = factory
        self.simulator: Simulator

    def serve(self, data: Dataset, **options: Any) -> None:
        self.simulator = self._factory(data, clock=self.clock, **options)

    def clock(self) -> float:
        return self.now_ms / 1000

    def load(self, start: Any = FIRST, *, unset: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
        """Runs the pipeline, with `unset` settings left to their defaults; returns the state of the resource."""
        import dlt

        from segment_fetch.integrations.dlt import agent_segments

        settings: dict[str, Any] = {"base_url": self.simulator.base_url, "rate": None, "retry": AT_ONCE} | options
        settings = {setting: value for setting, value in settings.items() if setting not in unset}
        resource = agent_segments(
            "111111", start, auth=BearerToken(TOKEN), source="tests", clock=self.clock, **settings
        )
        pipeline = dlt.pipeline(
            "segments",
            pipelines_dir=str(self.folder / "pipelines"),
            destination=dlt.destinations.duckdb(str(self.folder / "segments.duckdb")),
            dataset_name="loaded",
        )
        pipeline.run(resource)
        state: dict[str, Any] = pipeline.state["sources"]["segments"]["resources"]["agent_segments"]
        return state

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / "segments.duckdb"), read_only=True) as db:
            return db.execute(text).fetchall()

    def ids(self) -> list[str]:
        return [row[0] for row in self.query("SELECT segment_id FROM loaded.agent_segments ORDER BY 1")]


@pytest.fixture
def warehouse(segment_simulator: SimulatorFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)
    return Warehouse(segment_simulator, tmp_path)


def test_nights_with_late_rows_end_equal_to_the_truth(warehouse: Warehouse) -> None:
    warehouse.serve(dataset(days=24, new_field_from=590), drift=Drift(late_share=0.5))
    for night in range(3):
        warehouse.now_ms = NOW_MS + 3 * night * DAY_MS
        warehouse.simulator.stats.log.clear()
        state = warehouse.load()
        assert state["bookmark"] == settled_before(warehouse.now_ms)
        asked = [record.query.start for record in warehouse.simulator.stats.log if record.query]
        assert min(asked) == (FIRST if night == 0 else settled_before(NOW_MS + 3 * (night - 1) * DAY_MS))
        assert warehouse.ids() == sorted(warehouse.simulator.ids(FIRST, warehouse.now_ms))
    assert warehouse.ids() == sorted(dataset(days=24).ids())
    columns = {name: kind for name, kind, *_ in warehouse.query("DESCRIBE loaded.agent_segments")}
    assert columns["end_time"] == "TIMESTAMP WITH TIME ZONE"
    assert (columns["agent_id"], columns["end_reason"]) == ("BIGINT", "VARCHAR")
    [(times, extras)] = warehouse.query(
        "SELECT list(epoch_ms(end_time) ORDER BY end_time), count(extras) FROM loaded.agent_segments"
    )
    assert times == sorted(row["endTimeL"] for row in dataset(days=24).rows())
    assert extras == sum("newField" in row for row in dataset(days=24, new_field_from=590).rows())


def cause(error: BaseException) -> list[BaseException]:
    """An error and what led to it."""
    found = [error]
    while (at := found[-1].__cause__ or found[-1].__context__) is not None:
        found.append(at)
    return found


def test_an_unproven_window_fails_the_load_and_nothing_is_lost(warehouse: Warehouse) -> None:
    from dlt.pipeline.exceptions import PipelineStepFailed

    warehouse.serve(dataset(wrong_types=0.002, seed=5))
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.load()
    [incomplete] = [error for error in cause(caught.value) if isinstance(error, IncompleteError)]
    assert "could not be proven complete" in str(incomplete)
    assert "agentId" in str(caught.value)
    assert TOKEN not in everything_said(caught.value)
    assert [thread for thread in threading.enumerate() if thread.name == "segment_fetch"] == []
    warehouse.serve(dataset(seed=5))
    assert warehouse.load()["bookmark"] == settled_before(NOW_MS)
    assert warehouse.ids() == sorted(dataset(seed=5).ids())


def test_a_bookmark_is_of_one_query(warehouse: Warehouse) -> None:
    warehouse.serve(dataset(20))
    warehouse.load()
    before = warehouse.ids()
    with pytest.raises(Exception, match=r'belongs to filters {}, not {"agent_id":"5"}; start again') as caught:
        warehouse.load(filters=Filters(agent_id="5"))
    assert any(isinstance(error, InputError) for error in cause(caught.value))
    assert warehouse.ids() == before


def test_what_the_api_no_longer_serves_is_named(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("dlt.common.logger.warning", said.append, raising=False)
    warehouse.serve(dataset(days=60))
    warehouse.load()
    warehouse.now_ms += 35 * DAY_MS
    assert warehouse.load()["bookmark"] == settled_before(warehouse.now_ms)
    assert any(text.startswith("2026-11-05T21:05:00Z to 2026-11-11T21:21:00Z was not read in time") for text in said)


def test_settings_that_cannot_work_are_refused_before_anything_runs(warehouse: Warehouse) -> None:
    warehouse.serve(dataset(20))
    for options, says in (({"rate": 0}, "rate"), ({"filters": Filters(skill_id="")}, "SkillId")):
        with pytest.raises(InputError, match=says):
            warehouse.load(**options)
    assert warehouse.simulator.stats.requests == 0


def test_no_rate_is_set_unless_it_is_given(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.serve(dataset(20))
    store = PaceStore(tmp_path / "pace")
    found = Learned(500.0, limited=True, cap=None, at=warehouse.clock())
    store.save("111111", warehouse.simulator.base_url, found)
    told: list[Event] = []
    warehouse.load(unset=("rate",), pace=store, on_event=told.append)
    assert len(warehouse.ids()) == 20
    assert [event.rate for event in told if isinstance(event, PaceChanged)] == [pytest.approx(490.0)]


@pytest.mark.parametrize("missing", ["dlt", "pyarrow"])
def test_a_missing_extra_is_named(missing: str) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; import segment_fetch.integrations.dlt"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "MissingExtraError: dlt needs an extra: pip install 'segment-fetch[dlt]'" in done.stderr
