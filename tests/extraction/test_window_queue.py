"""Windows read over real sockets: how many requests, in what order, and what becomes of those that cannot be proven."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from segment_fetch import BearerToken, IncompleteError, RetryPolicy, SchemaError, SegmentClient, ServiceError
from segment_fetch.events import Event, PageRead, Retrying, WindowDone, WindowOpened, WindowReread, WindowSplit
from segment_fetch.extraction.context import ReadOptions
from segment_fetch.extraction.window_queue import WINDOWS_AHEAD, Request, WindowQueue
from segment_fetch.query import Window
from segment_fetch.simulator import Dataset, Drift, Fault, Simulator
from segment_fetch.windows.planning import pages
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Pagination, Segment, SegmentPage
from segment_fetch.wire.pages import PageAnswer, PageRequest

NOW = 1_795_000_000.0
DAY = 86_400_000
END = int(NOW * 1000) - 3 * DAY
QUICK = RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, parked=(0.0, 0.0), probe=0.0)


def dataset(segments: int, days: float = 20, **options: Any) -> Dataset:
    return Dataset(segments=segments, start=END - int(days * DAY), end=END, seed=3, **options)


def client_of(simulator: Simulator, tell: Callable[[Event], None] | None = None, **options: Any) -> SegmentClient:
    settings: dict[str, Any] = {"rate": None, "retry": QUICK, "clock": lambda: NOW} | options
    return SegmentClient(
        simulator.account,
        auth=BearerToken("reader"),
        source="reader",
        base_url=simulator.base_url,
        on_event=tell,
        **settings,
    )


async def ids_of(simulator: Simulator, days: float = 20, **options: Any) -> list[str]:
    async with client_of(simulator, **options) as client:
        return [row.segmentId async for batch in client.stream(END - int(days * DAY), END) for row in batch]


@pytest.mark.parametrize("segments", [0, 1, 10_000, 10_500])
async def test_a_still_range_costs_exactly_its_pages_and_nothing_is_asked_twice(segments: int) -> None:
    starts = [END - 20 * DAY, END - 13 * DAY, END - 6 * DAY]
    async with Simulator(dataset(segments), clock=lambda: NOW) as simulator:
        ids = await ids_of(simulator)
        assert ids == simulator.ids(END - 20 * DAY, END)
        counts = [len(simulator.ids(start, min(start + 7 * DAY, END))) for start in starts]
        assert simulator.stats.requests == sum(pages(count, 500) for count in counts)
        asked = Counter((r.query.start, r.query.end, r.query.offset) for r in simulator.stats.log if r.query)
        assert set(asked.values()) == {1}


async def test_every_request_names_both_ends_in_milliseconds_and_windows_go_oldest_first() -> None:
    async with Simulator(dataset(3_000), clock=lambda: NOW) as simulator:
        await ids_of(simulator, connections=1)
        windows = list(dict.fromkeys((r.query.start, r.query.end) for r in simulator.stats.log if r.query))
    assert windows == sorted(windows)
    assert [end - start for start, end in windows] == [7 * DAY, 7 * DAY, 6 * DAY]
    assert windows[0][0] == END - 20 * DAY
    assert windows[-1][1] == END


async def test_the_pool_is_full_across_windows() -> None:
    """Four windows of five pages or so: without a barrier between them eight connections are all in use."""
    async with Simulator(dataset(10_000, days=27), clock=lambda: NOW, latency_ms=60) as simulator:
        await ids_of(simulator, days=27, connections=8)
        assert simulator.stats.most_in_flight == 8


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("split", [700, 1_500])
async def test_a_big_window_is_divided_without_loss_and_almost_without_cost(inclusive: bool, split: int) -> None:
    events: list[Event] = []
    data = dataset(9_000, days=6, concentrate=0.9, ties=0.2)
    async with Simulator(data, clock=lambda: NOW, to_inclusive=inclusive) as simulator:
        ids = await ids_of(simulator, days=6, split_above=split, tell=events.append)
        assert sorted(ids) == sorted(simulator.ids(END - 6 * DAY, END))
        parts = next(event for event in events if isinstance(event, WindowSplit)).parts
        assert len(parts) == math.ceil(9_000 / split)
        assert simulator.stats.requests <= 18 + 2 * len(parts)
    opened = [event.count for event in events if isinstance(event, WindowOpened)][1:]
    assert max(opened) <= split * 1.2


async def test_large_parts_of_a_window_cost_one_request_more_in_all() -> None:
    """100 pages in four parts, each of which shares a few rows with the next."""
    async with Simulator(dataset(50_000, days=6), clock=lambda: NOW) as simulator:
        assert len(await ids_of(simulator, days=6, split_above=12_500)) == 50_000
        assert simulator.stats.requests <= math.ceil(50_000 / 498) + 4


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("shuffled", [True, False])
async def test_two_thousand_segments_on_one_millisecond(inclusive: bool, shuffled: bool) -> None:
    data = dataset(4_000, days=5, burst=2_000)
    drift = Drift(shuffle_ties=shuffled)
    async with Simulator(data, clock=lambda: NOW, to_inclusive=inclusive, drift=drift) as simulator:
        ids = await ids_of(simulator, days=5)
        assert sorted(ids) == sorted(simulator.ids(END - 5 * DAY, END))
        if not shuffled:
            assert simulator.stats.requests == pages(4_000, 500) + 2 * pages(2_000, 500)


async def test_a_millisecond_that_cannot_be_divided_is_read_as_it_is() -> None:
    data = dataset(2_100, days=5, burst=2_000)
    async with Simulator(data, clock=lambda: NOW) as simulator:
        ids = await ids_of(simulator, days=5, split_above=600)
        assert sorted(ids) == sorted(simulator.ids(END - 5 * DAY, END))


@pytest.mark.parametrize("inclusive", [True, False])
async def test_segments_on_the_instant_between_two_windows_come_once(inclusive: bool) -> None:
    boundary = END - 13 * DAY
    data = dataset(3_000, burst=1_200, burst_at=boundary)
    async with Simulator(data, clock=lambda: NOW, to_inclusive=inclusive) as simulator:
        ids = await ids_of(simulator)
        assert len(ids) == len(set(ids)) == 3_000


async def test_a_settled_window_that_changes_is_read_again_as_one_that_moves() -> None:
    events: list[Event] = []
    async with Simulator(dataset(5_000, days=2), clock=lambda: NOW) as simulator:

        def change(event: Event) -> None:
            events.append(event)
            if isinstance(event, PageRead) and event.offset == 0 and len(events) < 4:
                simulator.insert(END - DAY)

        ids = await ids_of(simulator, days=2, tell=change)
        assert sorted(ids) == sorted(simulator.ids(END - 2 * DAY, END))
    assert [event.passes for event in events if isinstance(event, WindowReread)] == [1]
    assert [event.status for event in events if isinstance(event, WindowDone)] == ["complete"]


async def test_one_stale_count_is_a_fault_and_no_reason_to_read_a_window_again() -> None:
    events: list[Event] = []
    async with Simulator(dataset(5_000, days=2), clock=lambda: NOW) as simulator:

        def spoil(event: Event) -> None:
            events.append(event)
            if isinstance(event, WindowOpened):
                simulator.fail_next(Fault.STALE_COUNT)

        ids = await ids_of(simulator, days=2, tell=spoil)
        assert ids == simulator.ids(END - 2 * DAY, END)
        assert simulator.stats.requests == pages(5_000, 500) + 1
    assert not [event for event in events if isinstance(event, WindowReread)]
    assert len([event for event in events if isinstance(event, Retrying)]) == 1


async def test_a_recent_window_is_provisional_until_a_day_and_a_quarter_hour_have_passed() -> None:
    for age_minutes, status in ((24 * 60 + 14, "provisional"), (24 * 60 + 15, "complete")):
        events: list[Event] = []
        async with Simulator(dataset(1_000, days=2), clock=lambda: END / 1000 + age_minutes * 60) as simulator:  # noqa: B023
            await ids_of(simulator, days=2, tell=events.append, clock=lambda: END / 1000 + age_minutes * 60)  # noqa: B023
        assert [event.status for event in events if isinstance(event, WindowDone)] == [status]


async def test_a_window_with_a_wrong_type_is_given_up_by_name_and_the_others_are_delivered() -> None:
    async with Simulator(dataset(3_000, wrong_types=0.0005), clock=lambda: NOW) as simulator:
        with pytest.raises(IncompleteError) as caught:
            await ids_of(simulator)
    assert "$.segments[" in caught.value.message
    assert "agentId" in caught.value.message
    assert "offset" in caught.value.message
    assert not isinstance(caught.value, SchemaError)
    assert 1 <= len(caught.value.windows) < 3


def test_a_page_that_never_comes_costs_its_window_only() -> None:
    done: list[WindowRead[int]] = []
    windows = [Window(0, 1000), Window(1000, 2000)]
    queue = WindowQueue(windows, ReadOptions(limit=5, split_above=10), len, tell=lambda _: None, done=done.append)
    while (request := queue.next()) is not None:
        if request.window.start == 0 and request.offset == 3:
            queue.failed(request, ServiceError("the service failed with 500, 12 times").at(request.window, 3))
        else:
            queue.answered(request, _slice(request, 7))
    assert queue.finished()
    assert [(read.window.start, read.status) for read in done] == [(0, "unproven"), (1000, "complete")]
    assert "500" in str(done[0].reason)
    assert "offset 3" in str(done[0].reason)
    assert done[0].parts == []


def test_windows_fill_only_while_the_consumer_keeps_up() -> None:
    done: list[WindowRead[int]] = []
    windows = [Window(at * 1000, at * 1000 + 1000) for at in range(20)]
    queue = WindowQueue(windows, ReadOptions(limit=5, split_above=10), len, tell=lambda _: None, done=done.append)
    in_hand: list[Request] = []
    answered = 0
    for _ in range(1_000):
        request = queue.next()
        if request is None:
            if not in_hand:
                break
            request = in_hand.pop(0)
            queue.answered(request, _slice(request, 10))
            answered += 1
        else:
            in_hand.append(request)
    assert len(done) == WINDOWS_AHEAD
    assert answered < 20 * 4
    queue.release(done[0].window)
    assert queue.next() is not None


def _slice(request: PageRequest, count: int) -> PageAnswer:
    rows = [
        Segment(segmentId=f"{request.window}-{rank}", endTimeL=request.window.end - 1 - rank)
        for rank in range(request.offset, min(count, request.offset + request.limit))
    ]
    return PageAnswer(SegmentPage(segments=rows, pagination=Pagination(count=count)), request.window.end + 3 * DAY)


async def test_leaving_a_stream_early_stops_everything() -> None:
    async with Simulator(dataset(20_000), clock=lambda: NOW, latency_ms=5) as simulator, client_of(simulator) as client:
        stream = client.stream(END - 20 * DAY, END)
        async for _ in stream:
            break
        await stream.aclose()
        assert asyncio.all_tasks() - {asyncio.current_task()} == _server_tasks(simulator)


def _server_tasks(simulator: Simulator) -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task.get_coro())}


async def test_a_segment_that_vanishes_while_a_window_is_divided_takes_no_other_with_it() -> None:
    data = dataset(11_000, days=6)
    gone: list[str] = []
    async with Simulator(data, clock=lambda: NOW) as simulator:

        def vanish(event: Event) -> None:
            if isinstance(event, WindowSplit) and not gone:
                oldest = event.parts[0]
                gone.append(simulator.ids(oldest.start, oldest.end)[-100])
                simulator.remove(gone[0])

        ids = await ids_of(simulator, days=6, split_above=5_000, tell=vanish)
        assert gone
        assert set(simulator.ids(END - 6 * DAY, END)) <= set(ids)
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("seed", range(1, 16))
async def test_a_cut_through_ties_that_change_places_loses_nothing(seed: int) -> None:
    data = Dataset(segments=3_000, start=END - 6 * DAY, end=END, seed=seed, burst=1_000, ties=0.3)
    drift = Drift(shuffle_ties=True, seed=seed)
    async with Simulator(data, clock=lambda: NOW, drift=drift, to_inclusive=False) as simulator:
        ids = await ids_of(simulator, days=6, split_above=2_000)
        assert sorted(ids) == sorted(simulator.ids(END - 6 * DAY, END))


async def test_the_count_of_a_window_read_again_is_that_of_the_reading_that_was_kept() -> None:
    counts: list[int | None] = []
    async with Simulator(dataset(5_000, days=2), clock=lambda: NOW) as simulator:

        def change(event: Event) -> None:
            if isinstance(event, WindowOpened):
                counts.append(event.count)
                simulator.remove(simulator.ids(END - DAY, END)[5])

        async with client_of(simulator, change) as client:
            ids = [row.segmentId async for batch in client.stream(END - 2 * DAY, END) for row in batch]
            assert len(ids) == len(simulator.ids(END - 2 * DAY, END)) == 4_999
            window = Window(END - 2 * DAY, END)
            assert await client.counts([window, window]) == {window: 4_999}
