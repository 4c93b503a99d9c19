"""The log: text, or one JSON object per line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import orjson

log = logging.getLogger("segment_fetch.cli")

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class TextFormatter(logging.Formatter):
    """Formats the message, with its level unless that is info; `timed`: with the time, for a log file.

    `accounts`: there are several accounts, so an event begins with its account.
    """

    def __init__(self, *, timed: bool, accounts: bool) -> None:
        super().__init__()
        self._timed = timed
        self._accounts = accounts

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{_time(record)} {level}" if self._timed else level
        text += f"{record.account}: " if self._accounts and hasattr(record, "account") else ""
        text += record.getMessage()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class JsonFormatter(logging.Formatter):
    """Formats one object per line: time, level, event, message, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **{name: value for name in ("account", "run_id") if (value := getattr(record, name, None)) is not None},
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


class _Handler(logging.Handler):
    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


@contextmanager
def logging_to(
    write: Callable[[str], None], *, level: str, form: str, timed: bool, accounts: bool = False
) -> Iterator[None]:
    """Send the library's log, and at debug asyncio's, only to `write` for the duration of the block.

    `accounts`: there are several accounts; their events are omitted unless they need attention or the level is debug.
    """
    handler = _Handler(write)
    if accounts and level != "debug":
        handler.addFilter(_needs_attention)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(timed=timed, accounts=accounts))
    ours, asyncio = logging.getLogger("segment_fetch"), logging.getLogger("asyncio")
    before = [(logger, logger.level, logger.propagate) for logger in (ours, asyncio)]
    ours.setLevel(_LEVELS[level])
    asyncio.setLevel(logging.WARNING if level == "debug" else logging.CRITICAL)
    for logger in (ours, asyncio):
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, old, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(old)
            logger.propagate = propagate


def _needs_attention(record: logging.LogRecord) -> bool:
    """Return True for warnings, the end of an outage, and records that are not events of a client."""
    is_event = record.name == "segment_fetch.events"
    return not is_event or record.levelno >= logging.WARNING or getattr(record, "event", "") == "service_back"


def say(level: str, event: str, message: str, **fields: object) -> None:
    """Log a line."""
    log.log(_LEVELS[level], "%s", message, extra={"event": event, "fields": fields})
