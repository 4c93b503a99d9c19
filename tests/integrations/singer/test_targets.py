"""Records of the tap, loaded by targets that other people wrote, each in a process of its own."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

from segment_fetch.simulator import Drift
from tests.integrations.singer.support import World, dataset
from tests.support_postgres import Postgres
from tests.support_runs import DAY_MS

TARGETS = Path(__file__).parents[3] / ".venv-targets" / "bin"


def load(target: str, config: dict[str, Any], messages: str, folder: Path) -> Any:
    """The state that a target prints when it has loaded the messages."""
    program = TARGETS / target
    assert program.exists(), "the targets are not there: make install"
    path = folder / f"{target}.json"
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [program, "--config", path], input=messages, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ROWS = """
SELECT "segmentId", "endTimeL", "agentId", "employeeId", (extract(epoch FROM "endTime") * 1000)::bigint,
    extras ->> 'newField' FROM loaded.agent_segments
"""


def test_postgres_has_each_segment_once_although_late_ones_are_emitted_again(
    world: World, postgres_server: Postgres
) -> None:
    options: dict[str, Any] = {"days": 24, "null_share": 0.3, "new_field_from": 500}
    world.serve(dataset(**options), drift=Drift(late_share=0.5))
    config = {
        "sqlalchemy_url": postgres_server.url().replace("postgresql://", "postgresql+psycopg://"),
        "default_target_schema": "loaded",
    }
    first = world.tap()
    state = load("target-postgres", config, first.out, world.folder)
    assert state == first.state
    world.now_ms += 6 * DAY_MS
    second = world.tap(state=state)
    assert set(first.ids) & set(second.ids), "what had not settled comes again"
    assert set(second.ids) - set(first.ids)
    assert load("target-postgres", config, second.out, world.folder) == second.state
    assert sorted(postgres_server.ask(ROWS)) == sorted(as_columns(row) for row in dataset(**options).rows())


def as_columns(row: dict[str, Any]) -> tuple[Any, ...]:
    """A segment as `ROWS` reads it."""
    close = None if row["endTime"] is None else row["endTimeL"]
    return (row["segmentId"], row["endTimeL"], row["agentId"], row.get("employeeId"), close, row.get("newField"))


def test_csv_has_the_records_with_the_selected_fields(world: World) -> None:
    world.serve(dataset(500))
    result = world.tap()
    folder = world.folder / "csv"
    folder.mkdir()
    assert load("target-csv", {"output_path": str(folder)}, result.out, world.folder) == result.state
    [path] = folder.iterdir()
    with path.open(newline="", encoding="utf-8") as file:
        loaded = [(row["segmentId"], row["agentId"], row["employeeId"]) for row in csv.DictReader(file)]
    rows = sorted(dataset(500).rows(), key=lambda row: (row["endTimeL"], row["segmentId"]))
    assert loaded == [(row["segmentId"], str(row["agentId"]), row.get("employeeId") or "") for row in rows]
