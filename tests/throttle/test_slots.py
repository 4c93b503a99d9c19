"""Over real sockets, no slot of a limited server is left unused: at the start, between windows, at the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch.simulator import RateLimit, Simulator, SlidingWindow
from segment_fetch.simulator.limits import Limit
from segment_fetch.throttle.pace_store import PaceStore
from segment_fetch.throttle.pacer import HOLD, Learned
from tests.support import without_waiting
from tests.support_runs import END, NOW, START, client, settled

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

LIMIT, WINDOWS, PAGE = 20.0, 4, 10
ROWS = 399 * (PAGE - 2)  # as two rows of a page repeat those of the page before
EVERY_LIMIT = [RateLimit(LIMIT), RateLimit(LIMIT, burst=5), RateLimit(LIMIT, burst=20), SlidingWindow(20, 1.0)]


async def _read(limit: Limit, **options: Any) -> tuple[float, int, int]:
    """The seconds that reading about 400 pages takes, how many they are, and how many answers were 429."""
    loop = asyncio.get_running_loop()
    simulator = Simulator(settled(ROWS), clock=lambda: NOW + loop.time(), limit=limit, latency_ms=150)
    async with simulator, client(simulator, limit=PAGE, **options) as opened:
        began = loop.time()
        assert sum([len(batch) async for batch in opened.stream(START, END)]) == ROWS
        seconds = loop.time() - began
    pages, throttled = simulator.stats.answers[200], simulator.stats.answers[429]
    assert 395 <= pages <= 410
    return seconds, pages, throttled


async def _ratio(limit: Limit, **options: Any) -> tuple[float, int]:
    """The time of reading about 400 pages as a share of pages / limit, and how many answers were 429."""
    window = timedelta(milliseconds=(END - START) // WINDOWS)
    seconds, pages, throttled = await _read(limit, window=window, **options)
    return seconds / (pages / LIMIT), throttled


@pytest.mark.parametrize("limit", EVERY_LIMIT)
@without_waiting
async def test_a_rate_that_is_the_limit_uses_it(limit: Limit) -> None:
    ratio, throttled = await _ratio(limit, rate=LIMIT)
    assert ratio <= 1.032
    assert throttled == 0


@without_waiting
async def test_while_a_window_is_divided_no_slot_is_left_unused() -> None:
    """But for those until the first answer, which tells that the window is too large."""
    seconds, pages, _ = await _read(RateLimit(LIMIT), rate=LIMIT, split_above=100 * PAGE)
    assert seconds == pytest.approx(0.15 + (pages - 2) / (HOLD * LIMIT) + 0.15, abs=0.03)


class Remembering(PaceStore):
    """Remembers the same of every service."""

    def load(self, account: str, service: str, now: float, source: str = "") -> Learned:
        return Learned(0.97 * LIMIT, limited=True, cap=None, at=now)


@pytest.mark.parametrize(("limit", "most"), list(zip(EVERY_LIMIT, (2, 2, 7, 1), strict=True)))
@without_waiting
async def test_a_limit_that_was_found_before_is_used(limit: Limit, most: int, tmp_path: Path) -> None:
    """It is tested once, as it may have risen; a large burst hides the refusal for longer."""
    ratio, throttled = await _ratio(limit, rate="auto", pace=Remembering(tmp_path))
    assert ratio <= 1.10
    assert throttled <= most


@pytest.mark.parametrize(
    ("limit", "most", "refusals"),
    list(zip(EVERY_LIMIT, (1.15, 1.20, 1.10, 1.40), (4, 7, 16, 6), strict=True)),
    ids=lambda value: str(value)[:40],
)
@without_waiting
async def test_a_limit_that_has_to_be_found_costs_little(limit: Limit, most: float, refusals: int) -> None:
    """The goal is 1.10; a burst of a quarter of a second, and a window of one, take more refusals to tell apart."""
    ratio, throttled = await _ratio(limit, rate="auto")
    assert ratio <= most
    assert throttled <= refusals
