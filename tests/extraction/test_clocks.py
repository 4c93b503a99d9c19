"""Clocks that are wrong, the local one or a `Date` header: nothing settles too early, and every run says so once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import BearerToken, InputError, SegmentClient
from segment_fetch.events import Event, Warned
from segment_fetch.integrations.bookmark import steps
from segment_fetch.simulator import Dataset, Drift, Simulator
from segment_fetch.sinks import DuckDbSink, JsonlSink, ParquetSink, Sink
from segment_fetch.timerange import CLAMP_MARGIN_MS, oldest_start, settled_before
from tests.support import ACCOUNT, Asked, http, page_body, raw_server, row
from tests.support_runs import AT_ONCE, DAY_MS, HOUR_MS, NOW, NOW_MS, client, rows, served

FIRST = NOW_MS - 5 * DAY_MS
SKEWS = [90, 3_600, 3 * 86_400, -90, -3_600, -3 * 86_400]
RIGHT = "Fri, 06 Nov 2026 21:20:00 GMT"
"""NOW, as a header."""
DATES: dict[str, bytes] = {
    "right": f"Date: {RIGHT}".encode(),
    "three days ahead": b"Date: Mon, 09 Nov 2026 21:20:00 GMT",
    "years ahead": b"Date: Sat, 06 Nov 2066 21:20:00 GMT",
    "so far ahead that it has no year in UTC": b"Date: Fri, 31 Dec 9999 23:59:59 -0100",
    "unparsable": b"Date: yesterday",
    "missing": b"X-Date: none",
    "two, the first ahead": f"Date: Mon, 09 Nov 2026 21:20:00 GMT\r\nDate: {RIGHT}".encode(),
    "two, the second ahead": f"Date: {RIGHT}\r\nDate: Mon, 09 Nov 2026 21:20:00 GMT".encode(),
    "of a western zone": b"Date: Fri, 06 Nov 2026 13:20:00 -0800",
    "in lower case": b"date: fri, 06 nov 2026 21:20:00 gmt",
}


def at(skew: float) -> Callable[[], float]:
    return lambda: NOW + skew


def days(segments: int = 900, last: int = NOW_MS + 20 * DAY_MS) -> Dataset:
    return Dataset(segments=segments, start=FIRST, end=last, seed=3)


def skew_warnings(events: list[Event]) -> int:
    return sum(isinstance(event, Warned) and "clock of this machine" in event.message for event in events)


def sinks(folder: Path) -> list[Sink[Any]]:
    return [JsonlSink(folder / "jsonl"), ParquetSink(folder / "parquet"), DuckDbSink(folder / "one.duckdb")]


@pytest.mark.parametrize("skew", SKEWS)
async def test_only_what_is_settled_by_both_clocks_is_complete_and_a_skew_is_said_once(
    tmp_path: Path, skew: int
) -> None:
    settled = settled_before(NOW_MS + min(skew, 0) * 1000)
    async with served(days()) as simulator:
        for sink in sinks(tmp_path):
            events: list[Event] = []
            async with client(simulator, clock=at(skew), on_event=events.append) as one:
                report = await one.sync(sink, FIRST)
            assert report.complete
            assert skew_warnings(events) == 1
            assert all(entry.window.end <= settled for entry in report.windows if entry.status == "complete")
            assert sum(entry.status == "complete" for entry in report.windows) >= 1


@pytest.mark.parametrize("skew", SKEWS)
async def test_nights_after_one_with_a_wrong_clock_read_all_there_is(tmp_path: Path, skew: int) -> None:
    now = [NOW]
    data, drift = days(), Drift(late_share=0.2, late_delay_s=20 * 3600)
    async with Simulator(data, clock=lambda: now[0], drift=drift) as simulator:
        async with client(simulator, clock=at(skew)) as one:
            await one.sync(JsonlSink(tmp_path), FIRST)
        for night in range(1, 7):
            now[0] = NOW + night * 86_400
            async with client(simulator, clock=lambda: now[0]) as one:
                assert (await one.sync(JsonlSink(tmp_path))).complete
        final = settled_before(int(now[0] * 1000))
        due = sorted(simulator.ids(FIRST, final))
    assert sorted(each["segmentId"] for each in rows(tmp_path) if each["endTimeL"] < final) == due


@pytest.mark.parametrize("skew", SKEWS)
async def test_a_clock_that_is_always_wrong_starves_nothing(tmp_path: Path, skew: int) -> None:
    now = [NOW]
    async with Simulator(days(), clock=lambda: now[0]) as simulator:
        for night in range(7):
            now[0] = NOW + night * 86_400
            events: list[Event] = []
            async with client(simulator, clock=lambda: now[0] + skew, on_event=events.append) as one:
                assert (await one.sync(JsonlSink(tmp_path), FIRST if not night else None)).complete
            assert skew_warnings(events) == 1
        seen = int((now[0] + min(skew, 0)) * 1000)
        due = sorted(simulator.ids(FIRST, seen))
    assert sorted(each["segmentId"] for each in rows(tmp_path) if each["endTimeL"] < seen) == due


async def test_a_range_in_the_servers_future_is_never_success(tmp_path: Path) -> None:
    async with served(days()) as simulator, client(simulator, clock=at(3 * 86_400)) as one:
        with pytest.raises(InputError, match="the range starts in the future"):
            await one.count("now-1d", "now")
        with pytest.raises(InputError, match="the range starts in the future"):
            await one.plan("now-1d", "now")
        with pytest.raises(InputError, match="the range starts in the future"):
            await one.extract("now-1d", "now", JsonlSink(tmp_path / "extract"))
        with pytest.raises(InputError, match="the range starts in the future"):
            await one.sync(JsonlSink(tmp_path / "sync"), "now-1d")
        with pytest.raises(InputError, match="the range starts in the future"):
            async with aclosing(one.stream("now-1d", "now")) as batches:
                assert [batch async for batch in batches] == []
        with pytest.raises(InputError, match="the range starts in the future"):
            async with aclosing(one.windows("now-1d", "now", list)) as reads:
                assert [read async for read in reads] == []
    for folder in ("extract", "sync"):
        assert not list((tmp_path / folder).glob("segments-*"))


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("others", ["right", "same"])
@pytest.mark.parametrize("skew", [0, 3 * 86_400])
async def test_a_wrong_date_settles_nothing_and_moves_no_bookmark_too_far(
    tmp_path: Path, date: str, others: str, skew: int
) -> None:
    """The first window's answer is right, so that the clocks are known; then one, or each, has the date."""
    if skew and (others == "same" or "ahead" in date):
        return  # both clocks are wrong: nothing says so
    asked: list[Asked] = []

    def respond(one: Asked) -> bytes:
        asked.append(one)
        strange = len(asked) == 2 if others == "right" else len(asked) > 1
        answer = http(200, page_body(row(NOW_MS - 2 * HOUR_MS)) if len(asked) > 1 else page_body(), Date="@")
        return answer.replace(b"Date: @", DATES[date if strange else "right"])

    async with raw_server(respond) as raw:
        settings: dict[str, Any] = {"base_url": raw.url, "rate": None, "retry": AT_ONCE, "connections": 1}
        one = SegmentClient(ACCOUNT, auth=BearerToken("x"), source="odd", clock=at(skew), **settings)
        start = NOW_MS - 9 * DAY_MS
        last = None
        async with aclosing(steps(one, None, start, list)) as found:
            async for last in found:
                if last.read.window.end > settled_before(NOW_MS):
                    assert last.read.status != "complete"
    assert last is not None
    assert last.bookmark <= settled_before(NOW_MS)


@pytest.mark.parametrize("skew", SKEWS)
async def test_a_start_is_clamped_to_the_month_of_the_server(tmp_path: Path, skew: int) -> None:
    old = Dataset(segments=2_000, start=NOW_MS - 40 * DAY_MS, end=NOW_MS - 20 * DAY_MS, seed=3)
    async with served(old) as simulator:
        async with client(simulator, clock=at(skew)) as one:
            report = await one.extract(NOW_MS - 40 * DAY_MS, NOW_MS - 20 * DAY_MS, JsonlSink(tmp_path), clamp=True)
        due = sorted(simulator.ids(oldest_start(NOW_MS) + 2 * CLAMP_MARGIN_MS, old.end))
    assert report.complete
    assert {each["segmentId"] for each in rows(tmp_path)} >= set(due)
