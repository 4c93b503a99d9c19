"""The parameters of a segments request: the checks of the specification, and the resulting query."""

import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

MAX_PAGE_SIZE = 500
DEFAULT_LIMIT = 100
SORTS = ("Date", "Conversation", "Agent", "Employee", "Skill", "Group")
FILTERS = ("ConversationId", "AgentId", "EmployeeId", "SkillId", "GroupId")

_SOURCE = re.compile(r"[a-zA-Z0-9_]+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_WEEK_MS = 7 * 86_400_000
_DAY_MS = 86_400_000
_LAST_INSTANT = 253_402_300_799_999


class RefusedQueryError(Exception):
    """A request that the API answers with 400; `causes` lists the reasons, one string each."""

    def __init__(self, causes: list[str]) -> None:
        super().__init__("; ".join(causes))
        self.causes = causes


class SegmentQuery(msgspec.Struct, frozen=True):
    """A request that passed all checks.

    `start` and `end` are epoch ms; `offsets` are the UTC offsets, in minutes, in which the answer spells `timeframe`.
    `filters` are names and values as sent. `echo` are the parameters that every link repeats. `fixed` is
    True if both ends were sent, so that repeating the request repeats the query.
    """

    source: str
    limit: int
    offset: int
    sort: str
    start: int
    end: int
    offsets: tuple[int, int]
    filters: tuple[tuple[str, str], ...]
    echo: tuple[tuple[str, str], ...]
    fixed: bool


def parse_query(parameters: Mapping[str, str], now: float) -> SegmentQuery:
    """Check the parameters against the server's clock (epoch seconds). Unknown ones are ignored.

    Raises `RefusedQueryError` with every cause found.
    """
    causes: list[str] = []
    source = _source(parameters, causes)
    limit = _number(parameters, "limit", (1, MAX_PAGE_SIZE), causes)
    offset = _number(parameters, "offset", (0, 10**18), causes)
    sort = parameters.get("sort", "Date")
    if sort not in SORTS:
        causes.append(f"sort: must be one of {', '.join(SORTS)}")
    now_ms = int(now * 1000)
    start = _instant(parameters, "from", causes)
    end = _instant(parameters, "to", causes)
    start_ms, start_offset = (now_ms - _DAY_MS, 0) if start is None else start
    end_ms, end_offset = (now_ms, start_offset) if end is None else end
    if not causes:
        causes = _range_causes(start_ms, end_ms, now)
    if causes:
        raise RefusedQueryError(causes)
    echoed = ("from", "fromMillis", "to", "toMillis", *FILTERS)
    return SegmentQuery(
        source=source,
        limit=DEFAULT_LIMIT if limit is None else limit,
        offset=offset or 0,
        sort=sort,
        start=start_ms,
        end=end_ms,
        offsets=(start_offset, end_offset),
        filters=tuple((name, parameters[name]) for name in FILTERS if name in parameters),
        echo=tuple((name, parameters[name]) for name in echoed if name in parameters),
        fixed=start is not None and end is not None,
    )


def month_before(now: float) -> int:
    """Return the epoch ms one calendar month before an epoch time in seconds, at most on the month's last day."""
    moment = datetime.fromtimestamp(now, UTC)
    year, month = (moment.year, moment.month - 1) if moment.month > 1 else (moment.year - 1, 12)
    day = min(moment.day, monthrange(year, month)[1])
    return int(moment.replace(year=year, month=month, day=day).timestamp() * 1000)


def _source(parameters: Mapping[str, str], causes: list[str]) -> str:
    source = parameters.get("source", "")
    if not source:
        causes.append("source: must not be empty")
    elif len(source) > 20:
        causes.append("source: must not exceed 20 characters")
    elif not _SOURCE.fullmatch(source):
        causes.append('source: must match "^[a-zA-Z0-9_]+$"')
    return source


def _number(parameters: Mapping[str, str], name: str, bounds: tuple[int, int], causes: list[str]) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        causes.append(f"{name}: must be an integer")
        return None
    value = int(text)
    if value < bounds[0]:
        causes.append(f"{name}: must be greater than or equal to {bounds[0]}")
    if value > bounds[1]:
        causes.append(f"{name}: must be less than or equal to {bounds[1]}")
    return value


def _instant(parameters: Mapping[str, str], name: str, causes: list[str]) -> tuple[int, int] | None:
    """Return epoch ms and UTC offset in minutes of `from` or `to` in either form; None if neither was sent."""
    text, millis = parameters.get(name), parameters.get(f"{name}Millis")
    if text is not None and millis is not None:
        causes.append(f"{name}Millis: must not be provided together with {name}")
        return None
    if millis is not None:
        return _number(parameters, f"{name}Millis", (0, _LAST_INSTANT), causes) or 0, 0
    if text is None:
        return None
    return _date_time(text, name, causes)


def _date_time(text: str, name: str, causes: list[str]) -> tuple[int, int] | None:
    try:
        moment = datetime.fromisoformat(text)
        offset = moment.utcoffset()
    except ValueError:
        offset = None
    if offset is None or "T" not in text.upper():
        causes.append(f"{name}: must be an RFC 3339 date-time")
        return None
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return elapsed // timedelta(milliseconds=1), offset // timedelta(minutes=1)


def _range_causes(start: int, end: int, now: float) -> list[str]:
    if start > end:
        return ["from: must not be after to"]
    causes = []
    if end - start > _WEEK_MS:
        causes.append("to: the timeframe must not exceed 1 week")
    if start < month_before(now):
        causes.append("from: must be no more than 1 month in the past")
    return causes
