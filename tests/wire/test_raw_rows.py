"""The fast path gives what the slow one gives, byte for byte, or leaves the page to it."""

from __future__ import annotations

import io
import json
import os
import random
import string
import sys
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from segment_fetch.events import Event
from segment_fetch.query import Window
from segment_fetch.simulator import Dataset
from segment_fetch.sinks import Csv, CsvSink, FolderSink, JsonLines, JsonlSink, ParquetSink, StreamSink
from segment_fetch.sinks.base import Sink, encoded
from segment_fetch.windows.merge import in_order
from segment_fetch.windows.reader import WindowRead, WindowReader
from segment_fetch.wire import raw_rows
from segment_fetch.wire.models import SEGMENT_FIELDS, Segment
from segment_fetch.wire.pages import PageAnswer, decode_page, read_page
from segment_fetch.wire.raw_rows import (
    COMPILED,
    RawRows,
    Uncompiled,
    decoded,
    distinct,
    ids_of,
    key_of,
    keys_of,
    scan_page,
    times_of,
)
from tests.support import page_body, row
from tests.support_runs import END, NOW_MS, START, client, contents, served

AROUND: dict[str, Any] = {"timeframe": {"startTimeL": 1, "endTimeL": 2}}
NUMBERS = {"startTimeL", "endTimeL", "agentId", "skillId", "groupId", "totalHandleTimeMillis"}
FULL = {name: 5 if name in NUMBERS else "text" for name in SEGMENT_FIELDS}


