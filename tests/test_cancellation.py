"""Cancelling a run at any point: nothing is left behind, and the next run goes on at once."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import ClientCredentials as Credentials
from segment_fetch import Event, RetryPolicy, SegmentClient
from segment_fetch.events import PageRead, Paused, Retrying
from segment_fetch.extraction.opening import Opened
from segment_fetch.simulator import ClientCredentials, Fault, Simulator
from segment_fetch.sinks import JsonlSink
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.chaos import cancellations
from tests.support import without_waiting
from tests.support_postgres import Postgres
from tests.support_runs import END, START, client, contents, names, now, served, settled, until, without_count
from tests.support_sinks import LoggedDisk

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

DAY = timedelta(days=1)
PATIENT = RetryPolicy(server=(600.0,), network=(600.0,))


class SlowDisk(LoggedDisk):
    """A disk whose first call of a kind waits until it is let go."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self._call = call
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.in_time = False

    def before(self, call: str) -> None:
        super().before(call)
        if call.startswith(self._call) and not self.entered.is_set():
            self.entered.set()
            self.in_time = self.let_go.wait(5)


class Scene:
    """A run that is to be cancelled, and what it is waiting in."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.simulator = simulator
        self.folder = folder
        self.disk: LoggedDisk = LoggedDisk()
        self.told: list[Event] = []
        self.once_served: Callable[[], None] = lambda: None
        """Called when the first page has come; until then only one request is in flight."""
        self.options: dict[str, Any] = {"window": DAY, "retry": PATIENT, "on_event": self.tell}

    def tell(self, event: Event) -> None:
        self.told.append(event)
        if isinstance(event, PageRead) and sum(isinstance(told, PageRead) for told in self.told) == 1:
            self.once_served()

    def open(self) -> SegmentClient:
        return client(self.simulator, **self.options)

    async def extract(self) -> None:
        async with self.open() as opened:
            await opened.extract(START, END, JsonlSink(self.folder, disk=self.disk))

    async def stream(self) -> None:
        """A consumer that never comes back for the second batch."""
        async with self.open() as opened, aclosing(opened.stream(START, END)) as stream:
            async for _ in stream:
                self.options["reached"] = True
                await asyncio.Event().wait()


@pytest.fixture
def scene(segment_simulator: SimulatorFactory, tmp_path: Path) -> Scene:
    return Scene(segment_simulator(settled(200), clock=now), tmp_path / "out")


@pytest.fixture(autouse=True)
async def nothing_is_left() -> Any:
    """No task and no thread outlives a test's runs, whatever happened to them."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    yield
    assert asyncio.all_tasks() - tasks <= {asyncio.current_task()}
    left = {thread for thread in threading.enumerate() if thread not in threads}
    assert not [thread for thread in left if thread.name != "segment-simulator"]


async def cancelled(run: Awaitable[None], at: Callable[[], bool]) -> None:
    """Cancels the run when it is there; every task of it is gone as soon as it has ended."""
    others = asyncio.all_tasks()
    task = asyncio.ensure_future(run)
    await until(lambda: at() or task.done())
    assert not task.done(), f"the run ended before it got there: {task!r}"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == others


async def proves_clean(scene: Scene) -> None:
    """Nothing is in flight, no temporary file is there, and another run ends as an undisturbed one does."""
    await until(lambda: scene.simulator.stats.in_flight == 0, "the end of every request")
    left = names(scene.folder) if scene.folder.exists() else []
    assert not [name for name in left if name.endswith(".partial")]
    other = Scene(scene.simulator, scene.folder.parent / "undisturbed")
    await other.extract()
    scene.options |= other.options
    scene.disk = LoggedDisk()
    await scene.extract()
    due = without_count(contents(other.folder))
    assert without_count(contents(scene.folder)) == due
    assert len(due) == 7


WAITING: dict[str, Callable[[Scene], Callable[[], bool]]] = {}


def waiting(point: Callable[[Scene], Callable[[], bool]]) -> Callable[[Scene], Callable[[], bool]]:
    WAITING[point.__name__] = point
    return point


@waiting
def for_an_answer(scene: Scene) -> Callable[[], bool]:
    scene.once_served = lambda: scene.simulator.fail_next(Fault.STALL, 50)
    return lambda: scene.simulator.stats.in_flight == 5


