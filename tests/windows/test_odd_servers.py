"""Servers that break or stretch the specification, over real sockets: nothing is called complete that is not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from segment_fetch import BearerToken, RetryPolicy, SegmentClient
from segment_fetch.extraction.report import Report
from segment_fetch.manifest.verify import audit
from segment_fetch.query import Window
from segment_fetch.sinks import JsonlSink
from segment_fetch.timerange import format_time
from segment_fetch.windows.planning import pages
from tests.support import ACCOUNT, Asked, RawServer, http, raw_server
from tests.support_runs import DAY_MS, END, NOW, START, rows

Row = dict[str, Any]
Rows = list[Row]
AT_ONCE = RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, jitter=0.0)
DATE = "Fri, 06 Nov 2026 21:20:05 GMT"


def spread(count: int, start: int = START, end: int = END) -> Rows:
    """Rows at even distances, newest first."""
    step = (end - start) // (count + 1)
    return [{"segmentId": f"s{at}", "endTimeL": end - (at + 1) * step, "agentId": at} for at in range(count)]


class Server:
    """Answers from its rows in a dress of its own."""

    def __init__(self, found: Rows, *, limit: int = 500, cap: int | None = None, links: str = "more") -> None:
        self.rows = found
        self.limit = limit
        self.cap = cap
        self.links = links
        self.ascending = self.text_counts = self.exclusive = self.references_first = False
        self.lag = 0
        self.refuses_beyond: int | None = None
        self.frame: Callable[[int, int], Any] = lambda start, end: {"startTimeL": start, "endTimeL": end}
        self.date = DATE

    def __call__(self, asked: Asked) -> bytes:
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.path).query).items()}
        start, end = int(query["fromMillis"]), int(query["toMillis"])
        offset, limit = int(query["offset"]), min(int(query["limit"]), self.limit)
        frame = self.frame(start, end)
        if frame is not None and "endTimeL" in frame and self.narrows:
            start, end = max(start, frame["startTimeL"]), min(end, frame["endTimeL"])
        found = [row for row in self.rows if start <= row["endTimeL"] <= end - self.exclusive]
        found.sort(key=lambda row: row["endTimeL"] * (1 if self.ascending else -1))
        part = found[offset : offset + limit]
        count: Any = max(0, min(len(found), self.cap or len(found)) - self.lag)
        if self.refuses_beyond is not None and offset + limit > self.refuses_beyond:
            return http(400, json.dumps({"message": "offset", "causes": ["offset: too deep"]}), Date=self.date)
        has_next = offset + len(part) < len(found)
        linked = self.links == "always" or (self.links == "more" and has_next)
        references = [{"rel": "self", "href": "x"}, *([{"rel": "next", "href": "x"}] if linked else [])]
        pagination = {"count": str(count) if self.text_counts else count, "references": references}
        if self.references_first:
            pagination = dict(reversed(pagination.items()))
        body = (
            {"pagination": pagination, "segments": part}
            if self.references_first
            else {"segments": part, "pagination": pagination}
        )
        return http(200, json.dumps(body | ({} if frame is None else {"timeframe": frame})), Date=self.date)

    narrows = False


async def extract(
    server: Server, folder: Path, start: int = START, end: int = END, **options: Any
) -> tuple[Report, RawServer]:
    async with raw_server(server) as raw:
        defaults = {"rate": None, "retry": AT_ONCE, "clock": lambda: NOW}
        client = SegmentClient(ACCOUNT, auth=BearerToken("x"), source="odd", base_url=raw.url, **(defaults | options))
        async with client:
            return await client.extract(start, end, JsonlSink(folder)), raw


def ids(folder: Path) -> list[str]:
    return sorted(row["segmentId"] for row in rows(folder))


def reasons(report: Report) -> str:
    return "; ".join(f"{entry.reason}" for entry in report.unproven)


async def test_two_rows_of_one_id_on_one_page_leave_the_window_unproven_and_are_named(tmp_path: Path) -> None:
    found = spread(1_200)
    found[7] = found[6] | {"endTimeL": found[7]["endTimeL"], "agentId": 99}
    report, raw = await extract(Server(found), tmp_path)
    assert not report.complete
    assert "'s6'" in reasons(report)
    assert len(raw.asked) <= 64 + 3


async def test_two_rows_of_one_id_on_two_pages_leave_it_unproven_too(tmp_path: Path) -> None:
    found = spread(1_200)
    found[900] = found[6] | {"endTimeL": found[900]["endTimeL"]}
    report, raw = await extract(Server(found), tmp_path)
    assert not report.complete
    assert "s6" in reasons(report)
    assert len(raw.asked) <= 64 + 20


async def test_a_server_whose_rows_all_have_one_id_never_hangs(tmp_path: Path) -> None:
    found = [row | {"segmentId": "same"} for row in spread(1_200)]
    report, raw = await extract(Server(found), tmp_path)
    assert not report.complete
    assert "'same'" in reasons(report)
    assert len(raw.asked) <= 64 + 3


@pytest.mark.parametrize("links", ["more", "always"])
async def test_a_capped_count_divides_the_window_until_nothing_is_missing(tmp_path: Path, links: str) -> None:
    found = spread(2_500)
    report, _ = await extract(Server(found, cap=1_000, links=links), tmp_path)
    assert report.complete
    assert ids(tmp_path) == sorted(row["segmentId"] for row in found)


async def test_a_narrower_time_frame_is_never_taken_for_the_window(tmp_path: Path) -> None:
    found, middle = spread(1_200), (START + END) // 2
    server = Server(found)
    server.narrows = True
    server.frame = lambda start, end: {"startTimeL": max(start, middle), "endTimeL": max(end, middle)}
    report, _ = await extract(server, tmp_path)
    assert not report.complete
    assert [entry.window for entry in report.unproven] == [Window(START, middle)]
    assert ids(tmp_path) == sorted(row["segmentId"] for row in found if row["endTimeL"] >= middle)


@pytest.mark.parametrize("count", [501, 1_001, 997, 999])
@pytest.mark.parametrize("age", [0, 3 * DAY_MS])
async def test_a_count_that_lags_by_one_is_noticed(tmp_path: Path, count: int, age: int) -> None:
    end = int(NOW * 1000) - age
    server = Server(spread(count, end - DAY_MS, end))
    server.lag = 1
    report, _ = await extract(server, tmp_path, end - DAY_MS, end)
    assert not report.complete
    assert "own count" in reasons(report)


FRAMES: dict[str, Callable[[int, int], Any]] = {
    "exact": lambda start, end: {"startTimeL": start, "endTimeL": end},
    "none": lambda start, end: None,
    "in text, to the second": lambda start, end: {"startTime": shown(start), "endTime": shown(end)},
    "with offsets": lambda start, end: {"startTime": shown(start, 3), "endTime": shown(end, 3)},
    "to the second": lambda start, end: {"startTimeL": start // 1000 * 1000, "endTimeL": end // 1000 * 1000},
}


def shown(ms: int, hours: int = 0) -> str:
    text = format_time((ms + hours * 3_600_000) // 1000 * 1000)
    return text.replace("Z", f"+0{hours}:00") if hours else text


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("ascending", [False, True], ids=["newest first", "oldest first"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("links", ["more", "always", "never"])
async def test_a_healthy_server_is_read_exactly_in_every_dress(
    tmp_path: Path, links: str, frame: str, ascending: bool, tied: bool
) -> None:
    start, end = START + 123, END - 345
    for turn, count in enumerate((0, 1, 499, 500, 501, 998, 1_000, 1_499), start=len(links + frame) + tied):
        server = Server(spread(count, start, end), links=links)
        server.frame, server.ascending = FRAMES[frame], ascending
        # Over the counts and the other dresses, each of these goes with each of the others.
        server.exclusive, server.text_counts, server.references_first = bool(turn & 1), bool(turn & 2), bool(turn & 4)
        for edge in (498, 500, 996, 1_000) if tied else ():
            for tie in server.rows[edge - 1 : edge + 2]:
                tie["endTimeL"] = server.rows[edge - 1]["endTimeL"]
        report, raw = await extract(server, tmp_path / str(count), start, end)
        assert report.complete
        assert report.duplicates == 0
        assert ids(tmp_path / str(count)) == sorted(row["segmentId"] for row in server.rows)
        assert len(raw.asked) <= (pages(count, 500) if not tied else -(-count // 498) + 1) + 1


async def test_links_that_always_go_on_cost_one_request_a_run(tmp_path: Path) -> None:
    server = Server(spread(3_000, NOW_MS - 27 * DAY_MS, NOW_MS - 3 * DAY_MS), links="always")
    report, raw = await extract(server, tmp_path, NOW_MS - 27 * DAY_MS, NOW_MS - 3 * DAY_MS)
    assert report.complete
    assert len(raw.asked) == sum(entry.pages for entry in report.windows) + 1


NOW_MS = int(NOW * 1000)


async def test_a_segment_that_is_always_in_two_windows_leaves_both_unproven(tmp_path: Path) -> None:
    found = spread(300)
    found[290] = found[3] | {"endTimeL": found[290]["endTimeL"]}
    report, _ = await extract(Server(found), tmp_path, window=timedelta(days=3))
    assert [(entry.status, "segmentId" in str(entry.reason)) for entry in report.windows] == [("unproven", True)] * 2
    assert not report.complete


async def test_a_segment_that_changes_its_window_during_a_run_is_in_one_of_them_in_the_end(tmp_path: Path) -> None:
    server = Server(spread(300))
    moved = server.rows[290]

    class Moving(Server):
        def __call__(self, asked: Asked) -> bytes:
            answer = server(asked)
            if int(parse_qs(urlsplit(asked.path).query)["fromMillis"][0]) == START:
                server.rows[290] = moved | {"endTimeL": END - 1_000}
            return answer

    report, _ = await extract(Moving([]), tmp_path, window=timedelta(days=3), connections=1)
    assert report.complete
    assert ids(tmp_path) == sorted(row["segmentId"] for row in server.rows)


@pytest.mark.parametrize("date", ["Tue, 10 Nov 2026 06:40:00 GMT", "Fri, 31 Dec 9999 23:59:59 -0100"])
async def test_a_date_header_that_is_ahead_settles_nothing(tmp_path: Path, date: str) -> None:
    server = Server(spread(20, NOW_MS - DAY_MS, NOW_MS))
    server.date = date
    report, _ = await extract(server, tmp_path, NOW_MS - DAY_MS, NOW_MS)
    assert [entry.status for entry in report.windows] == ["provisional"]


async def test_a_local_clock_that_is_ahead_settles_nothing_and_is_said_once(tmp_path: Path) -> None:
    server, said = Server(spread(20, NOW_MS - DAY_MS, NOW_MS)), []
    ahead = NOW + 3 * 86_400
    report, _ = await extract(
        server, tmp_path, NOW_MS - DAY_MS, NOW_MS, clock=lambda: ahead, on_event=lambda event: said.append(str(event))
    )
    assert [entry.status for entry in report.windows] == ["provisional"]
    assert sum("ahead of the server's" in each for each in said) == 1


@pytest.mark.parametrize("faulty", [1, 5, 9])
async def test_time_frames_that_change_with_each_answer_do_not_end_a_run_at_its_first_page(
    tmp_path: Path, faulty: int
) -> None:
    server, asked = Server(spread(600)), iter(range(1_000))
    server.narrows = True

    def frame(start: int, end: int) -> dict[str, int]:
        at = next(asked)
        cut = start + (end - start) * (at + 1) // 20 if at < faulty else start
        return {"startTimeL": cut, "endTimeL": end}

    server.frame = frame
    retry = RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, parked=(0.0, 0.0), jitter=0.0)
    report, raw = await extract(server, tmp_path, retry=retry)
    assert report.complete
    assert len(raw.asked) == 2 + faulty


@pytest.mark.parametrize("age", [0, 3 * DAY_MS])
@pytest.mark.parametrize("lag", [2, 3, 19])
async def test_a_count_that_lags_by_more_is_noticed(tmp_path: Path, age: int, lag: int) -> None:
    end = NOW_MS - age
    server = Server(spread(1_000 + lag, end - DAY_MS, end))
    server.lag = lag
    report, _ = await extract(server, tmp_path, end - DAY_MS, end)
    assert not report.complete or report.segments == 1_000 + lag


@pytest.mark.parametrize("cap", [500, 1_000, 1_499])
@pytest.mark.parametrize("links", ["more", "always", "never"])
async def test_a_count_that_stops_anywhere_loses_no_row(tmp_path: Path, cap: int, links: str) -> None:
    found = spread(3_700)
    report, _ = await extract(Server(found, cap=cap, links=links), tmp_path)
    assert not report.complete or ids(tmp_path) == sorted(row["segmentId"] for row in found)
    assert report.complete or links == "never"


@pytest.mark.parametrize("edge", ["start", "end", "both"])
async def test_a_frame_that_is_narrower_at_either_end_costs_that_end_alone(tmp_path: Path, edge: str) -> None:
    found = spread(1_200)
    low = START + DAY_MS if edge != "end" else START
    high = END - DAY_MS if edge != "start" else END
    server = Server(found)
    server.narrows = True
    server.frame = lambda start, end: {
        "startTimeL": min(max(start, low), max(end, low)),
        "endTimeL": max(min(end, high), min(start, high)),
    }
    report, _ = await extract(server, tmp_path)
    assert not report.complete
    due = {row["segmentId"] for row in found if low <= row["endTimeL"] < high}
    assert set(ids(tmp_path)) == due


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("age", [0, 3 * DAY_MS])
async def test_1_200_rows_on_one_millisecond_in_random_order_are_proven(
    tmp_path: Path, age: int, ascending: bool
) -> None:
    end, chance = NOW_MS - age, random.Random(7)
    found = spread(1_500, end - DAY_MS, end)
    for row in found[100:1_300]:
        row["endTimeL"] = found[700]["endTimeL"]

    class Shuffling(Server):
        def __call__(self, asked: Asked) -> bytes:
            chance.shuffle(self.rows)
            return super().__call__(asked)

    server = Shuffling(found)
    server.ascending = ascending
    report, raw = await extract(server, tmp_path, end - DAY_MS, end)
    assert report.complete
    assert len(rows(tmp_path)) == 1_500
    assert len(raw.asked) < 100


@pytest.mark.parametrize("count", [30, 100])
async def test_rows_that_swap_in_a_settled_window_lose_no_lasting_one(tmp_path: Path, count: int) -> None:
    for at in (2, 3, 4):
        server = Server(spread(2_500))
        lasting = {row["segmentId"] for row in server.rows}
        chance, asked = random.Random(at), iter(range(1, 1_000))

        class Swapping(Server):
            def __call__(self, one: Asked) -> bytes:
                if next(asked) == at:  # noqa: B023 - called within the turn of the loop
                    for number in range(count):
                        row = chance.choice(server.rows)  # noqa: B023
                        server.rows.remove(row)  # noqa: B023
                        lasting.discard(row["segmentId"])  # noqa: B023
                        server.rows.append({"segmentId": f"n{number}", "endTimeL": chance.randrange(START, END)})  # noqa: B023
                return server(one)  # noqa: B023

        report, _ = await extract(Swapping([]), tmp_path / str(at))
        assert report.complete
        assert lasting <= set(ids(tmp_path / str(at)))


async def test_an_id_in_windows_that_are_not_neighbours_is_found_by_verify(tmp_path: Path) -> None:
    found = spread(600)
    found[590] = found[3] | {"endTimeL": found[590]["endTimeL"]}
    await extract(Server(found), tmp_path, window=timedelta(days=1))
    found_out = audit(tmp_path)
    assert not found_out.sound
    assert "s3" in str(found_out.findings)


async def test_a_clean_window_counts_no_duplicates_and_its_accepted_pages_alone(tmp_path: Path) -> None:
    server, broken = Server(spread(1_200)), iter([1])
    server_page = server.__call__

    class Faulty(Server):
        def __call__(self, asked: Asked) -> bytes:
            server.lag = 1 if "offset=498" in asked.path and next(broken, None) else 0
            return server_page(asked)

    report, raw = await extract(Faulty([]), tmp_path)
    assert (report.complete, report.duplicates) == (True, 0)
    assert [entry.pages for entry in report.windows] == [3]
    assert len(raw.asked) == 4
