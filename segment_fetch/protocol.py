"""One answer of the API (status, headers, body) becomes a page or the right error. No I/O, no clock of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

from segment_fetch.errors import (
    RequestRefusedError,
    SchemaError,
    SegmentFetchError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
)
from segment_fetch.models import (
    SEGMENT_FIELDS,
    ExtendedPage,
    ExtendedSegment,
    Pagination,
    Segment,
    SegmentPage,
    Timeframe,
)
from segment_fetch.query import to_ms
from segment_fetch.wire import quick_page

PERMISSION = "Data > Workforce Management > Agent Activity API"
"""The permission that an API key needs, as the vendor's console names it."""

_strict = msgspec.json.Decoder(SegmentPage)
_KNOWN = frozenset(SEGMENT_FIELDS)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LONGEST_EXCERPT = 200
_SECONDS = re.compile(r"\s*[0-9]{1,9}\s*")


class _LoosePage(msgspec.Struct):
    """A page whose segments keep the fields that `Segment` does not know."""

    segments: list[dict[str, Any]]
    pagination: Pagination
    timeframe: Timeframe | None = None


_loose = msgspec.json.Decoder(_LoosePage)


def read_page(body: bytes | memoryview) -> SegmentPage:
    """The page in a 200 answer, by the quick road where it can be taken. Raises as `decode_page`."""
    return quick_page(body) or decode_page(body)


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
    """The slow road: a page with new fields, or a wrong one; only a page that fails strictly takes it."""
    try:
        loose = _loose.decode(body)
    except msgspec.ValidationError as error:
        _refuse_foreign(body, error)
        raise _schema_error(error) from None
    segments = [_segment(row, index) for index, row in enumerate(loose.segments)]
    return ExtendedPage(segments=segments, pagination=loose.pagination, timeframe=loose.timeframe)


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


def raise_for_status(
    status: int, headers: Mapping[str, str], body: bytes, now_ms: int, *, secrets: Sequence[str] = ()
) -> None:
    """Nothing for 200; else the error that says what to do, without `secrets` should the answer repeat them.

    `now_ms` is used only to read a Retry-After date.
    """
    if status == 200:
        return
    if status == 429:
        raise ThrottledError(retry_after(headers, now_ms))
    raise _refusal(status, _Words(body, secrets))


def _refusal(status: int, words: _Words) -> SegmentFetchError:
    said = words.quoted("message") or words.quoted("reason")
    if status == 401:
        return UnauthorizedError(_unauthorized(said), status=status)
    if status == 403:
        return UnauthorizedError(f"the API forbids this (403){said}; {_permission_hint()}", status=status)
    if status < 300:
        return TransientError(f"the service answered {status} instead of a page", "server", status=status)
    if status >= 500 or status == 408:
        code = words.quoted("internalCode", " (internalCode ", ")")
        return TransientError(f"the service failed with {status}{code}{said}", "server", status=status)
    causes = words.causes()
    return RequestRefusedError(_refused(status, f": {'; '.join(causes)}" if causes else said), causes, status=status)


def _refused(status: int, said: str) -> str:
    if 300 <= status < 400:
        return f"the API redirects ({status}), which is never followed"
    if status == 404:
        return f"this address does not serve the API (404){said}: check the account, and the base URL if one was given"
    return f"the API refused the request ({status}){said}"


def _unauthorized(said: str) -> str:
    return f"the API did not accept the credentials (401){said}; {_permission_hint()}"


def _permission_hint() -> str:
    return f"check the four secrets or the token, and that the API key has the permission {PERMISSION}"


class _Words:
    """What the body of an error says, safe to print: no secret, one line, no control characters, not long."""

    def __init__(self, body: bytes, secrets: Sequence[str]) -> None:
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = None
        self._answer: dict[str, Any] = answer if isinstance(answer, dict) else {}
        self._secrets = secrets

    def quoted(self, name: str, before: str = ": ", after: str = "") -> str:
        """A field, if it is there and a text or a number."""
        value = self._answer.get(name)
        return f"{before}{self._clean(value)}{after}" if isinstance(value, (str, int)) and value != "" else ""

    def causes(self) -> list[str]:
        """The list of causes, empty if there is none."""
        causes = self._answer.get("causes")
        texts = causes[:20] if isinstance(causes, list) else []
        return [self._clean(cause) for cause in texts if isinstance(cause, (str, int))]

    def _clean(self, value: str | int) -> str:
        return _UNPRINTABLE.sub("?", without(self._secrets, str(value)))[:_LONGEST_EXCERPT]


def without(secrets: Sequence[str], text: str) -> str:
    """The text with each secret blotted out, also one that is percent-encoded once or, as OAuth 1.0 signs it, twice."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        once = quote(secret, safe="")
        for form in {secret, once, quote(once, safe="")}:
            text = re.sub(re.escape(form), "***", text, flags=re.IGNORECASE)
    return text


def retry_after(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds that the answer asks to wait, from `Retry-After` as seconds or as a date (measured from the `Date`)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until = date_ms(value)
    since = server_time(headers)
    if until is None:
        return None
    return max(0.0, (until - (now_ms if since is None else since)) / 1000)


def server_time(headers: Mapping[str, str]) -> int | None:
    """The server's clock, epoch milliseconds, from the `Date` header; None where it has none."""
    value = headers.get("Date")
    return None if value is None else date_ms(value)


@lru_cache(maxsize=8)
def date_ms(value: str) -> int | None:
    """An HTTP date as epoch milliseconds; None where it is not one."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
