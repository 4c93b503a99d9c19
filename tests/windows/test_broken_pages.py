"""Pages that are broken or refused in the same way each time: the smallest range with the fault is left out and named,
everything else is read, over real sockets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from segment_fetch.errors import InconsistentError, RequestRefusedError, SchemaError
from segment_fetch.extraction.report import Report
from segment_fetch.windows.planning import pages
from tests.support import Asked, http
from tests.support_runs import DAY_MS
from tests.windows.test_odd_servers import DATE, NOW_MS, Rows, Server, extract, ids, reasons, spread

BAD = b'"s777"'


def put(new: bytes) -> Callable[[bytes], bytes]:
    """Faults that break a page of the row s777."""
    return lambda body: body.replace(BAD, BAD + new)


def time(value: bytes) -> Callable[[bytes], bytes]:
    return lambda body: re.sub(rb'("s777", "endTimeL": )\d+', rb"\g<1>" + value, body)


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a lone surrogate": (put(b', "employeeId": "a\\ud800b"'), "employeeId"),
    "a control character": (put(b', "conversationId": "a\x01b"'), "conversationId"),
    "latin-1": (put(b', "employeeId": "J\xf6rg"'), "employeeId"),
    "NaN": (put(b', "skillId": NaN'), "skillId"),
    "Infinity": (put(b', "groupId": -Infinity'), "groupId"),
    "an unknown field that is broken": (put(b', "newField": "\x02"'), "newField"),
    "a field of another type": (put(b', "skillId": {}'), "skillId"),
    "no close time": (time(b"null"), "endTimeL"),
    "half a millisecond": (time(b"1.5"), "endTimeL"),
    "the year 1970": (time(b"0"), "close time 0"),
    "a time far ahead": (time(b"99999999999999"), "close time 99999999999999"),
    "an id that is a number": (lambda body: body.replace(BAD, b"777"), "segmentId"),
}


class Broken(Server):
    """Breaks each page that has the row s777, or another."""

    def __init__(self, found: Rows, how: Callable[[bytes], bytes]) -> None:
        super().__init__(found)
        self.how = how

    def __call__(self, asked: Asked) -> bytes:
        body = super().__call__(asked).partition(b"\r\n\r\n")[2]
        return http(200, self.how(body), Date=self.date)


def lost(report: Report, found: Rows, folder: Path) -> set[str]:
    assert not report.complete
    missing = {row["segmentId"] for row in found} - set(ids(folder))
    assert len(report.unproven) == 1
    assert report.segments == len(found) - len(missing)
    return missing


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_row_that_breaks_its_page_costs_itself_alone_and_is_named(
    tmp_path: Path, kind: str, ascending: bool
) -> None:
    how, field = BROKEN[kind]
    server = Broken(spread(2_500), how)
    server.ascending = ascending
    report, raw = await extract(server, tmp_path)
    assert lost(report, server.rows, tmp_path) == {"s777"}
    assert field in reasons(report)
    assert ("s777" in reasons(report)) or kind.startswith(("the year", "a time", "an id"))
    assert {entry.code for entry in report.unproven} <= {SchemaError.code, InconsistentError.code}
    assert len(raw.asked) <= pages(2_500, 500) + 64
    assert sum(entry.pages for entry in report.windows) <= pages(2_500, 500) + 3, "none of them counts but the last"


@pytest.mark.parametrize("bad", [0, 1, 499, 500, 2_499])
async def test_a_broken_row_is_found_wherever_it_is(tmp_path: Path, bad: int) -> None:
    name = f'"s{bad}"'.encode()
    server = Broken(spread(2_500), lambda body: body.replace(name, name + b', "skillId": NaN'))
    report, raw = await extract(server, tmp_path)
    assert lost(report, server.rows, tmp_path) == {f"s{bad}"}
    assert len(raw.asked) <= pages(2_500, 500) + 64


async def test_rows_beside_a_broken_one_in_its_millisecond_go_with_it_and_no_others(tmp_path: Path) -> None:
    found = spread(1_200)
    for at in (776, 777, 778):
        found[at]["endTimeL"] = found[777]["endTimeL"]
    report, raw = await extract(Broken(found, put(b', "skillId": NaN')), tmp_path)
    assert not report.complete
    assert set(ids(tmp_path)) >= {row["segmentId"] for row in found} - {"s776", "s777", "s778"}
    assert "s777" not in ids(tmp_path)
    assert len(raw.asked) <= pages(1_200, 500) + 2 * 64


async def test_a_few_broken_rows_of_a_window_are_each_left_out(tmp_path: Path) -> None:
    def how(body: bytes) -> bytes:
        return re.sub(rb'("s(?:50|51|900|1700)")', rb'\1, "skillId": NaN', body)

    found = spread(2_500)
    report, _ = await extract(Broken(found, how), tmp_path)
    assert not report.complete
    missing = {row["segmentId"] for row in found} - set(ids(tmp_path))
    assert missing >= {"s50", "s51", "s900", "s1700"}
    assert len(missing) <= 6


async def test_a_fault_of_every_page_is_given_up_after_three_windows(tmp_path: Path) -> None:
    server = Broken(spread(6_000), lambda body: re.sub(rb'"(s\d)', b'"\xe9\\1', body))
    report, raw = await extract(server, tmp_path, window=timedelta(hours=6))
    assert {entry.status for entry in report.windows} == {"unproven"}
    assert "as in 3 others" in reasons(report)
    assert len(raw.asked) <= 3 * 64 + 3 * 24


async def test_a_page_that_is_broken_once_is_asked_for_again(tmp_path: Path) -> None:
    broken = [put(b', "skillId": NaN'), put(b', "skillId": {}')]
    server = Broken(spread(1_200), lambda body: broken.pop()(body) if broken and BAD in body else body)
    report, raw = await extract(server, tmp_path)
    assert report.complete
    assert len(raw.asked) == pages(1_200, 500) + 2


class Refusing(Server):
    """Refuses deep pages, or those of the row s777."""

    status = 400
    body = b"{}"
    beyond: int | None = None

    def __call__(self, asked: Asked) -> bytes:
        answer = super().__call__(asked)
        limit, offset = (int(re.findall(rf"{name}=(\d+)", asked.path)[0]) for name in ("limit", "offset"))
        refused = BAD in answer if self.beyond is None else offset + limit > self.beyond
        return http(self.status, self.body, Date=DATE) if refused else answer


CAUSES = json.dumps({"message": "Bad request", "causes": ["offset: too deep"]}).encode()


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize("body", [CAUSES, b"<html>"])
@pytest.mark.parametrize("split_above", [2_000, 50_000])
async def test_a_server_that_refuses_deep_pages_is_read_in_narrower_windows(
    tmp_path: Path, body: bytes, ascending: bool, split_above: int
) -> None:
    server = Refusing(spread(5_000))
    server.beyond, server.body, server.ascending = 1_500, body, ascending
    report, raw = await extract(server, tmp_path, split_above=split_above)
    assert report.complete
    assert ids(tmp_path) == sorted(row["segmentId"] for row in server.rows)
    assert len(raw.asked) <= 3 * pages(5_000, 500) + 4 * 16


@pytest.mark.parametrize("age", [0, 3 * DAY_MS])
async def test_a_page_size_that_the_server_imposes_is_learned(tmp_path: Path, age: int) -> None:
    end = NOW_MS - age
    server = Server(spread(2_500, end - DAY_MS, end), limit=100)
    report, raw = await extract(server, tmp_path, end - DAY_MS, end)
    assert report.complete
    assert len(raw.asked) <= 2_500 / (100 - 20) + 8


async def test_a_page_size_that_a_refusal_names_is_learned(tmp_path: Path) -> None:
    class Strict(Server):
        def __call__(self, asked: Asked) -> bytes:
            if "limit=100&" in asked.path + "&":
                return super().__call__(asked)
            return http(400, json.dumps({"causes": ["limit: must be less than or equal to 100"]}), Date=DATE)

    report, raw = await extract(Strict(spread(1_200)), tmp_path)
    assert report.complete
    assert len(raw.asked) == pages(1_200, 100) + 1


async def test_a_page_size_that_shrinks_in_the_middle_of_a_run_is_learned(tmp_path: Path) -> None:
    class Shrinking(Server):
        def __call__(self, asked: Asked) -> bytes:
            self.asked += 1
            self.limit = 500 if self.asked < 4 else 100
            return super().__call__(asked)

        asked = 0

    server = Shrinking(spread(5_000))
    report, _ = await extract(server, tmp_path, window=timedelta(days=1), connections=1)
    missing = {entry.window for entry in report.unproven}
    assert len(report.unproven) <= 1
    assert report.segments >= 4_000, missing


@pytest.mark.parametrize("status", [302, 404, 409, 423])
async def test_a_page_that_is_refused_for_ever_costs_its_window_after_three_retries(
    tmp_path: Path, status: int
) -> None:
    server = Refusing(spread(6_000))
    server.status = status
    report, raw = await extract(server, tmp_path, window=timedelta(days=1))
    assert [str(status) in str(entry.reason) for entry in report.unproven] == [True]
    assert len(report.windows) == 6
    refused = [asked for asked in raw.asked if BAD in Server.__call__(server, asked)]
    assert len(refused) == 4


async def test_the_last_page_that_is_refused_for_ever_is_no_outage(tmp_path: Path) -> None:
    server = Refusing(spread(1_200))
    server.status = 404
    report, raw = await extract(server, tmp_path, connections=1)
    assert (report.complete, len(raw.asked)) == (False, 2 + 4)
    assert report.unproven[0].code != RequestRefusedError.code
