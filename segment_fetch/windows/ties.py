"""All segments of one millisecond, which page boundaries may cut in any order: read by itself until it is proven."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, structs

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.wire.models import Segment
from segment_fetch.wire.raw_rows import ids_of

MAX_TIE_PASSES = 12
"""Readings of one instant before it is given up."""


class Fetch(Struct, frozen=True, eq=False):
    """A page to ask for. `instant` is the pass of an instant that it belongs to, None for the window's own."""

    window: Window
    offset: int = 0
    instant: TieReader | None = None


def exact(view: coverage.PageView, rows: Sequence[Segment]) -> coverage.PageView:
    """A page with the ids themselves, not their keys, for a proof by which rows of the same id are dropped."""
    return view if isinstance(view.ids, list) else structs.replace(view, ids=ids_of(rows))


class TieReader:
    """All segments of one close time: by one answer, by a reading of nothing but what was seen before, or, if nothing
    changes, by their count. `seen` are pages that came before.
    """

    def __init__(self, at: int, to: int, limit: int, *, seen: Iterable[coverage.PageView] = (), still: bool) -> None:
        self.at = at
        self.rows: dict[str, Segment] = {}
        self._window = Window(at, to)
        self._limit = limit
        self._still = still
        self._seen = list(seen)
        self._later: list[coverage.PageView] = []
        self._all: list[coverage.PageView] = []
        self._passes = 1

    def start(self) -> Fetch:
        """The first page of a reading."""
        return Fetch(self._window, 0, self)

    def take(self, view: coverage.PageView, rows: Sequence[Segment]) -> None:
        """Holds a page."""
        view = exact(view, rows)
        self._later.append(view)
        self._all.append(view)
        self.rows.update((row.segmentId, row) for row in rows if row.endTimeL == self.at)

    def advance(self) -> list[Fetch] | bool:
        """Further pages to ask for; or whether the instant is proven."""
        count = self._later[0].count or 0
        if len(self._later) == 1 and count > self._limit:
            return [Fetch(self._window, offset, self) for offset in range(self._limit, count, self._limit)]
        if coverage.tie_proof(self._later, self._seen):
            kept = {segment_id for view in self._later for segment_id in view.ids}
            self.rows = {segment_id: row for segment_id, row in self.rows.items() if segment_id in kept}
            return True
        if self._still and coverage.count_proof(self._all) is not None:
            return True
        if self._passes == MAX_TIE_PASSES:
            return False
        self._passes += 1
        self._seen += self._later
        self._later = []
        return [self.start()]


class Ties:
    """The instants of one pass that are being read, side by side."""

    def __init__(self) -> None:
        self.all: dict[int, TieReader] = {}
        self._reading: list[TieReader] = []

    def add(self, instant: TieReader) -> Fetch:
        """Starts an instant."""
        self.all[instant.at] = instant
        self._reading.append(instant)
        return instant.start()

    def advance(self) -> list[Fetch] | str:
        """Further pages; none if all instants are proven; or which instant cannot be."""
        asks: list[Fetch] = []
        for instant in list(self._reading):
            step = instant.advance()
            if isinstance(step, list):
                asks += step
            elif step:
                self._reading.remove(instant)
            else:
                return f"the segments of millisecond {instant.at} changed in each of {MAX_TIE_PASSES} readings"
        return asks
