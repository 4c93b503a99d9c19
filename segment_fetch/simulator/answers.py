"""Answers before they are sent, and the bodies of errors."""

from collections.abc import Mapping, Sequence
from email.utils import formatdate
from math import ceil
from typing import Any, NamedTuple

import orjson

from segment_fetch.simulator.faults import Fault
from segment_fetch.simulator.limits import RetryAfter

JSON = "application/json"


class Answer(NamedTuple):
    """A status, a body as sent, and the headers other than `Date` and `Content-Length`."""

    status: int
    body: bytes
    headers: Mapping[str, str] | Sequence[tuple[str, str]]


def json_answer(status: int, value: Any, headers: dict[str, str] | None = None) -> Answer:
    """Return an answer whose body is a JSON value."""
    return Answer(status, orjson.dumps(value), {"Content-Type": JSON, **(headers or {})})


def bad_request(causes: list[str]) -> Answer:
    """Return 400 with the causes, in the form of the specification."""
    return json_answer(400, {"causes": causes, "message": "Bad request"})


def unauthorized(reason: str, message: str) -> Answer:
    """Return 401 with a reason and a message."""
    return json_answer(401, {"reason": reason, "message": message})


def not_found(what: str) -> Answer:
    """Return 404 for a resource that does not exist."""
    return json_answer(404, {"message": f"{what} not found"})


def too_many(wait: float, spelled: RetryAfter, now: float) -> Answer:
    """Return 429; `Retry-After` gives `wait` (seconds) as whole seconds, as an HTTP date, or is absent."""
    seconds = max(ceil(wait), 1)
    headers = {}
    if spelled == "seconds":
        headers["Retry-After"] = str(seconds)
    elif spelled == "date":
        headers["Retry-After"] = formatdate(now + seconds, usegmt=True)
    return json_answer(429, {"message": "Too many requests"}, headers)


_ERROR = {"internalCode": 1017, "message": "Internal server error"}
_PAGE = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
_INSTEAD = {
    Fault.TOO_MANY_SILENT: too_many(1, "none", 0),
    Fault.ERROR_500: json_answer(500, _ERROR),
    Fault.ERROR_503: json_answer(503, {"message": "Service unavailable"}),
    Fault.ERROR_BODY: json_answer(200, _ERROR),
    Fault.HTML: Answer(200, _PAGE, {"Content-Type": "text/html"}),
    Fault.REDIRECT: Answer(302, b"", {"Location": "/maintenance"}),
    Fault.UNAUTHORIZED: unauthorized("unauthorized", "Unauthorized"),
    Fault.FORBIDDEN: Answer(403, _PAGE.replace(b"502 Bad Gateway", b"403 Forbidden"), {"Content-Type": "text/html"}),
    Fault.NOT_FOUND: not_found("this resource"),
    Fault.CONFLICT: Answer(409, b"", {}),
    Fault.MISDIRECTED: Answer(421, b"", {}),
    Fault.LOCKED: Answer(423, b"", {}),
    Fault.TOO_EARLY: Answer(425, b"", {}),
    Fault.BROTLI: Answer(200, b"not br", {"Content-Type": JSON, "Content-Encoding": "br"}),
}


def fault_answer(fault: Fault, retry_after_s: int, now: float) -> Answer | None:
    """Return the answer that replaces the right one; None for a fault that damages the right one."""
    if fault is Fault.TOO_MANY:
        return too_many(retry_after_s, "seconds", now)
    if fault is Fault.UNAVAILABLE:
        return json_answer(503, {"message": "Service unavailable"}, {"Retry-After": str(retry_after_s)})
    return _INSTEAD.get(fault)
