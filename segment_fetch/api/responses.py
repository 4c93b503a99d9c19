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
    SegmentFetchError,
    ThrottledError,
    TransientError,
    UnauthorizedError,
)
from segment_fetch.timerange import to_ms

PERMISSION = "Data > Workforce Management > Agent Activity API"
"""The permission that an API key needs, as the vendor's console names it."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_LONGEST_EXCERPT = 200
_SECONDS = re.compile(r"\s*[0-9]{1,9}\s*")


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