@waiting
def for_a_body(scene: Scene) -> Callable[[], bool]:
    scene.once_served = lambda: scene.simulator.fail_next(Fault.STALL_BODY, 50)
    return lambda: scene.simulator.stats.in_flight == 5


@waiting
def for_a_retry(scene: Scene) -> Callable[[], bool]:
    scene.once_served = lambda: scene.simulator.fail_next(Fault.ERROR_503, 5)
    return lambda: sum(isinstance(event, Retrying) for event in scene.told) == 5


@waiting
def for_the_end_of_a_pause(scene: Scene) -> Callable[[], bool]:
    scene.once_served = lambda: scene.simulator.fail_next(Fault.TOO_MANY, 5)
    return lambda: any(isinstance(event, Paused) for event in scene.told)


@waiting
def for_a_place_within_the_rate(scene: Scene) -> Callable[[], bool]:
    scene.options["rate"] = 0.001
    return lambda: scene.simulator.stats.requests == 1 and scene.simulator.stats.in_flight == 0


@pytest.mark.parametrize("point", WAITING)
async def test_cancelled_while_waiting(scene: Scene, point: str) -> None:
    at = WAITING[point](scene)
    await cancelled(scene.extract(), at)
    scene.once_served = lambda: None
    forget_faults(scene.simulator)
    scene.options.pop("rate", None)
    await proves_clean(scene)


def forget_faults(simulator: Simulator) -> None:
    """Those asked for and not used up."""
    simulator._service.segment_faults._next.clear()


