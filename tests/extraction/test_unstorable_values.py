"""A value that a destination cannot hold costs its own window, never the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import BearerToken, IncompleteError, SegmentClient, UnstorableValueError
from segment_fetch.sinks import ParquetSink, Sink, open_sink
from tests.support import ACCOUNT, raw_server
from tests.support_runs import AT_ONCE, END, NOW, START
from tests.windows.test_odd_servers import Server, spread

DAY = timedelta(days=1)
SINKS: dict[str, Callable[[Path], Sink[Any]]] = {
    "parquet": lambda folder: ParquetSink(folder / "out"),
    "duckdb": lambda folder: open_sink(f"duckdb:///{folder}/x.duckdb"),
}


def server(**fields: int) -> Server:
    found = spread(3_000)
    found[1_600] |= fields
    return Server(found)


def client(url: str) -> SegmentClient:
    options: dict[str, Any] = {"rate": None, "retry": AT_ONCE, "window": DAY, "clock": lambda: NOW}
    return SegmentClient(ACCOUNT, auth=BearerToken("x"), source="odd", base_url=url, **options)


@pytest.mark.parametrize("fields", [{"agentId": 2**63}, {"skillId": -(2**63) - 1}, {"totalHandleTimeMillis": 10**30}])
@pytest.mark.parametrize("kind", SINKS)
async def test_one_value_costs_its_own_window_and_is_named(tmp_path: Path, kind: str, fields: dict[str, int]) -> None:
    async with raw_server(server(**fields)) as raw, client(raw.url) as opened:
        report = await opened.extract(START, END, SINKS[kind](tmp_path))
        again = await opened.extract(START, END, SINKS[kind](tmp_path))
    [left_out] = report.unproven
    assert left_out.code == UnstorableValueError.code
    assert "s1600" in str(left_out.reason)
    assert next(iter(fields)) in str(left_out.reason)
    assert (report.complete, report.segments, len(report.windows)) == (False, 2_500, 6)
    assert (again.skipped, len(again.windows)) == (5, 1)


async def test_a_time_beyond_the_database_costs_its_own_window(tmp_path: Path) -> None:
    async with raw_server(server(startTimeL=10**18)) as raw, client(raw.url) as opened:
        report = await opened.extract(START, END, SINKS["duckdb"](tmp_path))
    assert [entry.code for entry in report.unproven] == [UnstorableValueError.code]
    assert report.segments == 2_500


async def test_of_a_stream_of_record_batches_the_window_is_left_out_and_named_at_the_end() -> None:
    rows: list[int] = []

    async def read(opened: SegmentClient) -> None:
        async for batch in opened.stream_arrow(START, END):
            rows.append(batch.num_rows)  # noqa: PERF401 - what came before the error is counted, too

    async with raw_server(server(agentId=2**63)) as raw, client(raw.url) as opened:
        with pytest.raises(IncompleteError, match="s1600"):
            await read(opened)
    assert sum(rows) == 2_500
