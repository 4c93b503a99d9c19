"""A check of neighbouring windows: a segment that is in two of them moved while they were read, or the API has two rows
with one id. Either way one of the windows is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.raw_rows import Column, distinct


class _Ids(NamedTuple):
    window: Window
    keys: Sequence[Column]
    rows: int


class Neighbours:
    """The ids of windows whose neighbours have not all been read yet: 8 bytes per segment. A collision of two 64-bit
    keys only costs a second reading.
    """

    def __init__(self) -> None:
        self._by_start: dict[int, _Ids] = {}
        self._by_end: dict[int, _Ids] = {}
        self.overlapping: set[Window] = set()
        """The windows that share an id with a neighbour."""

    def add(self, read: WindowRead[Any]) -> None:
        """Compare a window that has ended with the neighbours that ended before it."""
        ids = _Ids(read.window, read.keys, sum(map(len, read.keys)))
        later = self._by_start.pop(read.window.end, None)
        earlier = self._by_end.pop(read.window.start, None)
        for other in filter(None, (earlier, later)):
            if ids.rows and other.rows and distinct([*ids.keys, *other.keys]) < ids.rows + other.rows:
                self.overlapping |= {ids.window, other.window}
        if earlier is None:
            self._by_start[read.window.start] = ids
        if later is None:
            self._by_end[read.window.end] = ids
