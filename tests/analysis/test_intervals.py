"""Intervals on the local clock, held against a walk through the zone's own clock, minute by minute."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_fetch.analysis.intervals import EVERY, Every, Intervals, check_every, overlapping
from segment_fetch.errors import InputError
from segment_fetch.timerange import midnight

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
ODD_DAYS = [
    # zone, date, hours of the day, quarters of an hour, the label of its first moment
    ("Europe/Berlin", (2026, 10, 25), 25, 100, "2026-10-25T00:00:00+02:00"),
    ("Europe/Berlin", (2026, 3, 29), 23, 92, "2026-03-29T00:00:00+01:00"),
    ("Europe/Berlin", (2026, 6, 1), 24, 96, "2026-06-01T00:00:00+02:00"),
    ("Australia/Lord_Howe", (2026, 4, 5), 24.5, 98, "2026-04-05T00:00:00+11:00"),
    ("Australia/Lord_Howe", (2026, 10, 4), 23.5, 94, "2026-10-04T00:00:00+10:30"),
    ("America/Santiago", (2026, 9, 6), 23, 92, "2026-09-06T01:00:00-03:00"),
    ("Africa/Cairo", (2026, 4, 24), 23, 92, "2026-04-24T01:00:00+03:00"),
    ("Asia/Beirut", (2026, 3, 29), 23, 92, "2026-03-29T01:00:00+03:00"),
    ("Asia/Beirut", (2026, 10, 24), 25, 100, "2026-10-24T00:00:00+03:00"),
    ("America/Havana", (2026, 3, 8), 23, 92, "2026-03-08T01:00:00-04:00"),
    ("America/Havana", (2026, 11, 1), 25, 100, "2026-11-01T00:00:00-04:00"),
    ("Asia/Kathmandu", (2026, 3, 3), 24, 96, "2026-03-03T00:00:00+05:45"),
    ("Asia/Kolkata", (2026, 3, 3), 24, 96, "2026-03-03T00:00:00+05:30"),
    ("Pacific/Chatham", (2026, 9, 27), 23, 92, "2026-09-27T00:00:00+12:45"),
    ("UTC", (2026, 10, 25), 24, 96, "2026-10-25T00:00:00+00:00"),
]
ZONES = sorted({zone for zone, *_ in ODD_DAYS})


def the_day(zone: ZoneInfo, day: tuple[int, int, int]) -> tuple[int, int]:
    noon = round(datetime(*day, 12, tzinfo=zone).timestamp()) * 1000
    return midnight(noon, zone), midnight(noon, zone, 1)


@pytest.mark.parametrize(("name", "day", "hours", "quarters", "label"), ODD_DAYS)
def test_a_day_has_the_hours_and_quarters_of_its_clock(
    name: str, day: tuple[int, int, int], hours: float, quarters: int, label: str
) -> None:
    zone = ZoneInfo(name)
    start, end = the_day(zone, day)
    assert (end - start) / 3_600_000 == hours
    found = Intervals(start, end, "15m", zone)
    starts = found.starts()
    assert len(starts) == len(set(starts)) == quarters
    assert found.label(starts[0]) == label
    assert Intervals(start, end, "1d", zone).starts() == [start]


def walked(start: int, end: int, every: Every, zone: ZoneInfo) -> list[int]:
    """The first moments of intervals, found by reading the local clock each minute."""
    minutes = {"15m": 15, "30m": 30, "1h": 60}

    def of(moment: int) -> object:
        local = datetime.fromtimestamp(moment / 1000, zone)
        if every == "none":
            return None
        if every == "1d":
            return local.date()
        if every == "1w":
            return local.date() - timedelta(days=local.weekday())
        into = local.hour * 60 + local.minute
        return local.date(), into // minutes[every], local.utcoffset()

    first = start - start % MINUTE
    while every != "none" and of(first - MINUTE) == of(start):
        first -= MINUTE
    begins, last = [start if every == "none" else first], of(first)
    for moment in range(first, end, MINUTE):
        if of(moment) != last:
            begins.append(moment)
            last = of(moment)
    return begins


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize(("name", "day"), [(name, day) for name, day, *_ in ODD_DAYS])
def test_intervals_are_those_of_the_local_clock(name: str, day: tuple[int, int, int], every: Every) -> None:
    zone = ZoneInfo(name)
    start, end = the_day(zone, day)
    found = Intervals(start - DAY // 2 + 1, end + DAY // 2 + 1, every, zone)
    assert found.starts() == walked(found.start, found.end, every, zone)


@given(
    name=st.sampled_from(ZONES),
    every=st.sampled_from(EVERY),
    start=st.integers(1_700_000_000_000, 1_800_000_000_000),
    width=st.integers(1, 40 * DAY),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_database_puts_each_moment_into_its_interval(
    name: str, every: Every, start: int, width: int, data: st.DataObject
) -> None:
    found = Intervals(start, start + width, every, ZoneInfo(name))
    starts = found.starts()
    moments = data.draw(st.lists(st.integers(start, start + width - 1), min_size=1, max_size=20))
    with duckdb.connect() as connection:
        listed = ", ".join(f"({moment}::BIGINT)" for moment in moments)
        rows = connection.execute(f"SELECT {found.key_sql('t')} FROM (VALUES {listed}) AS m(t)").fetchall()
    keys = {found.key_of(each): each for each in starts}
    assert [keys[key] for (key,) in rows] == [starts[bisect_right(starts, moment) - 1] for moment in moments]


def test_intervals_that_a_span_touches_are_found() -> None:
    starts = [0, 10, 20, 30]
    assert overlapping(starts, 40, [(10, 20)]) == {10}
    assert overlapping(starts, 40, [(9, 21)]) == {0, 10, 20}
    assert overlapping(starts, 40, [(35, 99), (-5, 1)]) == {30, 0}
    assert overlapping(starts, 40, [(40, 50), (5, 5)]) == set()


def test_an_unknown_length_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="15m, 30m, 1h, 1d, 1w, none"):
        check_every("5m")


def test_a_label_is_iso_8601_with_the_offset() -> None:
    zone = ZoneInfo("Europe/Berlin")
    first, second = (round(datetime(2026, 10, 25, hour, tzinfo=UTC).timestamp()) * 1000 for hour in (0, 1))
    found = Intervals(first, second, "1h", zone)
    assert (found.label(first), found.label(second)) == ("2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00")
