"""The fast path: rows of a page that are JSON Lines already, kept as the bytes they came in. No I/O.

Most pages need no decoding. If every row is compact JSON and has only the fields of `Segment`, in the order of the
wire and with the right types, decoding and encoding it again gives the same bytes. A compiled scanner, `_scanner.c`,
checks that for a whole page, and extracts what a proof needs: close times, and hashes of the ids. A page that fails the
check, for example because of a new field, takes the fallback through msgspec, which gives the same segments and the
same lines. So does every page if the package was installed without a compiler.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias, overload

import msgspec

from segment_fetch.wire.models import Segment, SegmentPage, Timeframe, WirePagination
from segment_fetch.wire.plain_form import LONGEST_SHOWN, why_not_plain

Column: TypeAlias = "memoryview[int] | array[int]"
"""64-bit integers, one per row."""


class _Scanner(Protocol):
    """The compiled scanner's functions."""

    def scan(self, body: bytes | memoryview, head: int, /) -> tuple[int, bytes, bytes, bytes, bytes, bool] | int:
        """Scan the rows from `head` on. Return the end of their array, their lines in the written order, the start of
        each line (32 bits), their close times and keys (64 bits, newest first), and True if no two times are equal; or
        the position of the first row that is not accepted.
        """

    def distinct(self, columns: list[Column], /) -> int:
        """Return the number of different keys in all of the columns."""

    def key(self, segment_id: bytes, /) -> int:
        """Return a 64-bit key for an id."""


class Uncompiled:
    """The substitute if the scanner is not compiled."""

    def scan(self, body: bytes | memoryview, head: int, /) -> int:
        return head

    def distinct(self, columns: list[Column], /) -> int:
        return len(set().union(*columns))

    def key(self, segment_id: bytes, /) -> int:
        return hash(segment_id)


_scanner: _Scanner
try:
    from segment_fetch.wire import _scanner
except ImportError:
    _scanner = Uncompiled()

COMPILED = not isinstance(_scanner, Uncompiled)
"""True if the compiled scanner is used."""


class _Id(msgspec.Struct, gc=False):
    segmentId: str


_HEAD = b'"segments":['
_FARTHEST_HEAD = 4096
_segments = msgspec.json.Decoder(Segment)
_ids = msgspec.json.Decoder(_Id)


class _Envelope(msgspec.Struct):
    """A page without its rows."""

    segments: list[msgspec.Raw]
    pagination: WirePagination
    timeframe: Timeframe | None = None


_around = msgspec.json.Decoder(_Envelope)


def key_of(segment_id: str) -> int:
    """Return the 64-bit key of a segmentId, the same on both paths. Two ids may have the same key."""
    if isinstance(_scanner, Uncompiled):
        return hash(segment_id)  # which a text keeps, and a page's keys are asked for more than once
    return _scanner.key(segment_id.encode("utf-8", "surrogatepass"))


def scan_page(body: bytes | memoryview) -> SegmentPage | None:
    """Return the page in a 200 answer, its segments as `RawRows`; None if it must take the fallback."""
    head = _head(body)
    found = 0 if head is None else _scanner.scan(body, head)
    if head is None or isinstance(found, int):
        return None
    end, text, starts, times, keys, falling = found
    if (page := _page_around(bytes(body[:head]) + bytes(body[end:]))) is None:
        return None
    columns = _Columns(text, memoryview(starts).cast("I"), memoryview(times).cast("q"), memoryview(keys).cast("q"))
    return SegmentPage(RawRows(columns, falling, 0, len(columns.times)), page.pagination.plain(), page.timeframe)


def _head(body: bytes | memoryview) -> int | None:
    """Return the position of the first row; None if the array of rows does not begin in the usual form."""
    at = bytes(body[:_FARTHEST_HEAD]).find(_HEAD)
    return None if at < 0 else at + len(_HEAD)


def why_fallback(body: bytes | memoryview) -> str:
    """Return a short text on why `scan_page` returns None for a page."""
    if isinstance(_scanner, Uncompiled):
        return "the scanner is not compiled"
    if (head := _head(body)) is None:
        return f"`segments` does not begin within {_FARTHEST_HEAD:,} bytes, or has white space around it"
    found = _scanner.scan(body, head)
    if not isinstance(found, int):
        return "what surrounds the segments is not of the usual form"
    return why_not_plain(bytes(body[found : found + LONGEST_SHOWN]))


