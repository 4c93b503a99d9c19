"""Turns of the event loop: one task at a time, in order, and none lost to a cancelled one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from segment_fetch.extraction.loop_turns import Turns, ended, in_thread, turns_of
from tests.support_runs import until


async def test_one_task_goes_on_in_each_turn_of_the_loop() -> None:
    turns, turn, went = Turns(), 0, list[tuple[int, int]]()

    async def work(name: int) -> None:
        await turns.take()
        went.append((name, turn))

    async with asyncio.TaskGroup() as group:
        for name in range(20):
            group.create_task(work(name))
        while len(went) < 20:
            await asyncio.sleep(0)
            turn += 1
    assert [name for name, _ in went] == list(range(20)), "first come, first served"
    assert len({at for _, at in went}) == 20, "never two in one turn"


async def test_a_task_that_comes_back_lets_the_loop_turn() -> None:
    turns, turned = Turns(), False

    def turn() -> None:
        nonlocal turned
        turned = True

    await turns.take()
    asyncio.get_running_loop().call_soon(turn)
    await turns.take()
    assert turned


async def test_a_cancelled_task_takes_no_turn() -> None:
    turns = Turns()
    await turns.take()
    tasks = [asyncio.create_task(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait_for(asyncio.gather(*tasks[1:]), 1)
    await asyncio.wait_for(turns.take(), 1)


async def test_a_turn_is_over_after_its_slice() -> None:
    short, long = Turns(0.0), Turns(60.0)
    await short.take()
    await long.take()
    assert short.is_over
    assert not long.is_over
    assert Turns(60.0).is_over, "no turn was taken"


async def test_clients_of_one_loop_share_its_turns() -> None:
    loop = asyncio.get_running_loop()
    assert turns_of(loop) is turns_of(loop)


async def test_a_call_in_a_thread_ends_before_its_cancellation_goes_on() -> None:
    entered, go_on, ends = threading.Event(), threading.Event(), list[bool]()

    def call() -> None:
        entered.set()
        ends.append(go_on.wait(5))

    task = asyncio.create_task(in_thread(call))
    await until(entered.is_set)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends == [True]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("segment_fetch")]


async def test_waiting_for_an_end_outlasts_every_cancellation() -> None:
    let_go = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await let_go.wait()

    worker = asyncio.create_task(work())
    await asyncio.sleep(0)
    worker.cancel()
    waiting = asyncio.create_task(ended(worker))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert worker.cancelled()
