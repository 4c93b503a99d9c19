"""The fleet on a real Ray, on this machine. Run by `make test-ray`; skipped where Ray is not installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from segment_fetch.errors import InputError
from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, RateLimit, Simulator

pytest.importorskip("ray", reason="the extra ray is not installed: make test-ray")

from segment_fetch.fleet import load_accounts
from segment_fetch.integrations.ray import run_on_ray

DAY_MS = 86_400_000
SEGMENTS = 3_000
ACCOUNTS = [str(account) for account in range(1, 7)]


@pytest.fixture
def api() -> Iterator[AccountsSimulator]:
    end = int(time.time() * 1000) - 4 * DAY_MS
    simulators = [
        Simulator(
            Dataset(segments=SEGMENTS, start=end - 3 * DAY_MS, end=end, account=account, seed=int(account)),
            auth=Bearer("the-token"),
            limit=RateLimit(8),
        )
        for account in ACCOUNTS
    ]
    with AccountsSimulator(simulators).in_thread() as served:
        yield served


@pytest.fixture
def accounts(api: AccountsSimulator, tmp_path: Path) -> Path:
    text = f'[defaults]\nout = "{tmp_path}/{{account}}"\nfrom = "now-8d"\nstate = "none"\nbase_url = "{api.base_url}"\n'
    text += "".join(f"[accounts.{account}]\ncredentials = {{ env = 'ALL_' }}\n" for account in ACCOUNTS)
    (tmp_path / "accounts.toml").write_text(text)
    return tmp_path / "accounts.toml"


def command(accounts: Path, *more: str, token: str = "the-token") -> subprocess.Popen[str]:
    """The command, started: two shards on a Ray of its own, or on that of an address."""
    argv = [sys.executable, "-m", "segment_fetch", "fleet", str(accounts), "--engine", "ray", "--shards", "2", "--json"]
    environ = os.environ | {"ALL_BEARER": token}
    return subprocess.Popen([*argv, *more], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def committed(folder: Path) -> list[Path]:
    return [path for account in ACCOUNTS for path in (folder / account).glob("segments-*.jsonl")]


def until_committed(folder: Path, windows: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(committed(folder)) < windows:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def check_whole(folder: Path) -> None:
    """The union is exact: every account has all of its segments, each once."""
    for account in ACCOUNTS:
        manifest = json.loads((folder / account / "manifest.json").read_bytes())
        files = [folder / account / window["file"] for window in manifest["windows"] if window["segments"]]
        ids = [json.loads(line)["segmentId"] for file in files for line in file.read_text().splitlines()]
        assert (len(ids), len(set(ids))) == (SEGMENTS, SEGMENTS)


def workers_of(driver: int) -> list[int]:
    """The processes below a driver that run a shard, by the title that Ray gives them."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title, parents = status.read_bytes().decode(errors="replace"), parents_of(int(status.parent.name))
        except OSError:
            continue  # it has ended
        if title.startswith("ray::_work") and driver in parents:
            found.append(int(status.parent.name))
    return found


def parents_of(process: int) -> list[int]:
    parents = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        parents.append(process)
    return parents


def test_a_killed_worker_loses_nothing(accounts: Path, tmp_path: Path) -> None:
    with command(accounts) as process:
        until_committed(tmp_path, 2, process)
        workers = workers_of(process.pid)
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    report: dict[str, Any] = json.loads(out)
    assert sorted(entry["account"] for entry in report["accounts"]) == ACCOUNTS
    check_whole(tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")  # of Ray's own test cluster
def test_a_lost_node_loses_nothing(accounts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("ALL_BEARER", "the-token")  # of the nodes: credentials are resolved there
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        with command(accounts, "--address", cluster.address, "--shared-storage", token="") as process:
            until_committed(tmp_path, 2, process)
            cluster.remove_node(lost, allow_graceful=False)
            out, said = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, said
    assert sorted(entry["account"] for entry in json.loads(out)["accounts"]) == ACCOUNTS
    check_whole(tmp_path)


def test_ctrl_c_leaves_what_can_be_gone_on_with(accounts: Path, tmp_path: Path) -> None:
    with command(accounts) as process:
        until_committed(tmp_path, 2, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130, said
    assert "Traceback" not in said
    with command(accounts) as process:
        _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    check_whole(tmp_path)


def test_credentials_missing_on_a_worker_are_named(accounts: Path) -> None:
    with command(accounts, "--only", "1", token="") as process:
        out, _ = process.communicate(timeout=120)
    (entry,) = json.loads(out)["accounts"]
    assert (process.returncode, entry["exit_code"]) == (4, 4)
    assert "the environment (ALL_…) holds no credentials" in entry["error"]["message"]
    assert "(on worker " in entry["error"]["message"]


async def test_a_local_path_is_refused_with_an_address(accounts: Path) -> None:
    with pytest.raises(InputError, match=r"account 1: .* is on a local disk.*shared storage"):
        await anext(run_on_ray(load_accounts(accounts), address="ray://127.0.0.1:1"))


DATASET = """
import sys, ray
from segment_fetch.integrations.ray import read_segments

ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="error")
read_segments(sys.argv[1], "now-8d", "now-1d").write_parquet(sys.argv[2])
"""


def test_a_dataset(accounts: Path, tmp_path: Path) -> None:
    """In a process of its own: where Ray ends before one of its threads, that thread ends the process."""
    argv = [sys.executable, "-c", DATASET, str(accounts), str(tmp_path / "lake")]
    environ = os.environ | {"ALL_BEARER": "the-token"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "lake").select(["account_id", "segment_id"]).to_pylist()
    assert len({tuple(row.values()) for row in rows}) == len(rows)
    assert Counter(row["account_id"] for row in rows) == dict.fromkeys(ACCOUNTS, SEGMENTS)
