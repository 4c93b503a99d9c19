"""Segments as bytes: every value comes back, and the same segments give the same bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch import ExtendedSegment, MissingExtraError, Segment
from segment_fetch.sinks import Csv, JsonLines
from segment_fetch.sinks.files.compression import SUFFIXES, check_compression, compressor
from segment_fetch.sinks.files.formats import _csv_rows
from segment_fetch.wire.models import SEGMENT_FIELDS
from segment_fetch.wire.pages import decode_page
from tests.support_runs import unpacked

FULL = (
    b'{"segmentId":"111111:1:a","startTimeL":1,"endTimeL":2,"conversationId":"c","agentId":3,"employeeId":"e","skillId":4,'
    b'"groupId":5,"endReason":"closedByAgent","totalHandleTimeMillis":6,"endTime":"2026-11-01T00:00:00Z",'
    b'"startTime":"2026-11-01T00:00:00.001Z"}'
)
WIRE = [
    FULL,
    b'{"segmentId":"a","endTimeL":1}',
    b'{"segmentId":"a","endTimeL":1,"agentId":null,"employeeId":null}',
    b'{"segmentId":"a","endTimeL":1,"endReason":"a reason of next year"}',
    b'{"segmentId":"a","endTimeL":1,"agentId":123456789012345678901234567890}',
    '{"segmentId":"Zoë 李雷 🎧","endTimeL":1}'.encode(),
    rb'{"segmentId":"\u0000\t\"\\","endTimeL":1}',
    b'{"segmentId":"a","endTimeL":1,"agentId":null,"new":[1,{"x":null}],"newer":""}',
    b'{"segmentId":"a","endTimeL":1,"extras":{"a":1.5}}',
]


def from_wire(*rows: bytes) -> list[Segment]:
    page = decode_page(b'{"segments":[%b],"pagination":{"count":%d}}' % (b",".join(rows), len(rows)))
    return list(page.segments)


@pytest.mark.parametrize("row", WIRE)
def test_json_line_says_what_the_wire_said(row: bytes) -> None:
    encoded = JsonLines().encode(from_wire(row))
    assert encoded.count(b"\n") == 1
    assert encoded.endswith(b"\n")
    assert json.loads(encoded) == json.loads(row)
    assert list(json.loads(encoded)) == list(json.loads(row)), "the order of the fields"


def test_documented_segment_keeps_its_bytes() -> None:
    assert JsonLines().encode(from_wire(FULL)) == FULL + b"\n"


def test_lines_of_a_page_with_new_fields_in_some() -> None:
    assert JsonLines().encode(from_wire(*WIRE)) == b"".join(JsonLines().encode(from_wire(row)) for row in WIRE)


CSV_HEADER = ",".join(SEGMENT_FIELDS).encode() + b"\r\n"


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (FULL, b"111111:1:a,1,2,c,3,e,4,5,closedByAgent,6,2026-11-01T00:00:00Z,2026-11-01T00:00:00.001Z\r\n"),
        (WIRE[1], b"a,,1,,,,,,,,,\r\n"),
        (WIRE[2], b"a,,1,,,,,,,,,\r\n"),
        (WIRE[4], b"a,,1,,123456789012345678901234567890,,,,,,,\r\n"),
        (WIRE[7], b"a,,1,,,,,,,,,\r\n"),
        (rb'{"segmentId":"a,b","endTimeL":1}', b'"a,b",,1,,,,,,,,,\r\n'),
        (rb'{"segmentId":"a\"b","endTimeL":1}', b'"a""b",,1,,,,,,,,,\r\n'),
        (rb'{"segmentId":"a\nb","endTimeL":1}', b'"a\nb",,1,,,,,,,,,\r\n'),
        (rb'{"segmentId":"a\rb","endTimeL":1}', b'"a\rb",,1,,,,,,,,,\r\n'),
        (rb'{"segmentId":"","endTimeL":-1}', b",,-1,,,,,,,,,\r\n"),
        (rb'{"segmentId":" a ","endTimeL":1}', b" a ,,1,,,,,,,,,\r\n"),
    ],
)
def test_csv_by_rfc_4180(row: bytes, line: bytes) -> None:
    assert Csv().encode(from_wire(row)) == line


def test_csv_header() -> None:
    assert Csv().header == CSV_HEADER
    assert JsonLines().header == b""


# text, as data, and as `safe` writes it
FORMULAS = [
    ("=1+1", "'=1+1"),
    ("+491234", "'+491234"),
    ("-5", "'-5"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    ("\r=1", "'\r=1"),
    ("'=1", "'=1"),
    ("a=1", "a=1"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "safe"), FORMULAS)
def test_formulas_are_data_unless_safe(text: str, safe: str) -> None:
    rows = [Segment(segmentId=text, endTimeL=-1)]
    for form, expected in ((Csv(), text), (Csv(safe=True), safe)):
        cells = next(csv.reader(io.StringIO(form.encode(rows).decode(), newline=""), strict=True))
        assert cells == [expected, "", "-1", *[""] * 9]


@pytest.mark.parametrize(
    ("form", "settings"),
    [
        (JsonLines(), {"format": "jsonl"}),
        (Csv(), {"format": "csv", "csv_safe": "false"}),
        (Csv(safe=True), {"format": "csv", "csv_safe": "true"}),
    ],
)
def test_settings_tell_forms_apart(form: JsonLines | Csv, settings: dict[str, str]) -> None:
    assert form.settings() == settings


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
OPTIONAL = st.one_of(st.just(msgspec.UNSET), st.none(), TEXTS)
NUMBERS = st.one_of(st.just(msgspec.UNSET), st.none(), st.integers())
SEGMENTS: st.SearchStrategy[Segment] = st.builds(
    Segment, segmentId=TEXTS, endTimeL=st.integers(), employeeId=OPTIONAL, endReason=OPTIONAL, agentId=NUMBERS
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
EXTRAS = st.dictionaries(TEXTS.filter(lambda name: name not in SEGMENT_FIELDS), JSON, min_size=1, max_size=3)
EXTENDED: st.SearchStrategy[Segment] = st.builds(
    ExtendedSegment, segmentId=TEXTS, endTimeL=st.integers(), extras=EXTRAS
)


@given(st.lists(SEGMENTS | EXTENDED, max_size=4))
def test_any_segments_come_back_from_json_lines(rows: list[Segment]) -> None:
    lines = JsonLines().encode(rows).split(b"\n")
    assert lines.pop() == b""
    assert from_wire(*lines) == rows


@given(st.lists(SEGMENTS, max_size=4))
def test_any_segments_come_back_from_csv(rows: list[Segment]) -> None:
    def cell(value: object) -> str:
        return "" if value is None or value is msgspec.UNSET else str(value)

    text = Csv().encode(rows).decode()
    found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert found == [[cell(getattr(row, name)) for name in SEGMENT_FIELDS] for row in rows]


@pytest.mark.parametrize("text", ["x" * 131_073, 'a"' * 70_000, "a\n" * 70_000, "," * 131_073, "\r\n" * 70_000])
@pytest.mark.parametrize("field", ["segmentId", "employeeId"])
def test_csv_reads_back_the_longest_fields_that_it_writes(text: str, field: str) -> None:
    """The csv module's own reader refuses them."""
    long = msgspec.convert({"segmentId": "long", "endTimeL": 2, field: text}, Segment)
    form, short = Csv(), Segment(segmentId='sh"ort\n', endTimeL=1)
    stored = form.header + form.encode([short, long, short])
    with pytest.raises(csv.Error, match="field larger than field limit"):
        list(csv.reader(io.StringIO(stored.decode(), newline="")))
    assert list(form.keys(io.BytesIO(stored))) == [(row.endTimeL, row.segmentId) for row in (short, long, short)]


