"""Arrow batches: the published schema, every value, what no column holds, and what does not fit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from msgspec import UNSET

from segment_fetch import DestinationError, ExtendedSegment, IncompleteError, Segment, arrow
from segment_fetch.arrow import COLUMNS, SCHEMA_VERSION, VERSION_KEY, record_batch, schema
from segment_fetch.simulator import Dataset
from segment_fetch.wire.models import SEGMENT_FIELDS
from tests.support_runs import END, START, client, served, settled

DAY = timedelta(days=1)
FULL: dict[str, Any] = {
    "segmentId": "111111:4099828378:bd22c2c2:YnFBj",
    "startTimeL": 1_793_491_158_976,
    "endTimeL": 1_793_491_292_642,
    "conversationId": "0ab68239-5265",
    "agentId": 287000,
    "employeeId": "dksd434",
    "skillId": 146688951,
    "groupId": 23865772,
    "endReason": "agentTransfer",
    "totalHandleTimeMillis": 66833,
    "endTime": "2026-11-01T00:01:32.642Z",
    "startTime": "2026-10-31T23:59:18.976Z",
}
NUMBERS = ("agentId", "skillId", "groupId", "totalHandleTimeMillis", "startTimeL", "endTimeL")


def rows(*segments: Segment) -> list[dict[str, Any]]:
    """Return the rows of their batch; times as epoch milliseconds."""
    batch = record_batch(segments)
    batch.validate(full=True)
    for name in ("start_time", "end_time"):
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, name, batch.column(name).cast(pa.int64()))
    found: list[dict[str, Any]] = batch.to_pylist()
    return found


def full(**changed: Any) -> Segment:
    return msgspec.convert(FULL | changed, Segment)


def test_the_schema_is_this() -> None:
    """Whoever changes it raises SCHEMA_VERSION, and says so in the documentation."""
    assert [(field.name, str(field.type), field.nullable) for field in schema()] == [
        ("segment_id", "string", False),
        ("start_time", "timestamp[ms, tz=UTC]", True),
        ("end_time", "timestamp[ms, tz=UTC]", False),
        ("conversation_id", "string", True),
        ("agent_id", "int64", True),
        ("employee_id", "string", True),
        ("skill_id", "int64", True),
        ("group_id", "int64", True),
        ("end_reason", "dictionary<values=string, indices=int32, ordered=0>", True),
        ("total_handle_time_millis", "int64", True),
        ("extras", "string", True),
    ]
    assert (SCHEMA_VERSION, schema().metadata) == (1, {VERSION_KEY: b"1"})


def test_every_field_of_the_wire_has_a_column_or_is_a_time_as_text() -> None:
    assert [*COLUMNS] == [name for name in SEGMENT_FIELDS if name not in ("startTime", "endTime")]
    assert [*COLUMNS.values(), "extras"] == schema().names


def test_a_row_is_the_segment() -> None:
    assert rows(full()) == [{column: FULL[name] for name, column in COLUMNS.items()} | {"extras": None}]


@pytest.mark.parametrize("nothing", [UNSET, None])
def test_absent_and_null_are_null(nothing: Any) -> None:
    bare = Segment(**dict.fromkeys(SEGMENT_FIELDS, nothing) | {"segmentId": "a", "endTimeL": 1})
    expected = dict.fromkeys(schema().names) | {"segment_id": "a", "end_time": 1}
    assert rows(bare) == [expected]
    assert rows(full(), bare)[1] == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-01T02:01:32.642+02:00",
        "2026-11-01T00:01:32.642000Z",
        "2026-11-01T00:01:32.642Z",
    ],
)
def test_a_text_of_the_same_instant_says_nothing_new(text: str) -> None:
    assert rows(full(endTime=text))[0]["extras"] is None


@pytest.mark.parametrize(
    "text",
    ["2026-11-01T00:01:32.643Z", "2026-11-01T00:01:32.642001Z", "2026-11-01T00:01:32.642", "yesterday", "", "\0"],
)
@pytest.mark.parametrize("name", ["startTime", "endTime"])
def test_a_text_of_another_instant_is_kept(name: str, text: str) -> None:
    found = rows(full(), full(**{name: text}))
    assert [row["extras"] and json.loads(row["extras"]) for row in found] == [None, {name: text}]


def test_a_text_without_its_number_is_kept() -> None:
    alone = Segment(segmentId="a", endTimeL=1, startTime="2026-11-01T00:00:00Z")
    assert json.loads(rows(full(), alone)[1]["extras"]) == {"startTime": "2026-11-01T00:00:00Z"}


def test_unknown_fields_are_kept_as_json() -> None:
    extended = ExtendedSegment(
        **FULL | {"endTime": "soon"}, extras={"neu\n": {"deep": [1, None, "Zoë", 0.5]}, "big": 2**70}
    )
    found = rows(full(), extended)
    assert found[0]["extras"] is None
    assert json.loads(found[1]["extras"]) == {
        "endTime": "soon",
        "neu\n": {"deep": [1, None, "Zoë", 0.5]},
        "big": 2**70,
    }


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**80])
def test_a_number_that_does_not_fit_is_an_error_that_says_where(name: str, number: int) -> None:
    others = [full(segmentId="before", employeeId=None), Segment(segmentId="absent", endTimeL=1)]
    with pytest.raises(DestinationError, match=rf"'the one': {name} {number} does not fit the column {COLUMNS[name]}"):
        record_batch([*others, full(segmentId="the one", **{name: number})])


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0])
def test_the_longest_numbers_fit(name: str, number: int) -> None:
    assert rows(full(**{name: number}))[0][COLUMNS[name]] == number


def test_no_segments_are_an_empty_batch() -> None:
    assert record_batch([]).num_rows == 0
    assert record_batch([]).schema.equals(schema(), check_metadata=True)


def test_many_segments_are_one_batch_in_their_order() -> None:
    dataset = Dataset(segments=2_345, start=0, end=10**9, null_share=0.2, unknown_reasons=0.1, new_field_from=2_000)
    wire = list(dataset.rows())
    bodies = [{name: row[name] for name in SEGMENT_FIELDS if name in row} for row in wire]
    segments = [
        ExtendedSegment(**body, extras={"newField": row["newField"]}) if "newField" in row else Segment(**body)
        for body, row in zip(bodies, wire, strict=True)
    ]
    found = rows(*segments)
    assert {*map(type, segments)} == {Segment, ExtendedSegment}
    assert [row["extras"] is not None for row in found] == [isinstance(row, ExtendedSegment) for row in segments]
    assert [[row[column] for column in COLUMNS.values()] for row in found] == [
        [row.get(name) for name in COLUMNS] for row in wire
    ]


def test_small_batches_are_joined_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_ROWS", 70)
    parts = [record_batch([full(agentId=n, endReason=f"r{n % 3}")]) for n in range(150)]
    batches = list(arrow.joined(parts))
    assert [batch.num_rows for batch in batches] == [70, 70, 10]
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert [(row["agent_id"], row["end_reason"]) for row in rows] == [(n, f"r{n % 3}") for n in range(150)]
    assert list(arrow.joined([])) == []


async def test_stream_arrow_gives_what_stream_gives() -> None:
    async with served(settled(1_300, new_field_from=1_200)) as simulator, client(simulator, window=DAY) as opened:
        streamed = [row async for batch in opened.stream(START, END) for row in batch]
        batches = [batch async for batch in opened.stream_arrow(START, END)]
    assert pa.Table.from_batches(batches).to_pylist() == record_batch(streamed).to_pylist()
    assert all(batch.num_rows for batch in batches)
    assert all(batch.schema == schema() for batch in batches)


async def test_stream_arrow_names_what_is_missing_at_its_end() -> None:
    found = [0]

    async def read(batches: AsyncIterator[pa.RecordBatch]) -> None:
        async for batch in batches:
            found[0] += batch.num_rows

    async with served(settled(wrong_types=0.03)) as simulator, client(simulator, window=DAY) as opened:
        with pytest.raises(IncompleteError, match=r"could not be proven complete: .*agentId"):
            await read(opened.stream_arrow(START, END))
    assert 0 < found[0] < 60


async def test_stream_arrow_that_is_left_early_leaves_no_task() -> None:
    async with served(settled(1_300)) as simulator, client(simulator, window=DAY) as opened:
        async with aclosing(opened.stream_arrow(START, END)) as batches:
            async for _ in batches:
                break
        before = asyncio.all_tasks()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= before
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_without_the_extra_the_error_says_what_to_install() -> None:
    script = "import sys; sys.modules['pyarrow'] = None\nimport segment_fetch.arrow"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("Arrow needs an extra: pip install 'segment-fetch[arrow]'")


def test_pandas_and_polars_read_it() -> None:
    table = pa.Table.from_batches([record_batch([full(), Segment(segmentId="a", endTimeL=1)])])
    frame = table.to_pandas()
    assert str(frame["end_reason"].dtype) == "category"
    assert frame["end_time"][0] == pd.Timestamp(FULL["endTime"])
    polars = pl.from_arrow(table)
    assert isinstance(polars, pl.DataFrame)
    assert polars["end_time"].dtype == pl.Datetime("ms", "UTC")
    assert polars["agent_id"].to_list() == [287000, None]
