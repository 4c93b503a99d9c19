"""Programs that read a whole folder: pandas, Polars, pyarrow and DuckDB take Parquet folders as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow.parquet as pq
import pytest

from segment_fetch import InputError
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.query import Query
from segment_fetch.sinks import ParquetSink, Sink, open_sink
from tests.support_sinks import window_read
from tests.support_tables import ONE, TWO, rows

pandas = pytest.importorskip("pandas")


def commit(sink: Sink[Any], account: str = "111111") -> None:
    """A run that stores two windows with a segment each, named for window and account."""
    log = CommitLog(sink, Query(account, "tests"), sink.open())
    try:
        for window, name in ((ONE, "one"), (TWO, "two")):
            log.commit(window_read(window, [sink.encode(rows(window, f"{name} {account}"))]))
    finally:
        sink.close()


def duckdb_ids(folder: Path) -> Iterator[str]:
    with duckdb.connect() as db:
        yield from (name for (name,) in db.execute(f"SELECT segment_id FROM '{folder}/**/*.parquet'").fetchall())


READERS: dict[str, Callable[[Path], Any]] = {
    "pandas": lambda folder: pandas.read_parquet(folder)["segment_id"],
    "polars": lambda folder: polars.read_parquet(folder / "**" / "*.parquet")["segment_id"],  # it reads hidden files
    "pyarrow": lambda folder: pq.read_table(folder)["segment_id"].to_pylist(),
    "duckdb": duckdb_ids,
}


@pytest.mark.parametrize("partition", ["none", "day"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_folder_is_read_as_it_is(tmp_path: Path, read: Callable[[Path], Any], partition: str) -> None:
    folder = tmp_path / "out"
    commit(ParquetSink(folder, partition=partition))
    assert audit(folder).sound
    assert sorted(read(folder)) == ["one 111111", "two 111111"]


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_folder_of_several_accounts_is_read_as_one(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    accounts = ("111111", "a-2")
    for account in accounts:
        commit(open_sink(tmp_path, format="parquet", account_id=account), account)
        assert audit(tmp_path / account).sound
    assert sorted(read(tmp_path)) == sorted(f"{name} {account}" for name in ("one", "two") for account in accounts)
    table = pq.read_table(tmp_path).select(["account_id", "segment_id"])
    assert {str(row["segment_id"]).split()[1] == row["account_id"] for row in table.to_pylist()} == {True}


def test_column_of_accounts_is_for_parquet_and_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="account_id goes with tables and the format parquet; "):
        open_sink(tmp_path, format="csv", account_id="111111")


def test_folder_of_an_account_goes_on_as_that(tmp_path: Path) -> None:
    for _ in range(2):
        commit(open_sink(tmp_path, format="parquet", account_id="111111"))
    sink = open_sink(tmp_path, format="parquet", account_id="111111")
    log = CommitLog(sink, Query("111111", "tests"), sink.open())
    assert log.resume(ONE.start, TWO.end, ONE.start) == ([], 2)
    assert log.intact([ONE, TWO]) == [ONE, TWO]
    sink.close()
