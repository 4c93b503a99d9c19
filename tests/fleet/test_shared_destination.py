"""Ten accounts at once in one destination: tables and Parquet files whose rows carry their account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq
import pytest

from segment_fetch.fleet import FleetSummary, load_accounts, run_fleet, summarize
from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, Simulator

if TYPE_CHECKING:
    from tests.support_postgres import Postgres

DAY_MS = 86_400_000
SIZES = {str(account): 50 * account for account in range(1, 11)}


@pytest.fixture(scope="module")
def api() -> Iterator[AccountsSimulator]:
    end = int(time.time() * 1000) - 4 * DAY_MS
    simulators = [
        Simulator(
            Dataset(segments=size, start=end - 3 * DAY_MS, end=end, account=account, seed=size),
            auth=Bearer("the-token"),
        )
        for account, size in SIZES.items()
    ]
    with AccountsSimulator(simulators).in_thread() as served:
        yield served


async def synced(api: AccountsSimulator, folder: Path, out: str) -> FleetSummary:
    text = f'[defaults]\nfrom = "now-8d"\nrate = "none"\nstate = "none"\nbase_url = "{api.base_url}"\n{out}\n'
    text += "".join(f"[accounts.{account}]\ncredentials = {{ env = 'ALL_' }}\n" for account in SIZES)
    (folder / "accounts.toml").write_text(text)
    jobs = load_accounts(folder / "accounts.toml")
    return await summarize(jobs, run_fleet(jobs, environ={"ALL_BEARER": "the-token"}))


async def check_twice(api: AccountsSimulator, folder: Path, out: str) -> None:
    """Sync twice: all is there after the first time, and nothing is read again in the second but today."""
    first = await synced(api, folder, out)
    assert [(result.exit_code, result.error) for result in first.accounts] == [(0, None)] * 10
    assert {result.account: result.segments for result in first.accounts} == SIZES
    assert all(result.complete_before is not None for result in first.accounts)
    again = await synced(api, folder, out)
    assert [(result.exit_code, result.segments) for result in again.accounts] == [(0, 0)] * 10


async def test_duckdb(api: AccountsSimulator, tmp_path: Path) -> None:
    await check_twice(api, tmp_path, f'out = "duckdb:///{tmp_path}/all.duckdb"')
    with duckdb.connect(tmp_path / "all.duckdb", read_only=True) as connection:
        counted = connection.execute("SELECT account_id, count(*) FROM agent_segments GROUP BY 1").fetchall()
    assert dict(counted) == SIZES


async def test_postgres(
    api: AccountsSimulator, tmp_path: Path, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support_postgres import PASSWORD

    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    await check_twice(api, tmp_path, f'out = "{postgres_server.url(password=None)}?table=fleet_of_ten"')
    assert dict(postgres_server.ask("SELECT account_id, count(*) FROM fleet_of_ten GROUP BY 1")) == SIZES


async def test_parquet(api: AccountsSimulator, tmp_path: Path) -> None:
    await check_twice(api, tmp_path, f'out = "{tmp_path}/all"\nformat = "parquet"')
    accounts = pq.read_table(tmp_path / "all").column("account_id").to_pylist()
    assert {account: accounts.count(account) for account in SIZES} == SIZES
