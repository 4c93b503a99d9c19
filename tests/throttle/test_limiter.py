"""The timing of requests, on the test's own clock."""

from __future__ import annotations

import asyncio
from itertools import cycle, pairwise

import pytest

from segment_fetch.events import Event, PaceChanged
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.pacer import HOLD, Learned, Pacer
from tests.support import ManualClock, without_waiting


@pytest.mark.parametrize(
    ("asked", "closed"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0), (7.0, 7.0), (3600.0, 3600.0)]
)
async def test_a_pause_is_what_was_asked_but_at_least_a_second(asked: float | None, closed: float) -> None:
    clock = ManualClock(100.0)
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    limiter.pause(asked)
    assert limiter.closed_for() == closed
    await limiter.passed()
    assert clock.now == 100.0 + closed
    assert clock.slept == [closed]


async def test_an_open_gate_makes_nobody_wait() -> None:
    clock = ManualClock()
    await Limiter(None, clock=clock, sleep=clock.sleep).passed()
    assert clock.slept == []


async def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    clock = ManualClock()
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    limiter.pause(10.0)
    clock.now = 4.0
    limiter.pause(2.0)
    assert limiter.closed_for() == 6.0
    limiter.pause(8.0)
    assert limiter.closed_for() == 8.0
    await limiter.passed()
    assert clock.now == 12.0
    assert limiter.closed_for() == 0.0


async def test_without_a_pacer_a_refusal_closes_the_gate_too() -> None:
    clock = ManualClock()
    limiter = Limiter(None, clock=clock, sleep=clock.sleep)
    limiter.release(await limiter.acquire(), "accepted")
    limiter.release(await limiter.acquire(), "refused", 3.0)
    assert limiter.closed_for() == 3.0


async def test_a_pause_that_begins_while_others_wait_holds_for_them_too() -> None:
    clock = ManualClock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now == 1.0:
            limiter.pause(5.0)

    limiter = Limiter(None, clock=clock, sleep=sleep)
    limiter.pause(None)
    await limiter.passed()
    assert clock.now == 6.0


def _limiter(rate: float | None) -> Limiter:
    return Limiter(None if rate is None else Pacer(ceiling=rate, connections=10_000))


async def _passages(rate: float | None, count: int, pause_at: tuple[float, float] | None = None) -> list[float]:
    """Return when each of many requests at once went through, in seconds from the start; every other is not a page."""
    loop = asyncio.get_running_loop()
    start, limiter, went = loop.time(), _limiter(rate), list[float]()

    async def request(page: bool) -> None:
        await (limiter.acquire() if page else limiter.passed())
        went.append(loop.time() - start)

    if pause_at is not None:
        loop.call_later(pause_at[0], limiter.pause, pause_at[1])
    await asyncio.gather(*(request(page=at % 2 == 0) for at in range(count)))
    return sorted(went)


@pytest.mark.parametrize("rate", [52.0, 200.0])
@without_waiting
async def test_timers_that_are_late_cost_no_time_and_let_no_more_through(rate: float) -> None:
    loop, late, went = asyncio.get_running_loop(), cycle([0.001, 0.004, 0.0, 0.007, 0.002]), list[float]()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds + next(late))

    limiter = Limiter(Pacer(ceiling=rate), sleep=sleep)
    for _ in range(100):
        limiter.release(await limiter.acquire(), "accepted")
        went.append(loop.time())
    assert went[-1] - went[0] == pytest.approx(99 / (HOLD * rate), abs=0.025)
    assert max(sum(at <= other < at + 1 for other in went) for at in went) <= rate + 1 + rate * 0.01


@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0, 50.0, 400.0])
@without_waiting
async def test_no_second_lets_more_through_than_the_rate(rate: float) -> None:
    seconds = max(1.5, 4 / rate)
    went = await _passages(rate, int(rate * seconds) + 1)
    made_up_for = 1 + rate * 0.01
    assert went[-1] == pytest.approx(seconds, rel=0.1)
    for at, moment in enumerate(went):
        within = sum(1 for other in went[at:] if other < moment + 1.0 - 1e-6)
        assert within <= rate + made_up_for


@without_waiting
async def test_without_a_rate_all_go_at_once() -> None:
    assert (await _passages(None, 1000))[-1] < 0.5


