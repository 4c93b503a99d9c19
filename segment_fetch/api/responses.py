"""Turns an answer's status, headers and body into the error that says what to do. No I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import ceil, isfinite
from typing import Any

import msgspec

from segment_fetch.errors import (
    ProxyError,
    RequestRefusedError,
    SegmentFetchError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
    printable,
    redacted,
)
from segment_fetch.timerange import to_ms

PERMISSION = "Data > Workforce Management > Agent Activity API"
"""The permission that an API key needs, as shown in the vendor's console."""
NEWER_PERMISSION = "Agent Status Changes"
"""The last part of its name in newer versions of the console."""

_MOST_CAUSES = 20
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?", re.ASCII)
_EPOCH = 1_000_000_000.0
"""A `Retry-After` of at least this is a time in epoch seconds: as a delay it would be more than 30 years."""


def raise_for_status(
    status: int, headers: Mapping[str, str], body: bytes, now_ms: int, *, secrets: Sequence[str] = ()
) -> None:
    """Raise the error that says what to do, unless the status is 200.

    Its message contains none of `secrets`, even if the answer repeats them. `now_ms` (epoch milliseconds) replaces the
    server's clock if `Retry-After` is a date and the answer has no `Date`.
    """
    if status == 200:
        return
    seconds = retry_after(headers, now_ms)
    if status == 429:
        raise ThrottledError(seconds)
    error = _error(status, _ErrorBody(body, secrets))
    error.retry_after = seconds
    raise error


def _error(status: int, body: _ErrorBody) -> SegmentFetchError:
    said = body.quoted("message") or body.quoted("reason")
    error: SegmentFetchError
    match status:
        case 401:
            error = UnauthorizedError(f"the API did not accept the credentials (401){said}; {_hint()}")
        case 403:
            error = UnauthorizedError(f"the API forbids this (403){said}; {_hint()}")
        case 407:
            error = ProxyError(
                "a proxy on the way requires a user name and password (407); the request was not repeated"
            )
        case 451:
            error = UnauthorizedError(f"the account or its user is blocked (451){said}; ask LivePerson's support")
        case _ if status < 300:
            error = TransientError(f"the service answered {status} instead of a page", "server")
        case _ if status >= 500 or status == 408:
            code = body.quoted("internalCode", " (internalCode ", ")")
            error = TransientError(f"the service failed with {status}{code}{said}", "server")
        case _:
            causes = body.causes()
            error = RequestRefusedError(_refusal(status, f": {'; '.join(causes)}" if causes else said), causes)
    error.status = status
    return error


def _refusal(status: int, said: str) -> str:
    if 300 <= status < 400:
        return f"the API redirects ({status}), which is never followed"
    if status == 404:
        return f"the API answered that this address does not exist (404){said}"
    return f"the API refused the request ({status}){said}"


def _hint() -> str:
    return (
        f"check the four secrets or the token, and that the API key has the permission {PERMISSION} "
        f"({NEWER_PERMISSION} in newer consoles)"
    )


class _ErrorBody:
    """The texts in an error's JSON body, safe to show: without secrets, on one line, shortened."""

    def __init__(self, body: bytes, secrets: Sequence[str]) -> None:
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = None
        self._answer: dict[str, Any] = answer if isinstance(answer, dict) else {}
        self._secrets = secrets

    def quoted(self, name: str, before: str = ": ", after: str = "") -> str:
        """Return a field's text or number between `before` and `after`; an empty text if there is none."""
        value = self._answer.get(name)
        return f"{before}{self._safe(value)}{after}" if isinstance(value, (str, int)) and value != "" else ""

    def causes(self) -> list[str]:
        """Return the list of causes, empty if there is none."""
        causes = self._answer.get("causes")
        texts = causes[:_MOST_CAUSES] if isinstance(causes, list) else []
        return [self._safe(cause) for cause in texts if isinstance(cause, (str, int))]

    def _safe(self, value: str | int) -> str:
        return printable(redacted(str(value), self._secrets))


def retry_after(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Return the seconds that an answer asks to wait, rounded up to a whole number; None if it does not say.

    `Retry-After` is a number of seconds, or a date relative to the answer's `Date`; of several, the
    longest wait counts. `now_ms` is the local clock, epoch milliseconds.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    server_ms = server_time(headers)
    now = (now_ms if server_ms is None else server_ms) / 1000
    waits = [wait for part in _parts(value) if (wait := _seconds(part, now)) is not None]
    return float(max(waits)) if waits else None


def _parts(value: str) -> list[str]:
    """Split at commas, except the one after the weekday of a date."""
    parts: list[str] = []
    for piece in map(str.strip, value.split(",")):
        if parts and parts[-1].isalpha():
            parts[-1] += f", {piece}"
        else:
            parts.append(piece)
    return parts


def _seconds(text: str, now: float) -> int | None:
    if _SECONDS.fullmatch(text):
        seconds = float(text)
        if seconds >= _EPOCH:
            seconds -= now
    elif (until := date_ms(text)) is not None:
        seconds = until / 1000 - now
    else:
        return None
    return max(0, ceil(seconds)) if isfinite(seconds) else None


def server_time(headers: Mapping[str, str]) -> int | None:
    """Return the server's clock, epoch milliseconds, from the `Date` header; None if there is none."""
    value = headers.get("Date")
    return None if value is None else date_ms(value)


@lru_cache(maxsize=8)
def date_ms(value: str) -> int | None:
    """Return an HTTP date as epoch milliseconds; None if it is not one."""
    try:
        moment = parsedate_to_datetime(value)
        return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, IndexError, OverflowError):  # also the last day of the year 9999 west of UTC
        return None
