"""Log lines for the events of the library: the first of each kind at the level at which it matters."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from segment_fetch.cli.formatting import pace, plural
from segment_fetch.cli.log import say
from segment_fetch.errors import lasting, printable
from segment_fetch.events import (
    Event,
    NewFields,
    PaceChanged,
    Paused,
    RangePlanned,
    Retrying,
    ServiceBack,
    ServiceDown,
    Warned,
    WindowDone,
    WindowReread,
    WindowSplit,
)
from segment_fetch.query import Window
from segment_fetch.timerange import format_time

_PROVEN = {
    "complete": "proven complete",
    "provisional": "proven as of now; late segments may still come",
    "unproven": "not proven, and left out",
}
_REASONS = {
    "started": "first pace",
    "remembered": "pace of an earlier run",
    "too_fast": "the 429 is attributed to too many requests a second",
    "too_many_at_once": "the 429 is attributed to too many concurrent requests",
    "no_refusals": "no 429 for a while",
}
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_MOST_REASONS = 8
_LONGEST = 2_000  # characters


class EventLogger:
    """Logs events. Of retries and pauses, the first of each kind is logged at its level, the others at debug.

    `csv`: the destination cannot hold new fields.
    """

    def __init__(self, *, csv: bool = False) -> None:
        self._csv = csv
        self._seen: set[str] = set()

    def tell(self, event: Event) -> None:
        """Log an event, in one line whatever the API put into it."""
        level, message = self._told(event)
        say(level, _CAPITAL.sub("_", type(event).__name__).lower(), printable(message, _LONGEST), **_fields(event))

    def _told(self, event: Event) -> tuple[str, str]:
        match event:
            case Retrying():
                return self._retrying(event)
            case Paused() | PaceChanged():
                return self._pace(event)
            case ServiceDown() | ServiceBack():
                return self._service(event)
            case NewFields():
                return "warning", self._new_fields(event)
            case Warned():
                return "warning", event.message
            case _:
                return _plainly(event)

    def _retrying(self, event: Retrying) -> tuple[str, str]:
        where = f"window {event.window}, offset {event.offset}"
        level = self._level(re.sub(r"\d+", "", event.reason), "info")
        return level, f"{event.reason}; retrying after {event.delay:.1f} s ({where})"

    def _pace(self, event: Paused | PaceChanged) -> tuple[str, str]:
        if isinstance(event, Paused):
            return self._level("429", "info"), f"the API answered 429 (too many): a pause of {event.seconds:.1f} s"
        level = "debug" if event.reason in ("started", "no_refusals") else self._level(event.reason, "info")
        return level, f"{_REASONS[event.reason]}: now {pace(event)}"

    def _service(self, event: ServiceDown | ServiceBack) -> tuple[str, str]:
        if isinstance(event, ServiceBack):
            self._seen.discard("down")
            return "info", f"the service answers again, after {lasting(event.seconds)}"
        return self._level("down", "warning"), _down(event)

    def _level(self, kind: str, first: str) -> str:
        if kind in self._seen or len(self._seen) >= _MOST_REASONS:
            return "debug"
        self._seen.add(kind)
        return first

    def _new_fields(self, event: NewFields) -> str:
        names = ", ".join(event.names)
        what = "CSV cannot hold them: use --format jsonl to keep them" if self._csv else "they are kept as they are"
        return f"the API sends fields that this version does not know: {names}; {what}"


def _plainly(event: Event) -> tuple[str, str]:
    match event:
        case RangePlanned():
            there = f", {event.skipped:,} complete already" if event.skipped else ""
            return "info", f"{plural(event.windows, 'window')} to read{there}"
        case WindowSplit():
            return "info", f"window {event.window} is large and is read in {len(event.parts)} parts"
        case WindowReread():
            return "info", f"window {event.window} is read again: {event.reason}"
        case WindowDone():
            return _done(event)
        case _:
            return "debug", str(event)


def _down(event: ServiceDown) -> str:
    until = f"trying for up to {lasting(event.patience)} (--patience)"
    return f"no request has succeeded for {lasting(event.seconds)}: {event.reason}; {until}"


def _done(event: WindowDone) -> tuple[str, str]:
    level = "warning" if event.status == "unproven" else "info"
    reason = f": {event.reason}" if event.reason else ""
    return level, f"window {event.window}: {plural(event.segments, 'segment')}, {_PROVEN[event.status]}{reason}"


def _fields(event: Event) -> dict[str, Any]:
    """Return the fields of an event for programs, with windows as times."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    for name, value in fields.items():
        if isinstance(value, Window):
            fields[name] = _times(value)
        elif name == "parts":
            fields[name] = [_times(part) for part in value]
    text = fields.pop("message", None)
    return msgspec.to_builtins(fields | ({} if text is None else {"warning": text}))  # type: ignore[no-any-return]


def _times(window: Window) -> dict[str, str]:
    return {"from": format_time(window.start), "to": format_time(window.end)}
