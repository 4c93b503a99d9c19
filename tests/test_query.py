"""Queries that are accepted, and those refused before anything is sent."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.errors import InputError
from segment_fetch.query import Filters, Query, Window
from segment_fetch.timerange import CLAMP_MARGIN_MS, check_range, format_time, oldest_start, parse_time, to_ms

DAY_MS = 86_400_000


def ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text + "+00:00"))


NOW = ms("2026-11-15T12:00:00")


@pytest.mark.parametrize("source", ["a", "nightly_wfm", "LP_AgentUI", "x" * 20, "0"])
def test_sources_that_the_api_takes(source: str) -> None:
    assert Query("111111", source).source == source


@pytest.mark.parametrize("source", ["", "x" * 21, "a b", "a-b", "a\n", "é", "a.b", "a%5F"])
def test_sources_that_it_does_not(source: str) -> None:
    with pytest.raises(InputError, match="source"):
        Query("111111", source)


@pytest.mark.parametrize("account", ["", "11/11", "1 1", "111?x", "..", "11\n", "\uff11\uff11", "a.b", "%31"])
def test_accounts_that_could_change_the_url(account: str) -> None:
    with pytest.raises(InputError, match="account"):
        Query(account, "tests")


@pytest.mark.parametrize(("limit", "good"), [(0, False), (1, True), (500, True), (501, False), (-1, False)])
def test_limits(limit: int, good: bool) -> None:
    if good:
        assert Query("111111", "tests", limit=limit).limit == limit
    else:
        with pytest.raises(InputError, match="limit"):
            Query("111111", "tests", limit=limit)


NAMES = {
    "agent_id": "AgentId",
    "skill_id": "SkillId",
    "group_id": "GroupId",
    "employee_id": "EmployeeId",
    "conversation_id": "ConversationId",
}


@pytest.mark.parametrize(("field", "name"), NAMES.items())
def test_filters_are_sent_as_the_table_spells_them(field: str, name: str) -> None:
    query = Query("111111", "tests", Filters(**{field: "a value"}))
    assert query.params(Window(5, 7), 500, 400) == {
        "source": "tests",
        "fromMillis": "5",
        "toMillis": "7",
        "sort": "Date",
        "offset": "500",
        "limit": "400",
        name: "a value",
    }


@pytest.mark.parametrize("field", NAMES)
@pytest.mark.parametrize("value", ["", " ", "\udcff"])
def test_filters_that_cannot_be_sent(field: str, value: str) -> None:
    with pytest.raises(InputError, match=NAMES[field]):
        Query("111111", "tests", Filters(**{field: value}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-01T08:00:00Z", "2026-11-01T08:00:00"),
        ("2026-11-01t08:00:00z", "2026-11-01T08:00:00"),
        ("2026-11-01T08:00:00.5Z", "2026-11-01T08:00:00.500"),
        ("2026-11-01T08:00:00.0019Z", "2026-11-01T08:00:00.001"),
        ("2026-11-01T08:00:00+03:00", "2026-11-01T05:00:00"),
        ("2026-11-01T08:00:00-00:30", "2026-11-01T08:30:00"),
        ("2026-11-01T08:00:00", "2026-11-01T08:00:00"),
        ("2026-11-01 08:00", "2026-11-01T08:00:00"),
        ("2026-11-01", "2026-11-01T00:00:00"),
        (" now ", "2026-11-15T12:00:00"),
        ("now-90s", "2026-11-15T11:58:30"),
        ("now-30m", "2026-11-15T11:30:00"),
        ("now-12h", "2026-11-15T00:00:00"),
        ("now-7d", "2026-11-08T12:00:00"),
        ("now-2w", "2026-11-01T12:00:00"),
        ("now-0d", "2026-11-15T12:00:00"),
        (datetime(2026, 11, 1, 8, tzinfo=UTC), "2026-11-01T08:00:00"),
        (datetime(2026, 11, 1, 8, tzinfo=timezone(timedelta(hours=-5))), "2026-11-01T13:00:00"),
        (0, "1970-01-01T00:00:00"),
    ],
)
def test_moments(value: Any, expected: str) -> None:
    assert parse_time(value, NOW) == ms(expected)


class NoOffset(tzinfo):
    """A time zone that does not say how far it is from UTC."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = utcoffset

    def tzname(self, _: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "NOW",
        "now+1d",
        "now-1y",
        "now-1",
        "now-9999999d",
        "2026-02-30",
        "2026-11",
        "08:00",
        "2026-11-01T25:00:00Z",
        "2026-11-01T08:00:60Z",
        "1730000000000",
        datetime(2026, 11, 1),  # noqa: DTZ001 - it has to be refused
        datetime(2026, 11, 1, tzinfo=NoOffset()),
        date(2026, 11, 1),
        1.5,
        True,
        None,
        10**20,
        -(10**20),
        "now-999999w",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=23))),
    ],
    ids=str,
)
def test_what_is_no_moment(value: Any) -> None:
    with pytest.raises(InputError, match="time"):
        parse_time(value, NOW)


