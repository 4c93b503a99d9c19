"""Segments as bytes: JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, structs

from segment_fetch.models import SEGMENT_FIELDS, ExtendedSegment, Segment

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Format(ABC):
    """A text format. `header` opens every file, an empty window's too."""

    name: str
    header: bytes = b""

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> bytes:
        """The segments, a record each."""

    def settings(self) -> dict[str, str]:
        """What shapes the bytes."""
        return {"format": self.name}


class JsonLines(Format):
    """One segment a line, with the wire's names, types and values. Absent stays absent, null stays null, and fields
    that this version does not know are carried through behind the others.
    """

    name = "jsonl"

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()

    def encode(self, segments: Sequence[Segment]) -> bytes:
        if ExtendedSegment in set(map(type, segments)):
            return self._encoder.encode_lines([_plain(segment) for segment in segments])
        return self._encoder.encode_lines(segments)


def _plain(segment: Segment) -> Segment | dict[str, object]:
    if not isinstance(segment, ExtendedSegment):
        return segment
    known = {name: getattr(segment, name) for name in SEGMENT_FIELDS}
    return {name: value for name, value in known.items() if value is not UNSET} | segment.extras


class Csv(Format):
    """RFC 4180: CRLF, quotes where needed, a header line. Absent and null are both empty; new fields are left out.

    A text that a spreadsheet would run as a formula is data like any other; `safe` puts an apostrophe before it.
    """

    name = "csv"

    def __init__(self, *, safe: bool = False) -> None:
        self._safe = safe
        self.header = _csv([SEGMENT_FIELDS])

    def settings(self) -> dict[str, str]:
        return {"format": self.name, "csv_safe": str(self._safe).lower()}

    def encode(self, segments: Sequence[Segment]) -> bytes:
        width = len(SEGMENT_FIELDS)
        rows = (structs.astuple(segment)[:width] for segment in segments)
        cell = _safe_cell if self._safe else _cell
        return _csv([[cell(value) for value in row] for row in rows])


def _cell(value: object) -> object:
    return "" if value is UNSET else value


def _safe_cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return _cell(value)


def _csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
