"""`SegmentClient` against the simulator: plan, count, stream, extract, events, and what it refuses."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from segment_fetch import (
    BearerToken,
    DestinationBusyError,
    Event,
    Filters,
    IncompleteError,
    InputError,
    RetryPolicy,
    SchemaError,
    Segment,
    SegmentClient,
    ServiceError,
    Window,
)
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.events import (
    FastPathUnused,
    NewFields,
    PageRead,
    Paused,
    RangePlanned,
    Retrying,
    Warned,
    WindowDone,
    WindowOpened,
    WindowReread,
    WindowSplit,
)
from segment_fetch.simulator import Dataset, Fault
from segment_fetch.sinks import JsonlSink
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.windows import planning
from tests.support_runs import DAY_MS, END, NOW_MS, START, client, now, rows, served, settled, until
from tests.support_sinks import LoggedDisk

DAY = timedelta(days=1)
MIDDLE = (START + END) // 2


async def streamed(opened: SegmentClient, into: list[Segment] | None = None) -> list[Segment]:
    """Every segment of a stream, also those that came before it failed."""
    segments = [] if into is None else into
    async for batch in opened.stream(START, END):
        segments += batch
    return segments


def wire_ids() -> list[str]:
    return [row["segmentId"] for row in sorted(settled().rows(), key=lambda row: (row["endTimeL"], row["segmentId"]))]


BAD_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "source missing": ({"source": ""}, "source ''"),
    "source too long": ({"source": "a" * 21}, "1 to 20"),
    "source with a dash": ({"source": "a-b"}, "source 'a-b'"),
    "empty filter": ({"filters": Filters(agent_id=" ")}, "AgentId"),
    "no pages": ({"limit": 0}, "limit 0"),
    "large pages": ({"limit": 501}, "limit 501"),
    "no rate": ({"rate": 0}, "rate"),
    "negative rate": ({"rate": -1.0}, "rate"),
    "endless rate": ({"rate": float("inf")}, "rate"),
    "rate that is no number": ({"rate": float("nan")}, "rate"),
    "rate that is a switch": ({"rate": True}, "rate"),
    "no connection": ({"connections": 0}, "connections"),
    "connections as text": ({"connections": "3"}, "connections: must be a whole number"),
    "too many connections": ({"connections": 1_001}, "connections: must be at most 1,000"),
    "window as text": ({"window": "7d"}, "window: must be a datetime.timedelta"),
    "no window": ({"window": timedelta(0)}, "window"),
    "backward window": ({"window": -DAY}, "window"),
    "wide window": ({"window": timedelta(days=7, milliseconds=1)}, "one week"),
    "a margin as text": ({"settle_after": "24h"}, "settle_after: must be a datetime.timedelta"),
    "a negative margin": ({"settle_after": -DAY}, "settle_after: must be from 0 to 31 days"),
    "a margin beyond the API's month": ({"settle_after": timedelta(days=31, milliseconds=1)}, "settle_after"),
    "no split": ({"split_above": 0}, "split_above"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_work_are_refused_at_once(case: str) -> None:
    options, says = BAD_SETTINGS[case]
    settings: dict[str, Any] = {"auth": BearerToken("t"), "source": "tests"} | options
    with pytest.raises(InputError, match=says):
        SegmentClient("111111", **settings)


@pytest.mark.parametrize("account", ["", "11/22", "11 22", "../1", "1?a=b", "é"])
def test_account_that_cannot_be_is_refused(account: str) -> None:
    with pytest.raises(InputError, match="account"):
        SegmentClient(account, auth=BearerToken("t"), source="tests")


@pytest.mark.parametrize("url", ["http://example.com", "ftp://127.0.0.1", "nonsense", "http://a:b@127.0.0.1", ""])
async def test_base_url_that_credentials_must_not_go_to_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="base URL"):
        await SegmentClient("111111", auth=BearerToken("t"), source="tests", base_url=url).__aenter__()


def test_repr_shows_no_secret() -> None:
    opened = SegmentClient("111111", auth=BearerToken("s3cret"), source="tests")
    assert repr(opened) == "SegmentClient('111111', source='tests')"


Call = Callable[[SegmentClient, Any, Any, Path], Awaitable[object]]
CALLS: dict[str, Call] = {
    "count": lambda opened, start, end, _: opened.count(start, end),
    "plan": lambda opened, start, end, _: opened.plan(start, end),
    "extract": lambda opened, start, end, folder: opened.extract(start, end, JsonlSink(folder)),
    "stream": lambda opened, start, end, _: opened.stream(start, end).__anext__(),
    "windows": lambda opened, start, end, _: opened.windows(start, end, list).__anext__(),
}
BAD_RANGES: list[tuple[Any, Any, str]] = [
    (END, START, "after it ends"),
    (START, START, "empty"),
    (NOW_MS + 1, NOW_MS + 2, "in the future"),
    (NOW_MS - 40 * DAY_MS, END, "serves only the last month; the oldest possible start is 2026-10-06T"),
    (datetime(2026, 11, 1), END, "no time zone"),  # noqa: DTZ001 - that is the point
    ("yesterday", END, "'yesterday'"),
    (1.5, END, "1.5"),
    (True, END, "True"),
    (10**18, END, "outside the calendar"),
]


@pytest.mark.parametrize("call", CALLS)
async def test_ranges_that_cannot_be_asked_are_refused_and_nothing_is_sent(tmp_path: Path, call: str) -> None:
    async with served(settled()) as simulator, client(simulator) as opened:
        for start, end, says in BAD_RANGES:
            with pytest.raises(InputError, match=says):
                await CALLS[call](opened, start, end, tmp_path / "out")
        assert simulator.stats.requests == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call", CALLS)
async def test_client_works_only_inside_of_async_with(tmp_path: Path, call: str) -> None:
    async with served(settled()) as simulator:
        opened = client(simulator)
        for _ in range(2):
            with pytest.raises(InputError, match="not open: use it inside `async with`"):
                await CALLS[call](opened, START, END, tmp_path / "out")
            async with opened:
                await CALLS[call](opened, START, END, tmp_path / "in")
    assert not (tmp_path / "out").exists()


async def test_client_is_entered_once_at_a_time() -> None:
    async with served(settled()) as simulator, client(simulator) as opened:
        with pytest.raises(InputError, match="in use; create another one"):
            await opened.__aenter__()
        assert await opened.count(START, END) == 60, "the first use goes on"


@pytest.mark.parametrize("to_inclusive", [True, False])
async def test_count_is_exact_and_small(to_inclusive: bool) -> None:
    dataset = settled(300, burst=40, burst_at=MIDDLE)
    async with served(dataset, to_inclusive=to_inclusive) as simulator:
        async with client(simulator, window=3 * DAY) as opened:
            assert await opened.count(START, END) == 300
            assert await opened.count(START, MIDDLE) == len(list(dataset.ids(START, MIDDLE)))
            assert await opened.count(MIDDLE, MIDDLE + 1) == 40
        assert simulator.stats.rows <= simulator.stats.requests <= 8


async def test_times_may_be_text_datetimes_or_milliseconds() -> None:
    moment = datetime.fromtimestamp(START / 1000, UTC)
    async with served(settled()) as simulator, client(simulator) as opened:
        counts = [await opened.count(start, "now") for start in (START, moment, moment.isoformat(), "now-9d")]
    assert counts == [60] * 4


async def test_filters_narrow_what_is_asked() -> None:
    row = settled().row(30)
    async with served(settled()) as simulator:
        async with client(simulator, filters=Filters(conversation_id=row["conversationId"])) as opened:
            found = await streamed(opened)
        assert dict(simulator.stats.log[-1].query.filters) == {"ConversationId": row["conversationId"]}  # type: ignore[union-attr]
    assert row["segmentId"] in [segment.segmentId for segment in found]
    assert {segment.conversationId for segment in found} == {row["conversationId"]}


@pytest.mark.parametrize(
    ("rate", "seconds", "known"),
    [(None, None, False), (20.0, 4 / 19.6, True), (1000.0, 4 / 980, True), ("auto", 0.4, False)],
)
async def test_plan_tells_what_an_extraction_reads(
    tmp_path: Path, rate: Any, seconds: float | None, known: bool
) -> None:
    options: dict[str, Any] = {"window": 3 * DAY, "split_above": 800}
    async with served(settled(1900)) as simulator:
        async with client(simulator, rate=rate, **options) as opened:
            plan = await opened.plan(START, END)
        async with client(simulator, **options) as opened:
            report = await opened.extract(START, END, JsonlSink(tmp_path))
    assert [planned.window for planned in plan.windows] == [entry.window for entry in report.windows]
    assert len(plan.windows) == 4
    assert (plan.segments, plan.pages) == (1900, sum(planned.pages for planned in plan.windows))
    assert all(planned.pages == 1 for planned in plan.windows)
    assert plan.seconds == (None if seconds is None else pytest.approx(seconds, rel=0.001))
    assert plan.rate == (None if plan.seconds is None else pytest.approx(4 / plan.seconds))
    assert plan.rate_known is known


def test_the_limit_is_found_unless_told_otherwise() -> None:
    assert inspect.signature(SegmentClient).parameters["rate"].default == "auto"


@pytest.mark.parametrize(
    "options", [{}, {"window": DAY, "limit": 7, "connections": 3}, {"split_above": 20, "limit": 10}]
)
async def test_stream_gives_each_segment_once_in_order(options: dict[str, Any]) -> None:
    async with served(settled(ties=0.3), latency_ms=(0, 10)) as simulator, client(simulator, **options) as opened:
        segments = await streamed(opened)
    expected = sorted(settled(ties=0.3).rows(), key=lambda row: (row["endTimeL"], row["segmentId"]))
    assert msgspec.to_builtins(segments) == expected


async def test_stream_gives_batches_of_at_most_500() -> None:
    async with served(settled(1234)) as simulator, client(simulator) as opened:
        sizes = [len(batch) async for batch in opened.stream(START, END)]
    assert sizes == [500, 500, 234]


async def test_stream_names_what_is_missing_at_its_end() -> None:
    found: list[Segment] = []
    async with served(settled(wrong_types=0.03)) as simulator, client(simulator, window=DAY) as opened:
        with pytest.raises(IncompleteError, match=r"windows could not be proven complete: .*agentId") as caught:
            await streamed(opened, into=found)
    missing = caught.value.windows
    assert 0 < len(missing) < 6
    assert all(isinstance(window, Window) for window in missing)
    gone = [segment_id for window in missing for segment_id in settled().ids(window.start, window.end)]
    assert [segment.segmentId for segment in found] == [one for one in wire_ids() if one not in gone]


async def test_windows_come_oldest_first_as_encoded_and_name_what_is_not_proven() -> None:
    async with served(settled(wrong_types=0.02, seed=4)) as simulator, client(simulator, window=DAY) as opened:
        reads = [read async for read in opened.windows(START, NOW_MS, len)]
    planned = {window.start for window in planning.windows(START, NOW_MS, DAY_MS)}
    assert [read.window.start for read in reads[1:]] == [read.window.end for read in reads[:-1]]
    assert planned <= {read.window.start for read in reads}, "a window with a broken row is divided around it"
    assert (reads[0].window.start, reads[-1].window.end) == (START, NOW_MS)
    unproven = [read for read in reads if read.status == "unproven"]
    assert 0 < len(unproven) < len(reads)
    assert all(read.parts == [] and "agentId" in str(read.reason) for read in unproven)
    proven = [read for read in reads if read.status != "unproven"]
    assert [sum(read.parts) for read in proven] == [read.segments for read in proven]
    assert {read.read_at // 1000 for read in proven} == {NOW_MS // 1000}
    assert [read.status for read in reads][-2:] == ["provisional"] * 2


async def test_a_range_of_a_million_windows_streams_in_little_memory() -> None:
    """Each window, of a second here, is made when it is asked for."""
    start = NOW_MS - 14 * DAY_MS
    dataset = Dataset(segments=500, start=start, end=start + 100_000)
    async with served(dataset) as simulator, client(simulator, window=timedelta(seconds=1)) as opened:
        tracemalloc.start()
        async with aclosing(opened.stream(start, NOW_MS)) as batches:
            first = await anext(batches)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert start <= first[0].endTimeL < start + 1_000
    assert peak < 20e6


async def test_stream_reads_ahead_by_a_bounded_amount(segment_simulator: SimulatorFactory) -> None:
    simulator = segment_simulator(settled(4000), clock=now)
    window = timedelta(milliseconds=(END - START) // 80)  # of about 50 segments each
    found: list[Segment] = []
    opened = client(simulator, window=window, split_above=100, connections=4)
    async with opened, aclosing(opened.stream(START, END)) as stream:
        found += await anext(stream)
        await still(simulator.stats)
        assert simulator.stats.rows < 900, "three windows of 100, and what the connections have under way"
        async for batch in stream:
            found += batch
            assert simulator.stats.rows < len(found) + 900
    assert len(found) == 4000


async def still(stats: Any) -> None:
    """Returns when no request has come for a while."""
    seen, since = -1, 0
    while since < 30:
        await asyncio.sleep(0.002)
        seen, since = (seen, since + 1) if stats.requests == seen else (stats.requests, 0)


async def test_stream_that_is_left_early_leaves_no_task(segment_simulator: SimulatorFactory) -> None:
    simulator = segment_simulator(settled(2000), clock=now)
    threads = threading.enumerate()
    async with client(simulator, window=DAY) as opened:
        async with aclosing(opened.stream(START, END)) as stream:
            async for _ in stream:
                break
        for _ in range(5):
            assert asyncio.all_tasks() == {asyncio.current_task()}
            await asyncio.sleep(0)
        assert len(await streamed(opened)) == 2000, "the client can still be used"
    assert threading.enumerate() == threads
    await until(lambda: simulator.stats.in_flight == 0)


async def test_session_of_the_caller_is_used_and_left_open() -> None:
    sent: list[object] = []

    async def note(*call: object) -> None:
        sent.append(call)

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(note)
    async with served(settled()) as simulator, aiohttp.ClientSession(trace_configs=[tracing]) as session:
        for _ in range(2):
            async with client(simulator, session=session) as opened:
                assert await opened.count(START, END) == 60
            assert not session.closed
        assert len(sent) == simulator.stats.requests == 4


async def test_any_number_of_clients_in_one_loop(tmp_path: Path) -> None:
    async with served(settled(), latency_ms=3) as simulator:

        async def run(number: int) -> int:
            async with client(simulator, source=f"job_{number}", window=DAY) as opened:
                return (await opened.extract(START, END, JsonlSink(tmp_path / str(number)))).segments

        assert await asyncio.gather(*map(run, range(12))) == [60] * 12
    assert {tuple(row["segmentId"] for row in rows(tmp_path / str(number))) for number in range(12)} == {
        tuple(wire_ids())
    }


async def test_one_client_does_several_things_at_once(tmp_path: Path) -> None:
    async with served(settled(), latency_ms=3) as simulator, client(simulator, window=DAY) as opened:
        count, plan, segments, report = await asyncio.gather(
            opened.count(START, END),
            opened.plan(START, END),
            streamed(opened),
            opened.extract(START, END, JsonlSink(tmp_path)),
        )
    assert (count, plan.segments, len(segments), report.segments) == (60, 60, 60, 60)


def test_clients_in_loops_one_after_the_other(segment_simulator: SimulatorFactory) -> None:
    simulator = segment_simulator(settled(), clock=now)
    opened = client(simulator)

    async def count() -> int:
        async with opened:
            return await opened.count(START, END)

    assert [asyncio.run(count()) for _ in range(2)] == [60, 60]


def kinds(told: list[Event]) -> set[type]:
    return {type(event) for event in told}


async def test_events_tell_what_happens(tmp_path: Path) -> None:
    told: list[Event] = []
    dataset = settled(400, new_field_from=0)
    async with served(dataset) as simulator:
        simulator.fail_next(Fault.ERROR_503)
        options: dict[str, Any] = {"limit": 50, "split_above": 150, "window": 3 * DAY, "on_event": told.append}
        async with client(simulator, **options) as opened:
            report = await opened.extract(START, END, JsonlSink(tmp_path))
            await opened.extract(START, END, JsonlSink(tmp_path))
    assert told[0] == RangePlanned(windows=2, skipped=0)
    assert told[-1] == RangePlanned(windows=0, skipped=4)
    assert [event.names for event in told if isinstance(event, NewFields)] == [("newField",)]
    retries = [event for event in told if isinstance(event, Retrying)]
    assert [(event.offset, event.failures, event.delay) for event in retries] == [(0, 1, 0.0)]
    assert "503" in retries[0].reason
    splits = [event for event in told if isinstance(event, WindowSplit)]
    parts = sorted(part for event in splits for part in event.parts)
    assert parts == [entry.window for entry in report.windows]
    done = [event for event in told if isinstance(event, WindowDone)]
    assert sorted(event.window for event in done) == parts
    assert sum(event.segments for event in done) == 400
    assert sum(isinstance(event, PageRead) for event in told) == report.requests - report.retries
    assert {event.window for event in told if isinstance(event, WindowOpened)} >= {event.window for event in splits}


async def test_events_tell_of_pauses_rereads_and_warnings() -> None:
    told: list[Event] = []
    async with served(settled(300)) as simulator:

        def change(event: Event) -> None:
            told.append(event)
            if isinstance(event, WindowOpened):
                simulator.insert(MIDDLE)

        async with client(simulator, limit=100, on_event=change) as opened:
            assert len(await streamed(opened)) == 301
            assert await opened.count(NOW_MS - 40 * DAY_MS, "now", clamp=True) == 301
    assert kinds(told) >= {WindowReread, Warned}
    assert [event.message for event in told if isinstance(event, Warned)] == [
        "2026-09-27T21:20:00Z to 2026-10-06T21:21:00Z is no longer available: the API serves only the last month"
    ]


async def test_pause_is_told(segment_simulator: SimulatorFactory) -> None:
    simulator = segment_simulator(settled(), clock=now)
    simulator.fail_next(Fault.TOO_MANY_SILENT)
    paused: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def tell(event: Event) -> None:
        if isinstance(event, Paused):
            paused.set_result(event.seconds)

    async with client(simulator, on_event=tell) as opened:
        counting = asyncio.create_task(opened.count(START, END))
        assert await paused == pytest.approx(1.0, abs=0.1)
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)


EVENTS: list[Event] = [
    RangePlanned(1, 0),
    WindowOpened(Window(0, 1), 1),
    WindowSplit(Window(0, 2), (Window(0, 1), Window(1, 2))),
    PageRead(Window(0, 1), 0, 1),
    Retrying(Window(0, 1), 0, 1, 0.5, "a reason"),
    Paused(1.0),
    WindowReread(Window(0, 1), 1, "a reason"),
    WindowDone(Window(0, 1), "complete", 1),
    NewFields(("a",)),
    FastPathUnused(3, "a reason"),
    Warned("a warning"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_can_be_sent_on(event: Event) -> None:
    field = event.__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(event, field, None)
    assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event
    assert hash(event) == hash(msgspec.structs.replace(event))


async def test_error_in_the_callback_ends_the_run_and_is_passed_on(tmp_path: Path) -> None:
    def tell(event: Event) -> None:
        if isinstance(event, PageRead):
            raise LookupError("mine")  # noqa: TRY004 - no type is at fault

    async with served(settled()) as simulator, client(simulator, on_event=tell) as opened:
        with pytest.raises(LookupError, match="mine"):
            await opened.extract(START, END, JsonlSink(tmp_path))
        with pytest.raises(LookupError, match="mine"):
            await streamed(opened)


@pytest.mark.parametrize("call", CALLS)
async def test_service_that_is_down_is_told_after_the_retries(tmp_path: Path, call: str) -> None:
    retry = RetryPolicy(server=(0.0,) * 2, jitter=0.0)
    async with served(settled()) as simulator, client(simulator, retry=retry, connections=1) as opened:
        simulator.fail_next(Fault.ERROR_503, 3)
        with pytest.raises(ServiceError, match=r"503.*3 times") as caught:
            await CALLS[call](opened, START, END, tmp_path)
        assert (caught.value.status, simulator.stats.requests) == (503, 3)
        assert caught.value.offset == 0
        await CALLS[call](opened, START, END, tmp_path)


@pytest.mark.parametrize("call", ["plan", "stream"])
async def test_format_that_changed_is_told_with_its_path(tmp_path: Path, call: str) -> None:
    async with served(settled(wrong_types=1.0)) as simulator, client(simulator) as opened:
        expected = SchemaError if call == "plan" else IncompleteError
        with pytest.raises(expected, match=r"segments\[0\]\.agentId"):
            await CALLS[call](opened, START, END, tmp_path)


async def test_stalled_answer_is_given_up_after_the_timeout() -> None:
    async with served(settled()) as simulator:
        simulator.fail_next(Fault.STALL_BODY)
        async with client(simulator, timeouts=Timeouts(read=0.05)) as opened:
            assert await opened.count(START, END) == 60
        assert simulator.stats.requests == 3


async def test_a_client_that_was_opened_in_another_loop_says_so(tmp_path: Path) -> None:
    async with served(settled()) as simulator, client(simulator) as opened:

        async def elsewhere() -> None:
            with pytest.raises(InputError, match="opened in another event loop"):
                await opened.count(START, END)

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        assert await opened.count(START, END) == 60


async def test_a_client_that_has_ended_says_so_and_can_be_opened_again() -> None:
    async with served(settled()) as simulator:
        opened = client(simulator)
        async with opened:
            pass
        with pytest.raises(InputError, match="has ended, it is not open"):
            await opened.count(START, END)
        async with opened:
            assert await opened.count(START, END) == 60


async def test_a_client_that_is_entered_twice_at_once_is_refused_once() -> None:
    async with served(settled()) as simulator:
        opened = client(simulator)
        entered = await asyncio.gather(opened.__aenter__(), opened.__aenter__(), return_exceptions=True)
        assert sum(isinstance(one, InputError) for one in entered) == 1
        await opened.__aexit__(None, None, None)


class HeldDisk(LoggedDisk):
    """A disk that writes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def before(self, call: str) -> None:
        super().before(call)
        if call.startswith("write"):
            self.entered.set()
            self.let_go.wait(20)


