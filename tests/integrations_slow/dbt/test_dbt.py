"""The dbt package of the examples, run for real on a DuckDB file, held against the handle time of the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from segment_fetch.analysis import handle_time
from segment_fetch.sinks import open_sink
from segment_fetch.timerange import parse_time
from tests.support_runs import END, START, client, served, settled

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / ".venv-integrations" / "dbt" / "bin" / "dbt"

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="dbt is not installed: run make test-integrations")


class Package:
    """A copy of the package beside a database that was extracted from the simulator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "package"
        self.database = folder / "segments.duckdb"
        shutil.copytree(ROOT / "examples" / "dbt", self.folder)

    async def fill(self) -> None:
        async with served(settled(2_000)) as simulator, client(simulator) as api:
            await api.extract(START, END, open_sink(f"duckdb:///{self.database}"))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        given = {"SEGMENTS_DATABASE": str(self.database), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        whole = [str(PROGRAM), "--no-use-colors", *command, "--profiles-dir", "."]
        return subprocess.run(
            whole, cwd=self.folder, env=os.environ | given, check=False, capture_output=True, text=True, timeout=300
        )

    def results(self, name: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads((self.folder / "target" / name).read_text())["results"]
        return found


@pytest.fixture
async def package(tmp_path: Path) -> Package:
    made = Package(tmp_path)
    await made.fill()
    return made


async def test_intervals_are_those_of_handle_time(package: Package) -> None:
    done = package.run("build")
    assert done.returncode == 0, done.stdout
    assert {row["status"] for row in package.results("run_results.json")} == {"success", "pass"}
    names = ["skill_id", "segments", "conversations", "handle_time_ms", "aht_segment_ms", "median_ms", "p90_ms"]
    result = handle_time(f"duckdb:///{package.database}", by=["skill"], every="15m", timezone="Europe/Berlin").table
    expected = zip(*(result[name].to_pylist() for name in names), strict=True)
    with duckdb.connect(str(package.database)) as database:
        sql = f"SELECT {', '.join(names)} FROM handle_time_by_interval ORDER BY interval_start, skill_id NULLS LAST"
        assert database.execute(sql).fetchall() == list(expected)
        assert database.execute("SELECT DISTINCT is_final FROM handle_time_by_interval").fetchall() == [(True,)]


async def test_freshness_follows_the_watermark(package: Package) -> None:
    package.run("source", "freshness")
    (source,) = package.results("sources.json")
    assert parse_time(str(source["max_loaded_at"]), 0) == END


async def test_a_segment_that_is_there_twice_fails(package: Package) -> None:
    with duckdb.connect(str(package.database)) as database:
        database.execute("CREATE TABLE copied AS SELECT * FROM agent_segments")
        database.execute("INSERT INTO copied SELECT * FROM agent_segments LIMIT 1")
        database.execute("DROP TABLE agent_segments")
        database.execute("ALTER TABLE copied RENAME TO agent_segments")
    done = package.run("build")
    assert done.returncode == 1
    assert "unique_segment_fetch_agent_segments_segment_id" in done.stdout
