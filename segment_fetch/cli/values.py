"""What options take: each function turns text into a value, or says in one sentence what can be written."""

from __future__ import annotations

import re
import time
from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Literal

from segment_fetch.errors import InputError
from segment_fetch.timerange import parse_time

_SPAN = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> str:
    """A time as the library reads it, checked; kept as text, because `now` is taken when the run begins."""
    try:
        parse_time(text, int(time.time() * 1000))
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def span(text: str) -> timedelta:
    """A length of time: 7d, 12h, 30m."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no length of time: write a number and s, m, h, d or w (7d)")
    amount, unit = match.groups()
    return timedelta(**{_UNITS[unit]: float(amount)})


def rate(text: str) -> float | Literal["auto", "none"]:
    """Requests a second, `auto` or `none`."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else "none"
    value = _number(text)
    if value is None or not 0 < value <= 100_000:
        raise ArgumentTypeError(f"{text!r} is no rate: write requests a second (10), auto, or none")
    return value


def delays(text: str) -> tuple[float, ...]:
    """Seconds before each further attempt: 5,10,15; `none` for a single attempt."""
    if text == "none":
        return ()
    values = [_number(part) for part in text.split(",")]
    if any(value is None or not 0 <= value <= 86_400 for value in values):
        raise ArgumentTypeError(f"{text!r}: write seconds, with commas (5,10,15), or none")
    return tuple(value for value in values if value is not None)


def seconds(text: str) -> float:
    """Seconds, above zero."""
    value = _number(text)
    if value is None or not 0 < value <= 86_400:
        raise ArgumentTypeError(f"{text!r}: write seconds above zero (30)")
    return value


def positive(text: str) -> int:
    """A whole number, at least 1."""
    value = 0 if text.startswith("-") and text[1:].isdigit() else whole(text)
    if value < 1:
        raise ArgumentTypeError("must be at least 1")
    return value


def whole(text: str) -> int:
    """A whole number, at least 0; commas and underscores may group its digits."""
    digits = text.replace(",", "").replace("_", "")
    if digits.isascii() and digits.startswith("-") and digits[1:].isdigit():
        raise ArgumentTypeError(f"{text!r}: must be at least 0")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(digits)


def number(text: str) -> float:
    """A number, at least 0."""
    value = _number(text)
    if value is None or value < 0:
        raise ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def share(text: str) -> float:
    """A share, 0 to 1."""
    value = _number(text)
    if value is None or not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to 1 (0.05)")
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
