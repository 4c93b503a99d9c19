"""The errors that the library raises, named by what the caller should do about them; and text made safe to show.

No error carries a credential, a header or a body: messages and attributes are safe to log.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

LOST = "SF-LOST"
"""The code for data that the API no longer serves."""

_ASYNC = 0x80 | 0x200
"""Code flags of coroutine functions and async generators; the module `inspect` takes long to import."""
_SHORTEST_BASE64 = 6
"""Minimum length of a base64 piece; shorter ones would match by accident."""


class SegmentFetchError(Exception):
    """Root of all errors of this library.

    `status` is the HTTP status, `window` the window (`segment_fetch.Window`) and `offset` the page where it
    happened, `retry_after` the seconds after which the answer asked for a retry; None if not applicable.

    `code` is stable: programs may depend on it, and the troubleshooting page has a heading for each. `summary` is one
    sentence on what happened, `advice` one on what to do. `may_pass` is True if the same call can succeed later without
    a change.
    """

    code: ClassVar[str] = "SF-ERROR"
    summary: ClassVar[str] = "The extraction failed."
    advice: ClassVar[str] = "Read the message; it says where it happened."
    may_pass: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        window: Any = None,
        offset: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.window = window
        self.offset = offset
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args), self.__dict__

    def at(self, window: Any, offset: int) -> SegmentFetchError:
        """Set where the error happened, and return it."""
        self.window, self.offset = window, offset
        return self

    def __str__(self) -> str:
        if self.window is None:
            return self.message
        where = f"window {self.window}" + (f", offset {self.offset}" if self.offset is not None else "")
        return f"{self.message} ({where})"


def _made_again(kind: type[SegmentFetchError], args: tuple[Any, ...]) -> SegmentFetchError:
    """Create an error that was pickled in another process, before its attributes are set."""
    error = kind.__new__(kind)
    error.args = args
    return error


class InputError(SegmentFetchError):
    """The input is invalid: correct it. No request was sent for it."""

    code = "SF-INPUT"
    summary = "What was asked for is not possible."
    advice = "Change what the message names, then run it again."


class NoStartError(InputError):
    """An empty destination cannot be brought up to date without a start."""

    code = "SF-NO-START"
    summary = "The destination is empty, and no time to start from was given."
    advice = "Give the time to start from, for example now-28d."


class RequestRefusedError(InputError):
    """The API answered 400. `causes` are its messages. Correct the input; a retry would change nothing."""

    code = "SF-REFUSED"
    summary = "The API refused the request."
    advice = "Change what the API names; the same request will be refused again."

    def __init__(self, message: str, causes: Sequence[str] = (), **where: Any) -> None:
        super().__init__(message, **where)
        self.causes = tuple(causes)

    def page_limit(self, asked: int) -> int | None:
        """Return the maximum page size in the causes if it is less than `asked`; else None."""
        found = [re.search(r"^limit\b\D*(\d{1,9})\D*$", cause) for cause in self.causes]
        named = min((int(each[1]) for each in found if each), default=0)
        return named if 0 < named < asked else None


class CredentialsError(SegmentFetchError):
    """The API or the login service refused the credentials: correct them, or the key's permission."""

    code = "SF-CREDENTIALS"
    summary = "The credentials are missing, or were refused."
    advice = "Run segment-fetch doctor, which names the step that fails and how to correct it."


class ServiceError(SegmentFetchError):
    """The service could not be reached, or kept failing until the retries were used up: try later."""

    code = "SF-SERVICE"
    summary = "The service could not be reached, or kept failing until the retries were used up."
    advice = "Run the same command later; segment-fetch doctor checks each step on the way."
    may_pass = True


class ProxyError(ServiceError):
    """The proxy refused the client's credentials. They are not tried again, as that may lock the account."""

    code = "SF-PROXY"
    summary = "The proxy refused its credentials."
    advice = "Correct the user name and password in HTTPS_PROXY; they are not tried twice, which may lock the account."
    may_pass = False