def _page_around(rest: bytes) -> _Envelope | None:
    """Return the page without the rows that were found; None if they may not be the page's own.

    The key of the rows is the only one with its name, and therefore the page's, as a page without it is refused. It
    begins where the decoder sees it begin, as a row cannot be inside a string: it has quotes, and no escapes.
    """
    if rest.count(b'"segments"') != 1 or b"\\" in rest:
        return None
    try:
        return _around.decode(rest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_lines(lines: bytes | memoryview) -> list[Segment]:
    """Return the segments of JSON Lines."""
    return _segments.decode_lines(lines)


def decoded(rows: Sequence[Segment]) -> Sequence[Segment]:
    """Return the rows as a sequence that is not decoded again at each access."""
    return list(rows) if isinstance(rows, RawRows) else rows


def keys_of(rows: Sequence[Segment]) -> Column:
    """Return the key of each row's id."""
    if isinstance(rows, RawRows):
        return rows.keys
    key = hash if isinstance(_scanner, Uncompiled) else key_of
    return array("q", [key(row.segmentId) for row in rows])


def ids_of(rows: Sequence[Segment]) -> list[str]:
    """Return the segmentId of each row."""
    return rows.ids if isinstance(rows, RawRows) else [row.segmentId for row in rows]


def times_of(rows: Sequence[Segment]) -> Sequence[int]:
    """Return the close time of each row, epoch milliseconds."""
    return rows.times if isinstance(rows, RawRows) else [row.endTimeL for row in rows]


def distinct(columns: list[Column]) -> int:
    """Return the number of different keys in all of these columns."""
    return _scanner.distinct(columns)


class _Columns(NamedTuple):
    """The scanner's result for a page: its lines as written, the start of each; its times and keys, newest first."""

    text: bytes
    starts: memoryview[int]
    times: memoryview[int]
    keys: memoryview[int]


class RawRows(Sequence[Segment]):
    """Segments as JSON Lines, decoded on access: newest first, as on a page, or reversed, as written."""

    __slots__ = ("_columns", "_first", "_last", "falling", "newest_first")

    def __init__(self, columns: _Columns, falling: bool, first: int, last: int, *, newest_first: bool = True) -> None:
        self._columns = columns
        self._first, self._last = first, last
        self.falling = falling
        """True if it is known that no two close times are equal."""
        self.newest_first = newest_first

    def __len__(self) -> int:
        return self._last - self._first

    @property
    def text(self) -> bytes:
        """The lines, in the written order; those of a whole page without a copy."""
        text, starts, times, _ = self._columns
        whole = len(times)
        return text[starts[whole - self._last] : starts[whole - self._first]]

    @property
    def times(self) -> memoryview[int]:
        """The close times, epoch milliseconds."""
        return self._column(self._columns.times)

    @property
    def keys(self) -> memoryview[int]:
        """The keys of the ids, as by `key_of`."""
        return self._column(self._columns.keys)

    @property
    def ids(self) -> list[str]:
        """The ids themselves."""
        ids = [row.segmentId for row in _ids.decode_lines(self.text)]
        return ids[::-1] if self.newest_first else ids

    def _column(self, values: memoryview[int]) -> memoryview[int]:
        column = values[self._first : self._last]
        return column if self.newest_first else column[::-1]

    def __iter__(self) -> Iterator[Segment]:
        segments = decode_lines(self.text)
        return reversed(segments) if self.newest_first else iter(segments)

    @overload
    def __getitem__(self, at: int) -> Segment: ...
    @overload
    def __getitem__(self, at: slice) -> RawRows: ...
    def __getitem__(self, at: int | slice) -> Segment | RawRows:
        rows = range(self._first, self._last)
        asked = (rows if self.newest_first else rows[::-1])[at]
        if isinstance(asked, range):
            return self._part(asked)
        (segment,) = self._part(range(asked, asked + 1))
        return segment

    def _part(self, rows: range) -> RawRows:
        if abs(rows.step) != 1:
            raise ValueError("lines can only be sliced in steps of 1 or -1")
        newest_first = rows.step > 0
        first, last = (min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1) if rows else (0, 0)
        return RawRows(self._columns, self.falling, first, last, newest_first=newest_first)
