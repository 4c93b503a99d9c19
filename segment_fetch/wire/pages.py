"""Pages: the request for one, its answer decoded, and the interface of whoever asks for pages. No I/O."""

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
    """A page that a source wants. Sources derive from it, to know a request again when its answer comes."""

    window: Window
    offset: int
    limit: int


Request = TypeVar("Request", bound=PageRequest)


class PageAnswer(Struct, frozen=True):
    """A page, and when it was made: the earlier of the server's clock and the local one, epoch milliseconds.

    `server_ms` is the server's clock alone, None where it did not say. `size` is that of its body, in bytes. `fallback`
    is the reason for which it was decoded by the fallback, None if it took the fast path.
    """

    page: SegmentPage
    at_ms: int
    server_ms: int | None = None
    size: int = 0
    fallback: str | None = None


class PageSource(Protocol[Request]):
    """Says what to ask next and takes the answers. Called from one event loop only; never waits."""

    def next(self) -> Request | None:
        """The next request; None where nothing can be asked before an answer comes or the pool is woken."""

    def newest(self) -> Request | None:
        """The first request for the newest window that is not begun; None where there is none."""

    def wants(self, request: Request) -> bool:
        """True if a request that waits to be repeated is still of use."""

    def answered(self, request: Request, answer: PageAnswer) -> None:
        """Take an answer. Raises TransientError where the page is faulty and should be asked for again."""

    def failed(self, request: Request, error: SegmentFetchError) -> None:
        """Take it that this page cannot be had."""

    def finished(self) -> bool:
        """True if nothing more will be asked, whatever comes."""


_strict = msgspec.json.Decoder(SegmentPage)
_KNOWN = frozenset(SEGMENT_FIELDS)
LARGEST_UNUSUAL = 4 * 1024 * 1024
"""Bytes of a page with unknown fields, at most: their values become objects, which may take thirty times the memory."""


class _LoosePage(msgspec.Struct):
    """A page whose segments keep the fields that `Segment` does not know."""

    segments: list[dict[str, Any]]
    pagination: WirePagination
    timeframe: Timeframe | None = None


_loose = msgspec.json.Decoder(_LoosePage)


def read_page(body: bytes | memoryview) -> SegmentPage:
    """Return the page in a 200 answer, by the fast path where it can be taken. Raises as `decode_page`."""
    return scan_page(body) or decode_page(body)


def decode_page(body: bytes | memoryview) -> SegmentPage:
    """The page in a 200 answer.

    Raises TransientError for a body that is no page at all (truncated, HTML, an error object), and SchemaError with
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
    """The fallback: a page with new fields, or a wrong one; only a page that fails strictly takes it."""
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
    """A 200 answer without a list of segments is a fault of the service or of something before it, not a new schema."""
    answer = msgspec.json.decode(body)
    if not isinstance(answer, dict) or "segments" not in answer or "pagination" not in answer:
        raise TransientError(f"the answer is JSON but not a page: {error}", status=200) from None


def _schema_error(error: msgspec.ValidationError, prefix: str = "$") -> SchemaError:
    what, _, path = str(error).partition(" - at `")
    path = prefix + path.rstrip("`").removeprefix("$")
    return SchemaError(f"{what} at {path}: the API's format has changed; please report it", path, status=200)


def new_fields(page: SegmentPage) -> set[str]:
    """Names of fields in a page's segments that `Segment` does not know."""
    if not isinstance(page, ExtendedPage):
        return set()
    return {name for row in page.segments if isinstance(row, ExtendedSegment) for name in row.extras}
