"""The reason for which a page takes the fallback is named, and reaches the report, the events and the command."""

import json
from pathlib import Path
from typing import Any

import pytest

from segment_fetch.events import Event, FastPathUnused, PageRead
from segment_fetch.sinks import JsonlSink
from segment_fetch.wire import raw_rows
from segment_fetch.wire.raw_rows import Uncompiled, scan_page, why_fallback
from tests.support import row
from tests.support_runs import END, START, client, served, settled
from tests.wire.test_raw_rows import FULL, compact, needs_the_scanner

PLAIN = compact(FULL)


def _changed(**fields: Any) -> bytes:
    return compact(FULL | fields)


def _spaced(body: bytes) -> bytes:
    return json.dumps(json.loads(body)).encode()


REASONS = {
    "new field": (PLAIN.replace(b'"agentId":', b'"mood":3,"agentId":'), "the field 'mood', which this version"),
    "no time": (PLAIN.replace(b'"endTimeL":5,', b""), "a row without endTimeL"),
    "order": (PLAIN.replace(b'"agentId":5,', b"").replace(b'"skillId":5', b'"skillId":5,"agentId":5'), "another order"),
    "twice": (PLAIN.replace(b'"agentId":5,', b'"agentId":5,"agentId":5,'), "another order than the documented one, or"),
    "type": (_changed(agentId="7"), "agentId that is not of the documented type"),
    "bool": (_changed(agentId=True), "agentId that is not of the documented type"),
    "null": (_changed(segmentId=None), "segmentId that is not of the documented type"),
    "digits": (_changed(agentId=10**18), "agentId with more than 18 digits"),
    "escape": (_changed(employeeId='a"b'), "an escape sequence"),
    "spaces": (PLAIN.replace(b'"agentId":5', b'"agentId": 5'), "white space between the values"),
    "newline": (PLAIN.replace(b"[{", b"[\n{"), "white space between rows"),
    "spaced": (_spaced(PLAIN), "white space around it"),
    "rising": (compact(FULL, FULL | {"endTimeL": 9}), "not sorted by close time"),
    "around": (PLAIN.replace(b'"count"', b'"co\\u0075nt"'), "what surrounds the segments"),
    "no object": (PLAIN.replace(b"[{", b"[7,{"), "a row that is not an object"),
    "no JSON": (PLAIN[: len(PLAIN) // 2], "a row that is not JSON"),
}


@needs_the_scanner
@pytest.mark.parametrize("kind", REASONS)
def test_the_reason_is_named(kind: str) -> None:
    body, words = REASONS[kind]
    assert scan_page(body) is None
    assert words in why_fallback(body)
    assert words in why_fallback(memoryview(bytearray(body)))


@needs_the_scanner
def test_the_first_row_that_is_not_plain_is_the_reason() -> None:
    rows = [row(9 - at) for at in range(5)]
    assert "escape" in why_fallback(compact(*rows[:3], rows[3] | {"employeeId": "a\\b"}, rows[4]))


@needs_the_scanner
async def test_a_run_counts_its_pages_by_the_path_that_they_took(tmp_path: Path) -> None:
    told: list[Event] = []
    mixed = settled(1_200, new_field_from=1_000)
    async with served(mixed) as simulator, client(simulator, on_event=told.append) as opened:
        report = await opened.extract(START, END, JsonlSink(tmp_path))
    pages = [event for event in told if isinstance(event, PageRead) and event.rows]
    assert report.fast_pages > 0
    assert report.fallback_pages == sum(page.fallback is not None for page in pages) > 0
    assert report.fast_pages + report.fallback_pages == len(pages)
    assert "which this version does not know" in str(report.fallback_reason)
    assert not any(isinstance(event, FastPathUnused) for event in told)


async def test_a_run_without_the_scanner_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    monkeypatch.setattr(raw_rows, "_scanner", Uncompiled())
    async with served(settled(1_200)) as simulator, client(simulator, on_event=told.append) as opened:
        report = await opened.extract(START, END, JsonlSink(tmp_path))
        batches = [batch async for batch in opened.stream(START, END)]
    assert (report.fast_pages, report.fallback_reason) == (0, "the scanner is not compiled")
    unused = [event for event in told if isinstance(event, FastPathUnused)]
    assert unused[0] == FastPathUnused(report.fallback_pages, "the scanner is not compiled")
    assert len(unused) == 2  # one for each run
    assert sum(map(len, batches)) == report.segments
    assert "no page took the fast path: the scanner is not compiled" in str(unused[0])


async def test_an_empty_run_says_nothing_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    monkeypatch.setattr(raw_rows, "_scanner", Uncompiled())
    async with served(settled(0)) as simulator, client(simulator, on_event=told.append) as opened:
        report = await opened.extract(START, END, JsonlSink(tmp_path))
    assert (report.fast_pages, report.fallback_pages, report.fallback_reason) == (0, 0, None)
    assert not any(isinstance(event, FastPathUnused) for event in told)
