"""The log of a client: a record on `logging.getLogger("segment_fetch.events")` for each of its events."""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec

from segment_fetch.errors import printable
from segment_fetch.events import (
    Event,
    NewFields,
    PaceChanged,
    PageRead,
    Paused,
    Retrying,
    ServiceBack,
    ServiceDown,
    Warned,
    WindowCommitted,
    WindowDone,
    WindowOpened,
)
from segment_fetch.query import Window
from segment_fetch.timerange import format_time

_log = logging.getLogger("segment_fetch.events")

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_MOST_REASONS = 8
_LONGEST = 2_000  # characters


class EventLog:
    """Logs the events of one client. The first retry or pause of each kind has its level, the others have debug.

    Each record has the attributes `event`, the event's name in lower case; `fields`, its fields as in JSON; `account`;
    `run_id`, None outside a run; and `window`, as text, None if the event does not concern one.
    """

    def __init__(self, account: str) -> None:
        self._account = account
        self._seen: set[str] = set()

    def take(self, event: Event, run_id: str | None = None) -> None:
        """Log an event on a single line, whatever text from the API it contains."""
        level = self._level(event)
        if not _log.isEnabledFor(level):
            return
        window = getattr(event, "window", None)
        extra = {
            "event": _CAPITAL.sub("_", type(event).__name__).lower(),
            "fields": _fields(event),
            "account": self._account,
            "run_id": run_id,
            "window": None if window is None else str(window),
        }
        _log.log(level, "%s", printable(event, _LONGEST), extra=extra)

    def _level(self, event: Event) -> int:
        level = logging.INFO
        match event:
            case PageRead() | WindowOpened() | WindowCommitted() | PaceChanged(reason="started" | "no_refusals"):
                level = logging.DEBUG
            case PaceChanged():
                level = self._first(event.reason, logging.INFO)
            case Retrying():
                level = self._first(re.sub(r"\d+", "", event.reason), logging.INFO)
            case Paused():
                level = self._first("429", logging.INFO)
            case ServiceDown():
                level = self._first("down", logging.WARNING)
            case ServiceBack():
                self._seen.discard("down")
            case NewFields() | Warned() | WindowDone(status="unproven"):
                level = logging.WARNING
            case _:
                pass
        return level

    def _first(self, kind: str, level: int) -> int:
        if kind in self._seen or len(self._seen) >= _MOST_REASONS:
            return logging.DEBUG
        self._seen.add(kind)
        return level


def _fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event in machine-readable form, with windows as times."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    for name, value in fields.items():
        if isinstance(value, Window):
            fields[name] = _times(value)
        elif name == "names":
            fields[name] = [printable(each) for each in value]
        elif name == "parts":
            fields[name] = [_times(part) for part in value]
    text = fields.pop("message", None)
    return msgspec.to_builtins(fields | ({} if text is None else {"warning": text}))  # type: ignore[no-any-return]


def _times(window: Window) -> dict[str, str]:
    return {"from": format_time(window.start), "to": format_time(window.end)}