@given(st.integers(min_value=-30_610_224_000_000, max_value=253_402_300_799_999))
def test_a_moment_is_read_as_it_was_written(moment: int) -> None:
    assert parse_time(format_time(moment), NOW) == moment
    assert parse_time(moment, NOW) == moment


@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_an_input_error(text: str) -> None:
    with suppress(InputError):
        format_time(parse_time(text, NOW))


@pytest.mark.parametrize(
    ("now", "oldest"),
    [
        ("2026-11-15T12:00:00", "2026-10-15T12:00:00"),
        ("2026-11-30T12:00:00", "2026-10-30T12:00:00"),
        ("2026-10-31T23:59:59.999", "2026-09-30T23:59:59.999"),
        ("2026-03-31T00:00:00", "2026-02-28T00:00:00"),
        ("2026-03-29T00:00:00", "2026-02-28T00:00:00"),
        ("2028-03-31T00:00:00", "2028-02-29T00:00:00"),
        ("2028-03-29T00:00:00", "2028-02-29T00:00:00"),
        ("2028-02-29T00:00:00", "2028-01-29T00:00:00"),
        ("2100-03-30T00:00:00", "2100-02-28T00:00:00"),
        ("2026-01-31T08:00:00.001", "2025-12-31T08:00:00.001"),
        ("2026-01-01T00:00:00", "2025-12-01T00:00:00"),
    ],
)
def test_one_calendar_month_back(now: str, oldest: str) -> None:
    assert oldest_start(ms(now)) == ms(oldest)


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_a_month_has_28_to_31_days(now: int) -> None:
    assert 28 * DAY_MS <= now - oldest_start(now) <= 31 * DAY_MS


OLDEST = oldest_start(NOW)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-11-01", "2026-11-02"),
        ("now-7d", "now"),
        ("2026-11-10", "2026-12-10"),
        (NOW, NOW + 1),
        (OLDEST + CLAMP_MARGIN_MS, OLDEST + CLAMP_MARGIN_MS + 1),
    ],
)
def test_ranges_that_can_be_asked(start: Any, end: Any) -> None:
    assert check_range(start, end, now_ms=NOW) == (parse_time(start, NOW), parse_time(end, NOW))


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("2026-11-02", "2026-11-01", "after it ends"),
        ("2026-11-16", "2026-11-17", "in the future"),
        (NOW + 1, NOW + 2, "in the future"),
        ("2026-11-01", "2026-11-01", "empty"),
        (OLDEST + CLAMP_MARGIN_MS - 1, "now", "oldest possible start is 2026-10-15T12:01:00Z"),
        ("2026-01-01", "2026-01-02", "oldest possible start is 2026-10-15T12:01:00Z"),
        ("soon", "now", "soon"),
    ],
)
def test_ranges_that_cannot(start: Any, end: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_range(start, end, now_ms=NOW)


def test_a_range_is_clamped_only_where_it_is_asked_for_and_needed() -> None:
    told: list[str] = []
    clamped = check_range("2026-10-01", "now", now_ms=NOW, clamp=True, warn=told.append)
    assert clamped == (OLDEST + CLAMP_MARGIN_MS, NOW)
    assert told == [
        "2026-10-01T00:00:00Z to 2026-10-15T12:01:00Z is no longer available: the API serves only the last month"
    ]
    told.clear()
    first = OLDEST + CLAMP_MARGIN_MS
    assert check_range(first, "now", now_ms=NOW, clamp=True, warn=told.append) == (first, NOW)
    assert check_range("2026-10-01", "now", now_ms=NOW, clamp=True)[0] == OLDEST + CLAMP_MARGIN_MS
    assert not told


@pytest.mark.parametrize("end", ["2026-10-02", OLDEST, OLDEST + CLAMP_MARGIN_MS])
def test_a_range_of_which_nothing_is_left_is_not_clamped(end: Any) -> None:
    with pytest.raises(InputError, match="whole range is older"):
        check_range("2026-10-01", end, now_ms=NOW, clamp=True)


def test_a_window_is_written_as_its_times() -> None:
    assert str(Window(0, 1500)) == "1970-01-01T00:00:00Z to 1970-01-01T00:00:01.500Z"
