"""How far a run is, while it runs: a live display on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.util import find_spec
from typing import TextIO

from segment_fetch.cli.logs import say
from segment_fetch.cli.tally import Tally
from segment_fetch.cli.words import pace
from segment_fetch.errors import lasting

INTERVAL_S = 5.0


class Display(ABC):
    """Shows a tally. `line` writes a line of the log without disturbing what is shown."""

    @abstractmethod
    def update(self) -> None:
        """The tally has changed."""

    @abstractmethod
    def line(self, text: str) -> None:
        """Writes a line."""

    @abstractmethod
    def close(self) -> None:
        """Takes away what is shown. May be called more than once."""


class Lines(Display):
    """A progress line in the log, at most one in `interval` seconds."""

    def __init__(
        self, stream: TextIO, tally: Tally, *, interval: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._tally = tally
        self._interval = interval
        self._clock = clock
        self._last = clock()

    def update(self) -> None:
        now = self._clock()
        if now - self._last >= self._interval and self._tally.started:
            self._last = now
            say("info", "progress", sentence(self._tally), **numbers(self._tally))

    def line(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Lines stay."""


class Silent(Lines):
    """No progress; warnings and errors only."""

    def update(self) -> None:
        """Says nothing."""


def sentence(tally: Tally) -> str:
    """A tally as a line of text."""
    expected = f"{tally.expected:,}" if tally.sure else f"about {tally.expected:,}"
    parts = [f"{tally.read:,} of {expected} segments", f"{tally.done:,} of {tally.windows:,} windows"]
    parts += [f"retries {tally.retries:,}"] if tally.retries else []
    parts += [f"pauses {tally.pauses:,}"] if tally.pauses else []
    parts += [pace(tally.pace)] if tally.pace else []
    return ", ".join([*parts, lasting(tally.elapsed)])


def numbers(tally: Tally) -> dict[str, object]:
    """A tally for programs."""
    return {
        "segments": tally.read,
        "segments_expected": tally.expected,
        "windows_done": tally.done,
        "windows": tally.windows,
        "pages": tally.pages,
        "retries": tally.retries,
        "pauses": tally.pauses,
        **({} if tally.pace is None else {"rate": round(tally.pace.rate, 3), "at_once": tally.pace.at_once}),
        "seconds": round(tally.elapsed, 3),
    }


def may_be_live(stream: TextIO) -> bool:
    """Whether a live display can be shown: a terminal that can move its cursor, and rich is installed."""
    able = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    return able and find_spec("rich") is not None
