"""The Airflow DAG of the examples: parsed as Airflow does, its callable run, and run as a whole by Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_fetch.simulator import Faults
from tests.integrations_slow.support import ACCOUNTS, ROOT, SEGMENTS, Schedule, scheduled

BIN = ROOT / ".venv-integrations" / "airflow" / "bin"
DAG = ROOT / "examples" / "airflow_segments.py"

pytestmark = pytest.mark.skipif(not BIN.exists(), reason="Airflow is not installed: run make test-integrations")

PARSE = f"""
import json
from airflow.dag_processing.dagbag import DagBag

bag = DagBag({str(DAG)!r})
dag = bag.dags["segments"]
(task,) = dag.tasks
found = {{"errors": bag.import_errors, "runs": dag.max_active_runs, "catchup": dag.catchup, "retries": task.retries}}
print(json.dumps(found | {{"accounts": task.op_kwargs_expand_input.value["account"]}}))
"""
CALL = f"""
import runpy, sys

print(runpy.run_path({str(DAG)!r})["sync"].function(sys.argv[1]))
"""


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Schedule]:
    with scheduled(BIN / "python", tmp_path) as schedule:
        schedule.environ |= {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG.parent),
        }
        for account in ACCOUNTS:
            connection = {"conn_type": "generic", "password": "the-token"}
            schedule.environ[f"AIRFLOW_CONN_LIVEPERSON_{account}"] = json.dumps(connection)
        yield schedule


def test_it_is_parsed(airflow: Schedule) -> None:
    done = airflow.run("-c", PARSE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"errors": {}, "runs": 1, "catchup": False, "retries": 3, "accounts": list(ACCOUNTS)}


def test_its_callable_syncs_an_account(airflow: Schedule) -> None:
    for account in ACCOUNTS:
        done = airflow.run("-c", CALL, account)
        assert done.returncode == 0, done.stderr
        assert "the-token" not in done.stdout + done.stderr
    airflow.check()


def test_its_callable_fails_where_something_is_missing(airflow: Schedule) -> None:
    airflow.simulator.simulators["111111"].faults = Faults(forbidden=1.0)
    done = airflow.run("-c", CALL, "111111")
    assert done.returncode == 1
    assert "CredentialsError: the API forbids this (403)" in done.stderr
    assert "the-token" not in done.stdout + done.stderr


def test_airflow_runs_it(airflow: Schedule) -> None:
    migrated = airflow.run(str(BIN / "airflow"), "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    done = airflow.run(str(BIN / "airflow"), "dags", "test", "segments")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the-token" not in done.stdout + done.stderr
    airflow.check()
    assert sum(simulator.stats.requests for simulator in airflow.simulator.simulators.values()) >= 2 * SEGMENTS // 500
