"""The Dagster asset of the examples: materialized by Dagster, account by account, and its schedule evaluated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_fetch.simulator import Faults
from tests.integrations_slow.support import ACCOUNTS, ROOT, SEGMENTS, Schedule, scheduled

BIN = ROOT / ".venv-integrations" / "dagster" / "bin"
FILE = ROOT / "examples" / "dagster_segments.py"

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="Dagster is not installed: run make test-integrations")

MATERIALIZE = f"""
import json, runpy, sys
import dagster as dg

module = runpy.run_path({str(FILE)!r})
done = dg.materialize([module["segments"]], partition_key=sys.argv[1], raise_on_error=False)
found = [made.metadata for made in done.asset_materializations_for_node("segments")]
print(json.dumps([done.success, [{{name: each.value for name, each in metadata.items()}} for metadata in found]]))
"""
CALL = f"""
import runpy, sys
import dagster as dg

runpy.run_path({str(FILE)!r})["segments"](dg.build_asset_context(partition_key=sys.argv[1]))  # without its retries
"""
SCHEDULE = f"""
import datetime, json, runpy
import dagster as dg

defs = runpy.run_path({str(FILE)!r})["defs"]
schedule = defs.resolve_schedule_def("nightly")
night = datetime.datetime(2026, 11, 5, 3, 15)
context = dg.build_schedule_context(repository_def=defs.get_repository_def(), scheduled_execution_time=night)
requests = schedule.evaluate_tick(context).run_requests
print(json.dumps([schedule.cron_schedule, [request.partition_key for request in requests]]))
"""


@pytest.fixture
def dagster(tmp_path: Path) -> Iterator[Schedule]:
    with scheduled(BIN / "python", tmp_path) as schedule:
        (tmp_path / "dagster").mkdir()
        schedule.environ |= {"DAGSTER_HOME": str(tmp_path / "dagster"), "DAGSTER_DISABLE_TELEMETRY": "yes"}
        for account in ACCOUNTS:
            schedule.environ[f"LIVEPERSON_BEARER_{account}"] = "the-token"
        yield schedule


def test_its_asset_is_materialized(dagster: Schedule) -> None:
    for account in ACCOUNTS:
        done = dagster.run("-c", MATERIALIZE, account)
        assert done.returncode == 0, done.stderr
        success, (metadata,) = json.loads(done.stdout.splitlines()[-1])
        assert (success, metadata["segments"]) == (True, SEGMENTS)
        assert metadata["complete_before"]
        assert "the-token" not in done.stdout + done.stderr
    dagster.check()


def test_it_fails_where_something_is_missing(dagster: Schedule) -> None:
    dagster.simulator.simulators["111111"].faults = Faults(forbidden=1.0)
    done = dagster.run("-c", CALL, "111111")
    assert done.returncode == 1
    assert "CredentialsError: the API forbids this (403)" in done.stderr
    assert "the-token" not in done.stdout + done.stderr


def test_its_schedule_asks_for_every_account(dagster: Schedule) -> None:
    done = dagster.run("-c", SCHEDULE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["15 3 * * *", list(ACCOUNTS)]
