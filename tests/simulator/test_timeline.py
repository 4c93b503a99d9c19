from bisect import bisect_left
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from segment_fetch.simulator.timeline import Timeline, mix
from tests.simulator.conftest import DAY_MS, HOUR_MS, NOON_MS

START, END = NOON_MS - DAY_MS, NOON_MS
SHAPES = {
    "even": {},
    "daily": {"daily_load": True},
    "ties": {"ties": 0.3},
    "burst": {"burst": 100},
    "burst at the start": {"burst": 100, "burst_at": START},
    "only a burst": {"burst": 1000},
    "one hour": {"concentrate": 0.9},
    "everything": {"daily_load": True, "ties": 0.3, "burst": 100, "concentrate": 0.9},
}


def timeline(rows: int = 1000, seed: int = 1, **options: Any) -> Timeline:
    return Timeline(seed=seed, rows=rows, start=START, end=END, **options)


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_close_times_never_fall_and_stay_in_the_range(options: dict[str, Any]) -> None:
    times = [timeline(**options).at(row) for row in range(1000)]
    assert times == sorted(times)
    assert times[0] >= START
    assert times[-1] < END


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_run_of_close_times_is_the_same_as_one_by_one(options: dict[str, Any]) -> None:
    line = timeline(**options)
    times = [line.at(row) for row in range(1000)]
    for first, last in ((0, 1000), (440, 560), (499, 500), (700, 700)):
        assert line.between(first, last) == times[first:last]


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_an_instant_is_found_where_a_list_of_all_would_have_it(options: dict[str, Any]) -> None:
    line = timeline(**options)
    times = [line.at(row) for row in range(1000)]
    for instant in (START - 1, START, times[0], times[500], times[500] + 1, line.burst_at, END - 1, END, END + 1):
        assert line.before(instant) == bisect_left(times, instant)


def test_ties_are_the_share_asked_for() -> None:
    times = timeline(rows=20_000, ties=0.3).between(0, 20_000)
    share = sum(one == two for one, two in pairwise(times)) / 20_000
    assert share == pytest.approx(0.3, abs=0.02)


def test_all_rows_may_be_ties() -> None:
    groups = Counter(timeline(ties=1.0).between(0, 1000))
    assert max(groups.values()) == 64


def test_a_burst_is_on_one_millisecond() -> None:
    line = timeline(burst=700)
    assert Counter(line.between(0, 1000))[line.burst_at] == 700
    assert line.burst_at == (START + END) // 2


def test_one_hour_holds_the_share_asked_for() -> None:
    line = timeline(rows=10_000, concentrate=0.9)
    noon = START + 12 * HOUR_MS
    assert line.before(noon + HOUR_MS) - line.before(noon) == pytest.approx(9000, abs=2)


def test_days_are_busier_than_nights_and_weekends() -> None:
    monday = 1_794_787_200_000
    line = Timeline(seed=1, rows=100_000, start=monday, end=monday + 7 * DAY_MS, daily_load=True)

    def closed(hour: float, hours: float) -> int:
        first = monday + int(hour * HOUR_MS)
        return line.before(first + int(hours * HOUR_MS)) - line.before(first)

    assert closed(10, 1) > 10 * closed(3, 1)
    assert closed(24 * 5, 24) == pytest.approx(0.4 * closed(0, 24), rel=0.01)


def test_another_seed_gives_other_times() -> None:
    assert timeline(seed=1).between(0, 100) != timeline(seed=2).between(0, 100)


def test_the_hash_is_the_same_everywhere() -> None:
    assert mix(1, 0) == 0x4B4F09C26AB0C154
    assert mix(1, 1) != mix(2, 1)
