"""Night after night into one folder, on a clock of its own, against what is truly there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from segment_fetch import BearerToken, InputError, SegmentClient
from segment_fetch.events import Event, Warned
from segment_fetch.manifest.commit_log import Change, changed
from segment_fetch.simulator import Dataset, Drift, Simulator
from segment_fetch.sinks import CsvSink, JsonlSink, Sink
from segment_fetch.timerange import to_ms
from segment_fetch.windows import planning
from tests.support_runs import AT_ONCE

HOUR = 3_600_000
DAY = 24 * HOUR
FIRST = to_ms(datetime(2026, 10, 1, tzinfo=UTC))


class World:
    """A simulator and a clock, and syncs of them into a folder."""

    def __init__(
        self, folder: Path, dataset: Dataset, sink: Callable[[Path], Sink[Any]] = JsonlSink, **options: Any
    ) -> None:
        self.now_ms = FIRST + DAY
        self.folder = folder
        self.sink = sink
        self.events: list[Event] = []
        self.settle_after = timedelta(hours=24, minutes=15)
        self.simulator = Simulator(dataset, clock=lambda: self.now_ms / 1000, **options)

    async def sync(self, start: int | None = FIRST, **options: Any) -> Any:
        settings: dict[str, Any] = {"rate": None, "retry": AT_ONCE, "on_event": self.events.append}
        client = SegmentClient(
            self.simulator.account,
            auth=BearerToken("sync"),
            source="sync",
            base_url=self.simulator.base_url,
            clock=lambda: self.now_ms / 1000,
            settle_after=self.settle_after,
            **settings,
        )
        self.simulator.stats.log.clear()
        async with client:
            return await client.sync(self.sink(self.folder), start, **options)

    def ids(self) -> list[str]:
        lines = [line for name, data in self.files().items() if name.endswith(".jsonl") for line in data.splitlines()]
        return [json.loads(line)["segmentId"] for line in lines]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.glob("segments-*"))}

    def windows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "manifest.json").read_text())["windows"]
        return found

    def truth(self, end: int | None = None) -> list[str]:
        return sorted(self.simulator.ids(FIRST, self.now_ms if end is None else end))

    def pages(self) -> int:
        return sum(record.query.limit > 1 for record in self.simulator.stats.log if record.query)


def month(segments: int = 3_000) -> Dataset:
    return Dataset(segments=segments, start=FIRST, end=FIRST + 34 * DAY, seed=5)


async def test_a_month_of_nights_with_late_rows_ends_equal_to_the_truth(tmp_path: Path) -> None:
    world = World(tmp_path, month(), drift=Drift(late_share=0.05, late_delay_s=23 * 3600))
    chance = random.Random(7)
    async with world.simulator:
        for night in range(1, 31):
            world.now_ms = FIRST + night * DAY + 2 * HOUR + chance.randrange(HOUR)
            report = await world.sync()
            assert report.complete
            assert len(world.ids()) == len(set(world.ids()))
        world.now_ms += 3 * DAY
        await world.sync()
        assert sorted(world.ids()) == world.truth()
        days = world.windows()
    assert [day["status"] for day in days][:-2] == ["complete"] * (len(days) - 2)
    assert all(day["to"].endswith("T00:00:00Z") for day in days[:-1])


async def test_a_night_reads_what_is_new_and_counts_what_was_provisional(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = FIRST + 3 * DAY + 2 * HOUR
        await world.sync()
        assert [window["status"] for window in world.windows()] == ["complete"] * 2 + ["provisional"] * 2
        world.now_ms += DAY
        report = await world.sync()
        asked = [record.query for record in world.simulator.stats.log if record.query]
        counted = [query.start for query in asked if query.limit == 1]
        assert counted == [FIRST + 2 * DAY]  # the day after that is read again as it was not over
        assert sorted({query.start for query in asked if query.limit > 1}) == [FIRST + 3 * DAY, FIRST + 4 * DAY]
    assert report.settled == 1
    assert (report.added, report.removed) == (0, 0)
    assert [window["status"] for window in world.windows()][:4] == ["complete"] * 3 + ["provisional"]


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
async def test_only_a_day_that_changed_is_read_again_and_the_changes_are_reported(
    tmp_path: Path, sink: Callable[[Path], Sink[Any]]
) -> None:
    world = World(tmp_path, month(), sink)
    async with world.simulator:
        world.now_ms = FIRST + 6 * DAY
        await world.sync()
        before = {window["from"]: window.get("sha256") for window in world.windows()}
        day = FIRST + 5 * DAY
        for minute in (10, 20, 30):
            world.simulator.insert(day + minute * 60_000)
        world.simulator.remove(world.simulator.ids(day, day + DAY)[7])
        world.now_ms = FIRST + 7 * DAY
        report = await world.sync()
    assert (report.added, report.removed) == (3, 1)
    changed_days = {w["from"] for w in world.windows() if before.get(w["from"], w["sha256"]) != w["sha256"]}
    assert changed_days == {"2026-10-06T00:00:00Z"}


async def test_a_second_sync_at_the_same_moment_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = FIRST + 5 * DAY
        await world.sync()
        first = world.files()
        report = await world.sync()
        assert world.pages() == 0
    assert report.segments == 0
    assert world.files() == first


async def test_a_pause_longer_than_a_month_is_named_with_what_is_lost(tmp_path: Path) -> None:
    world = World(tmp_path, Dataset(segments=4_000, start=FIRST, end=FIRST + 80 * DAY, seed=5))
    async with world.simulator:
        world.now_ms = FIRST + 10 * DAY
        assert (await world.sync()).complete
        world.now_ms = FIRST + 60 * DAY
        report = await world.sync()
        lost = "2026-10-11T00:00:00Z to 2026-10-30T00:01:00Z"
        assert report.lost == (lost,)
        assert not report.complete
        assert [event.message for event in world.events if isinstance(event, Warned)] == [
            f"{lost} is no longer available: the API serves only the last month"
        ]
        world.now_ms += HOUR
        again = await world.sync()
        assert again.complete
        assert again.lost == ()


async def test_a_longer_settle_margin_reopens_what_it_would_not_have_settled_and_a_shorter_one_settles(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = FIRST + 6 * DAY
        await world.sync()
        assert [window["status"] for window in world.windows()] == ["complete"] * 4 + ["provisional"] * 2
        world.settle_after = timedelta(hours=72)
        world.now_ms += HOUR
        world.simulator.insert(FIRST + 4 * DAY + HOUR)  # 48 hours late
        report = await world.sync()
        assert sorted(
            query.start for record in world.simulator.stats.log if (query := record.query) and query.limit == 1
        ) == [FIRST + day * DAY for day in (3, 4, 5)]
        assert (report.settled, report.added, report.complete) == (0, 1, True)
        assert [window["status"] for window in world.windows()] == ["complete"] * 3 + ["provisional"] * 4
        assert sorted(world.ids()) == world.truth()
        assert json.loads((tmp_path / "manifest.json").read_text())["settle_after_ms"] == 72 * HOUR
        world.settle_after = timedelta(0)
        report = await world.sync()
        assert report.settled == 3
        assert [window["status"] for window in world.windows()] == ["complete"] * 7


async def test_a_longer_settle_margin_leaves_what_the_api_no_longer_serves(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = FIRST + 6 * DAY
        await world.sync()
        world.now_ms = FIRST + 33 * DAY + HOUR
        world.settle_after = timedelta(days=31)
        await world.sync()
        statuses = {window["from"]: window["status"] for window in world.windows()}
    assert [statuses[f"2026-10-0{day}T00:00:00Z"] for day in (1, 2, 3, 4)] == ["complete"] * 3 + ["provisional"]


async def test_days_are_those_of_the_time_zone_through_the_end_of_summer_time(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = to_ms(datetime(2026, 10, 28, 12, tzinfo=UTC))
        await world.sync(to_ms(datetime(2026, 10, 23, 22, tzinfo=UTC)), timezone="Europe/Berlin")
    midnights = [window["from"] for window in world.windows()]
    assert midnights == [
        "2026-10-23T22:00:00Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T23:00:00Z",
        "2026-10-26T23:00:00Z",
        "2026-10-27T23:00:00Z",
    ]


async def test_an_interrupted_night_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        world.now_ms = FIRST + 8 * DAY
        await world.sync()
        (tmp_path / list(world.files())[3]).unlink()
        report = await world.sync()
        assert report.complete
        assert sorted(world.ids()) == world.truth()


async def test_bad_input_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    world = World(tmp_path, month())
    async with world.simulator:
        with pytest.raises(InputError, match="the time to begin at"):
            await world.sync(None)
        with pytest.raises(InputError, match="IANA"):
            await world.sync(timezone="Mars/Olympus")
        with pytest.raises(InputError, match="only the last month"):
            await world.sync(FIRST - 60 * DAY)
        assert world.simulator.stats.requests == 0


def test_days_cover_a_range_without_gap_and_begin_at_midnight() -> None:
    zone = ZoneInfo("America/New_York")
    start, end = to_ms(datetime(2026, 10, 25, 7, 30, tzinfo=UTC)), to_ms(datetime(2026, 11, 4, 1, tzinfo=UTC))
    days = planning.days(start, end, zone)
    assert days[0].start == start
    assert days[-1].end == end
    assert all(one.end == other.start for one, other in pairwise(days))
    assert {datetime.fromtimestamp(day.end / 1000, zone).hour for day in days[:-1]} == {0}
    assert 25 * HOUR in {day.end - day.start for day in days}


def test_changes_are_counted_between_two_ordered_readings() -> None:
    before = [(1, "a"), (1, "c"), (2, "b"), (5, "x")]
    after = [(1, "a"), (1, "b"), (2, "b"), (3, "q"), (5, "y")]
    assert changed(before, after) == Change(added=3, removed=2)
    assert changed([], after) == Change(added=5, removed=0)
    assert changed(before, []) == Change(added=0, removed=4)
