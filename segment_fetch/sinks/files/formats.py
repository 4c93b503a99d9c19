"""Formats of files: the text formats, JSON Lines and CSV. Parquet is in a separate module."""

from __future__ import annotations

import csv
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import BinaryIO, Generic, Protocol, TypeVar

import msgspec
from msgspec import UNSET, structs

from segment_fetch.errors import check_type
from segment_fetch.sinks.files.compression import (
    SUFFIXES,
    Compression,
    check_compression,
    compressor,
    damage,
    unpacked,
)
from segment_fetch.sinks.files.file_names import MANIFEST
from segment_fetch.sinks.files.local_times import LocalClock, offset_text
from segment_fetch.sinks.files.spreadsheets import (
    BYTE_ORDER_MARK,
    dialect_of,
    plain_text,
    safe_text,
    text_cell,
)
from segment_fetch.wire.models import SEGMENT_FIELDS, ExtendedSegment, Part, Segment
from segment_fetch.wire.raw_rows import decode_lines

_ID, _CLOSE = SEGMENT_FIELDS.index("segmentId"), SEGMENT_FIELDS.index("endTimeL")
_START, _HANDLED = SEGMENT_FIELDS.index("startTimeL"), SEGMENT_FIELDS.index("totalHandleTimeMillis")
_LOCAL = ("startTimeLocal", "endTimeLocal")
_SPREADSHEET = ("startTimeLocal", "startTimeOffset", "endTimeLocal", "endTimeOffset", "handleTimeMinutes")

Part_contra = TypeVar("Part_contra", contravariant=True)


class Packer(Protocol[Part_contra]):
    """Turns the parts of one file into its bytes."""

    def compress(self, data: Part_contra, /) -> bytes:
        """Return bytes to write; may be empty until more data arrives."""

    def flush(self) -> bytes:
        """Return the remaining bytes, which end the file."""


class FileFormat(ABC, Generic[Part]):
    """The contents of a window's file, and their compression. `header` starts every file, even of an empty window."""

    name: str
    manifest: str = MANIFEST
    """The manifest's name in new destinations."""
    usual: Compression = "none"
    """The default compression."""
    header: Part | None = None

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> Part:
        """Return the segments, one record each."""

    def encode_lines(self, lines: bytes) -> Part:
        """Return the same as `encode`, for segments passed as JSON Lines."""
        return self.encode(decode_lines(lines))

    def check(self, compress: str) -> Compression:
        """Return the compression if it is known and its library is installed."""
        return check_compression(compress)

    def suffix(self, compress: Compression) -> str:
        """Return the suffix of its files, without the first dot: lower-case letters, digits, dots and hyphens."""
        return f"{self.name}{SUFFIXES[compress]}"

    @abstractmethod
    def packer(self, compress: Compression) -> Packer[Part]:
        """Return a packer for a new file."""

    @abstractmethod
    def keys_in(self, file: BinaryIO, compress: Compression) -> Iterator[tuple[int, str]]:
        """Yield close time and id of each segment in a stored file. Raises ValueError if it is damaged.

        The file may contain anything: check its bytes before they reach a library that trusts its input.
        """

    def settings(self) -> dict[str, str]:
        """Return the settings that shape the bytes."""
        return {"format": self.name}

    def migrates(self, name: str, stored: object) -> bool:
        """Return True if files with another value of this setting can be kept with new ones: see `Sink.migrates`."""
        return False


