"""A window that may change while it is read: pages overlap, and are proven by stitching them; patches where a joint
cannot be shown, instants where there are large ties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from segment_fetch import stitch
from segment_fetch.instants import Ask, InstantPass, Instants, exact
from segment_fetch.models import Segment
from segment_fetch.order import Joiner, Part, in_order, piece_of
from segment_fetch.passes import Failed, Pass, Proven, foreign
from segment_fetch.query import Window
from segment_fetch.wire import times_of

MOST_PATCHES = 50
"""Rounds of patch requests for one window before it is given up: far more than any drift seen needs."""


def _picked(rows: Sequence[Segment], which: Sequence[int]) -> Sequence[Segment]:
    """Some rows of a page. Most often they are all that lie between two of them."""
    if which and which[-1] - which[0] == len(which) - 1:
        return rows[which[0] : which[-1] + 1]
    segments = list(rows)
    return [segments[row] for row in which]


def _apart(chain: Iterable[Sequence[Segment]], limit: int) -> list[Sequence[Segment]]:
    """The rows of a chain of pages, newest first, so that none but the rows of one instant are in two of its members.

    A row that came or went between two overlapping pages is in one of them alone, where the other has newer and older
    ones; such pages are sorted together, and divided anew into as many rows as a page holds.
    """
    runs: list[tuple[int, list[Sequence[Segment]]]] = []
    for rows in filter(len, chain):
        times = times_of(rows)
        oldest, run = times[-1], [rows]
        while runs and runs[-1][0] < times[0]:
            above, pages = runs.pop()
            oldest, run = min(above, oldest), [*pages, *run]
        runs.append((oldest, run))
    return [member for _, run in runs for member in _sorted_together(run, limit)]


def _sorted_together(pages: list[Sequence[Segment]], limit: int) -> list[Sequence[Segment]]:
    if len(pages) == 1:
        return pages
    rows = in_order(row for page in pages for row in page)[::-1]
    return [rows[at : at + limit] for at in range(0, len(rows), limit)]


class MovingPass(Pass[Part]):
    """Overlapping pages, stitched."""

    def __init__(self, window: Window, limit: int, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self._window = window
        self._limit = limit
        self._encode = encode
        self._views: list[stitch.PageView] = []
        self._rows: list[Sequence[Segment]] = []
        self._instants = Instants()
        self._overlap = stitch.OVERLAP
        self._asked = self._confirmed = False
        self._rounds = 0

    def take(self, ask: Ask, view: stitch.PageView, rows: Sequence[Segment]) -> str | None:
        if ask.instant is not None:
            ask.instant.take(view, rows)
        else:
            self._views.append(exact(view, rows))
            self._rows.append(rows)
        return None

    def advance(self) -> list[Ask] | Proven[Part] | Failed:
        if not self._asked:
            self._asked = self._views[-1].count is not None
            if asks := self._first_asks():
                return asks
        step = self._instants.advance()
        if isinstance(step, str):
            return Failed(step)
        return step or self._stitched()

    def _first_asks(self) -> list[Ask]:
        """The pages behind the first one, which tells how much they have to overlap."""
        view = self._views[-1]
        self._overlap = max(self._overlap, stitch.overlap(stitch.largest_tie(view.times)))
        if view.count is None:
            shared = min(self._overlap, self._limit // 2)
            return [Ask(self._window, max(1, view.offset + len(view.ids) - shared))]
        behind = stitch.offsets(view.count - view.offset, self._limit, self._overlap)[1:]
        return [Ask(self._window, view.offset + at) for at in behind]

    def _stitched(self) -> list[Ask] | Proven[Part] | Failed:
        instants = list(self._instants.all.values())
        known: list[stitch.PageView | stitch.Instant] = [*self._views]
        known += [stitch.Instant(instant.at, list(instant.rows)) for instant in instants]
        outcome = stitch.stitch(known, start=self._window.start, end=self._window.end, k=self._overlap)
        if isinstance(outcome, stitch.Proof):
            if doubt := self._doubtful_end(outcome.chain[-1].page):
                return [doubt]
            rows = [*self._rows, *(list(instant.rows.values()) for instant in instants)]
            chain = [_picked(rows[kept.page], kept.rows) for kept in outcome.chain]
            self._rows.clear()
            rows.clear()
            return self._proven(chain)
        self._rounds += 1
        if self._rounds > MOST_PATCHES:
            return Failed(f"it changed faster than it could be read, in {MOST_PATCHES} rounds")
        patches = [Ask(Window(self._window.start, gap.to)) for gap in outcome.gaps]
        ties = [InstantPass(tie.at, tie.to, self._limit, seen=self._views, still=False) for tie in outcome.ties]
        patches += [self._instants.add(instant) for instant in ties if instant.at not in self._instants.all]
        return patches or Failed("its pages contradict each other")

    def _doubtful_end(self, index: int) -> Ask | None:
        """The page that claims to be the last, to be read once more, if another page holds older segments.

        Either those have vanished since, or the page's count was stale and it is not the last at all.
        """
        if index >= len(self._views) or self._confirmed:
            return None
        last = self._views[index]
        if not last.times or all(view.times[-1] >= last.times[-1] for view in self._views if view.times):
            return None
        self._confirmed = True
        del self._views[index], self._rows[index]
        return Ask(Window(self._window.start, last.to), last.offset)

    def _proven(self, chain: list[Sequence[Segment]]) -> Proven[Part]:
        """Encodes the rows of a chain, which is emptied meanwhile, so that they are not in memory twice."""
        members = _apart((rows[foreign(times_of(rows), self._window) :] for rows in chain), self._limit)
        chain.clear()
        joiner = Joiner(self._encode)
        parts: list[Part] = []
        while members:
            rows = members.pop()
            parts += joiner.add(piece_of(rows, times_of(rows), self._encode))
        parts += joiner.end()
        return Proven(parts, joiner.rows)
