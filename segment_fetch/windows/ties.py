"""Ties larger than a page: all segments of one millisecond, read separately until they are proven."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from segment_fetch.query import Window
from segment_fetch.windows import coverage, overlap
from segment_fetch.windows.pass_protocol import Failed, Fetch, More, Page
from segment_fetch.wire.models import Segment
from segment_fetch.wire.raw_rows import ids_of

MAX_TIE_PASSES = 40
"""Maximum number of passes over one millisecond. In random order, 600 rows take about 10 and 2,000 about 18."""

MAX_CHANGING_PASSES = 12
"""The same if its count keeps changing."""


def exact(page: Page) -> coverage.PageView:
    """Return the view of a page with the ids themselves, for proofs that drop rows with the same id: 64-bit keys can be
    made to collide.
    """
    return page.view if isinstance(page.view.ids, list) else structs.replace(page.view, ids=ids_of(page.rows))


class TieReader:
    """Reads the segments of one close time, pass by pass. `seen` are pages that were read before.

    If the server orders them differently in each answer, one pass repeats some and misses others, but several passes
    together hold all of them. So each pass is tried as the middle one that `tie_proof` needs.
    """

    def __init__(self, at: int, to: int, limit: int, *, seen: Iterable[coverage.PageView] = ()) -> None:
        self.at = at
        self.rows: dict[str, Segment] = {}
        """The rows by id; once `is_proven`, exactly those of the millisecond."""
        self.is_proven = False
        self._window = Window(at, to)
        self._limit = limit
        self._seen = list(seen)
        self._passes: list[list[coverage.PageView]] = [[]]

    def start(self) -> Fetch:
        """Return the request for the first page of a pass."""
        return Fetch(self._window, 0, self)

    def take(self, page: Page) -> None:
        """Store a page."""
        full = len(page.rows) >= self._limit  # `newest_first` does not mark the last page as full
        self._passes[-1].append(structs.replace(exact(page), is_full=full))
        self.rows.update((row.segmentId, row) for row in page.rows if row.endTimeL == self.at)

    def advance(self) -> list[Fetch]:
        """Return further pages to request; none if the tie is proven or given up."""
        first, *others = self._passes[-1]
        offsets = overlap.offsets(first.count or 0, self._limit, overlap.SETTLED_OVERLAP)
        if not others and len(offsets) > 1:
            return [Fetch(self._window, offset, self) for offset in offsets[1:]]
        if (found := self._proof()) is not None:
            self.rows = {segment_id: row for segment_id, row in self.rows.items() if segment_id in found}
            self.is_proven = True
            return []
        if self._is_hopeless():
            return []
        self._passes.append([])
        return [self.start()]

    def _is_hopeless(self) -> bool:
        """Return True if another pass is useless: all are used up, or rows arrive faster than they can be read."""
        counts = {view.count or 0 for views in self._passes[-MAX_CHANGING_PASSES:] for view in views}
        if len(self._passes) >= MAX_CHANGING_PASSES and len(counts) > 1:
            return True
        grown = max(counts) > 4 * max(self._limit, self._passes[0][0].count or 0)
        return grown or len(self._passes) == MAX_TIE_PASSES

    def _proof(self) -> set[str] | None:
        for at, middle in enumerate(self._passes):
            later = [view for views in self._passes[at + 1 :] for view in views]
            earlier = [view for views in self._passes[:at] for view in views]
            if (found := coverage.tie_proof(middle, later, [*self._seen, *earlier])) is not None:
                return found
        return None


class Ties:
    """The ties that one pass reads, concurrently."""

    def __init__(self) -> None:
        self.all: dict[int, TieReader] = {}

    def add(self, tie: TieReader) -> Fetch:
        """Start to read a tie; return its first request."""
        self.all[tie.at] = tie
        return tie.start()

    def advance(self) -> More | Failed | None:
        """Return further pages to request; None if all ties are proven."""
        fetches: list[Fetch] = []
        for tie in self.all.values():
            if tie.is_proven:
                continue
            fetches += (further := tie.advance())
            if not further and not tie.is_proven:
                return Failed(f"the segments of millisecond {tie.at} changed faster than they could be read")
        return More(fetches) if fetches else None
