import re
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from segment_fetch.simulator import Dataset
from segment_fetch.simulator.rows import END_REASONS, UNKNOWN_END_REASON, row_of_id, utc_text
from tests.simulator.conftest import DAY_MS, NOON_MS

START, END = NOON_MS - DAY_MS, NOON_MS
FIELDS = [
    "segmentId",
    "startTimeL",
    "endTimeL",
    "conversationId",
    "agentId",
    "employeeId",
    "skillId",
    "groupId",
    "endReason",
    "totalHandleTimeMillis",
    "endTime",
    "startTime",
]
PINNED = {
    "segmentId": "111111:3397071415:9ad58e15-7337-546e-2917-4ae0a4b73828:x1vT7FGYj-97naYiL5KXmg",
    "startTimeL": 1795164540384,
    "endTimeL": 1795171022331,
    "conversationId": "27bcb92c-bd91-044a-654f-80dac58384a9",
    "agentId": 495295,
    "employeeId": "hpvd447",
    "skillId": 146790442,
    "groupId": 23642150,
    "endReason": "backToQueue",
    "totalHandleTimeMillis": 3240974,
    "endTime": "2026-11-20T10:37:02.331Z",
    "startTime": "2026-11-20T08:49:00.384Z",
}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


def dataset(segments: int = 5000, **options: Any) -> Dataset:
    return Dataset(segments=segments, start=START, end=END, **options)


@pytest.fixture(scope="module")
def rows() -> Any:
    return list(dataset().rows())


def test_a_row_is_the_same_on_every_machine() -> None:
    assert dataset().row(4711) == PINNED


def test_rows_are_spelled_as_the_specification_spells_them(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert [field for field in FIELDS if field in row] == list(row)
        assert re.fullmatch(rf"111111:\d{{10}}:{UUID}:[A-Za-z0-9_-]{{22}}", row["segmentId"])
        assert re.fullmatch(UUID, row["conversationId"])
        assert row["endReason"] in END_REASONS
        assert 0 < row["totalHandleTimeMillis"] < row["endTimeL"] - row["startTimeL"]
        for name in ("startTime", "endTime"):
            assert row[name].endswith("Z")
            assert datetime.fromisoformat(row[name]).timestamp() * 1000 == pytest.approx(row[f"{name}L"], abs=0.01)


def test_rows_are_as_large_as_the_example() -> None:
    rendered = dataset().writer.render((row, END) for row in range(1000))
    assert sum(map(len, rendered)) / 1000 == pytest.approx(415, abs=15)


def test_identifiers_are_unique_and_lead_back_to_their_row(rows: list[dict[str, Any]]) -> None:
    ids = [row["segmentId"] for row in rows]
    assert len(set(ids)) == 5000
    assert [row_of_id(segment_id) for segment_id in ids] == list(range(5000))
    assert row_of_id("111111:x:y:z") == row_of_id("nonsense") == -1


def test_rows_are_as_mixed_as_those_of_a_brand(rows: list[dict[str, Any]]) -> None:
    def share(condition: Callable[[dict[str, Any]], bool]) -> float:
        return sum(map(condition, rows)) / len(rows)

    assert share(lambda row: "employeeId" not in row) == pytest.approx(1 / 8, abs=0.04)
    assert share(lambda row: not row.get("employeeId", "").isascii()) == pytest.approx(1 / 16, abs=0.03)
    assert share(lambda row: row["skillId"] is None) == pytest.approx(0.01, abs=0.005)
    assert 0 < share(lambda row: row["groupId"] is None) < 0.01
    assert {row["endReason"] for row in rows} == set(END_REASONS)
    assert 800 < len({row["agentId"] for row in rows}) <= 1009


def test_some_conversations_have_more_than_one_segment(rows: list[dict[str, Any]]) -> None:
    assert len({row["conversationId"] for row in rows}) == pytest.approx(5000 * 0.84, rel=0.03)


def test_what_filters_compare_is_what_rows_say() -> None:
    data = dataset(null_share=0.3)
    for number, row in enumerate(data.rows()):
        traits = data.writer.traits(number)
        assert traits.conversation == row["conversationId"]
        assert traits.agent == str(row["agentId"])
        assert traits.employee == row.get("employeeId", "")
        assert traits.skill == str(row["skillId"] or "")
        assert traits.group == str(row["groupId"] or "")


def test_undocumented_things_come_only_when_asked_for() -> None:
    strange = list(dataset(unknown_reasons=0.2, wrong_types=0.1, new_field_from=4000).rows())
    plain = list(dataset().rows())
    unknown = [row["endReason"] == UNKNOWN_END_REASON for row in strange]
    wrong = [isinstance(row["agentId"], str) for row in strange]
    assert sum(unknown) / 5000 == pytest.approx(0.2, abs=0.02)
    assert sum(wrong) / 5000 == pytest.approx(0.1, abs=0.02)
    assert [number for number, row in enumerate(strange) if "newField" in row] == list(range(4000, 5000))
    assert [row["segmentId"] for row in strange] == [row["segmentId"] for row in plain]
    assert not any("newField" in row or isinstance(row["agentId"], str) for row in plain)


def test_a_range_has_the_rows_that_closed_in_it() -> None:
    data = dataset(ties=0.2)
    everything = list(data.rows())
    start, end = everything[1000]["endTimeL"], everything[2000]["endTimeL"]
    inside = [row for row in everything if start <= row["endTimeL"] < end]
    assert list(data.rows(start, end)) == inside
    assert list(data.ids(start, end)) == [row["segmentId"] for row in inside]
    assert list(data.ids(end, start)) == []


def test_another_seed_and_account_give_other_rows() -> None:
    assert set(dataset(seed=2).ids()).isdisjoint(dataset().ids())
    assert next(dataset(account="222").ids()).startswith("222:")


def test_ten_million_rows_take_no_memory() -> None:
    tracemalloc.start()
    data = dataset(10_000_000, ties=0.1, daily_load=True)
    middle = data.count_before((START + END) // 2)
    row = data.row(middle)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row["endTimeL"] >= (START + END) // 2 > data.close_time(middle - 1)
    assert most < 5_000_000


def test_recent_ends_at_the_full_hour() -> None:
    data = Dataset.recent(10, now=NOON_MS / 1000 + 1234, days=2, seed=3)
    assert (data.start, data.end, data.seed) == (NOON_MS - 2 * DAY_MS, NOON_MS, 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("segments", {"segments": -1}),
        ("segments", {"segments": 10_000_001}),
        ("start", {"end": START}),
        ("burst", {"burst": 5001}),
        ("burst_at", {"burst_at": END}),
        ("concentrate", {"concentrate": 1.1}),
        ("ties", {"ties": -0.1}),
        ("null_share", {"null_share": float("nan")}),
        ("unknown_reasons", {"unknown_reasons": 2}),
        ("wrong_types", {"wrong_types": 2}),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        Dataset(**{"segments": 5000, "start": START, "end": END, **options})


def test_an_empty_dataset_has_no_rows() -> None:
    assert list(dataset(0).rows()) == []


def test_times_are_told_in_utc() -> None:
    assert utc_text(1_652_391_099_022) == "2022-05-12T21:31:39.022Z"
