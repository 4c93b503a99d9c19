from typing import Any

import pytest

from segment_fetch.simulator.query import RefusedQueryError, month_before, parse_query
from tests.simulator.conftest import DAY_MS, NOON, NOON_MS

WEEK_MS = 7 * DAY_MS
MONTH_AGO_MS = 1_792_497_600_000
"""2026-10-20T12:00:00Z: one calendar month before noon."""


def causes(**parameters: Any) -> list[str]:
    with pytest.raises(RefusedQueryError) as refused:
        parse_query({"source": "tests", **{name: str(value) for name, value in parameters.items()}}, NOON)
    return refused.value.causes


def parsed(**parameters: Any) -> Any:
    return parse_query({"source": "tests", **{name: str(value) for name, value in parameters.items()}}, NOON)


def test_defaults_are_those_of_the_specification() -> None:
    query = parsed()
    assert (query.limit, query.offset, query.sort) == (100, 0, "Date")
    assert (query.start, query.end) == (NOON_MS - DAY_MS, NOON_MS)
    assert not query.fixed


@pytest.mark.parametrize(
    ("parameters", "cause"),
    [
        ({"source": ""}, "source: must not be empty"),
        ({"source": "a" * 21}, "source: must not exceed 20 characters"),
        ({"source": "a-b"}, 'source: must match "^[a-zA-Z0-9_]+$"'),
        ({"source": "a\n"}, 'source: must match "^[a-zA-Z0-9_]+$"'),
        ({"source": "é"}, 'source: must match "^[a-zA-Z0-9_]+$"'),
        ({"limit": 501}, "limit: must be less than or equal to 500"),
        ({"limit": 0}, "limit: must be greater than or equal to 1"),
        ({"limit": "1_0"}, "limit: must be an integer"),
        ({"limit": ""}, "limit: must be an integer"),
        ({"offset": -1}, "offset: must be greater than or equal to 0"),
        ({"offset": "1.5"}, "offset: must be an integer"),
        ({"sort": "date"}, "sort: must be one of Date, Conversation, Agent, Employee, Skill, Group"),
        ({"from": "2026-11-20"}, "from: must be an RFC 3339 date-time"),
        ({"from": "2026-11-20T00:00:00"}, "from: must be an RFC 3339 date-time"),
        ({"from": "2026-11-20T00:00:00 03:00"}, "from: must be an RFC 3339 date-time"),
        ({"to": "yesterday"}, "to: must be an RFC 3339 date-time"),
        ({"fromMillis": "x"}, "fromMillis: must be an integer"),
        ({"toMillis": -1}, "toMillis: must be greater than or equal to 0"),
        ({"toMillis": 10**17}, "toMillis: must be less than or equal to 253402300799999"),
        (
            {"from": "2026-11-20T00:00:00Z", "fromMillis": NOON_MS},
            "fromMillis: must not be provided together with from",
        ),
        (
            {"to": "2026-11-20T00:00:00Z", "toMillis": NOON_MS},
            "toMillis: must not be provided together with to",
        ),
        ({"fromMillis": NOON_MS, "toMillis": NOON_MS - 1}, "from: must not be after to"),
        (
            {"fromMillis": NOON_MS - WEEK_MS - 1, "toMillis": NOON_MS},
            "to: the timeframe must not exceed 1 week",
        ),
        ({"fromMillis": NOON_MS - WEEK_MS - 1}, "to: the timeframe must not exceed 1 week"),
        (
            {"fromMillis": MONTH_AGO_MS - 1, "toMillis": MONTH_AGO_MS + DAY_MS},
            "from: must be no more than 1 month in the past",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_cause(parameters: dict[str, Any], cause: str) -> None:
    assert causes(**parameters) == [cause]


def test_every_cause_is_told() -> None:
    assert len(causes(source="", limit=0, offset=-1, sort="x", to="x")) == 5


def test_a_missing_source_is_refused() -> None:
    with pytest.raises(RefusedQueryError, match="source: must not be empty"):
        parse_query({}, NOON)


def test_the_bounds_themselves_are_accepted() -> None:
    query = parsed(source="a" * 20, limit=500, fromMillis=MONTH_AGO_MS, toMillis=MONTH_AGO_MS + WEEK_MS)
    assert query.limit == 500
    assert query.fixed
    assert parsed(limit=1, offset=0, fromMillis=NOON_MS, toMillis=NOON_MS).start == NOON_MS


def test_date_times_have_any_offset_and_keep_it() -> None:
    query = parsed(**{"from": "2026-11-20T01:30:00.250+03:30", "to": "2026-11-20T02:00-05:00"})
    assert query.start == NOON_MS - 14 * DAY_MS // 24 + 250
    assert query.end == NOON_MS - 5 * DAY_MS // 24
    assert query.offsets == (210, -300)


def test_filters_and_unknown_parameters() -> None:
    query = parsed(AgentId=5, agentId=6, sortType="DATE", anything=1)
    assert query.filters == (("AgentId", "5"),)
    assert query.echo == (("AgentId", "5"),)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (1_774_872_000.0, 1_772_280_000_000),
        (1_768_046_400.0, 1_765_368_000_000),
        (1_780_228_800.0, 1_777_550_400_000),
        (NOON, MONTH_AGO_MS),
    ],
    ids=["30 March -> 28 February", "January -> December", "31 May -> 30 April", "same day"],
)
def test_a_month_is_a_calendar_month(now: float, expected: Any) -> None:
    assert month_before(now) == expected
