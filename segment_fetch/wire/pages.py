"""Pages: the request, the decoded answer, and the interface of a source of page requests. No I/O."""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from segment_fetch.errors import (
    MalformedPageError,
    SchemaError,
    SegmentFetchError,
    TooLargeError,
    TransientError,
    printable,
)
from segment_fetch.query import Window
from segment_fetch.wire.models import (
    SEGMENT_FIELDS,
    ExtendedPage,
    ExtendedSegment,
    Segment,
    SegmentPage,
    Timeframe,
    WirePagination,
)
from segment_fetch.wire.raw_rows import scan_page

EQUAL_FAULTS = 3
"""Number of equal faults of one page after which it is not requested again."""


class PageRequest(Struct, frozen=True, eq=False):
    """A request for a page. Sources derive from it, to recognise a request when its answer arrives."""

    window: Window
    offset: int
    limit: int

    @property
    def most_faults(self) -> int:
        """Number of answers with the same fault after which it is not requested again."""
        return EQUAL_FAULTS


Request = TypeVar("Request", bound=PageRequest)


class PageAnswer(Struct, frozen=True):
    """A page, and the time it was made: the earlier of the server's clock and the local one, epoch milliseconds.

    `server_ms` is the server's clock, None if it sent no date. `size` is the size of the body in bytes. `fallback` is
    the reason why it took the fallback, None if it took the fast path.
    """

    page: SegmentPage
    at_ms: int
    server_ms: int | None = None
    size: int = 0
    fallback: str | None = None


class PageSource(Protocol[Request]):
    """Supplies the next request and takes the answers. Called from one event loop only; never waits."""

    def next(self) -> Request | None:
        """Return the next request; None if there is none until an answer arrives or the pool is woken."""

    def newest(self) -> Request | None:
        """Return the first request for the newest window that has not been started; None if there is none."""

    def wants(self, request: Request) -> bool:
        """Return True if a request that waits for a retry is still needed."""

    def answered(self, request: Request, answer: PageAnswer) -> None:
        """Take an answer. Raises TransientError if the page is faulty and should be requested again."""

    def failed(self, request: Request, error: SegmentFetchError) -> None:
        """Note that a page could not be fetched."""

    def finished(self) -> bool:
        """Return True if there will be no more requests."""


_strict = msgspec.json.Decoder(SegmentPage)
_KNOWN = frozenset(SEGMENT_FIELDS)
LARGEST_UNUSUAL = 4 * 1024 * 1024
"""Maximum bytes of a page with unknown fields: decoding them to objects may take thirty times the memory."""


_BYTE = re.compile(r"\(byte (\d+)\)")
_ID = re.compile(rb'"segmentId"\s*:\s*"([^"]*)"')
_NAME = re.compile(rb'"([^"]*)"\s*:')


class _LoosePage(msgspec.Struct):
    """A page whose segments keep the fields that `Segment` does not know."""

    segments: list[dict[str, Any]]
    pagination: WirePagination
    timeframe: Timeframe | None = None


_loose = msgspec.json.Decoder(_LoosePage)


def read_page(body: bytes | memoryview) -> SegmentPage:
    """Return the page in a 200 answer, by the fast path if possible. Raises the same errors as `decode_page`."""
    return scan_page(body) or decode_page(body)


def decode_page(body: bytes | memoryview) -> SegmentPage:
    """Return the page in a 200 answer.

    Raises TransientError for a body that is not a page at all (HTML, an error object), MalformedPageError for a page
    that is not JSON (truncated, not UTF-8), and SchemaError with the JSON path for a page whose segments are not as
    documented. The last two name the segment if they can.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(bytes(body), error) from None
    except RecursionError:
        raise TransientError("the answer is not a page: it is nested too deeply", status=200) from None


def _not_json(body: bytes, error: msgspec.DecodeError | UnicodeDecodeError) -> TransientError:
    message = f"the answer is not JSON: {error}"
    if b'"segments"' not in body:
        return TransientError(message, status=200)
    at = _broken_at(body, error)
    begin, end = body.rfind(b"{", 0, at), body.find(b"}", at)
    segment_id = _ID.search(body, max(0, begin), len(body) if end < 0 else end)
    name = next((found[1] for found in reversed(list(_NAME.finditer(body, max(0, begin), at)))), None)
    if segment_id is None or name is None:
        return MalformedPageError(message, "$")
    field = printable(name.decode(errors="replace"))
    return MalformedPageError(f"{message}, in field {field} of {_named(segment_id[1])}", f"$.segments[...].{field}")


def _broken_at(body: bytes, error: msgspec.DecodeError | UnicodeDecodeError) -> int:
    """Return the position at which a body stops being valid UTF-8 JSON."""
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return undecodable.start
    place = _BYTE.search(str(error))
    return int(place[1]) if place else len(body)


def _named(segment_id: object) -> str:
    text = segment_id.decode(errors="replace") if isinstance(segment_id, bytes) else segment_id
    return f"segmentId {printable(text, 80)!r}"


def _decode(body: bytes | memoryview) -> SegmentPage:
    try:
        return _strict.decode(body)
    except msgspec.ValidationError:
        return _decode_unusual(body)


def _decode_unusual(body: bytes | memoryview) -> SegmentPage:
    """Decode a page that strict decoding rejects: one with new fields, or a wrong one."""
    if len(body) > LARGEST_UNUSUAL:
        raise TooLargeError(f"the answer has unknown fields and is larger than {LARGEST_UNUSUAL >> 20} MiB", status=200)
    try:
        loose = _loose.decode(body)
    except msgspec.ValidationError as error:
        _refuse_foreign(body, error)
        raise _schema_error(error) from None
    segments = [_segment(row, index) for index, row in enumerate(loose.segments)]
    kind = ExtendedPage if any(isinstance(segment, ExtendedSegment) for segment in segments) else SegmentPage
    return kind(segments=segments, pagination=loose.pagination.plain(), timeframe=loose.timeframe)


def _segment(row: dict[str, Any], index: int) -> Segment:
    known = {name: value for name, value in row.items() if name in _KNOWN}
    try:
        if len(known) == len(row):
            return msgspec.convert(known, Segment)
        extras = {name: value for name, value in row.items() if name not in _KNOWN}
        return msgspec.convert({**known, "extras": extras}, ExtendedSegment)
    except msgspec.ValidationError as error:
        raise _schema_error(error, prefix=f"$.segments[{index}]", row=row) from None


def _refuse_foreign(body: bytes | memoryview, error: msgspec.ValidationError) -> None:
    """Raise TransientError for a 200 answer without a list of segments: a fault of the service, not a new schema."""
    answer = msgspec.json.decode(body)
    if not isinstance(answer, dict) or "segments" not in answer or "pagination" not in answer:
        raise TransientError(f"the answer is JSON but not a page: {error}", status=200) from None


def _schema_error(error: msgspec.ValidationError, prefix: str = "$", row: dict[str, Any] | None = None) -> SchemaError:
    what, _, path = str(error).partition(" - at `")
    path = prefix + path.rstrip("`").removeprefix("$")
    whose = f"{_named(row['segmentId'])}: " if row and isinstance(row.get("segmentId"), str) else ""
    return SchemaError(f"{whose}{what} at {path}: the API's format has changed; please report it", path, status=200)


def new_fields(page: SegmentPage) -> set[str]:
    """Return the names of fields in a page's segments that `Segment` does not know."""
    if not isinstance(page, ExtendedPage):
        return set()
    return {name for row in page.segments if isinstance(row, ExtendedSegment) for name in row.extras}