@pytest.mark.parametrize("rate", [None, 100.0])
@without_waiting
async def test_nobody_passes_during_a_pause(rate: float | None) -> None:
    loop = asyncio.get_running_loop()
    start, limiter, went = loop.time(), _limiter(rate), list[float]()

    async def requests() -> None:
        while loop.time() - start < 8.0:
            await limiter.passed()
            went.append(loop.time() - start)
            await asyncio.sleep(0.05)

    loop.call_later(1.0, limiter.pause, 5.0)
    await asyncio.gather(*(requests() for _ in range(4)))
    assert not [moment for moment in went if 1.001 < moment < 5.999]
    assert [moment for moment in went if moment < 1.0]
    assert [moment for moment in went if moment > 6.0]


@without_waiting
async def test_those_in_the_queue_of_the_rate_wait_for_the_pause_too() -> None:
    went = await _passages(10.0, 20, pause_at=(0.5, 30.0))
    assert [moment for moment in went if 0.51 < moment < 30.4] == []
    assert sum(moment > 30.0 for moment in went) >= 10


async def test_the_gate_tells_the_pacer_what_came_of_each_request() -> None:
    clock = ManualClock(100.0)
    limiter = Limiter(Pacer(connections=2), clock=clock, sleep=clock.sleep)
    first, second = await limiter.acquire(), await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    for _ in range(5):
        clock.now += 10
        await asyncio.sleep(0)
    assert not waiting.done()  # two are in flight, and two is the most
    limiter.release(first, "accepted")
    third = await waiting
    before = clock.now
    limiter.release(second, "refused", 3.0)
    limiter.release(third, "dropped")
    assert limiter.closed_for() == 3.0
    await limiter.acquire()
    assert clock.now - before >= 3.0


async def test_requests_that_are_no_pages_wait_for_the_pacers_pause() -> None:
    clock = ManualClock(100.0)
    limiter = Limiter(Pacer(), clock=clock, sleep=clock.sleep)
    limiter.release(await limiter.acquire(), "refused", 7.0)
    await limiter.passed()
    assert clock.now == 107.0


async def test_those_refused_together_make_one_pause() -> None:
    clock = ManualClock(100.0)
    limiter = Limiter(Pacer(), clock=clock, sleep=clock.sleep)
    first, second = await limiter.acquire(), await limiter.acquire()
    limiter.release(first, "refused")
    clock.now += 0.5
    limiter.release(second, "refused")
    assert limiter.closed_for() == pytest.approx(0.5)


async def _told(pacer: Pacer, seconds: float, refuse_at: float = 1e9) -> list[Event]:
    """Return the events of a limiter that lets requests through, all of them accepted but for one."""
    clock, told = ManualClock(), list[Event]()
    limiter = Limiter(pacer, tell=told.append, clock=clock, sleep=clock.sleep)
    while clock.now < seconds:
        permit = await limiter.acquire()
        refused = clock.now >= refuse_at
        refuse_at = 1e9 if refused else refuse_at
        clock.now += 0.01
        limiter.release(permit, "refused" if refused else "accepted")
    return told


async def test_it_tells_how_the_pace_grows_but_not_of_each_request() -> None:
    told = await _told(Pacer(), 5.0)
    changes = [event for event in told if isinstance(event, PaceChanged)]
    assert changes == told
    assert 4 <= len(told) <= 6
    assert [event.reason for event in changes] == ["started", *["no_refusals"] * (len(told) - 1)]
    assert changes[0] == PaceChanged(changes[0].rate, None, "started")
    assert all(later.rate > 1.1 * earlier.rate for earlier, later in pairwise(changes))


async def test_it_tells_what_a_refusal_is_taken_for() -> None:
    told = await _told(Pacer(learned=Learned(10.0, limited=True, cap=None, at=0.0)), 4.0, refuse_at=2.0)
    reasons = [(event.reason, event.rate < 9.7) for event in told if isinstance(event, PaceChanged)]
    assert reasons == [("remembered", False), ("too_fast", True)]


async def test_a_cap_is_told_of() -> None:
    clock, told = ManualClock(), list[PaceChanged]()
    limiter = Limiter(Pacer(), tell=told.append, clock=clock, sleep=clock.sleep)
    for _ in range(6):
        permit = await limiter.acquire()
        clock.now += 0.01
        limiter.release(permit, "accepted")
    beside, refused = await limiter.acquire(), await limiter.acquire()
    limiter.release(refused, "refused")
    clock.now += 0.1
    limiter.release(beside, "accepted")
    await limiter.acquire()
    assert (told[-1].at_once, told[-1].reason) == (1, "too_many_at_once")
