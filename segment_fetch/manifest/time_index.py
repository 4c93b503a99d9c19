"""The windows of a manifest, ordered by time.

They never overlap, so those that a window touches are adjacent: the cost of finding and replacing them does not depend
on the number of windows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.timerange import format_time


class Entries:
    """A sorted mapping of windows that do not overlap to their entries."""

    def __init__(self, entries: Mapping[Window, WindowEntry]) -> None:
        self._by_window = dict(entries)
        self._windows = sorted(self._by_window)
        self._final_before: int | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, window: Window) -> bool:
        return window in self._by_window

    def __getitem__(self, window: Window) -> WindowEntry:
        return self._by_window[window]

    def __iter__(self) -> Iterator[WindowEntry]:
        """Iterate over all entries, oldest first."""
        return map(self._by_window.__getitem__, self._windows)

    def items(self) -> Iterator[tuple[Window, WindowEntry]]:
        """Iterate over all windows with their entries, oldest first."""
        return ((window, self._by_window[window]) for window in self._windows)

    def within(self, window: Window) -> list[tuple[Window, WindowEntry]]:
        """Return the windows that overlap this one, with their entries, oldest first."""
        low, high = self._slice(window)
        return [(found, self._by_window[found]) for found in self._windows[low:high]]

    def _slice(self, window: Window) -> tuple[int, int]:
        low = bisect_left(self._windows, window.start, key=lambda each: each.end - 1)
        return low, bisect_left(self._windows, window.end, lo=low, key=lambda each: each.start)

    def replace(self, entries: Iterable[tuple[Window, WindowEntry]]) -> None:
        """Insert windows in place of all that they overlap."""
        for window, entry in entries:
            low, high = self._slice(window)
            for old in self._windows[low:high]:
                del self._by_window[old]
            self._windows[low:high] = [window]
            self._by_window[window] = entry
            if self._final_before is not None and window.start < self._final_before:
                self._final_before = None  # it may have moved back: compute it again

    def complete_before(self) -> str | None:
        """Return the watermark: everything that closed before it, from the first window on, is stored and final.

        There is no gap and no provisional or unproven window before it. None if there are no windows.
        """
        if not self._windows:
            return None
        at = self._windows[0].start if self._final_before is None else self._final_before
        low, _ = self._slice(Window(at, at + 1))
        for index in range(low, len(self._windows)):
            window = self._windows[index]
            if window.start != at or self._by_window[window].status != "complete":
                break
            at = window.end
        self._final_before = at
        return format_time(at)
