"""Calls from a thread without a loop, from one that has a loop, and what an interrupt leaves behind."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from segment_fetch import Event, InputError, Plan, Segment, blocking
from segment_fetch.blocking import in_thread
from segment_fetch.events import WindowDone
from segment_fetch.simulator import Simulator
from segment_fetch.sinks import JsonlSink
from tests.support_runs import END, START, client, now, settled


class Source:
    """Counts up in steps of the loop, and notes what happens to it."""

    def __init__(self, end: int = 3, fails_at: int | None = None) -> None:
        self.end = end
        self.fails_at = fails_at
        self.ticks = 0
        self.closed = False
        self.thread: threading.Thread | None = None

    async def items(self) -> AsyncGenerator[int, None]:
        ticking = asyncio.create_task(self._tick())
        self.thread = threading.current_thread()
        try:
            for item in range(self.end):
                if item == self.fails_at:
                    raise LookupError("nothing there")
                await asyncio.sleep(0)
                yield item
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            self.closed = True

    async def _tick(self) -> None:
        while True:
            self.ticks += 1
            await asyncio.sleep(0)

    def over(self) -> bool:
        """Return True if it has cleaned up and its thread has ended."""
        assert self.thread is not None
        return self.closed and not self.thread.is_alive()


def test_items_come_in_order_from_another_thread() -> None:
    source = Source()
    assert list(in_thread(source.items)) == [0, 1, 2]
    assert source.thread is not threading.current_thread()
    assert source.over()


async def test_callers_may_have_a_loop_of_their_own() -> None:
    source = Source()
    assert list(in_thread(source.items)) == [0, 1, 2]
    assert source.over()


def test_the_loop_runs_on_while_the_caller_is_busy() -> None:
    source = Source()
    for _ in in_thread(source.items):
        seen = source.ticks
        while source.ticks < seen + 3:
            pass
    assert source.over()


def test_an_error_comes_as_it_is() -> None:
    source = Source(fails_at=1)
    items = in_thread(source.items)
    assert next(items) == 0
    with pytest.raises(LookupError, match="nothing there"):
        next(items)
    assert source.over()


def test_leaving_early_ends_it() -> None:
    source = Source()
    items = in_thread(source.items)
    next(items)
    items.close()
    assert source.over()


def test_a_clean_up_that_fails_leaves_no_thread() -> None:
    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise LookupError("not cleaned up")

    found = in_thread(items)
    next(found)
    with pytest.raises(LookupError, match="not cleaned up"):
        found.close()
    assert [thread for thread in threading.enumerate() if thread.name == "segment_fetch"] == []


def test_what_is_not_begun_starts_nothing() -> None:
    threads = threading.active_count()
    in_thread(Source().items).close()
    assert threading.active_count() == threads


def test_an_interrupt_while_waiting_cancels_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[bool] = []

    async def items() -> AsyncGenerator[int, None]:
        yield 1
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    def interrupt() -> None:
        waiting.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    waiting = threading.Event()
    found = in_thread(items)
    assert next(found) == 1
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert cancelled == [True]
    assert [thread for thread in threading.enumerate() if thread.name == "segment_fetch"] == []


def test_the_loop_is_made_in_the_thread_that_no_interrupt_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    makers: list[threading.Thread] = []
    make = asyncio.new_event_loop

    def noted() -> asyncio.AbstractEventLoop:
        makers.append(threading.current_thread())
        return make()

    monkeypatch.setattr(asyncio, "new_event_loop", noted)
    source = Source()
    assert list(in_thread(source.items)) == [0, 1, 2]
    assert makers == [source.thread]


def test_a_loop_that_cannot_be_made_is_an_error_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> asyncio.AbstractEventLoop:
        raise OSError("Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", refused)
    with pytest.raises(OSError, match="Too many open files"):
        list(in_thread(Source().items))
    assert [thread for thread in threading.enumerate() if thread.name == "segment_fetch" and thread.is_alive()] == []


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(settled(300), clock=now).in_thread() as served:
        yield served


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name.startswith("segment_fetch")]


def test_every_call_gives_what_the_client_gives(simulator: Simulator, tmp_path: Path) -> None:
    async def awaited() -> tuple[int, Plan, list[Segment]]:
        async with client(simulator) as opened:
            count, plan = await opened.count(START, END), await opened.plan(START, END)
            return count, plan, [segment async for batch in opened.stream(START, END) for segment in batch]

    count, plan, segments = asyncio.run(awaited())
    closed = client(simulator)
    assert blocking.count(closed, START, END) == count == 300
    assert blocking.plan(closed, START, END) == plan
    assert [segment for batch in blocking.stream(closed, START, END) for segment in batch] == segments
    assert sum(batch.num_rows for batch in blocking.stream_arrow(closed, START, END)) == 300
    report = blocking.extract(closed, START, END, JsonlSink(tmp_path / "out"))
    assert (report.complete, report.segments) == (True, 300)
    assert blocking.extract(closed, START, END, JsonlSink(tmp_path / "out")).skipped == len(report.windows)
    assert blocking.sync(closed, JsonlSink(tmp_path / "days"), START).complete
    assert no_thread_is_left()


async def test_calls_work_where_a_loop_runs_already(simulator: Simulator, tmp_path: Path) -> None:
    assert blocking.count(client(simulator), START, END) == 300
    assert blocking.extract(client(simulator), START, END, JsonlSink(tmp_path)).complete


def test_errors_come_as_they_are(simulator: Simulator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"starts .* after it ends"):
        blocking.extract(client(simulator), END, START, JsonlSink(tmp_path))
    with pytest.raises(InputError, match="client: must be a SegmentClient"):
        blocking.count("client", START, END)  # type: ignore[arg-type]
    assert no_thread_is_left()


async def test_a_client_or_a_session_of_another_loop_is_refused(simulator: Simulator) -> None:
    async with client(simulator) as opened:
        with pytest.raises(InputError, match="this client is in use"):
            blocking.count(opened, START, END)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(InputError, match="session: belongs to another event loop"):
            blocking.count(client(simulator, session=session), START, END)


def test_an_interrupt_ends_an_extraction_in_order(simulator: Simulator, tmp_path: Path) -> None:
    """Committed windows stay, nothing half-written is left, and the same call goes on from there."""

    def interrupt_once(event: Event) -> None:
        if isinstance(event, WindowDone) and not interrupted:
            interrupted.append(event)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupted: list[Event] = []
    out = tmp_path / "out"
    slow = client(simulator, window=timedelta(hours=6), connections=1, on_event=interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        blocking.extract(slow, START, END, JsonlSink(out))
    assert no_thread_is_left()
    assert not [path for path in out.iterdir() if path.name.endswith(".partial")]
    report = blocking.extract(slow, START, END, JsonlSink(out))
    assert report.complete
    written = [line for path in out.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(written) == 300


def test_a_stream_that_is_left_early_ends(simulator: Simulator) -> None:
    batches = blocking.stream(client(simulator), START, END)
    next(batches)
    batches.close()
    assert no_thread_is_left()