@given(st.lists(SEGMENTS, max_size=4))
def test_rows_of_csv_are_taken_apart_as_the_csv_module_does(rows: list[Segment]) -> None:
    stored = Csv().encode(rows).decode()
    due = list(csv.reader(io.StringIO(stored, newline=""), strict=True))
    assert list(_csv_rows(io.StringIO(stored, newline=""))) == due
    before = csv.field_size_limit(0)
    try:
        assert list(_csv_rows(io.StringIO(stored, newline=""))) == due
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("damage", ['a,"b\n', 'a,b"c,"\n', '"a"b,c\n', "a\rb\n"])
@pytest.mark.parametrize("limit", [0, 1_000])
def test_damaged_csv_is_told_with_its_line(damage: str, limit: int) -> None:
    before = csv.field_size_limit(limit)
    try:
        with pytest.raises(ValueError, match=r"line \d is not CSV: ."):
            list(_csv_rows(io.StringIO("\r\n" + damage, newline="\n")))
    finally:
        csv.field_size_limit(before)


def packed(name: Any, pieces: list[bytes]) -> bytes:
    packer = compressor(name)
    return b"".join([*map(packer.compress, pieces), packer.flush()])


@pytest.mark.parametrize("name", SUFFIXES)
def test_compression_is_the_same_each_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [FULL * 100, b"", FULL]
    first = packed(name, pieces)
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert packed(name, pieces) == first
    assert unpacked(SUFFIXES[name], first) == b"".join(pieces)


def test_gzip_holds_no_time_and_no_name() -> None:
    header = packed("gzip", [FULL])[:10]
    assert header[:4] == b"\x1f\x8b\x08\x00", "flags: no name"
    assert header[4:8] == bytes(4), "no time"
    assert gzip.decompress(packed("gzip", [])) == b""


def test_missing_extra_is_told_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segment-fetch\[zstd\]'"):
        check_compression("zstd")


def test_zstd_holds_a_checksum() -> None:
    assert zstandard.get_frame_parameters(packed("zstd", [FULL])).has_checksum