def compact(*rows: dict[str, Any], count: int | None = None, **around: Any) -> bytes:
    """A page as the API writes it: no white space, the fields of a segment in their order."""
    ordered = [{name: each[name] for name in SEGMENT_FIELDS if name in each} for each in rows]
    page = {**around, "segments": ordered, "pagination": {"count": len(rows) if count is None else count}}
    return json.dumps(page, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def lines_of(body: bytes) -> RawRows:
    page = scan_page(body)
    assert page is not None
    assert isinstance(page.segments, RawRows)
    return page.segments


def as_decoded(body: bytes) -> list[Segment]:
    """The page's rows, newest first, as the fast path orders them."""
    return in_order(decode_page(body).segments[::-1])[::-1]


needs_the_scanner = pytest.mark.skipif(not COMPILED, reason="no C compiler was there")


def test_the_scanner_is_compiled_where_the_tests_run() -> None:
    assert COMPILED or os.environ.get("SEGMENT_FETCH_SCANNER") == "skip", (
        "no C compiler was there: install one and run `make clean install`, or set SEGMENT_FETCH_SCANNER=skip"
    )


texts = st.text(st.characters(exclude_characters='"\\', min_codepoint=0x20, exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-(10**17), 10**17)
plain_rows = st.fixed_dictionaries(
    {"segmentId": texts, "endTimeL": st.integers(-50, 50)},
    optional={
        name: st.none() | (numbers if name in NUMBERS else texts)
        for name in SEGMENT_FIELDS
        if name not in ("segmentId", "endTimeL")
    },
)
plain_pages = st.lists(plain_rows, min_size=1, max_size=12).map(
    lambda rows: sorted(rows, key=itemgetter("endTimeL"), reverse=True)
)


@needs_the_scanner
@given(plain_pages)
@example([FULL])
@example([{"segmentId": "", "endTimeL": 0}])
@example([{"segmentId": "zürich\x7f", "endTimeL": -1, "employeeId": "日本"}])
def test_plain_rows_are_their_own_lines(rows: list[dict[str, Any]]) -> None:
    body = compact(*rows, **AROUND)
    lines, segments = lines_of(body), as_decoded(body)
    assert bytes(lines.text) == JsonLines().encode(segments[::-1])
    assert list(lines) == segments
    assert list(times_of(lines)) == [segment.endTimeL for segment in segments]
    assert list(keys_of(lines)) == [key_of(segment.segmentId) for segment in segments] == list(keys_of(segments))
    assert ids_of(lines) == ids_of(segments) == [segment.segmentId for segment in segments]
    assert lines.falling == (len(set(lines.times)) == len(segments))
    page, slow = read_page(memoryview(body)), decode_page(body)
    assert (page.pagination, page.timeframe) == (slow.pagination, slow.timeframe)


@needs_the_scanner
@given(plain_pages, st.data())
def test_lines_are_sliced_and_turned_like_a_list(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    body = compact(*rows)
    lines: Sequence[Segment] = lines_of(body)
    expected = as_decoded(body)
    for _ in range(data.draw(st.integers(0, 3))):
        at = st.none() | st.integers(-14, 14)
        part = slice(data.draw(at), data.draw(at), data.draw(st.sampled_from([None, 1, -1])))
        lines, expected = lines[part], expected[part]
        assert isinstance(lines, RawRows)
        assert list(lines) == decoded(lines) == expected
        assert list(lines.times) == [segment.endTimeL for segment in expected]
        assert list(lines.keys) == [key_of(segment.segmentId) for segment in expected]
        written = sorted(expected, key=lambda segment: segment.endTimeL)
        assert [json.loads(line)["endTimeL"] for line in bytes(lines.text).splitlines()] == [
            segment.endTimeL for segment in written
        ]
        if expected:
            index = data.draw(st.integers(-len(expected), len(expected) - 1))
            assert lines[index] == expected[index]


@needs_the_scanner
def test_lines_refuse_wider_steps() -> None:
    with pytest.raises(ValueError, match="steps of 1 or -1"):
        lines_of(compact(FULL, FULL))[::2]


PLAIN = compact(row(2), row(1), **AROUND)


@pytest.mark.parametrize(
    "body",
    [
        page_body(row(2), row(1)),  # white space
        PLAIN.replace(b'"id-2"', b'"id\\u00e9"'),
        PLAIN.replace(b'"id-2"', b'"id\\"x"'),
        PLAIN.replace(b'"id-2"', b"5"),
        PLAIN.replace(b'"id-2"', b"null"),
        PLAIN.replace(b'"id-2"', b'"\x1f"'),
        PLAIN.replace(b'"id-2"', b'"\xff"'),
        PLAIN.replace(b'"id-2"', b'"\xed\xa0\x80"'),  # half of a surrogate pair
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2.0'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":02'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":-0'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2e0'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":"2"'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":null'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":%d' % 10**18),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":0'),  # rises
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2,"endTimeL":2'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2,"agentId":5,"startTimeL":5'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2,"newField":5'),
        PLAIN.replace(b'"endTimeL":2', b'"endTimeL":2,"startTime":"x","startTime":"x"'),
        PLAIN.replace(b'"segmentId":"id-2",', b""),
        PLAIN.replace(b',"endTimeL":2', b""),
        PLAIN.replace(b"},{", b"} ,{"),
        PLAIN.replace(b"},{", b"}{"),
        PLAIN.replace(b"},{", b"},"),
        PLAIN.replace(b"}],", b"},],"),
        compact(),
        compact(*[row(1)] * 513),
    ],
)
def test_what_is_not_plain_is_left_to_the_slow_road(body: bytes) -> None:
    assert scan_page(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"timeframe":{"segments":[{"segmentId":"a","endTimeL":1}]},"segments":[],"pagination":{"count":0}}',
        b'{"segments":[{"segmentId":"a","endTimeL":1}],"segments":[],"pagination":{"count":0}}',
        b'{"segments":[{"segmentId":"a","endTimeL":1}],"\\u0073egments":[],"pagination":{"count":0}}',
        b'{"timeframe":{"startTime":"\\"segments":[{"segmentId":"a","endTimeL":1}]"},"segments":[],"pagination":{"count":0}}',
        b'{"x":[{"segments":[{"segmentId":"a","endTimeL":1}]}],"pagination":{"count":1}}',
        b'{"segments":[{"segmentId":"a","endTimeL":1}],"pagination":{"count":-1}}',
        b'{"segments":[{"segmentId":"a","endTimeL":1}],"pagination":{"count":1}} ,',
        b'{"segments":[{"segmentId":"a","endTimeL":1}]}',
        b'{"segments":[{"segmentId":"a","endTimeL":1}]',
        b'"segments":[',
        b"",
        PLAIN.replace(b'{"timeframe"', b'{"x":"%s","timeframe"' % (b"x" * 5000)),
    ],
)
def test_rows_that_may_not_be_the_page_s_own_are_left_to_the_slow_road(body: bytes) -> None:
    assert scan_page(body) is None


@needs_the_scanner
def test_every_beginning_of_a_page_is_read_to_its_end_and_no_further() -> None:
    body = compact({**FULL, "employeeId": "é"}, FULL, **AROUND)
    for length in range(len(body)):
        assert scan_page(memoryview(array("B", body[:length]))) is None
    assert scan_page(body) is not None


@needs_the_scanner
def test_damaged_pages_take_the_slow_road_or_give_what_it_gives() -> None:
    chance, quick = random.Random(1), 0
    for _ in range(20_000):
        body = bytearray(compact(FULL, {**FULL, "endTimeL": 4}, {**row(3), "groupId": None}, **AROUND))
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 2)] = bytes(
                chance.choices(b'x5",{}[]:\\ \x00\xc3\xa9-', k=chance.randint(0, 2))
            )
        page = scan_page(bytes(body))
        if page is not None:
            quick += 1
            assert isinstance(page.segments, RawRows)
            assert bytes(page.segments.text) == JsonLines().encode(as_decoded(bytes(body))[::-1])
    assert quick > 1_000


