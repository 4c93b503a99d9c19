"""The query: account, source, filters, page size and windows; checked once, before anything is sent."""

from __future__ import annotations

import ipaddress
import re

from msgspec import Struct

from segment_fetch.errors import InputError, check_type
from segment_fetch.timerange import format_time

MAX_PAGE_SIZE = 500
"""Maximum number of segments in one answer (a rule of the API)."""
MAX_WINDOW_MS = 7 * 24 * 3600 * 1000
"""Maximum time frame of one request in milliseconds (a rule of the API)."""


_SOURCE = re.compile(r"[a-zA-Z0-9_]+")
_ACCOUNT = re.compile(r"[a-zA-Z0-9_-]+")


class Filters(Struct, frozen=True, omit_defaults=True):
    """Restrictions of the segments besides the range; None means all. Values are sent unchanged."""

    agent_id: str | None = None
    skill_id: str | None = None
    group_id: str | None = None
    employee_id: str | None = None
    conversation_id: str | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not None:
                check_type(f"filters: {name}", value, str, "text (the API's ids are text)")

    def params(self) -> dict[str, str]:
        """Return the request's parameters, spelled as in the API's documentation."""
        named = {
            "AgentId": self.agent_id,
            "SkillId": self.skill_id,
            "GroupId": self.group_id,
            "EmployeeId": self.employee_id,
            "ConversationId": self.conversation_id,
        }
        return {name: value for name, value in named.items() if value is not None}


class Window(Struct, frozen=True, order=True, gc=False):
    """A time frame of at most one week, epoch milliseconds. It owns the close times start <= t < end.

    Both ends are sent. Neighbours share the boundary, and the later one owns it: so a segment on it is kept once,
    whether the server treats `to` as inclusive or not.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if type(self.start) is not int or type(self.end) is not int:
            raise InputError("window: start and end must be epoch milliseconds, whole numbers")

    def __str__(self) -> str:
        return f"{format_time(self.start)} to {format_time(self.end)}"


class Query(Struct, frozen=True):
    """The account, the filters and the page size: everything that is sent to the API except the range."""

    account: str
    source: str
    filters: Filters = Filters()
    limit: int = MAX_PAGE_SIZE

    def __post_init__(self) -> None:
        check_type("account", self.account, str, "the account number as text")
        check_type("source", self.source, str, "text")
        check_type("limit", self.limit, int, "a whole number")
        if not _ACCOUNT.fullmatch(self.account):
            raise InputError(f"account {self.account!r}: letters, digits, '-' and '_' only, as LivePerson shows it")
        if not _SOURCE.fullmatch(self.source) or len(self.source) > 20:
            raise InputError(
                f"source {self.source!r}: 1 to 20 letters, digits or underscores, unique to this job (nightly_wfm)"
            )
        if not 1 <= self.limit <= MAX_PAGE_SIZE:
            raise InputError(f"limit {self.limit}: must be from 1 to {MAX_PAGE_SIZE}")
        for name, value in self.filters.params().items():
            if not value.strip():
                raise InputError(f"filter {name}: is empty; leave it out to get all")
            if not _is_unicode(value):
                raise InputError(f"filter {name}: contains bytes that are not valid UTF-8")

    def params(self, window: Window, offset: int, limit: int) -> dict[str, str]:
        """Return the parameters of a page request."""
        return {
            "source": self.source,
            "fromMillis": str(window.start),
            "toMillis": str(window.end),
            "sort": "Date",
            "offset": str(offset),
            "limit": str(limit),
            **self.filters.params(),
        }


def _is_unicode(text: str) -> bool:
    """Return True if a text can be sent; one from the command line has surrogates if it was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_loopback(host: str | None) -> bool:
    """Return True if a host name or address can only mean this machine."""
    try:
        return host == "localhost" or (host is not None and ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False
