"""Fixtures of the simulator's own tests: a clock that stands still, and a client that looks at everything."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import orjson
import pytest
from multidict import CIMultiDictProxy

from segment_fetch.simulator import Dataset, Simulator

NOON = 1_795_176_000.0
"""2026-11-20T12:00:00Z, in epoch seconds."""
NOON_MS = int(NOON * 1000)
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Clock:
    """Epoch seconds that move only when told."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Got(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [segment["segmentId"] for segment in self.json["segments"]]


class Asker:
    """Sends requests to a simulator."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def get(self, url: str, headers: dict[str, str] | None = None, method: str = "GET") -> Got:
        timeout = aiohttp.ClientTimeout(total=10)
        async with self.session.request(method, url, headers=headers, allow_redirects=False, timeout=timeout) as answer:
            return Got(answer.status, answer.headers, await answer.read())

    async def page(self, simulator: Simulator, headers: dict[str, str] | None = None, **parameters: Any) -> Got:
        dataset = simulator.dataset
        asked = {"source": "tests", "fromMillis": dataset.start, "toMillis": dataset.end, **parameters}
        query = "&".join(f"{name}={value}" for name, value in asked.items() if value is not None)
        return await self.get(f"{segments_url(simulator)}?{query}", headers)

    async def all_ids(self, simulator: Simulator, limit: int = 500, **parameters: Any) -> list[str]:
        """Every page one after the other, as long as the count says."""
        ids: list[str] = []
        while True:
            page = await self.page(simulator, limit=limit, offset=len(ids), **parameters)
            ids += page.ids
            if not page.ids or len(ids) >= page.json["pagination"]["count"]:
                return ids


def segments_url(simulator: Simulator) -> str:
    return f"{simulator.base_url}/api/account/{simulator.account}/agent-segments"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another task does, at most two seconds."""
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to pass")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def day() -> Dataset:
    """1,200 segments of the day before noon."""
    return Dataset(segments=1200, start=NOON_MS - DAY_MS, end=NOON_MS)


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with aiohttp.ClientSession(auto_decompress=True) as session:
        yield Asker(session)
