from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from segment_fetch.simulator import Dataset
from segment_fetch.simulator.pages import page_body
from segment_fetch.simulator.query import parse_query
from tests.simulator.conftest import DAY_MS, NOON, NOON_MS

DATA = Dataset(segments=10, start=NOON_MS - DAY_MS, end=NOON_MS)
URL = "http://127.0.0.1:1/api/account/111111/agent-segments"


def body(total: int, **parameters: str) -> Any:
    query = parse_query({"source": "tests", **parameters}, NOON)
    return orjson.loads(page_body(query, [], total, url=URL))


def links(total: int, limit: int, offset: int) -> dict[str, tuple[int, int]]:
    """Offset and limit of each link."""
    found = {}
    for reference in body(total, limit=str(limit), offset=str(offset))["pagination"]["references"]:
        asked = parse_qs(urlsplit(reference["href"]).query)
        found[reference["rel"]] = int(asked["offset"][0]), int(asked["limit"][0])
    return found


@pytest.mark.parametrize(
    ("total", "limit", "offset", "expected"),
    [
        (10569, 2, 0, {"self": (0, 2), "next": (2, 2), "last": (10568, 1), "first": (0, 2)}),
        (
            1000,
            100,
            300,
            {"self": (300, 100), "next": (400, 100), "previous": (200, 100), "last": (900, 100), "first": (0, 100)},
        ),
        (1000, 100, 900, {"self": (900, 100), "previous": (800, 100), "last": (900, 100), "first": (0, 100)}),
        (
            1000,
            100,
            30,
            {"self": (30, 100), "next": (130, 100), "previous": (0, 30), "last": (900, 100), "first": (0, 100)},
        ),
        (50, 100, 0, {"self": (0, 100), "last": (0, 50), "first": (0, 100)}),
        (0, 100, 0, {"self": (0, 100), "last": (0, 1), "first": (0, 100)}),
    ],
)
def test_links_are_those_of_the_specification(total: int, limit: int, offset: int, expected: Any) -> None:
    assert links(total, limit, offset) == expected


def test_a_link_repeats_what_was_asked() -> None:
    sent = {"from": "2026-11-20T01:00:00+03:00", "toMillis": str(NOON_MS), "AgentId": "5", "sort": "Agent"}
    href = body(1, **sent)["pagination"]["references"][0]["href"]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(href).query).items()}
    assert href.startswith(f"{URL}?from=2026-11-20T01%3A00%3A00%2B03%3A00&")
    assert asked == {**sent, "offset": "0", "limit": "100", "source": "tests", "sortType": "AGENT"}


def test_the_time_frame_is_told_in_the_offset_that_was_asked_in() -> None:
    frame = body(1, **{"from": "2026-11-20T01:00:00+03:00", "to": "2026-11-19T20:30:00-03:30"})["timeframe"]
    assert frame == {
        "startTime": "2026-11-20T01:00:00.000+03:00",
        "endTime": "2026-11-19T20:30:00.000-03:30",
        "startTimeL": NOON_MS - 14 * DAY_MS // 24,
        "endTimeL": NOON_MS - 12 * DAY_MS // 24,
    }
    assert body(1, toMillis=str(NOON_MS))["timeframe"]["endTime"] == "2026-11-20T12:00:00.000Z"
