"""The state that a target keeps between two runs."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.integrations.bookmark import Kept, check_kept, kept
from segment_fetch.integrations.singer.catalog import REPLICATION_KEY, STREAM
from segment_fetch.query import Filters
from segment_fetch.timerange import format_time, parse_time

_ANEW = "start again without it (meltano: --full-refresh), or use another state for this query (--state-id-suffix)"


class _Bookmark(Kept, kw_only=True):
    replication_key_value: int | str | None = None


class _Bookmarks(Struct):
    agent_segments: _Bookmark | None = None


class _State(Struct):
    bookmarks: _Bookmarks


class State:
    """The bookmark of an account with its filters. Other entries of the same state are passed on as they are.

    `bookmark` is in epoch milliseconds: everything that closed before it is proven and was emitted. It is None in the
    first run, when `stored` is None or `{}`. A whole STATE message counts as its value. Raises InputError for a state
    that cannot be used; it never silently starts again.
    """

    def __init__(self, account: str, filters: Filters, stored: bytes | None = None, where: str = "the state") -> None:
        self._account = account
        self._filters = filters
        try:
            self._stored = {} if stored is None else _value(stored)
            found = msgspec.convert(self._stored, _State) if self._stored else None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InputError(f"{where}: is not a state of this tap: {error}; {_ANEW}") from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        own = None if found is None else found.bookmarks.agent_segments
        try:
            self.bookmark = None if own is None else self._checked(own)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def _checked(self, own: _Bookmark) -> int | None:
        check_kept(own, self._account, self._filters, anew=_ANEW)
        if own.replication_key_value is None:
            return None
        try:
            return parse_time(own.replication_key_value, 0)
        except InputError as error:
            raise InputError(f"the bookmark cannot be read: {error}; {_ANEW}") from None

    def behind(self, bookmark: int) -> dict[str, Any]:
        """Return the state to emit for a bookmark."""
        own = {
            "replication_key": REPLICATION_KEY,
            "replication_key_value": bookmark,
            "complete_before": format_time(bookmark),
            **kept(self._account, self._filters),
        }
        return self._stored | {"bookmarks": self._stored.get("bookmarks", {}) | {STREAM: own}}


def _value(stored: bytes) -> dict[str, Any]:
    """Return the state in a file: the bare object, as targets write it, or in the message that the tap printed."""
    if not stored.strip():
        raise InputError(
            "is empty, so it does not say where the last run ended: put the last state there; in the first run omit "
            "the option, or write {} to the file"
        )
    found = msgspec.json.decode(stored, type=dict[str, Any])
    if found.get("type") != "STATE":
        return found
    if "bookmarks" in found:
        raise InputError(f"is a STATE message with bookmarks beside its value, which is ambiguous; {_ANEW}")
    return msgspec.convert(found.get("value"), dict[str, Any])
