"""Handle time from every kind of destination, held against sums made here from the same segments."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import defaultdict
from datetime import datetime
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest

from segment_fetch import InputError
from segment_fetch.analysis import HandleTime, handle_time
from segment_fetch.analysis.handle_time_sums import GROUPS
from segment_fetch.errors import DestinationBusyError, DestinationError
from segment_fetch.sinks import open_sink
from segment_fetch.sinks.files.file_names import MANIFEST
from tests.support_objects import Bucket
from tests.support_postgres import PASSWORD, Postgres
from tests.support_runs import DAY_MS, END, NOW_MS, START, client, rows, served, settled

BERLIN = ZoneInfo("Europe/Berlin")
FORMS: dict[str, dict[str, Any]] = {
    "jsonl": {},
    "jsonl gzip": {"compress": "gzip"},
    "jsonl zstd": {"compress": "zstd"},
    "jsonl by day": {"partition": "day"},
    "csv": {"format": "csv"},
    "csv safe gzip": {"format": "csv", "csv_safe": True, "compress": "gzip"},
    "parquet": {"format": "parquet"},
    "parquet by day": {"format": "parquet", "partition": "day"},
}


async def filled(place: str, segments: int = 400, **options: Any) -> None:
    async with served(settled(segments)) as simulator, client(simulator) as api:
        report = await api.extract(START, END, open_sink(place, **options))
    assert report.complete


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The segments of the simulator, as JSON Lines."""
    folder = tmp_path_factory.mktemp("expected") / "rows"
    asyncio.run(filled(str(folder)))
    return rows(folder)


