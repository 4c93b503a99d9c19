"""Times, ranges and time zones: parse, format, check.

Times inside the library are epoch milliseconds, as in the API. A range is half-open: a segment belongs to it if
start <= close time < end, so that adjacent ranges, such as nightly ones, share no segment and miss none.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from segment_fetch.errors import InputError, check_type

CLAMP_MARGIN_MS = 60_000
"""Milliseconds between the oldest data of the API and a clamped start, because the API's month moves on."""

SETTLE_AFTER_MS = (24 * 60 + 15) * 60_000
"""The default settle margin: a segment can take 24 hours to appear after its close, and clocks and caches differ."""

MAX_SETTLE_AFTER_MS = 31 * 86_400_000
"""The longest settle margin: the API serves one month, so with more nothing could settle while it is served."""

TimeLike: TypeAlias = datetime | str | int
"""An aware datetime, epoch milliseconds, or text as `parse_time` reads it."""

_RELATIVE = re.compile(r"now(?:-(\d{1,6})([smhdw]))?")
_LOCAL_DATE = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})\b")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIMES = "an RFC 3339 time (2026-11-01T08:00:00Z), a date (2026-11-01), now, or now-7d (units s, m, h, d, w)"


def format_time(ms: int) -> str:
    """Return epoch milliseconds as RFC 3339 in UTC, with a fraction only if it is not zero."""
    whole = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{ms % 1000:03d}Z" if ms % 1000 else f"{whole}Z"


def to_ms(moment: datetime) -> int:
    """Return an aware datetime as epoch milliseconds, exactly."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def parse_time(value: TimeLike, now_ms: int, zone: tzinfo = UTC) -> int:
    """Return a moment in epoch milliseconds. Text without an offset is local to `zone`.

    Raises InputError that lists the accepted forms.
    """
    if isinstance(value, bool) or not isinstance(value, (datetime, str, int)):
        raise InputError(f"time {value!r}: give a datetime with a time zone, epoch milliseconds, or {_TIMES}")
    if isinstance(value, int):
        return _in_calendar(value, str(value))
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise InputError(f"time {value.isoformat()}: has no time zone; use datetime(..., tzinfo=UTC)")
        return _in_calendar(to_ms(value), value.isoformat())
    return _parse_text(value.strip(), now_ms, zone)


def _parse_text(text: str, now_ms: int, zone: tzinfo) -> int:
    relative = _RELATIVE.fullmatch(text)
    if relative:
        amount, unit = relative.groups()
        return _in_calendar(now_ms - (int(amount) * _UNITS_MS[unit] if unit else 0), text)
    try:
        moment = datetime.fromisoformat(text.upper())  # RFC 3339 allows t and z
    except ValueError:
        raise InputError(f"time {text!r}: is not {_TIMES}{_year_first(text)}") from None
    return _in_calendar(to_ms(moment if moment.tzinfo else moment.replace(tzinfo=zone)), text)


def _year_first(text: str) -> str:
    """Return a hint for a date in a local format: 25.10.2026, 10/25/2026."""
    found = _LOCAL_DATE.match(text)
    if found is None:
        return ""
    if found[2] == ".":
        return f"; write {found[4]}-{int(found[3]):02d}-{int(found[1]):02d}"
    return f"; write the year first, then month and day: {found[4]}-MM-DD"


def _in_calendar(ms: int, text: str) -> int:
    try:
        datetime.fromtimestamp(ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"time {text!r}: is outside the calendar") from None
    return ms


def oldest_start(now_ms: int) -> int:
    """Return the earliest start that the API serves: one calendar month ago (the 31st becomes the month's last day)."""
    now = datetime.fromtimestamp(now_ms // 1000, UTC)
    year, month = (now.year, now.month - 1) if now.month > 1 else (now.year - 1, 12)
    day = min(now.day, calendar.monthrange(year, month)[1])
    return to_ms(now.replace(year=year, month=month, day=day)) + now_ms % 1000


def check_settle_after(margin: timedelta) -> int:
    """Return a settle margin in milliseconds; raise InputError if it is negative or above 31 days."""
    check_type("settle_after", margin, timedelta, "a datetime.timedelta")
    after_ms = margin // timedelta(milliseconds=1)
    if not 0 <= after_ms <= MAX_SETTLE_AFTER_MS:
        raise InputError(
            "settle_after: must be from 0 to 31 days: the API serves only one month, so a longer margin "
            "would never let a window settle"
        )
    return after_ms


def settled_before(now_ms: int, after_ms: int = SETTLE_AFTER_MS) -> int:
    """Return the time before which nothing changes any more: a segment can appear until `after_ms` after its close."""
    return now_ms - after_ms


def settles_at(end_ms: int, after_ms: int = SETTLE_AFTER_MS) -> int:
    """Return the time from which a window that ends at `end_ms` is settled."""
    return end_ms + after_ms


def check_range(
    start: TimeLike,
    end: TimeLike,
    *,
    now_ms: int,
    month_to_ms: int | None = None,
    clamp: bool = False,
    warn: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """Return the range as (start, end) in epoch milliseconds, or raise InputError before anything is sent.

    `month_to_ms` is the end of the month that the API serves, its own clock; by default `now_ms`.
    With `clamp`, a start that is too old is moved to the oldest one that the API serves, and `warn` is called.
    """
    for name, moment in (("start", start), ("end", end)):
        if isinstance(moment, bool) or not isinstance(moment, (datetime, str, int)):
            raise InputError(f"{name}: must be a datetime, epoch milliseconds or {_TIMES}, not {moment!r}")
    check_type("clamp", clamp, bool, "True or False")
    first, last = parse_time(start, now_ms), parse_time(end, now_ms)
    if first > last:
        raise InputError(f"the range starts ({format_time(first)}) after it ends ({format_time(last)})")
    if first > now_ms:
        raise InputError(f"the range starts in the future: {format_time(first)}; now it is {format_time(now_ms)}")
    oldest = oldest_start(now_ms if month_to_ms is None else month_to_ms)
    if first < oldest + CLAMP_MARGIN_MS:
        first = _clamped(first, last, oldest, clamp, warn)
    if first == last:
        raise InputError(
            f"the range is empty: it ends where it starts, at {format_time(first)}, and its end is not part of it; "
            "to get that one millisecond, end the range one millisecond later"
        )
    return first, last


def _clamped(first: int, last: int, oldest: int, clamp: bool, warn: Callable[[str], None] | None) -> int:
    if not clamp:
        raise InputError(
            f"the range starts at {format_time(first)}, but the API serves only the last month; the oldest "
            f"possible start is {format_time(oldest + CLAMP_MARGIN_MS)}; use that, or cut the range to it with `clamp`"
        )
    cut = oldest + CLAMP_MARGIN_MS
    if last <= cut:
        raise InputError(f"the whole range is older than the API serves: its data begins at {format_time(oldest)}")
    if warn is not None:
        warn(f"{format_time(first)} to {format_time(cut)} is no longer available: the API serves only the last month")
    return cut


def midnight(ms: int, zone: tzinfo, later: int = 0) -> int:
    """Return the midnight at which the day of a moment began, or the one `later` days after it."""
    day = datetime.fromtimestamp(ms // 1000, zone).date() + timedelta(days=later)
    return to_ms(datetime(day.year, day.month, day.day, tzinfo=zone))


def zone_of(name: str) -> tzinfo:
    """Return the time zone with an IANA name, or raise InputError."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"time zone {name!r}: is unknown; use an IANA name such as Europe/Berlin, and if the system has no time "
            "zones: pip install tzdata"
        ) from None