class Format(FileFormat[bytes]):
    """A text format, which is compressed as a whole."""

    header: bytes = b""

    @abstractmethod
    def keys(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        """Yield close time and id of each segment in a file's text. Raises ValueError with the line if damaged."""

    def packer(self, compress: Compression) -> Packer[bytes]:
        return compressor(compress)

    def keys_in(self, file: BinaryIO, compress: Compression) -> Iterator[tuple[int, str]]:
        try:
            with unpacked(file, compress) as text:
                yield from self.keys(text)
        except damage(compress) as error:
            raise ValueError(f"the compressed data is damaged: {error}") from None


class JsonLines(Format):
    """One segment per line, with the API's names, types and values. Absent stays absent, null stays null, and fields
    that this version does not know follow the others.
    """

    name = "jsonl"

    def encode(self, segments: Sequence[Segment]) -> bytes:
        if ExtendedSegment in set(map(type, segments)):
            return _encoder.encode_lines([_plain(segment) for segment in segments])
        return _encoder.encode_lines(segments)

    def encode_lines(self, lines: bytes) -> bytes:
        return lines

    def keys(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(file, 1):
            try:
                key = _keys.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"line {number} is not a segment: {error}") from None
            yield key.close, key.segment_id


class _Key(msgspec.Struct, rename={"segment_id": "segmentId", "close": "endTimeL"}):
    segment_id: str
    close: int


_keys = msgspec.json.Decoder(_Key)
_encoder = msgspec.json.Encoder()


def _plain(segment: Segment) -> Segment | dict[str, object]:
    if not isinstance(segment, ExtendedSegment):
        return segment
    known = {name: getattr(segment, name) for name in SEGMENT_FIELDS}
    return {name: value for name, value in known.items() if value is not UNSET} | segment.extras


class Csv(Format):
    """RFC 4180: CRLF, quotes where needed, a header line. Absent and null are both empty; new fields are left out.

    Text that a spreadsheet would evaluate as a formula is written unchanged; `safe` puts an apostrophe before it.

    `local_times`, an IANA name, adds both times in that zone, in ISO 8601 with the offset. `excel`, such as "de", makes
    files that the country's spreadsheet opens correctly: with a byte order mark, the country's separator and decimal
    mark, ids and epoch milliseconds as text, no formulas, and extra columns with the times in the zone (by default UTC)
    as date cells, their offsets, and the handle time in minutes.
    """

    name = "csv"

    def __init__(self, *, safe: bool = False, excel: str | None = None, local_times: str | None = None) -> None:
        check_type("safe", safe, bool, "True or False")
        for name, value in (("excel", excel), ("local_times", local_times)):
            if value is not None:
                check_type(name, value, str, "text or None")
        self._safe = safe
        self._excel, self._dialect = excel, None if excel is None else dialect_of(excel)
        self._local_times = local_times
        zone = local_times or (None if excel is None else "UTC")
        self._clock = None if zone is None else LocalClock(zone)
        self._separator = "," if self._dialect is None else self._dialect.separator
        self._columns = (*SEGMENT_FIELDS, *(_SPREADSHEET if excel is not None else _LOCAL if local_times else ()))
        self.header = (b"" if excel is None else BYTE_ORDER_MARK) + _csv([self._columns], self._separator)

    def settings(self) -> dict[str, str]:
        asked = {"excel": self._excel, "local_times": self._local_times}
        added = {name: value for name, value in asked.items() if value is not None}
        return {"format": self.name, "csv_safe": str(self._safe).lower(), **added}

    def encode(self, segments: Sequence[Segment]) -> bytes:
        width = len(SEGMENT_FIELDS)
        rows = (structs.astuple(segment)[:width] for segment in segments)
        if self._dialect is not None:
            return _csv([self._spreadsheet_row(row) for row in rows], self._separator)
        cell = _safe_cell if self._safe else _cell
        if self._clock is None:
            return _csv([[cell(value) for value in row] for row in rows])
        return _csv([[*map(cell, row), self._label(row[_START]), self._label(row[_CLOSE])] for row in rows])

    def _label(self, moment: object) -> str:
        """Return a time in ISO 8601 with its offset; an empty text if there is none."""
        if self._clock is None or not isinstance(moment, int) or (shown := self._clock.wall(moment)) is None:
            return ""
        return f"{shown[0].isoformat(timespec='milliseconds')}{offset_text(shown[1])}"

    def _spreadsheet_row(self, row: Sequence[object]) -> list[object]:
        cells: list[object] = []
        for at, value in enumerate(row):
            if isinstance(value, int) and at != _HANDLED:
                cells.append(f"\t{value}")
            else:
                cells.append(text_cell(value) if isinstance(value, str) else _cell(value))
        for moment in (row[_START], row[_CLOSE]):
            shown = self._clock.wall(moment) if self._clock is not None and isinstance(moment, int) else None
            cells += ["", ""] if shown is None else [f"{shown[0]:%Y-%m-%d %H:%M:%S}", f"UTC{offset_text(shown[1])}"]
        handled = row[_HANDLED]
        if self._dialect is not None and isinstance(handled, int):
            cells.append(self._dialect.number(handled / 60_000))
        else:
            cells.append("")
        return cells

    def keys(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        with io.TextIOWrapper(file, "utf-8" if self._excel is None else "utf-8-sig", newline="") as text:
            rows = _csv_rows(text, self._separator)
            if next(rows, None) != list(self._columns):
                raise ValueError("line 1 is not the header of segments")
            for row in rows:
                close, segment_id = _csv_key(row)
                yield close, segment_id if self._excel is None else plain_text(segment_id)


def _csv_rows(text: Iterable[str], separator: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a CSV file. Raises ValueError with the line if it is malformed.

    The csv module reads fields of at most 131,072 characters, a limit that applies to the whole process; a record that
    could exceed it, which is rare, is split here.
    """
    limit, lines, number, given = csv.field_size_limit(), iter(text), 0, list[str]()
    short_rows = csv.reader(
        iter(given.pop, None), delimiter=separator, strict=True
    )  # created once: creating one takes longer than reading a row
    for record in lines:
        number += 1
        while record.count('"') % 2:  # a line break within quotes
            rest = next(lines, None)
            if rest is None:
                raise ValueError(f"line {number} is not CSV: it ends inside quotes")
            record += rest  # noqa: PLW2901 - the record continues
            number += 1
        try:
            if len(record) > limit:
                yield _long_row(record, separator)
            else:
                given.append(record)
                yield next(short_rows)
        except (csv.Error, IndexError) as error:
            raise ValueError(f"line {number} is not CSV: {error}") from None


@lru_cache
def _field(separator: str) -> re.Pattern[str]:
    return re.compile(rf'(?:"((?:[^"]|"")*+)"|([^"{separator}\r\n]*+))({separator}|\r?\n?\Z)')


def _long_row(record: str, separator: str) -> list[str]:
    fields, at, end = [], 0, separator
    while end == separator:
        match = _field(separator).match(record, at)
        if match is None:
            raise csv.Error(f"a field cannot be read at character {at:,}")
        quoted, plain, end = match.groups()
        fields.append(plain if quoted is None else quoted.replace('""', '"'))
        at = match.end()
    return fields


def _csv_key(row: Sequence[str]) -> tuple[int, str]:
    try:
        return int(row[_CLOSE]), row[_ID]
    except (IndexError, ValueError):
        raise ValueError(f"the line {','.join(row)[:60]!r} is not a segment") from None


def _cell(value: object) -> object:
    return "" if value is UNSET else value


def _safe_cell(value: object) -> object:
    return safe_text(value) if isinstance(value, str) else _cell(value)


def _csv(rows: Sequence[Sequence[object]], separator: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
