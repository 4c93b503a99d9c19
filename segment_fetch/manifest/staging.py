"""Windows on their way into a sink, before they count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from segment_fetch.query import Window
from segment_fetch.sinks.base import Draft, Held, Sink, Written
from segment_fetch.windows.reader import WindowRead

MOST_BEGUN = 32
"""Windows that are written at once, each with a file of its own open; the parts of others are held until their turn."""


def _nothing() -> None:
    """Do nothing before the first draft."""


class Staging:
    """The drafts of windows that are still being read. `begin` is called before the first of each."""

    def __init__(self, sink: Sink[Any], begin: Callable[[], None] = _nothing) -> None:
        self._sink = sink
        self._begin = begin
        self._drafts: dict[Window, Draft[Any]] = {}
        self._failed: Exception | None = None

    def add(self, window: Window, parts: Iterable[Any]) -> None:
        """Writes what is ready of a window that is still being read. Its errors are those of the next `check`."""
        if self._failed is not None:
            return
        try:
            if window not in self._drafts:
                self._begin()
                self._drafts[window] = self._draft(window)
            for part in parts:
                self._drafts[window].add(part)
        except Exception as error:  # noqa: BLE001 - nobody waits for this call; `check` raises it
            self._failed = error

    def _draft(self, window: Window) -> Draft[Any]:
        begun = sum(not isinstance(draft, Held) for draft in self._drafts.values())
        return self._sink.begin(window) if begun < MOST_BEGUN else Held(self._sink, window)

    def check(self) -> None:
        """Raises what an `add` before could not do."""
        if self._failed is not None:
            raise self._failed

    def withdraw(self, windows: Iterable[Window] | None = None) -> None:
        """Drops what was written of windows that are not finished; of all of them if none are named."""
        for window in list(self._drafts if windows is None else windows):
            if (draft := self._drafts.pop(window, None)) is not None:
                draft.drop()

    def written(self, read: WindowRead[Any]) -> Written:
        """Writes a proven window, or the rest of it."""
        if read.window not in self._drafts:
            return self._sink.write(read.window, read.parts)
        try:
            for part in read.parts:
                self._drafts[read.window].add(part)
            written = self._drafts[read.window].finish()
        except BaseException:
            self.withdraw([read.window])
            raise
        del self._drafts[read.window]
        return written
