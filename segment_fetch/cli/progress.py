"""The progress of a run, added up from its events, and its display: live on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from math import inf
from typing import Any, TextIO

from segment_fetch.cli.formatting import pace
from segment_fetch.cli.log import say
from segment_fetch.errors import lasting
from segment_fetch.events import (
    Event,
    PaceChanged,
    PageRead,
    Paused,
    RangePlanned,
    Retrying,
    WindowCommitted,
    WindowDone,
    WindowOpened,
    WindowReread,
    WindowSplit,
)
from segment_fetch.query import Window

INTERVAL_S = 5.0


class RunProgress:
    """The progress of one run. `read` and `expected` are segments; `expected` is a guess until every window is open."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._rows: dict[Window, int] = {}
        self._most: dict[Window, int] = {}
        self._sum = self._shown = self._known = 0
        self._counts: dict[Window, int] = {}
        self._parts: set[Window] = set()
        self._planned = 0
        self.windows = 0
        self.done = 0
        self.pages = 0
        self.retries = 0
        self.pauses = 0
        self._paused_until = -inf
        self.committed = 0, 0
        """Windows and segments that are in the destination."""
        self.pace: PaceChanged | None = None
        """The current pace of requests; None if they are not paced."""

    def take(self, event: Event) -> None:
        """Add an event to the totals."""
        match event:
            case RangePlanned():
                self._started = self._clock()
                self.windows = self._planned = event.windows
            case WindowOpened():
                self._opened(event)
            case WindowSplit():
                self._split(event)
            case PageRead():
                self.pages += 1
                self._holds(event.window, self._rows.get(event.window, 0) + event.rows)
            case WindowReread():
                self._holds(event.window, 0)
            case WindowDone():
                self.done += 1
                self._holds(event.window, event.segments)
            case WindowCommitted():
                windows, segments = self.committed
                self.committed = windows + 1, segments + event.segments
            case Retrying() | Paused() | PaceChanged():
                self._slowed(event)

    def _slowed(self, event: Retrying | Paused | PaceChanged) -> None:
        match event:
            case Retrying():
                self.retries += 1
            case Paused():
                self._paused(event.seconds)
            case PaceChanged():
                self.pace = event

    def _paused(self, seconds: float) -> None:
        """Count a pause once: a 429 during a pause only makes it longer."""
        now = self._clock()
        self.pauses += now >= self._paused_until
        self._paused_until = max(self._paused_until, now + seconds)

    def _split(self, event: WindowSplit) -> None:
        self.windows += len(event.parts) - 1
        self._parts.update(event.parts)
        for part in event.parts:  # a part can be opened before all of them are known
            self._known -= self._counts.pop(part, 0)
        self._holds(event.window, 0)

    def _opened(self, event: WindowOpened) -> None:
        rows = self._rows.get(event.window, 0)
        self._holds(event.window, 0)
        self._most[event.window] = event.count
        if event.window not in self._parts:
            self._known += event.count - self._counts.get(event.window, 0)
            self._counts[event.window] = event.count
        self._holds(event.window, rows)

    def _holds(self, window: Window, rows: int) -> None:
        """Set the number of rows read of a window."""
        self._sum += self._within(window, rows) - self._within(window, self._rows.get(window, 0))
        self._rows[window] = rows
        self._shown = max(self._shown, min(self._sum, self._known))

    def _within(self, window: Window, rows: int) -> int:
        """Return the rows, at most the segments of the window: pages overlap, so there may be more rows."""
        return min(rows, self._most.get(window, rows))

    @property
    def started(self) -> bool:
        """True if the range has been planned."""
        return self._planned > 0

    @property
    def read(self) -> int:
        """Segments read so far; it never falls, even if a window is read again, and never exceeds `expected`."""
        return self._shown

    @property
    def expected(self) -> int:
        """Segments expected in total; windows not opened yet are assumed to hold as many as the others."""
        opened = len(self._counts)
        known = self._known
        return known if not opened else max(self.read, known + known * (self._planned - opened) // opened)

    @property
    def sure(self) -> bool:
        """True if `expected` is known, not a guess."""
        return len(self._counts) >= self._planned

    @property
    def final_pace(self) -> dict[str, Any]:
        """The pace in machine-readable form; empty if requests are not paced."""
        if self.pace is None:
            return {}
        return {"pace": {"rate": round(self.pace.rate, 3), "at_once": self.pace.at_once}}

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def fraction(self) -> float:
        """The fraction that is done, 0 to 1."""
        if self.windows and self.done == self.windows:
            return 1.0
        return min(0.999, self.read / self.expected) if self.expected else 0.0

    @property
    def left(self) -> float | None:
        """Estimated seconds left at the speed so far; None while too little is known."""
        return self.elapsed * (1 - self.fraction) / self.fraction if self.fraction > 0.01 else None


class Display(ABC):
    """Shows the progress of a run. `line` writes a line of the log without disturbing it."""

    @abstractmethod
    def update(self) -> None:
        """Show that the progress has changed."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Write a line."""

    @abstractmethod
    def close(self) -> None:
        """Remove the display. May be called more than once."""


class Lines(Display):
    """Progress lines in the log, at most one per `interval` seconds."""

    def __init__(
        self,
        stream: TextIO,
        progress: RunProgress,
        *,
        interval: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._progress = progress
        self._interval = interval
        self._clock = clock
        self._last = clock()

    def update(self) -> None:
        now = self._clock()
        if now - self._last >= self._interval and self._progress.started:
            self._last = now
            say("info", "progress", sentence(self._progress), **numbers(self._progress))

    def line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the lines where they are."""


class Silent(Lines):
    """No progress; warnings and errors only."""

    def update(self) -> None:
        """Show nothing."""


def sentence(progress: RunProgress) -> str:
    """Return the progress as a line of text."""
    expected = f"{progress.expected:,}" if progress.sure else f"about {progress.expected:,}"
    parts = [f"{progress.read:,} of {expected} segments", f"{progress.done:,} of {progress.windows:,} windows"]
    parts += [f"retries {progress.retries:,}"] if progress.retries else []
    parts += [f"pauses {progress.pauses:,}"] if progress.pauses else []
    parts += [pace(progress.pace)] if progress.pace else []
    return ", ".join([*parts, lasting(progress.elapsed)])


def numbers(progress: RunProgress) -> dict[str, object]:
    """Return the progress in machine-readable form."""
    return {
        "segments": progress.read,
        "segments_expected": progress.expected,
        "windows_done": progress.done,
        "windows": progress.windows,
        "pages": progress.pages,
        "retries": progress.retries,
        "pauses": progress.pauses,
        **({} if progress.pace is None else {"rate": round(progress.pace.rate, 3), "at_once": progress.pace.at_once}),
        "seconds": round(progress.elapsed, 3),
    }


def may_be_live(stream: TextIO) -> bool:
    """Return True if a live display can be shown: on a terminal that can move its cursor, with rich installed."""
    able = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return able and find_spec("rich") is not None