@given(st.lists(st.lists(st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 1 << 20, 3 << 44, 5]) | numbers, max_size=40)))
def test_keys_are_counted_once(columns: list[list[int]]) -> None:
    views = [memoryview(b"".join(key.to_bytes(8, "little", signed=True) for key in keys)).cast("q") for keys in columns]
    if COMPILED and sys.byteorder == "little":
        assert distinct(list(views)) == len(set().union(*columns))


def test_keys_of_many_ids_are_all_different() -> None:
    assert len({key_of(f"111111:{number}:f468270d-1230-4bac") for number in range(200_000)}) == 200_000
    assert len({key_of("x" * length) for length in range(300)}) == 300
    digits = string.ascii_letters + string.digits
    places = (f"aaaaaaa{a}aaa{b}aaa{c}aaaaaaaa" for a in digits for b in digits for c in digits)
    assert len({key_of(name) for name in places}) == len(digits) ** 3


@needs_the_scanner
@pytest.mark.parametrize("wrong", [("distinct", ()), ("distinct", [5]), ("key", "text"), ("scan", 5)])
def test_what_is_compiled_refuses_other_types(wrong: tuple[str, Any]) -> None:
    name, value = wrong
    with pytest.raises(TypeError):
        getattr(raw_rows._scanner, name)(value)


Served = Callable[[Window, int], bytes]


def reading_of(served: Served, sink: Sink[Any]) -> WindowRead[Any]:
    """A settled window of pages of 5, read through."""
    reading = WindowReader(WINDOW, 5, partial(encoded, sink), tell=ignored)
    while (read := reading.advance()) is None:
        request = reading.next()
        page = read_page(served(request.window, request.offset))
        reading.answered(request, PageAnswer(page, WINDOW.end + 3 * 86_400_000))
    assert isinstance(read, WindowRead)
    return read


def ignored(event: Event) -> None:
    """No event matters here."""


WINDOW = Window(0, 1_000)


