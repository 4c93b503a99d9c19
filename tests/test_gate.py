"""When a request may go. Time is the test's own."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from segment_fetch.gate import AdaptiveGate, Gate
from segment_fetch.query import Window
from segment_fetch.simulator import RateLimit, Simulator
from tests.support import ManualClock, without_waiting
from tests.support_runs import NOW, START, client, settled


@pytest.mark.parametrize(
    ("asked", "closed"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (7.0, 7.0), (3600.0, 3600.0)]
)
async def test_a_pause_is_what_was_asked_but_at_least_a_second(asked: float | None, closed: float) -> None:
    clock = ManualClock(100.0)
    gate = Gate(None, clock=clock, sleep=clock.sleep)
    assert gate.pause(asked) == closed
    await gate.passed()
    assert clock.now == 100.0 + closed
    assert clock.slept == [closed]


async def test_an_open_gate_makes_nobody_wait() -> None:
    clock = ManualClock()
    await Gate(None, clock=clock, sleep=clock.sleep).passed()
    assert clock.slept == []


async def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    clock = ManualClock()
    gate = Gate(None, clock=clock, sleep=clock.sleep)
    gate.pause(10.0)
    clock.now = 4.0
    assert gate.pause(2.0) == 6.0
    assert gate.pause(8.0) == 8.0
    await gate.passed()
    assert clock.now == 12.0


async def test_a_pause_that_begins_while_others_wait_holds_for_them_too() -> None:
    clock = ManualClock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now == 1.0:
            gate.pause(5.0)

    gate = Gate(None, clock=clock, sleep=sleep)
    gate.pause(None)
    await gate.passed()
    assert clock.now == 6.0


async def _passages(rate: float | None, count: int, pause_at: tuple[float, float] | None = None) -> list[float]:
    """When each of many requests at once went through, in seconds from the start."""
    loop = asyncio.get_running_loop()
    start, gate, went = loop.time(), Gate(rate), list[float]()

    async def request() -> None:
        await gate.passed()
        went.append(loop.time() - start)

    if pause_at is not None:
        loop.call_later(pause_at[0], gate.pause, pause_at[1])
    await asyncio.gather(*(request() for _ in range(count)))
    return sorted(went)


@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0, 50.0, 400.0])
@without_waiting
async def test_no_second_lets_more_through_than_the_rate(rate: float) -> None:
    seconds = max(1.5, 4 / rate)
    went = await _passages(rate, int(rate * seconds) + 1)
    at_once = max(1.0, rate * 0.01)
    assert went[-1] == pytest.approx(seconds, rel=0.1)
    assert max(Counter(round(moment, 3) for moment in went).values()) <= at_once + max(1, rate * 0.003)
    for at, moment in enumerate(went):
        within = sum(1 for other in went[at:] if other < moment + 1.0)
        assert within <= rate * 1.02 + at_once + 1


@without_waiting
async def test_without_a_rate_all_go_at_once() -> None:
    assert (await _passages(None, 1000))[-1] < 0.5


@pytest.mark.parametrize("rate", [None, 100.0])
@without_waiting
async def test_nobody_passes_during_a_pause(rate: float | None) -> None:
    loop = asyncio.get_running_loop()
    start, gate, went = loop.time(), Gate(rate), list[float]()

    async def requests() -> None:
        while loop.time() - start < 8.0:
            await gate.passed()
            went.append(loop.time() - start)
            await asyncio.sleep(0.05)

    loop.call_later(1.0, gate.pause, 5.0)
    await asyncio.gather(*(requests() for _ in range(4)))
    assert not [moment for moment in went if 1.001 < moment < 5.999]
    assert [moment for moment in went if moment < 1.0]
    assert [moment for moment in went if moment > 6.0]


@without_waiting
async def test_those_in_the_queue_of_the_rate_wait_for_the_pause_too() -> None:
    went = await _passages(10.0, 20, pause_at=(0.5, 30.0))
    assert [moment for moment in went if 0.51 < moment < 30.4] == []
    assert sum(moment > 30.0 for moment in went) >= 10


@without_waiting
async def test_the_adaptive_gate_finds_a_limit_over_real_sockets() -> None:
    """Twenty requests a second is the server's limit; the client is told nothing of it, and waits for nothing."""
    loop = asyncio.get_running_loop()
    limit = RateLimit(20, burst=5)
    simulator = Simulator(settled(2_000), clock=lambda: NOW + loop.time(), limit=limit, latency_ms=150)
    async with simulator, client(simulator, rate="auto", connections=16) as one:
        windows = [Window(START + at * 60_000, START + (at + 1) * 60_000) for at in range(1_000)]
        began = loop.time()
        assert len(await one.counts(windows)) == 1_000
        assert loop.time() - began < 1_000 / 20 * 1.25  # from a cold start
        assert simulator.stats.answers[429] <= 20


async def test_the_adaptive_gate_tells_the_pacer_what_came_of_each_request() -> None:
    clock = ManualClock(100.0)
    gate = AdaptiveGate(2, clock=clock, sleep=clock.sleep)
    first, second = await gate.enter(), await gate.enter()
    waiting = asyncio.create_task(gate.enter())
    for _ in range(5):
        clock.now += 10
        await asyncio.sleep(0)
    assert not waiting.done()  # two are in flight, and two is the most
    gate.left(first, "accepted")
    third = await waiting
    before = clock.now
    gate.left(second, "refused", 3.0)
    gate.left(third, "dropped")
    await gate.enter()
    assert clock.now - before >= 3.0
