"""A shard whose process is killed, and one that is interrupted: run again, nothing is lost and nothing double."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segment_fetch.fleet.run import failed_in
from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, RateLimit, Simulator
from tests.support_runs import rows

DAY_MS = 86_400_000
SEGMENTS = 3_000
ACCOUNTS = [str(account) for account in range(1, 9)]


@pytest.fixture
def api() -> Iterator[AccountsSimulator]:
    end = int(time.time() * 1000) - 4 * DAY_MS
    simulators = [
        Simulator(
            Dataset(segments=SEGMENTS, start=end - 3 * DAY_MS, end=end, account=account, seed=int(account)),
            auth=Bearer("the-token"),
            limit=RateLimit(25),
        )
        for account in ACCOUNTS
    ]
    with AccountsSimulator(simulators).in_thread() as served:
        yield served


def shard(folder: Path, index: int) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-m",
        "segment_fetch",
        "fleet",
        str(folder / "accounts.toml"),
        "--shard",
        f"{index}/2",
        "--json",
    ]
    environ = os.environ | {"ALL_BEARER": "the-token"}
    return subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_committed(folder: Path, windows: int) -> None:
    """Wait until so many windows are in the destinations; those of them that are not complete have a hidden name."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("*/segments-*.jsonl"))) < windows:
        assert time.monotonic() < deadline, "nothing was committed within a minute"
        time.sleep(0.02)


def check_summary(report: dict[str, Any]) -> None:
    """The report of an interrupted run has every account of the shard, and those that are to be run again."""
    assert report["exit_code"] == 130
    assert 0 < len(report["accounts"]) < len(ACCOUNTS)
    broken = [entry for entry in report["accounts"] if entry["exit_code"] == 130]
    assert [entry["error"]["code"] for entry in broken] == ["SF-INTERRUPTED"] * len(broken) != []
    assert failed_in(json.dumps(report).encode()) == [entry["account"] for entry in broken]
    assert report["segments"] == sum(entry["segments"] for entry in report["accounts"])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_shard_that_ended_early_is_run_again(
    api: AccountsSimulator, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    text = f'[defaults]\nout = "{tmp_path}/{{account}}"\nfrom = "now-8d"\nstate = "none"\nbase_url = "{api.base_url}"\n'
    text += "".join(f"[accounts.{account}]\ncredentials = {{ env = 'ALL_' }}\n" for account in ACCOUNTS)
    (tmp_path / "accounts.toml").write_text(text)
    with shard(tmp_path, 0) as broken:
        until_committed(tmp_path, 2)
        broken.send_signal(signum)
        out, said = broken.communicate(timeout=30)
    assert broken.returncode == code
    assert "Traceback" not in said
    if signum is signal.SIGINT:
        check_summary(json.loads(out))
    assert sum(len(rows(tmp_path / account)) for account in ACCOUNTS if (tmp_path / account).exists()) < 4 * SEGMENTS
    for index in (0, 1):
        with shard(tmp_path, index) as again:
            _, said = again.communicate(timeout=120)
        assert again.returncode == 0, said
    for account in ACCOUNTS:
        ids = [row["segmentId"] for row in rows(tmp_path / account)]
        assert (len(ids), len(set(ids))) == (SEGMENTS, SEGMENTS)
