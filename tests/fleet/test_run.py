"""Fleets over real sockets: one account never harms another, and running again goes on."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from segment_fetch import CredentialsError, Event, InputError, ServiceError
from segment_fetch.cli.fleet_progress import FleetProgress
from segment_fetch.events import PageRead, RangePlanned, WindowCommitted
from segment_fetch.extraction.row_budget import RowBudget, budget_of, row_budget
from segment_fetch.fleet import AccountResult, FleetLimits, FleetSummary, load_accounts, run_fleet, summarize
from segment_fetch.fleet.run import failed_in, fleet_exit_code, weights_in
from segment_fetch.query import Window
from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, Faults, RateLimit, Simulator
from segment_fetch.sinks.files.disk import Disk
from tests.cli.conftest import Run
from tests.support_runs import rows

NOW_S = int(time.time())
DAY_MS = 86_400_000
QUICK = (
    'rate = "none"\nstate = "none"\nretry_delays = [0, 0]\nnetwork_retry_delays = [0]\nlater_retry_delays = "none"\n'
)


def simulated(account: int, segments: int = 300, **options: Any) -> Simulator:
    end = NOW_S * 1000 - 3 * DAY_MS
    dataset = Dataset(segments=segments, start=end - 3 * DAY_MS, end=end, account=str(account), seed=account)
    return Simulator(dataset, **({"auth": Bearer("the-token")} | options))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[AccountsSimulator]:
    """Accounts 1 to 6: sound, refused, down, hostile, large, sound."""
    simulators = [
        simulated(1),
        simulated(2, auth=Bearer("another-token")),
        simulated(3, faults=Faults(error_500=1.0)),
        simulated(4, faults=Faults(html=1.0)),
        simulated(5, 3_000, limit=RateLimit(40)),
        simulated(6),
    ]
    with AccountsSimulator(simulators).in_thread() as served:
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW_S - days * 86_400)) for days in (8, 2))
        text = f'[defaults]\nout = "{tmp_path}/{{account}}"\nfrom = "{start}"\nto = "{end}"\n'
        text += f'base_url = "{served.base_url}"\n{QUICK}'
        for account in served.simulators:
            text += f"[accounts.{account}]\ncredentials = {{ env = 'ALL_' }}\n"
        (tmp_path / "accounts.toml").write_text(text)
        yield served


ENVIRON = {"ALL_BEARER": "the-token"}


async def done(tmp_path: Path, **options: Any) -> FleetSummary:
    jobs = load_accounts(tmp_path / "accounts.toml")
    return await summarize(jobs, run_fleet(jobs, environ=ENVIRON, **options))


async def test_one_account_never_harms_another(fleet: AccountsSimulator, tmp_path: Path) -> None:
    (tmp_path / "6").write_text("a file where the folder is to be")
    summary = await done(tmp_path)
    codes = {result.account: (result.status, result.exit_code) for result in summary.accounts}
    assert codes == {
        "1": ("complete", 0),
        "2": ("failed", 4),
        "3": ("failed", 5),
        "4": ("failed", 5),
        "5": ("complete", 0),
        "6": ("failed", 2),
    }
    assert summary.exit_code == 3
    assert (len(rows(tmp_path / "1")), len(rows(tmp_path / "5"))) == (300, 3_000)
    for result in summary.failed:
        assert result.error is not None
        assert "the-token" not in str(result.error)


async def test_a_full_disk_ends_its_account_alone(
    fleet: AccountsSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(disk: Disk, file: BinaryIO, data: bytes) -> None:
        if Path(file.name).parent.name == "6":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(disk, file, data)

    write = Disk.write
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", full)
        ended = {result.account: result for result in (await done(tmp_path)).accounts}
    assert [ended[account].status for account in "156"] == ["complete", "complete", "incomplete"]
    assert ended["6"].exit_code == 3
    assert "no space left" in str(ended["6"].error)
    assert "run the same command again" in str(ended["6"].error)
    again = {result.account: result for result in (await done(tmp_path)).accounts}
    assert (again["6"].status, len(rows(tmp_path / "6"))) == ("complete", 300)


async def test_a_large_account_does_not_keep_small_ones_waiting(tmp_path: Path) -> None:
    """Four connections for all: a large account asks for sixteen at once, and a small one waits for its turn only."""
    small = [str(account) for account in range(2, 22)]
    simulators = [simulated(1, 50_000), *(simulated(int(account), 100) for account in small)]
    with AccountsSimulator(simulators).in_thread() as served:
        text = f'[defaults]\nout = "{tmp_path}/{{account}}"\nfrom = "now-8d"\nto = "now-2d"\n'
        text += f'base_url = "{served.base_url}"\n{QUICK}credentials = {{ env = "ALL_" }}\n'
        text += "".join(f"[accounts.{account}]\n" for account in ("1", *small))
        (tmp_path / "accounts.toml").write_text(text)
        jobs = load_accounts(tmp_path / "accounts.toml")
        waited, pages = dict[str, int](), 0

        def watch(account: str, event: Event) -> None:
            nonlocal pages
            pages += account == "1" and isinstance(event, PageRead)

        async with aclosing(
            run_fleet(jobs, environ=ENVIRON, limits=FleetLimits(connections=4), on_event=watch)
        ) as results:
            async for result in results:
                assert (result.account, result.status) == (result.account, "complete")
                waited[result.account] = pages
    assert waited.pop("1") >= 100
    assert max(waited.values()) < 60


async def test_running_again_goes_on(fleet: AccountsSimulator, tmp_path: Path) -> None:
    await done(tmp_path)
    fleet.simulators["3"].faults = Faults()
    before = fleet.simulators["1"].stats.requests
    again = {result.account: result for result in (await done(tmp_path)).accounts}
    assert (again["3"].status, again["3"].segments) == ("complete", 300)
    assert (again["1"].skipped, again["1"].segments) == (1, 0)
    assert fleet.simulators["1"].stats.requests - before <= 1


async def test_bounds_hold_over_all_accounts(fleet: AccountsSimulator, tmp_path: Path) -> None:
    together = most = 0
    running: set[str] = set()

    def watch(account: str, event: object) -> None:
        nonlocal together, most
        running.add(account)
        most = max(most, len(running))

    jobs = load_accounts(tmp_path / "accounts.toml")
    limits = FleetLimits(accounts=2, connections=3, rows=1)
    async with aclosing(run_fleet(jobs, environ=ENVIRON, limits=limits, on_event=watch)) as results:
        async for result in results:
            running.discard(result.account)
    assert most <= 3  # one may have ended whose result is not taken yet
    assert max(simulator.stats.most_in_flight for simulator in fleet.simulators.values()) <= 3


async def test_leaving_early_stops_everything(fleet: AccountsSimulator, tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    jobs = load_accounts(tmp_path / "accounts.toml")
    async with aclosing(run_fleet(jobs, environ=ENVIRON)) as results:
        async for _ in results:
            break
    assert asyncio.all_tasks() == before


def result(account: str, code: int) -> AccountResult:
    return AccountResult(account, "complete" if code == 0 else "failed", code, seconds=float(account))


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 4], 3), ([4, 4], 4), ([5, 5], 5), ([2, 2], 2), ([3, 5], 3), ([5, 4], 4), ([0, 70], 70)],
)
def test_the_exit_code_of_the_whole(codes: list[int], code: int) -> None:
    assert fleet_exit_code([result(str(at), each) for at, each in enumerate(codes)]) == code


def test_reports_tell_what_failed_and_how_long_it_took() -> None:
    report = {
        "command": "fleet",
        "accounts": [{"account": "1", "exit_code": 0, "seconds": 2.5}, {"account": "2", "exit_code": 5}],
    }
    data = json.dumps(report).encode()
    assert failed_in(data) == ["2"]
    assert weights_in(data) == {"1": 2.5}
    for wrong in (b"{}", b"no", b"\xff"):
        with pytest.raises(InputError, match="is not the JSON of a fleet"):
            failed_in(wrong)


@pytest.mark.parametrize("name", ["accounts", "connections", "rows"])
def test_a_bound_is_a_whole_number(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: must be a whole number of at least 1"):
        FleetLimits(**{name: 0})


async def test_the_budget_of_rows_ends_with_its_block() -> None:
    loop = asyncio.get_running_loop()
    with row_budget(10) as budget:
        assert budget_of(loop) is budget
        assert budget.has_room(10)
        budget.held = 1
        assert not budget.has_room(10)
    assert budget_of(loop) is None
    assert RowBudget(5).has_room(5)


def test_the_command_reports_each_account(
    fleet: AccountsSimulator, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_BEARER", "the-token")
    file = str(tmp_path / "accounts.toml")
    found = run("fleet", file, "--json", "--only", "1,2", "--quiet")
    assert (found.code, found.json["complete"], found.json["failed"]) == (3, 1, 1)
    assert [(entry["account"], entry["exit_code"]) for entry in found.json["accounts"]] == [("1", 0), ("2", 4)]
    assert "the-token" not in found.out + found.err
    (tmp_path / "report.json").write_text(found.out)
    again = run("fleet", file, "--failed-from", str(tmp_path / "report.json"))
    assert again.code == 4
    assert "0 of 1 account complete" in again.words
    assert "2 failed (exit code 4)" in again.words
    assert CredentialsError.advice in again.words
    assert "Run the same command again" not in again.words
    mixed = run("fleet", file, "--only", "1,2,3")
    assert f"2: {CredentialsError.advice}" in mixed.words
    assert f"3: {ServiceError.advice}" in mixed.words
    shards = [run("fleet", file, "--shard", f"{index}/2", "--json", "--quiet").json["accounts"] for index in range(2)]
    assert sorted(entry["account"] for shard in shards for entry in shard) == ["1", "2", "3", "4", "5", "6"]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    indexed = run("fleet", file, "--shards", "2", "--json", "--quiet").json["accounts"]
    assert [entry["account"] for entry in indexed] == [entry["account"] for entry in shards[1]]


def test_the_log_is_that_of_the_library(
    fleet: AccountsSimulator, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events are worded once: the command's lines are the records of the clients, with their accounts."""
    monkeypatch.setenv("ALL_BEARER", "the-token")
    file = str(tmp_path / "accounts.toml")
    found = run("fleet", file, "--only", "1,5", "--log-format", "json", "--log-level", "debug", "--json")
    lines = [json.loads(line) for line in found.err.splitlines()]
    planned = {line["account"]: line for line in lines if line["event"] == "range_planned"}
    assert planned["5"]["message"] == str(RangePlanned(1, 0))
    assert planned["1"]["run_id"] != planned["5"]["run_id"]
    assert {"window_opened", "page_read", "window_committed", "account_done"} <= {line["event"] for line in lines}
    usual = run("fleet", file, "--only", "3", "--log-format", "json")
    assert {json.loads(line)["event"] for line in usual.err.splitlines()} <= {
        "service_down",
        "window_done",
        "account_failed",
    }
    text = run("fleet", file, "--only", "1", "--log-level", "debug")
    assert f"1: {RangePlanned(0, 1)}" in text.words


