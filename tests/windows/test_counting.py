"""Counting exactly, and planning what would be read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.query import Window
from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.windows.counting import Counting, ExactCounting, Survey
from segment_fetch.windows.planning import windows
from segment_fetch.wire.pages import PageSource
from tests.support import ANY_WINDOW, NO_WAITING, NOW, opened

START, END = ANY_WINDOW.start, ANY_WINDOW.end
HOUR = END - START


async def run(server: Simulator, source: PageSource[Any]) -> None:
    async with opened(server.base_url) as api:
        await WorkerPool(api, Limiter(None), source, connections=4, retry=NO_WAITING, tell=lambda _: None).run()


BOUNDARIES = [START, START + HOUR // 4, START + HOUR // 2, START + 3 * HOUR // 4, END]


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize(
    ("closes", "owned"),
    [
        ([], 0),
        (BOUNDARIES, 4),
        (BOUNDARIES * 3, 12),
        ([END] * 5, 0),
        ([START] * 5, 5),
        ([END - 1, END, END + 1, START - 1, START], 2),
        ([boundary + step for boundary in BOUNDARIES for step in (-1, 0, 1)], 12),
    ],
)
async def test_the_count_is_exact_with_segments_on_the_boundaries(
    closes: Sequence[int], owned: int, inclusive: bool
) -> None:
    dataset = Dataset(segments=0, start=START - 10, end=END + 10)
    async with Simulator(dataset, clock=lambda: NOW + 1, to_inclusive=inclusive) as server:
        for close in closes:
            server.insert(close)
        for width in (HOUR // 4, HOUR // 2, HOUR):
            counting = ExactCounting(windows(START, END, width))
            await run(server, counting)
            assert counting.total == owned == len(server.ids(START, END))


async def test_counting_moves_no_more_than_a_segment_a_request() -> None:
    dataset = Dataset(segments=1000, start=START, end=END)
    async with Simulator(dataset, clock=lambda: NOW) as server:
        counting = ExactCounting(windows(START, END, HOUR // 4))
        await run(server, counting)
        assert counting.total == 1000
        assert server.stats.requests == 8
        assert {record.query.limit for record in server.stats.log if record.query} == {1}


async def test_counts_are_as_reported_with_the_servers_clock() -> None:
    async with Simulator(Dataset(segments=10, start=START, end=END), clock=lambda: NOW) as server:
        counting = Counting([ANY_WINDOW])
        await run(server, counting)
        assert counting.counts == {ANY_WINDOW: 10}
        assert counting.at_ms == {ANY_WINDOW: int(NOW * 1000)}


@pytest.mark.parametrize("inclusive", [True, False])
async def test_a_plan_has_the_counts_that_the_api_reports(inclusive: bool) -> None:
    dataset = Dataset(segments=1000, start=START, end=END)
    async with Simulator(dataset, clock=lambda: NOW, to_inclusive=inclusive) as server:
        survey = Survey(windows(START, END, HOUR // 4), 100, 5000)
        await run(server, survey)
        planned = survey.planned()
        assert server.stats.requests == 4
        assert [each.window for each in planned] == list(windows(START, END, HOUR // 4))
        for each in planned:
            assert each.count == len(server.ids(each.window.start, each.window.end + inclusive))
            assert each.pages == -(-each.count // 100)


async def test_an_empty_window_takes_a_request() -> None:
    async with Simulator(Dataset(segments=0, start=START, end=END), clock=lambda: NOW) as server:
        survey = Survey([ANY_WINDOW], 100, 5000)
        await run(server, survey)
        assert [(each.count, each.pages) for each in survey.planned()] == [(0, 1)]


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("options", [{}, {"ties": 0.5}, {"concentrate": 0.8}], ids=repr)
async def test_a_big_window_is_planned_in_parts_of_about_equal_count(
    inclusive: bool, options: dict[str, float]
) -> None:
    dataset = Dataset(segments=1000, start=START, end=END, **options)  # type: ignore[arg-type]
    async with Simulator(dataset, clock=lambda: NOW, to_inclusive=inclusive) as server:
        survey = Survey([Window(START, START + HOUR // 1000), ANY_WINDOW], 50, 200)
        await run(server, survey)
        first, *parts = survey.planned()
        assert first.window == Window(START, START + HOUR // 1000)
        assert parts[0].window.start == START
        assert parts[-1].window.end == END
        assert all(left.window.end == right.window.start for left, right in pairwise(parts))
        assert sum(each.count for each in parts) == 1000
        for each in parts:
            assert abs(each.count - len(server.ids(each.window.start, each.window.end))) <= 50
            assert each.count <= 250


async def test_one_millisecond_cannot_be_divided() -> None:
    dataset = Dataset(segments=300, start=START, end=END, burst=300, burst_at=START + 5)
    async with Simulator(dataset, clock=lambda: NOW) as server:
        survey = Survey([Window(START + 5, START + 6)], 50, 100)
        await run(server, survey)
        assert [(each.count, each.pages) for each in survey.planned()] == [(300, 7)]
