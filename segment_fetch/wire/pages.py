"""Pages: the request, the decoded answer, and the interface of a source of page requests. No I/O."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from segment_fetch.errors import SchemaError, SegmentFetchError, TooLargeError, TransientError
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


class PageRequest(Struct, frozen=True, eq=False):
    """A request for a page. Sources derive from it, to recognise a request when its answer arrives."""

    window: Window
    offset: int
    limit: int


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

    Raises TransientError for a body that is not a page at all (truncated, HTML, an error object), and SchemaError with
    the JSON path for a page whose segments are not as documented.
    """
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransientError(f"the answer is not JSON: {error}", status=200) from None
    except RecursionError:
        raise TransientError("the answer is not a page: it is nested too deeply", status=200) from None


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
        raise _schema_error(error, prefix=f"$.segments[{index}]") from None


def _refuse_foreign(body: bytes | memoryview, error: msgspec.ValidationError) -> None:
    """Raise TransientError for a 200 answer without a list of segments: a fault of the service, not a new schema."""
    answer = msgspec.json.decode(body)
    if not isinstance(answer, dict) or "segments" not in answer or "pagination" not in answer:
        raise TransientError(f"the answer is JSON but not a page: {error}", status=200) from None


def _schema_error(error: msgspec.ValidationError, prefix: str = "$") -> SchemaError:
    what, _, path = str(error).partition(" - at `")
    path = prefix + path.rstrip("`").removeprefix("$")
    return SchemaError(f"{what} at {path}: the API's format has changed; please report it", path, status=200)


def new_fields(page: SegmentPage) -> set[str]:
    """Return the names of fields in a page's segments that `Segment` does not know."""
    if not isinstance(page, ExtendedPage):
        return set()
    return {name for row in page.segments if isinstance(row, ExtendedSegment) for name in row.extras}