def test_the_command_takes_defaults_from_the_environment(
    fleet: AccountsSimulator, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_BEARER", "the-token")
    monkeypatch.setenv("SEGMENT_FETCH_ONLY", "1")
    monkeypatch.setenv("SEGMENT_FETCH_JSON", "1")
    monkeypatch.setenv("SEGMENT_FETCH_FORMAT", "csv")
    found = run("fleet", str(tmp_path / "accounts.toml"))
    assert [entry["account"] for entry in found.json["accounts"]] == ["1"]
    assert list((tmp_path / "1").glob("*.csv"))
    monkeypatch.setenv("SEGMENT_FETCH_ROWS", "none")
    refused = run("fleet", str(tmp_path / "accounts.toml"))
    assert (refused.code, "SEGMENT_FETCH_ROWS" in refused.words) == (2, True)


def test_progress_counts_what_is_committed() -> None:
    progress = FleetProgress(2, lambda: 0.0)
    progress.take("1", PageRead(Window(0, 1), 0, 500))
    progress.take("2", WindowCommitted(Window(0, 1), "complete", 70))
    progress.take("2", WindowCommitted(Window(1, 2), "complete", 7))
    assert progress.committed == {"1": 0, "2": 77}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shard", "2/2"], "0/8 to 7/8"),
        (["--shards", "2"], "no index of this shard"),
        (["--shard", "0/2", "--shards", "2"], "exclude each other"),
        (["--balance", "x"], "--balance goes with --shard"),
        (["--failed-from", "/nonexistent"], "cannot be read"),
        (["--only", "7"], "there is no account 7"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    fleet: AccountsSimulator, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    refused = run("fleet", str(tmp_path / "accounts.toml"), *argv)
    assert (refused.code, message in refused.words) == (2, True)
    assert sum(simulator.stats.requests for simulator in fleet.simulators.values()) == 0