class TooLargeError(ServiceError):
    """An answer was larger than any page can be, and was not read to its end."""

    code = "SF-TOO-LARGE"
    summary = "An answer was larger than any page can be."
    advice = "Run the same command later; if it happens again, report it."


class SchemaError(SegmentFetchError):
    """A segment does not have the documented type. `path` is the JSON path. Report it; nothing was dropped."""

    code = "SF-SCHEMA"
    summary = "A segment does not have the documented form."
    advice = "Report it with the message, which names the field; the same data will fail again."

    def __init__(self, message: str, path: str, **where: Any) -> None:
        super().__init__(message, **where)
        self.path = path


class InconsistentError(SegmentFetchError):
    """The API's answers contradict each other, or what was asked, each time. Report it; nothing was dropped."""

    code = "SF-INCONSISTENT"
    summary = "The API's answers contradict each other, or do not fit what was asked, each time."
    advice = "Report it to LivePerson's support with the message; the same request is likely to be answered so again."


class IncompleteError(SegmentFetchError):
    """Some windows could not be proven complete. `windows` names them. Delivered data is valid; run again."""

    code = "SF-INCOMPLETE"
    summary = "Some windows could not be proven complete, and were left out."
    advice = "Run the same command again; only what is missing is read."
    may_pass = True

    def __init__(self, message: str, windows: Sequence[Any]) -> None:
        super().__init__(message)
        self.windows = tuple(windows)


class DestinationError(SegmentFetchError):
    """The destination could not be written: correct that (space, permission) and run again; what is committed stays."""

    code = "SF-DESTINATION"
    summary = "The destination could not be read or written."
    advice = "Correct what the message names, then run the same command again; what is committed stays."
    may_pass = True


class UnstorableValueError(DestinationError):
    """The destination cannot store a value of a segment, such as a number beyond 64 bits in a table.

    `segment_id` and `field` (the API's name) identify it. Nothing of its window was stored; other windows are not
    affected. Another format, such as JSON Lines, can store it.
    """

    code = "SF-UNSTORABLE"
    summary = "A value does not fit into the destination."
    advice = "Use a destination that can hold it, JSON Lines for example; the same data will fail again."
    may_pass = False

    def __init__(self, message: str, segment_id: str, field: str, **where: Any) -> None:
        super().__init__(message, **where)
        self.segment_id = segment_id
        self.field = field


class DestinationBusyError(DestinationError):
    """Another run is writing to this destination: wait for it to end."""

    code = "SF-BUSY"
    summary = "Another run is writing to this destination."
    advice = "Wait until it has ended, then run the same command again."


class DestinationUnavailableError(DestinationError):
    """The destination's server could not be reached, or failed: run again later; what is committed stays."""

    code = "SF-UNAVAILABLE"
    summary = "The server of the destination could not be reached, or failed."
    advice = "Run the same command later; what is committed stays."


class ManifestError(DestinationError):
    """The destination's manifest is damaged, or belongs to another query. Nothing was changed."""

    code = "SF-MANIFEST"
    summary = "The manifest of the destination is damaged, or belongs to another query."
    advice = "Restore the manifest from a copy, or choose another destination; nothing was changed."
    may_pass = False


class MissingExtraError(SegmentFetchError):
    """An optional package is not installed; the message gives the `pip install` command."""

    code = "SF-EXTRA"
    summary = "An optional package is not installed."
    advice = "Install it with the pip command in the message."


class TransientError(SegmentFetchError):
    """One attempt failed in a way that a later one may not: it is retried.

    `kind` chooses the delays: "network" (dropped, stalled, truncated, malformed) or "server" (a 5xx answer).
    """

    code = "SF-TRANSIENT"
    summary = "One attempt failed in a way that a later one may not."
    advice = "Try it again later."
    may_pass = True

    def __init__(self, message: str, kind: Literal["network", "server"] = "network", **where: Any) -> None:
        super().__init__(message, **where)
        self.kind: Literal["network", "server"] = kind