def pages_of(rows: Sequence[dict[str, Any]], chance: random.Random, slow: float) -> Served:
    """Pages of 5, of which so many have a row that the fast path does not take."""

    def served(window: Window, offset: int) -> bytes:
        found = [each for each in rows if window.start <= each["endTimeL"] <= window.end]
        body = compact(*found[offset : offset + 5], count=len(found))
        return body.replace(b'"endTimeL"', b' "endTimeL"', 1) if chance.random() < slow else body

    return served


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
@pytest.mark.parametrize("ties", [1, 4, 40])
def test_a_window_is_the_same_by_either_road_and_by_both(tmp_path: Any, sink: Any, ties: int) -> None:
    chance = random.Random(ties)
    rows = [row((900 - at) // ties * ties, segmentId=f"{chance.random()}") for at in range(93)]
    made = []
    for slow in (0.0, 0.5, 1.0):
        read = reading_of(pages_of(rows, chance, slow), sink(tmp_path))
        assert (read.status, read.segments, read.duplicates) == ("complete", 93, 0)
        made.append(b"".join(bytes(part) for part in read.parts))
    assert made[0] == made[1] == made[2]
    assert made[0].count(b"\n") == 93


def test_without_the_scanner_all_takes_the_slow_road(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(900 - at) for at in range(12)]
    served = pages_of(rows, random.Random(1), 0)
    quick = reading_of(served, JsonlSink(tmp_path))
    monkeypatch.setattr(raw_rows, "_scanner", Uncompiled())
    assert scan_page(served(WINDOW, 0)) is None
    slow = reading_of(served, JsonlSink(tmp_path))
    assert b"".join(quick.parts) == b"".join(slow.parts)


class Blotted(JsonlSink):
    """A sink of a user's own."""

    def encode(self, segments: Sequence[Segment]) -> bytes:
        return super().encode([structs.replace(segment, employeeId="-") for segment in segments])


class BlottedLines(JsonLines):
    """A format of a user's own."""

    def encode(self, segments: Sequence[Segment]) -> bytes:
        return super().encode([structs.replace(segment, employeeId="-") for segment in segments])


class Marked(BlottedLines):
    """One that says what becomes of lines, too."""

    def encode_lines(self, lines: bytes) -> bytes:
        return b"marked " + lines


@pytest.mark.parametrize(
    "sink",
    [
        Blotted("out"),
        FolderSink("out", BlottedLines()),
        StreamSink(io.BytesIO(), BlottedLines()),
        FolderSink("out", BlottedLines(), "gzip", partition="day"),
    ],
)
def test_who_overrides_encode_alone_is_given_every_segment(sink: Sink[bytes]) -> None:
    lines = lines_of(compact({**FULL, "segmentId": "b"}, FULL))
    encodings = [encoded(sink, lines), sink.encode(list(lines[::-1]))]
    assert encodings[0] == encodings[1]
    assert encodings[0].count(b'"employeeId":"-"') == 2


def test_who_overrides_encode_lines_is_given_them() -> None:
    lines = lines_of(compact(FULL))
    assert encoded(FolderSink("out", Marked()), lines) == b"marked " + bytes(lines.text)
    assert encoded(FolderSink("out", Csv()), lines).startswith(b"text,5,")


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink, ParquetSink])
@pytest.mark.parametrize("end", [END, NOW_MS])
async def test_a_run_makes_the_same_files_with_the_scanner_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sink: type[FolderSink[Any]], end: int
) -> None:
    dataset = Dataset(segments=2_000, start=START, end=end)
    async with served(dataset) as simulator:
        for name in ("with", "without"):
            async with client(simulator) as opened:
                report = await opened.extract(START, end, sink(tmp_path / name))  # type: ignore[call-arg]
            assert report.complete
            monkeypatch.setattr(raw_rows, "_scanner", Uncompiled())
    ways = [contents(tmp_path / name) for name in ("with", "without")]
    for way in ways:
        del way[next(name for name in way if name.endswith("manifest.json"))]
    assert ways[0] == ways[1]
    assert ways[0]