@pytest.mark.parametrize("same", [True, False])
async def test_two_extractions_into_one_destination_of_one_process_are_refused(tmp_path: Path, same: bool) -> None:
    async with served(settled()) as simulator, client(simulator) as opened:
        sink = JsonlSink(tmp_path, disk=(disk := HeldDisk()))
        other = sink if same else JsonlSink(tmp_path)
        first = asyncio.create_task(opened.extract(START, END, sink))
        await until(disk.entered.is_set)
        try:
            with pytest.raises(DestinationBusyError):
                await opened.extract(START, END, other)
        finally:
            disk.let_go.set()
        one = await first
        assert one.complete
        assert (await opened.extract(START, END, other)).skipped == len(one.windows), "the refused run took nothing"


async def test_opening_a_client_takes_few_milliseconds_of_the_loop_and_later_calls_import_nothing_in_it() -> None:
    """In a process of its own, as here everything is imported. What a thread imports does not keep the loop."""
    script = """
import asyncio, sys, threading, time
from segment_fetch import OAuth1Key, SegmentClient, Window
from segment_fetch.sinks import CsvSink, DuckDbSink, JsonlSink, JsonLines, ObjectSink, ParquetSink, StreamSink
from segment_fetch.simulator import Dataset, Simulator
from obstore.store import MemoryStore

imported = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            imported.append(name)

class Steps:
    spent = 0.0
    def __init__(self, opening):
        self.opening = opening
    def __await__(self):
        steps = self.opening.__await__()
        while True:
            began = time.thread_time()
            try:
                waits = next(steps)
            except StopIteration:
                return
            finally:
                self.spent += time.thread_time() - began
            yield waits

async def main():
    dataset = Dataset.recent(2000, now=time.time(), days=4)
    start, end, folder = dataset.start, dataset.end, sys.argv[1]
    sinks = [
        JsonlSink(f"{folder}/jsonl"),
        JsonlSink(f"{folder}/zstd", compress="zstd"),
        CsvSink(f"{folder}/csv"),
        ParquetSink(f"{folder}/parquet"),
        DuckDbSink(f"{folder}/segments.duckdb"),
        ObjectSink("s3://bucket/x", JsonLines(), store=MemoryStore()),
        StreamSink(open(f"{folder}/stream", "wb")),
    ]
    async with Simulator(dataset) as simulator:
        client = SegmentClient("111111", auth=OAuth1Key("a", "b", "c", "d"), source="test", base_url=simulator.base_url)
        opening = Steps(client.__aenter__())
        await opening
        sys.meta_path.insert(0, Watch())
        for sink in sinks:
            assert (await client.extract(start, end, sink)).complete
        for stream in client.stream(start, end), client.stream_arrow(start, end), client.windows(start, end, list):
            async for _ in stream:
                pass
        await client.sync(sinks[0])
        await client.plan(start, end)
        await client.count(start, end)
        await client.counts([Window(start, end)])
        await client.__aexit__(None, None, None)
        print(opening.spent < 0.01 or opening.spent, imported)

asyncio.run(main())
"""
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert (out.decode(), err.decode()) == ("True []\n", "")
