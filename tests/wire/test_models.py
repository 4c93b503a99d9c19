"""The specification's example, and what may be missing, null or new in a segment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from segment_fetch.wire.models import SEGMENT_FIELDS, ExtendedSegment, Segment
from segment_fetch.wire.pages import decode_page
from tests.support import page_body, row

EXAMPLE = Path(__file__).parents[1] / "data" / "agent_segments_example.json"


def test_the_specifications_example_decodes_value_for_value() -> None:
    wire = json.loads(EXAMPLE.read_bytes())
    page = decode_page(EXAMPLE.read_bytes())
    assert msgspec.to_builtins(page) == wire
    assert [type(segment) for segment in page.segments] == [Segment, Segment]
    assert page.pagination.count == 10569
    assert page.segments[0] == Segment(
        segmentId="111111:1224046030:f468270d-1230-4bac-9a83-aa206c1004bb:Skq5195qSmesd4ZBANzBaA",
        startTimeL=1652371219517,
        endTimeL=1652391099022,
        conversationId="fdcc34c7-50f6-4e08-2867-c4713953edd2",
        agentId=123456,
        employeeId="abcd123",
        skillId=146473456,
        groupId=23567815,
        endReason="backToQueue",
        totalHandleTimeMillis=7248915,
        endTime="2022-05-12T21:31:39.022Z",
        startTime="2022-05-12T16:00:19.517Z",
    )


def test_fields_are_named_and_ordered_as_on_the_wire() -> None:
    assert list(SEGMENT_FIELDS) == list(json.loads(EXAMPLE.read_bytes())["segments"][0])


def test_a_segment_needs_no_more_than_its_id_and_close_time() -> None:
    (segment,) = decode_page(page_body(row(5))).segments
    assert segment == Segment(segmentId="id-5", endTimeL=5)
    assert {getattr(segment, name) for name in SEGMENT_FIELDS} == {"id-5", 5, UNSET}


@pytest.mark.parametrize("name", [name for name in SEGMENT_FIELDS if name not in ("segmentId", "endTimeL")])
def test_absent_and_null_are_kept_apart(name: str) -> None:
    absent, null = decode_page(page_body(row(1), row(2, **{name: None}))).segments
    assert getattr(absent, name) is UNSET
    assert getattr(null, name) is None
    assert json.loads(msgspec.json.encode(absent)) == row(1)
    assert json.loads(msgspec.json.encode(null)) == row(2, **{name: None})


@pytest.mark.parametrize(
    "fields",
    [
        {"endReason": "closedByBot"},
        {"endReason": ""},
        {"employeeId": "李雷 \U0001f600"},
        {"agentId": 2**63 - 1},
        {"agentId": -1},
        {"totalHandleTimeMillis": 0},
    ],
)
def test_unusual_values_pass_through(fields: dict[str, Any]) -> None:
    (segment,) = decode_page(page_body(row(**fields))).segments
    assert type(segment) is Segment
    assert msgspec.to_builtins(segment) == row(**fields)


@pytest.mark.parametrize("value", [1, None, "text", 1.5, [1, {"a": None}], {"deep": {"er": []}}])
def test_a_new_field_is_kept_as_it_came(value: Any) -> None:
    plain, extended = decode_page(page_body(row(2), row(1, agentId=7, newField=value))).segments
    assert type(plain) is Segment
    assert extended == ExtendedSegment(segmentId="id-1", endTimeL=1, agentId=7, extras={"newField": value})


def test_a_new_field_may_be_called_extras() -> None:
    (segment,) = decode_page(page_body(row(extras={"a": 1}))).segments
    assert isinstance(segment, ExtendedSegment)
    assert segment.extras == {"extras": {"a": 1}}


def test_segments_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Segment(segmentId="a", endTimeL=1).endTimeL = 2  # type: ignore[misc]
