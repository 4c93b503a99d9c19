"""The fixture, the thread behind it, and `serve`."""

import asyncio
import subprocess
import sys
import threading
from typing import Any
from urllib.request import urlopen

import orjson
import pytest

from segment_fetch import simulator as simulator_package
from segment_fetch.simulator import Dataset, Fault, Simulator, serve
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.simulator.conftest import Asker, Clock, segments_url

pytest_plugins = ["pytester"]


def read_page(simulator: Simulator) -> Any:
    with urlopen(f"{segments_url(simulator)}?source=tests&limit=500&fromMillis={simulator.dataset.start}") as answer:
        return orjson.loads(answer.read())


def test_the_fixture_serves_synchronous_tests(segment_simulator: SimulatorFactory, clock: Clock, day: Dataset) -> None:
    first, second = segment_simulator(day, clock=clock), segment_simulator(day, clock=clock)
    assert first.port != second.port
    for simulator in (first, second):
        assert read_page(simulator)["pagination"]["count"] == 1200
    first.insert(day.start)
    assert read_page(first)["pagination"]["count"] == 1201


async def test_the_fixture_serves_asynchronous_tests(
    segment_simulator: SimulatorFactory, asker: Asker, clock: Clock, day: Dataset
) -> None:
    simulator = segment_simulator(day, clock=clock)
    assert (await asker.page(simulator)).status == 200


def test_the_fixture_needs_no_other_plugin_and_ends_everything(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading
        import time
        import pytest
        from segment_fetch.simulator import Dataset

        def test_one(segment_simulator):
            segment_simulator(Dataset.recent(10, now=time.time()))
            assert threading.active_count() == 2

        def test_two():
            assert threading.active_count() == 1
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:asyncio", "-W", "error")
    result.assert_outcomes(passed=2)


def test_the_thread_ends_with_the_block_also_when_a_client_is_stalled(clock: Clock, day: Dataset) -> None:
    threads = threading.active_count()
    with Simulator(day, clock=clock).in_thread() as simulator:
        simulator.fail_next(Fault.STALL)
        with pytest.raises(TimeoutError):
            urlopen(f"{segments_url(simulator)}?source=tests", timeout=0.05)
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_the_thread_ends_when_the_port_is_taken(clock: Clock, day: Dataset) -> None:
    threads = threading.active_count()
    with Simulator(day, clock=clock).in_thread() as simulator:
        with pytest.raises(OSError, match="address already in use"), Simulator(day, port=simulator.port).in_thread():
            pass
        assert threading.active_count() == threads + 1


async def test_serve_runs_until_cancelled(asker: Asker, clock: Clock, day: Dataset) -> None:
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(Simulator(day, clock=clock), ready.set_result))
    simulator = await ready
    assert (await asker.page(simulator)).status == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(simulator.host, simulator.port)


async def test_serve_awaits_what_is_called_when_ready(clock: Clock, day: Dataset) -> None:
    seen = []

    async def ready(simulator: Simulator) -> None:
        await asyncio.sleep(0)
        seen.append(simulator.port)
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        await serve(Simulator(day, clock=clock), ready)
    assert seen[0] > 0


def test_the_plugin_loads_no_server_until_it_is_used() -> None:
    code = (
        "import sys, pytest, segment_fetch\n"
        "before = set(sys.modules)\n"
        "import segment_fetch.testing.pytest_plugin\n"
        "print(sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "['segment_fetch.testing', 'segment_fetch.testing.pytest_plugin']"


def test_the_package_has_the_names_it_promises() -> None:
    for name in simulator_package.__all__:
        assert getattr(simulator_package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        simulator_package.Other  # noqa: B018