async def test_cancelled_while_a_token_is_fetched(segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    simulator = segment_simulator(settled(200), clock=now, auth=ClientCredentials())
    scene = Scene(simulator, tmp_path / "out")
    scene.options["auth"] = Credentials("client", "client-secret", clock=now)
    simulator.fail_next(Fault.STALL, of="token")
    await cancelled(scene.extract(), lambda: simulator.stats.token_requests == 1)
    assert simulator.stats.requests == 0
    options = scene.options
    scene = Scene(simulator, tmp_path / "out")
    scene.options = options
    await scene.extract()
    assert len(names(scene.folder)) == 7
    assert simulator.stats.token_requests == 2


@pytest.mark.parametrize(
    "call",
    ["make_folder", "create .manifest", "create .segments", "write", "sync", "replace segments", "replace manifest"],
)
@pytest.mark.parametrize("times", [1, 5])
async def test_cancelled_while_the_disk_works(scene: Scene, call: str, times: int) -> None:
    """The call ends first, however often the run is told to stop: what is half done cannot be taken back."""
    scene.disk = disk = SlowDisk(call)
    task = asyncio.create_task(scene.extract())
    await until(lambda: disk.entered.is_set() or task.done())
    assert not task.done()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(disk.let_go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert disk.in_time, "the loop was kept waiting"
    calls = len(disk.calls)
    await proves_clean(scene)
    assert len(disk.calls) == calls, "nothing is written behind the run's back"


async def test_cancelled_while_the_consumer_of_a_stream_waits(scene: Scene) -> None:
    await cancelled(scene.stream(), lambda: "reached" in scene.options)
    scene.options.pop("reached")
    await proves_clean(scene)


async def test_stream_that_nobody_closes_ends_with_its_consumer(scene: Scene) -> None:
    async def consume() -> None:
        async with scene.open() as opened:
            async for _ in opened.stream(START, END):
                scene.options["reached"] = True
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await until(lambda: "reached" in scene.options)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "the end of every task")
    await until(lambda: scene.simulator.stats.in_flight == 0)


async def test_timeout_around_a_run(scene: Scene) -> None:
    scene.simulator.fail_next(Fault.STALL, 50)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await scene.extract()
    forget_faults(scene.simulator)
    await proves_clean(scene)


async def test_cancelled_at_any_turn_of_the_loop(tmp_path: Path) -> None:
    """After each of the first turns, then after every eighth more, until a run gets through."""
    async with served(settled(40)) as simulator:
        scene = Scene(simulator, tmp_path / "undisturbed")
        scene.options["window"] = 2 * DAY
        await scene.extract()
        due, turns, ended = without_count(contents(scene.folder)), 0, False
        while not ended:
            scene.folder = tmp_path / str(turns)
            task = asyncio.create_task(scene.extract())
            for _ in range(turns):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if scene.folder.exists():
                assert not [name for name in names(scene.folder) if name.endswith(".partial")]
            await scene.extract()
            assert without_count(contents(scene.folder)) == due, f"cancelled after {turns} turns"
            turns += 1 + turns // 8
        await until(lambda: simulator.stats.in_flight == 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert turns > 20


async def test_one_run_is_cancelled_and_another_of_the_same_client_goes_on(scene: Scene) -> None:
    async with scene.open() as opened:
        scene.simulator.fail_next(Fault.STALL, 1)
        stalled = asyncio.create_task(opened.count(START, END))
        await until(lambda: scene.simulator.stats.in_flight > 0)
        going_on = asyncio.create_task(opened.extract(START, END, JsonlSink(scene.folder)))
        await until(lambda: scene.simulator.stats.requests > 3)
        stalled.cancel()
        assert (await going_on).complete
        with suppress(asyncio.CancelledError):
            await stalled


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
@pytest.mark.parametrize("way", cancellations.WAYS)
async def test_nothing_is_left_wherever_a_run_is_cancelled(way: str) -> None:
    """Every fourth await; `python -m tests.chaos.cancellations` takes each."""
    with cancellations.served().in_thread() as simulator:
        points = await cancellations.run_way(cancellations.WAYS[way], simulator, step=lambda point: point + 4)
    assert points >= 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
async def test_nothing_is_left_wherever_a_run_into_a_database_server_is_cancelled(postgres_server: Postgres) -> None:
    way = cancellations.into_postgres(postgres_server.url())
    with cancellations.served().in_thread() as simulator:
        points = await cancellations.run_way(way, simulator, ports=[postgres_server.port], step=lambda point: point + 4)
    assert points >= 1


async def test_what_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    close = Opened.close
    left: list[asyncio.Task[None]] = []

    async def leaving_a_task(opened: Opened) -> None:
        await close(opened)
        left.append(asyncio.create_task(asyncio.sleep(0.01)))

    monkeypatch.setattr(Opened, "close", leaving_a_task)
    with cancellations.served().in_thread() as simulator, pytest.raises(AssertionError):
        await cancellations.run_way(cancellations.WAYS["stream"], simulator, step=lambda point: point + 1)
    await asyncio.gather(*left)


async def test_a_slow_consumer_of_a_stream_holds_back_the_requests(scene: Scene) -> None:
    """With windows of 20 segments, no more than a few are read ahead of a consumer that does not come back."""
    scene.options |= {"split_above": 20, "limit": 20, "window": timedelta(hours=6), "connections": 2}
    async with scene.open() as opened, aclosing(opened.stream(START, END)) as batches:
        await anext(batches)
        seen: list[int] = []

        def is_quiet() -> bool:
            seen.append(scene.simulator.stats.requests)
            return len(seen) > 100 and len(set(seen[-100:])) == 1

        await until(is_quiet, "the end of reading ahead")
        asked = seen[-1]
        rest = sum([len(batch) async for batch in batches])
    assert asked < scene.simulator.stats.requests / 2
    assert rest > 100


@pytest.mark.parametrize("way", ["stream", "stream_arrow", "windows"])
@without_waiting
async def test_a_consumer_that_takes_a_second_a_batch_holds_memory_flat(way: str) -> None:
    """Some 1,500 segments are read ahead; all would take 8 MB. The simulator's own memory does not count."""
    held = list[int]()
    async with (
        served(settled(8_000)) as simulator,
        client(simulator, window=(END - START) // 80 * timedelta(milliseconds=1), split_above=500) as opened,
    ):
        ranges: dict[str, Callable[[], AsyncGenerator[Any, None]]] = {
            "stream": lambda: opened.stream(START, END),
            "stream_arrow": lambda: opened.stream_arrow(START, END),
            "windows": lambda: opened.windows(START, END, list),
        }
        tracemalloc.start()
        async with aclosing(ranges[way]()) as batches:
            taken = 0
            async for _ in batches:
                await asyncio.sleep(1)
                taken += 1
                if taken % 16 == 0:
                    held.append(memory_aside_from("*/simulator/*"))
        tracemalloc.stop()
    assert len(held) >= 4
    assert max(held) < 4_000_000


def memory_aside_from(files: str) -> int:
    """Return the bytes that Python holds by now, without those that these files allocated."""
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(inclusive=False, filename_pattern=files)])
    return sum(trace.size for trace in snapshot.traces)
