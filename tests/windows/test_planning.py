"""Windows without gap or overlap, and cuts that lose no segment and take none twice."""

from __future__ import annotations

import tracemalloc
from datetime import datetime
from itertools import accumulate, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.errors import InputError
from segment_fetch.query import MAX_WINDOW_MS, Window
from segment_fetch.timerange import midnight
from segment_fetch.windows import planning
from segment_fetch.windows.planning import (
    MOST_WINDOWS,
    Plan,
    PlannedWindow,
    Remaining,
    Windows,
    check_width,
    days,
    missing,
    pages,
    windows,
)

DAY_MS = 86_400_000
instants = st.integers(min_value=0, max_value=5 * MAX_WINDOW_MS)
small = st.integers(min_value=0, max_value=30)


@given(instants, instants, st.integers(min_value=MAX_WINDOW_MS // 50, max_value=MAX_WINDOW_MS))
def test_windows_cover_a_range_oldest_first(one: int, other: int, width: int) -> None:
    start, end = sorted((one, other))
    made = windows(start, end, width)
    assert all(0 < window.end - window.start <= width for window in made)
    assert all(left.end == right.start for left, right in pairwise(made))
    assert (made[0].start, made[-1].end) == (start, end) if made else start == end


def test_windows_are_a_week_at_most_unless_told_otherwise() -> None:
    assert list(windows(0, MAX_WINDOW_MS + 1)) == [Window(0, MAX_WINDOW_MS), Window(MAX_WINDOW_MS, MAX_WINDOW_MS + 1)]


@pytest.mark.parametrize(
    ("width", "good"), [(0, False), (999, False), (1_000, True), (MAX_WINDOW_MS, True), (MAX_WINDOW_MS + 1, False)]
)
def test_the_width_of_windows(width: int, good: bool) -> None:
    if good:
        assert check_width(width) == width
    else:
        with pytest.raises(InputError, match="window"):
            check_width(width)


@given(small, small, st.lists(st.tuples(small, small).filter(lambda ends: ends[0] < ends[1]), max_size=6))
def test_what_is_missing_is_what_no_window_covers(one: int, other: int, done: list[tuple[int, int]]) -> None:
    start, end = sorted((one, other))
    gaps = missing(start, end, [Window(*ends) for ends in done])
    covered = {instant for first, last in done for instant in range(first, last)}
    assert [instant for gap in gaps for instant in range(gap.start, gap.end)] == sorted(
        set(range(start, end)) - covered
    )
    assert all(left.end < right.start for left, right in pairwise(gaps))


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(0, 500, 1), (1, 500, 1), (499, 500, 1), (500, 500, 2), (997, 500, 2), (998, 500, 3), (3, 1, 4)],
)
def test_pages(count: int, limit: int, expected: int) -> None:
    assert pages(count, limit) == expected


def test_a_plan_adds_up_its_windows() -> None:
    made = Plan((PlannedWindow(Window(0, 1), 700, 2), PlannedWindow(Window(1, 2), 0, 1)), None)
    assert (made.segments, made.pages) == (700, 3)


ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Apia"]


@pytest.mark.parametrize("name", ZONES)
@given(st.integers(min_value=1_300_000_000, max_value=1_900_000_000), st.integers(min_value=1, max_value=60 * DAY_MS))
def test_days_cover_a_range_and_end_at_midnight_there(name: str, start_s: int, length: int) -> None:
    zone, start = ZoneInfo(name), start_s * 1000
    made = days(start, start + length, zone)
    assert (made[0].start, made[-1].end) == (start, start + length)
    assert all(left.end == right.start for left, right in pairwise(made))
    for window in made:
        first, last = (datetime.fromtimestamp(ms / 1000, zone) for ms in (window.start, window.end - 1))
        assert first.date() == last.date()
        assert 0 < window.end - window.start <= 25 * 3_600_000
    for left, right in pairwise(made):
        assert (
            datetime.fromtimestamp(left.start / 1000, zone).date()
            < datetime.fromtimestamp(right.start / 1000, zone).date()
        )


def test_days_are_cut_into_a_smaller_width_too() -> None:
    made = days(0, 2 * DAY_MS, ZoneInfo("UTC"), DAY_MS * 2 // 3)
    assert [window.end for window in made] == [DAY_MS * 2 // 3, DAY_MS, DAY_MS * 5 // 3, 2 * DAY_MS]


def test_midnight() -> None:
    assert midnight(1_790_000_000_000, ZoneInfo("Europe/Berlin")) == 1_789_941_600_000
    assert midnight(1_790_000_000_000, ZoneInfo("Europe/Berlin"), 1) == 1_790_028_000_000


@given(instants, st.lists(st.integers(min_value=1, max_value=DAY_MS), max_size=5), st.integers(1_000, MAX_WINDOW_MS))
def test_windows_are_made_from_the_cuts_alone(start: int, lengths: list[int], width: int) -> None:
    cuts = list(accumulate(lengths, initial=start))
    width = max(width, sum(lengths) // 50)
    made = Windows(cuts, width)
    plainly = [Window(at, min(at + width, end)) for begin, end in pairwise(cuts) for at in range(begin, end, width)]
    assert list(made) == plainly
    assert len(made) == len(plainly)
    assert made[1:3] == plainly[1:3]
    assert [made[-number] for number in range(1, len(made) + 1)] == plainly[::-1]
    with pytest.raises(IndexError):
        made[len(plainly)]


def test_millions_of_windows_take_no_memory_before_they_are_read() -> None:
    tracemalloc.start()
    left = Remaining(planning.shorten_oldest(windows(0, 28 * DAY_MS, 1_000), 0))
    assert len(left) == 28 * 86_400
    assert [left.first(), left.last(), left.first()] == [
        Window(0, 1_000),
        Window(28 * DAY_MS - 1_000, 28 * DAY_MS),
        Window(1_000, 2_000),
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000


def test_more_windows_than_a_manifest_holds_are_refused_with_the_width_that_does() -> None:
    planning.check_few(windows(0, MOST_WINDOWS * 1_000, 1_000), "the manifest")
    with pytest.raises(InputError, match=r"2,419,200 windows.*the manifest.*100,000 at most: .* at least 25 s"):
        planning.check_few(windows(0, 28 * DAY_MS, 1_000), "the manifest")


def test_the_oldest_hours_are_cut_and_nothing_else_is() -> None:
    hour = 3_600_000
    plan = planning.windows(10, 10 + 21 * 24 * hour)
    cut = planning.shorten_oldest(plan, 10)
    assert [(window.end - window.start) // hour for window in cut] == [1, 2, 4, 8, 168, 168, 153]
    assert all(left.end == right.start for left, right in pairwise(cut))
    assert list(planning.shorten_oldest(cut, 10)) == list(cut)
    assert list(planning.shorten_oldest(plan, 10 - 15 * hour)) == list(plan)
