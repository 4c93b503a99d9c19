"""A window that may change while it is read: its pages overlap. They are joined as they come; what cannot be is
proven by stitching, with patches where a joint cannot be shown, and instants where there are large ties.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.windows.merge import PartJoiner, in_order, ordered_page, since
from segment_fetch.windows.overlap import OverlapJoiner, Page
from segment_fetch.windows.strategy import Failed, Pass, Proven
from segment_fetch.windows.ties import Fetch, TieReader, Ties, exact
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import times_of

MAX_PATCH_ROUNDS = 50
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


class LivePass(Pass[Part]):
    """Overlapping pages: joined from the oldest on while they come, as far as that can be; the others are stitched.

    What was joined is not at hand any more where an id turns out to be twice in the window, or its last page not to be
    the last. It is then to be read anew, with `joins` off.
    """

    def __init__(
        self, window: Window, limit: int, encode: Callable[[Sequence[Segment]], Part], *, joins: bool = True
    ) -> None:
        self._window = window
        self._limit = limit
        self._encode = encode
        self._joins = joins
        self._seams = OverlapJoiner(window, encode)
        self._behind: deque[int] = deque()  # offsets of pages to be joined
        self._waiting: dict[int, Page] = {}  # those of them that came
        self._pages: list[Page] = []  # all others; at the end the first is what was joined and not given, if any was
        self._parts: list[Part] = []
        self._ties = Ties()
        self._overlap = coverage.OVERLAP
        self._asked = self._ended = self._confirmed = False
        self._rounds = 0

    def take(self, ask: Fetch, view: coverage.PageView, rows: Sequence[Segment]) -> str | None:
        if ask.instant is not None:
            ask.instant.take(view, rows)
        elif ask.offset in self._behind:
            self._waiting[ask.offset] = Page(view, rows)
        else:
            self._pages.append(Page(view, rows))
        return None

    def ready(self) -> list[Part]:
        """What is joined below the next page, unless the window then turns out to need another reading."""
        parts: list[Part] = []
        while self._behind and (page := self._waiting.get(self._behind[0])) is not None:
            if (joined := self._seams.join(page)) is None:
                self._stop_joining()
            else:
                parts += joined
                del self._waiting[self._behind.popleft()]
        return parts

    def _stop_joining(self) -> None:
        self._pages += self._waiting.values()
        self._waiting.clear()
        self._behind.clear()

    def advance(self) -> list[Fetch] | Proven[Part] | Failed:
        if not self._asked:
            newest = self._pages[-1].view
            self._asked = newest.count is not None
            if asks := self._first_asks(newest):
                return asks
        if not self._ended:
            self._ended = True
            self._parts += self.ready()
            self._pages[:0] = filter(None, [self._seams.rest()])
        step = self._ties.advance()
        if isinstance(step, str):
            return Failed(step)
        return step or self._stitched()

    def _first_asks(self, view: coverage.PageView) -> list[Fetch]:
        """The pages behind the first one, which tells how much they have to overlap; oldest first."""
        self._overlap = max(self._overlap, coverage.overlap(coverage.largest_tie(view.times)))
        if view.count is None:
            shared = min(self._overlap, self._limit // 2)
            return [Fetch(self._window, max(1, view.offset + len(view.ids) - shared))]
        offsets = coverage.offsets(view.count - view.offset, self._limit, self._overlap)[:0:-1]
        behind = [view.offset + at for at in offsets]
        if self._joins:
            self._behind.extend(behind)
        return [Fetch(self._window, at) for at in behind]

    def _stitched(self) -> list[Fetch] | Proven[Part] | Failed:
        if self._seams.joined and any(self._seams.is_below(page.view) for page in self._pages):
            return Failed("its pages contradict each other about where it ends", again=True)
        self._pages = [Page(exact(*page), page.rows) for page in self._pages]
        views = [page.view for page in self._pages]
        instants = list(self._ties.all.values())
        known: list[coverage.PageView | coverage.ProvenTie] = [*views]
        known += [coverage.ProvenTie(instant.at, list(instant.rows)) for instant in instants]
        outcome = coverage.find_coverage(known, start=self._seams.at, end=self._window.end, k=self._overlap)
        if isinstance(outcome, coverage.Proof):
            if doubt := self._doubtful_end(outcome.chain[-1].page):
                return [doubt]
            rows = [page.rows for page in self._pages] + [list(instant.rows.values()) for instant in instants]
            chain = [_picked(rows[kept.page], kept.rows) for kept in outcome.chain]
            self._pages.clear()
            rows.clear()
            return self._proven(chain)
        self._rounds += 1
        if self._rounds > MAX_PATCH_ROUNDS:
            return Failed(f"it changed faster than it could be read, in {MAX_PATCH_ROUNDS} rounds")
        patches = [Fetch(Window(self._window.start, gap.to)) for gap in outcome.gaps]
        ties = [TieReader(tie.at, tie.to, self._limit, seen=views, still=False) for tie in outcome.ties]
        patches += [self._ties.add(instant) for instant in ties if instant.at not in self._ties.all]
        return patches or Failed("its pages contradict each other")

    def _doubtful_end(self, index: int) -> Fetch | None:
        """The page that claims to be the last, to be read once more if another page, joined or not, has older ones.

        Either those have vanished since, or the page's count was stale and it is not the last at all.
        """
        if self._confirmed or index >= len(self._pages) or (self._seams.joined and index == 0):
            return None
        last = self._pages[index].view
        if not last.is_last or not last.times:
            return None
        held = all(view.times[-1] >= last.times[-1] for view, _ in self._pages if view.times)
        if held and not self._seams.go_below(last):
            return None
        self._confirmed = True
        del self._pages[index]
        return Fetch(Window(self._window.start, last.to), last.offset)

    def _proven(self, chain: list[Sequence[Segment]]) -> Proven[Part] | Failed:
        """Encodes the rows of a chain, which is emptied meanwhile, so that they are not in memory twice."""
        own = (self._own(rows, times_of(rows)) for rows in chain)
        members = _apart(own, self._limit)
        chain.clear()
        if self._seams.rows and not self._seams.are_different(members):
            return Failed("an id came twice in pages that were joined", again=True)
        joiner = PartJoiner(self._encode)
        while members:
            rows = members.pop()
            self._parts += joiner.add(ordered_page(rows, times_of(rows), self._encode))
        self._parts += joiner.end()
        return Proven(self._parts, self._seams.rows + joiner.rows)

    def _own(self, rows: Sequence[Segment], times: Sequence[int]) -> Sequence[Segment]:
        """Without those of the next window, and those that were joined."""
        return rows[since(times, self._window.end) : since(times, self._seams.at)]