def quantile(values: list[int], at: float) -> float:
    ordered, place = sorted(values), at * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def sums(segments: list[dict[str, Any]], by: str, fields: list[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The measures by local day or quarter of Berlin, in Python."""
    groups = defaultdict(list)
    for row in segments:
        local = datetime.fromtimestamp(row["endTimeL"] / 1000, BERLIN).replace(microsecond=0, second=0)
        local = local.replace(minute=local.minute // 15 * 15) if by == "15m" else local.replace(minute=0, hour=0)
        groups[(local.isoformat(), *(row.get(name) for name in fields))].append(row)
    found = {}
    for key, group in groups.items():
        times = [row["totalHandleTimeMillis"] for row in group if row.get("totalHandleTimeMillis") is not None]
        talks = {row["conversationId"] for row in group if row.get("conversationId") is not None}
        found[key] = {
            "segments": len(group),
            "conversations": len(talks),
            "handle_time_ms": sum(times),
            "aht_segment_ms": round(sum(times) / len(times)),
            "aht_conversation_ms": round(sum(times) / len(talks)),
            "median_ms": round(median(times)),
            "p90_ms": round(quantile(times, 0.9)),
            "longest_ms": max(times),
        }
    return found


def as_found(result: HandleTime, names: list[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    measures = ["segments", "conversations", "handle_time_ms", "aht_segment_ms", "aht_conversation_ms"]
    measures += ["median_ms", "p90_ms", "longest_ms"]
    found = result.table.to_pylist()
    return {(row["interval_start"], *(row[name] for name in names)): {m: row[m] for m in measures} for row in found}


def close_to(found: dict[tuple[Any, ...], dict[str, Any]], due: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    """The same, but for a half that one rounds up and the other down."""
    assert found.keys() == due.keys()
    for key, row in due.items():
        assert {name: pytest.approx(value, abs=1) for name, value in row.items()} == found[key]
        for exact in ("segments", "conversations", "handle_time_ms", "longest_ms"):
            assert found[key][exact] == row[exact]


@pytest.mark.parametrize("form", FORMS)
async def test_folders_give_the_sums_of_their_segments(
    form: str, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    await filled(str(tmp_path / "out"), **FORMS[form])
    result = handle_time(tmp_path / "out", by=["skill"], every="15m", timezone="Europe/Berlin")
    close_to(as_found(result, ["skill_id"]), sums(expected, "15m", ["skillId"]))
    starts = [(row["interval_start"], row["skill_id"]) for row in result.table.to_pylist()]
    assert starts == sorted(starts, key=lambda each: (datetime.fromisoformat(each[0]), each[1] is None, each[1]))
    texts = handle_time(tmp_path / "out", by=["employee", "end-reason"], every="1d", timezone="Europe/Berlin")
    close_to(as_found(texts, ["employee_id", "end_reason"]), sums(expected, "1d", ["employeeId", "endReason"]))


async def test_duckdb_gives_the_same(expected: list[dict[str, Any]], tmp_path: Path) -> None:
    place = f"duckdb:///{tmp_path}/out.duckdb?table=of_mine"
    await filled(place)
    result = handle_time(place, by=["agent", "group"], every="1d", timezone="Europe/Berlin")
    close_to(as_found(result, ["agent_id", "group_id"]), sums(expected, "1d", ["agentId", "groupId"]))


async def test_postgresql_sums_by_itself(
    expected: list[dict[str, Any]], postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    place = f"{postgres_server.url(password=None)}?table=table_{uuid4().hex}"
    await filled(place)
    result = handle_time(place, by=["skill"], every="15m", timezone="Europe/Berlin")
    close_to(as_found(result, ["skill_id"]), sums(expected, "15m", ["skillId"]))
    by_text = handle_time(place, by=["end-reason"], every="1d", timezone="Europe/Berlin", fill=True)
    assert sum(by_text.table["segments"].to_pylist()) == 400


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
async def test_an_object_store_gives_the_same(form: str, expected: list[dict[str, Any]], bucket: Bucket) -> None:
    place = bucket.url
    await filled(place, format=form)
    result = handle_time(place, by=["skill"], every="1d", timezone="Europe/Berlin")
    close_to(as_found(result, ["skill_id"]), sums(expected, "1d", ["skillId"]))


async def test_segments_and_handle_time_add_up_over_any_grouping(tmp_path: Path) -> None:
    await filled(str(tmp_path / "out"), 300)
    totals = set()
    for size, every in product(range(4), ("15m", "30m", "1h", "1d", "1w", "none")):
        result = handle_time(tmp_path / "out", by=list(GROUPS)[:size], every=every, timezone="Australia/Lord_Howe")
        totals.add((sum(result.table["segments"].to_pylist()), sum(result.table["handle_time_ms"].to_pylist())))
    assert len(totals) == 1


async def test_empty_intervals_are_zeros_when_asked(tmp_path: Path) -> None:
    await filled(str(tmp_path / "out"), 30)
    result = handle_time(tmp_path / "out", by=["skill"], every="1h", fill=True)
    skills = len(set(result.table["skill_id"].to_pylist()))
    assert result.table.num_rows == skills * (6 * 24 + 1)  # the range begins and ends within an hour
    assert sum(result.table["segments"].to_pylist()) == 30
    assert result.table["handle_time_ms"].null_count == 0
    assert result.table["aht_segment_ms"].null_count > 0
    with pytest.raises(InputError, match=r"more than 1,000,000 rows: choose longer intervals"):
        handle_time(tmp_path / "out", by=["agent", "skill", "employee", "group"], every="15m", start=0, fill=True)


async def test_a_range_is_half_open_and_local_to_the_zone(expected: list[dict[str, Any]], tmp_path: Path) -> None:
    await filled(str(tmp_path / "out"))
    first, last = expected[10]["endTimeL"], expected[200]["endTimeL"]
    result = handle_time(tmp_path / "out", start=first, end=last)
    assert result.table["segments"].to_pylist() == [sum(first <= row["endTimeL"] < last for row in expected)]
    day = datetime.fromtimestamp(expected[100]["endTimeL"] / 1000, BERLIN).date()
    local = handle_time(tmp_path / "out", start=str(day), end=f"{day}T12:00", timezone="Europe/Berlin")
    assert local.start == datetime(day.year, day.month, day.day, tzinfo=BERLIN).timestamp() * 1000
    assert local.end == datetime(day.year, day.month, day.day, 12, tzinfo=BERLIN).timestamp() * 1000


def by_hand(folder: Path, *rows: dict[str, Any], windows: list[dict[str, Any]] | None = None) -> Path:
    """A folder whose segments are these, in one window."""
    folder.mkdir()
    name = "segments-20261101T000000000Z-20261102T000000000Z.jsonl"
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    (folder / name).write_bytes(data)
    window = {
        "from": "2026-11-01T00:00:00Z",
        "to": "2026-11-02T00:00:00Z",
        "status": "complete",
        "count": len(rows),
        "segments": len(rows),
        "duplicates": 0,
        "pages": 1,
        "requests": 1,
        "read_at": "2026-11-05T00:00:00Z",
        "unknown_fields": [],
        "file": name,
        "bytes": len(data),
        "sha256": "0" * 64,
    }
    query = {"account": "1", "source": "t", "filters": {}, "format": "jsonl", "compress": "none"}
    listed = [window, *(windows or [])]
    (folder / MANIFEST).write_text(json.dumps({"format_version": 1, "query": query, "windows": listed}))
    return folder


def segment(name: str, **values: Any) -> dict[str, Any]:
    return {"segmentId": name, "endTimeL": 1_793_500_000_000, "conversationId": name} | values


def test_segments_that_lack_something_are_counted_apart(tmp_path: Path) -> None:
    folder = by_hand(
        tmp_path / "out",
        segment("a", skillId=1, totalHandleTimeMillis=1000),
        segment("b", skillId=1, totalHandleTimeMillis=None, conversationId="a"),
        segment("c", totalHandleTimeMillis=500, conversationId=None),
    )
    first, second = handle_time(folder, by=["skill"]).table.to_pylist()
    assert first | {"interval_start": ""} == {
        "interval_start": "",
        "skill_id": 1,
        "segments": 2,
        "conversations": 1,
        "handle_time_ms": 1000,
        "aht_segment_ms": 1000,
        "aht_conversation_ms": 1000,
        "median_ms": 1000,
        "p90_ms": 1000,
        "longest_ms": 1000,
        "provisional": False,
        "without_time": 1,
    }
    assert (second["skill_id"], second["segments"], second["conversations"]) == (None, 1, 0)
    assert second["aht_conversation_ms"] is None


def test_what_is_not_final_is_named_and_marked(tmp_path: Path) -> None:
    later: dict[str, Any] = {
        "count": 0,
        "segments": 0,
        "duplicates": 0,
        "pages": 1,
        "requests": 1,
        "read_at": "2026-11-05T00:00:00Z",
    }
    later |= {"unknown_fields": [], "status": "unproven", "reason": "it changed"}
    folder = by_hand(
        tmp_path / "out",
        segment("a", totalHandleTimeMillis=1),
        windows=[
            {"from": "2026-11-02T00:00:00Z", "to": "2026-11-03T00:00:00Z"} | later,
            {"from": "2026-11-05T00:00:00Z", "to": "2026-11-06T00:00:00Z"} | later,
        ],
    )
    result = handle_time(folder, every="1d", fill=True)
    assert [str(each) for each in result.missing] == ["2026-11-02T00:00:00Z to 2026-11-06T00:00:00Z"]
    assert result.table["provisional"].to_pylist() == [False, True, True, True, True]
    assert result.complete_before == 1_793_577_600_000
    halves = handle_time(folder, every="1h", start="2026-11-01T22:00", end="2026-11-02T02:00", fill=True)
    assert halves.table["provisional"].to_pylist() == [False, False, True, True]


async def test_a_window_of_which_more_may_come_is_named(tmp_path: Path) -> None:
    async with served(settled(20)) as simulator, client(simulator) as api:
        await api.extract(NOW_MS - 4 * DAY_MS, NOW_MS, open_sink(tmp_path / "out"))
    result = handle_time(tmp_path / "out", every="1d")
    assert result.provisional
    assert any(result.table["provisional"].to_pylist())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "skill"}, "give a list of names"),
        ({"by": ["queue"]}, "choose from skill, agent, group, employee, end-reason"),
        ({"every": "2h"}, "choose one of 15m"),
        ({"timezone": "Berlin"}, "IANA name"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "let it start before it ends"),
        ({"start": "25.10.2026"}, "2026-11-01"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    folder = by_hand(tmp_path / "out", segment("a"))
    with pytest.raises(InputError, match=message):
        handle_time(folder, **options)


def test_a_destination_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="nowhere"):
        handle_time(tmp_path / "nowhere")
    folder = by_hand(tmp_path / "out", segment("a"))
    next(folder.glob("segments-*")).write_text('{"segmentId": \n')
    with pytest.raises(DestinationError, match="cannot be read"):
        handle_time(folder)
    file = next(folder.glob("segments-*"))
    file.unlink()
    with pytest.raises(DestinationError, match="cannot be read"):
        handle_time(folder)
    os.mkfifo(file)
    with pytest.raises(DestinationError, match="cannot be read: it is not a regular file"):
        handle_time(folder)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(DestinationError, match="cannot be read: it is not a regular file"):
        handle_time(folder)


def test_a_duckdb_file_that_a_run_has_open_is_busy(tmp_path: Path) -> None:
    place = f"duckdb:///{tmp_path}/out.duckdb"
    asyncio.run(filled(place, 10))
    script = f"import duckdb, sys; c = duckdb.connect({str(tmp_path / 'out.duckdb')!r}); print(1); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(DestinationBusyError):
            handle_time(place)
        other.communicate()