class MalformedPageError(TransientError):
    """A page of segments that is not valid JSON. One that comes so each time ends as a SchemaError with this `path`."""

    def __init__(self, message: str, path: str, **where: Any) -> None:
        super().__init__(message, status=200, **where)
        self.path = path


class ThrottledError(TransientError):
    """The API answered 429. `retry_after` is in seconds, None if the answer had none."""

    code = "SF-THROTTLED"
    summary = "The API answered 429: too many requests."
    advice = "Try it again later, or at a lower rate."

    def __init__(self, retry_after: float | None) -> None:
        super().__init__("too many requests", status=429, retry_after=retry_after)


class UnauthorizedError(CredentialsError):
    """The API answered 401, 403 or 451 to a request. A later request may succeed, since gateways also answer so."""


def check_type(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise InputError, which names the argument, if its value has another type. A bool is not a number."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise InputError(f"{name}: must be {expected}, not {type(value).__name__}")


def check_callback(name: str, value: object, expected: str) -> None:
    """Raise InputError if an argument is not callable, or is a coroutine function, which would not be awaited."""
    if not callable(value):
        raise InputError(f"{name}: must be {expected}, not {type(value).__name__}")
    if _is_async(value) or _is_async(getattr(value, "__call__", None)):  # noqa: B004 - an object with an async __call__
        raise InputError(f"{name}: must be {expected}, not an async one: it is called, not awaited")


def _is_async(value: object) -> bool:
    function = getattr(value, "func", value)  # functools.partial
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & _ASYNC)


def lasting(seconds: float) -> str:
    """Return a duration in words: 4.2 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def printable(text: object, longest: int = 200) -> str:
    """Return an untrusted text as one line that is safe in a terminal and a log, at most `longest` characters long.

    Control characters, line breaks, lone surrogates and marks that change the writing direction become `?`, one for a
    run of them.
    """
    line = re.sub(
        r"\x00+", "?", "".join(letter if letter.isprintable() else "\0" for letter in str(text)[: 4 * longest])
    )
    return line if len(line) <= longest else line[: longest - 1] + "…"


def redacted(text: str, secrets: Sequence[str], *, unescape: bool = True) -> str:
    """Return the text with `***` in place of each secret, in any form in which a service may have repeated it.

    It finds the secret itself, its hexadecimal and its base64 form, even inside a longer one; each even if characters
    are escaped as in a URL, in HTML or in JSON, or in several of these. Escaped text is returned unescaped. Without
    `unescape`, escaped forms are not found, and JSON stays JSON.
    """
    import html  # noqa: PLC0415 - only errors need it
    from urllib.parse import unquote  # noqa: PLC0415

    forms = {form.lower() for secret in secrets if secret for form in _forms(secret)}
    ordered = sorted(forms, key=len, reverse=True)
    shown = stage = _without(text, ordered)
    if not unescape:
        return shown
    for decode in (*(html.unescape,) * 3, *(unquote,) * 3, _unescape_json, _unescape_json) * 2:
        decoded = decode(stage)
        if decoded != stage:
            stage = _without(decoded, ordered)
            if stage != decoded:
                shown = stage
    return shown


def _without(text: str, forms: Sequence[str]) -> str:
    for form in forms:
        if form in text.lower():
            text = re.sub(re.escape(form), "***", text, flags=re.IGNORECASE)
    return text


def _unescape_json(text: str) -> str:
    return re.sub(r"\\(?:(?:u00|x)([0-9a-fA-F]{2})|(.))", lambda found: _letter(*found.groups()), text)


def _letter(code: str | None, letter: str) -> str:
    return letter if code is None else chr(int(code, 16))


def _forms(secret: str) -> Iterator[str]:
    raw = secret.encode()
    yield secret
    yield raw.hex()
    for before in range(
        3
    ):  # base64 encodes three bytes as four letters, so it depends on the number of preceding bytes
        first, past = -(-before * 4 // 3), (before + len(raw)) * 4 // 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            form = encode(bytes(before) + raw).decode()[first:past]
            if len(form) >= _SHORTEST_BASE64:
                yield form
