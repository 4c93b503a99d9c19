"""The pass for a window that may change while it is read: its pages overlap, and are joined as they arrive. Pages that
cannot be joined are proven by coverage, with patches for gaps, and large ties are read separately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from segment_fetch.errors import printable
from segment_fetch.query import Window
from segment_fetch.windows import coverage, overlap
from segment_fetch.windows.merge import in_order, merged
from segment_fetch.windows.overlap_joiner import OverlapJoiner
from segment_fetch.windows.pass_protocol import Failed, Fetch, More, Page, Pass, Proven, Step
from segment_fetch.windows.ties import TieReader, Ties, exact
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import keys_of

MAX_PATCH_ROUNDS = 50
"""Maximum rounds of patch requests for one window: far more than any observed drift needs."""

_PREFIX = -1
"""The position of a prefix among the offsets: before offset 0, which may be requested as well."""


class LivePass(Pass[Part]):
    """Reads overlapping pages: joins them from the oldest on as they arrive, as far as possible, and keeps the others.

    Joined rows are no longer available if an id turns out to occur twice in the window, or if its last page was not the
    last. The window is then read again, with `joins` off. `conflicts` are the ids that had different contents in the
    previous pass, if that made it fail.
    """

    name = "live"

    def __init__(
        self,
        window: Window,
        limit: int,
        encode: Callable[[Sequence[Segment]], Part],
        *,
        order: coverage.Order = "descending",
        joins: bool = True,
        conflicts: frozenset[str] | None = None,
    ) -> None:
        self._window = window
        self._limit = limit
        self._encode = encode
        self._order: coverage.Order = order
        self._joins = joins
        self._conflicts = conflicts
        self._joiner = OverlapJoiner(window, encode)
        self._queue: deque[int] = deque()  # offsets in the order in which their pages are to be joined
        self._waiting: dict[int, Page] = {}  # those of them that have arrived
        self._pages: list[Page] = []  # all others; at the end preceded by the joined rows not returned yet
        self._parts: list[Part] = []
        self._ties = Ties()
        self._overlap = 0
        self._is_planned = self._has_ended = self._was_confirmed = False
        self._rounds = 0
        self.unordered_at: int | None = None
        """The millisecond of pages that show no order, while no page has shown one."""

    def overlap_for(self, tie: int) -> int:
        """Return the number of rows that neighbouring pages share; `tie` is the largest group of equal close times."""
        return overlap.live_overlap(tie)

    def take(self, fetch: Fetch, page: Page) -> str | None:
        if fetch.tie is not None:
            fetch.tie.take(page)
        elif fetch.window == self._window and fetch.offset in self._queue and fetch.offset not in self._waiting:
            self._waiting[fetch.offset] = page
        else:
            self._pages.append(page)
        return None

    def ready(self) -> list[Part]:
        parts: list[Part] = []
        while self._queue and (page := self._waiting.get(self._queue[0])) is not None:
            if (joined := self._joiner.join(page)) is None:
                self._stop_joining()
            else:
                parts += joined
                del self._waiting[self._queue.popleft()]
        return parts

    def _stop_joining(self) -> None:
        self._pages += self._waiting.values()
        self._waiting.clear()
        self._queue.clear()

    def advance(self) -> Step[Part]:
        if not self._is_planned and (fetches := self._plan()):
            return More(fetches)
        if not self._has_ended:
            self._has_ended = True
            self._parts += self.ready()
            if not self._pages and self._joiner.reaches_end:
                return self._joined()
            self._pages[:0] = filter(None, [self._joiner.rest()])
        match self._ties.advance():
            case None:
                return self._covered()
            case step:
                return step

    def _plan(self) -> list[Fetch]:
        """Return the requests for the other pages, oldest first; the first page shows how much they must overlap.

        A prefix has no count, so the page after it is requested first.
        """
        view = self._pages[-1].view
        self._overlap = max(self._overlap, self.overlap_for(overlap.largest_tie(view.times)))
        if view.count is None:
            shared = min(self._overlap, self._limit // 2)
            behind = max(0, len(view.ids) - shared)
            return [Fetch(self._window, behind)]
        self._is_planned = True
        first = view.offset if self._order == "descending" else 0
        offsets = [first + at for at in overlap.offsets(view.count - first, self._limit, self._overlap)]
        if self._order == "descending":
            offsets.reverse()
        if self._joins:
            self._queue.extend(offsets)
            self._waiting[first] = self._pages.pop()
            if self._pages and (prefix := self._pages.pop()).rows:
                self._queue.append(_PREFIX)
                self._waiting[_PREFIX] = prefix
        return [Fetch(self._window, at) for at in offsets if at != first]

    def _joined(self) -> Step[Part]:
        """Return the proof: every page was joined, so they form a chain from the window's start to its end."""
        parts = self._parts + self._joiner.finish()
        if not self._joiner.are_different():
            return Failed("an id came twice in pages that were joined", again=True)
        return self.accept(
            Proven(parts, self._joiner.rows, keys=self._joiner.keys), self._joiner.rows + self._joiner.foreign
        )

    def accept(self, proven: Proven[Part], ids: int) -> Proven[Part] | Failed:
        """Accept a chain of pages with `ids` different ids, including those that belong to the next window."""
        return proven

    def _covered(self) -> Step[Part]:
        if self._joiner.joined and any(self._joiner.is_below(page.view) for page in self._pages):
            return Failed("its pages contradict each other about where it ends", again=True)
        self._pages = [page._replace(view=exact(page)) for page in self._pages]
        views = [page.view for page in self._pages]
        ties = list(self._ties.all.values())
        known: list[coverage.PageView | coverage.ProvenTie] = [*views]
        known += [coverage.ProvenTie(tie.at, list(tie.rows)) for tie in ties]
        outcome = coverage.find_coverage(
            known, start=self._joiner.at, end=self._window.end, k=self._overlap, order=self._order
        )
        match outcome:
            case coverage.Covered(chain):
                if doubt := self._doubtful_end(chain[-1]):
                    return More([doubt])
                return self._merged([index for index in chain if index < len(views)], ties)
            case coverage.Uncovered(gaps, oversized):
                return self._patches(gaps, oversized, views)

    def _patches(
        self,
        gaps: Sequence[coverage.Gap],
        oversized: Sequence[coverage.OversizedTie],
        views: Sequence[coverage.PageView],
    ) -> Step[Part]:
        self._rounds += 1
        if self._rounds > MAX_PATCH_ROUNDS:
            return Failed(f"it changed faster than it could be read, in {MAX_PATCH_ROUNDS} rounds")
        if self.unordered_at is not None and self.unordered_at not in self._ties.all:
            return More(self._around(self.unordered_at, views))
        descending = self._order == "descending"
        patches = [Fetch(Window(self._window.start if descending else gap.start, gap.to)) for gap in gaps]
        new = [TieReader(tie.at, tie.to, self._limit, seen=views) for tie in oversized if tie.at not in self._ties.all]
        patches += map(self._ties.add, new)
        return More(patches) if patches else Failed("its pages contradict each other")

    def _around(self, at: int, views: Sequence[coverage.PageView]) -> list[Fetch]:
        """Return requests that prove a window in either sort order: one millisecond, and all above and below it."""
        start, end = self._window.start, self._window.end
        spans = [(at + 1, end), (start, at), (start, at - 1)]
        fetches = [Fetch(Window(first, last)) for first, last in spans if first <= last]
        return [*fetches, self._ties.add(TieReader(at, at + 1, self._limit, seen=views))]

    def _doubtful_end(self, index: int) -> Fetch | None:
        """Return a request for the page that claims to be the last, if another page, joined or not, has older rows.

        Either those have vanished since, or the page's count was stale and it is not the last one.
        """
        if self._was_confirmed or index >= len(self._pages) or (self._joiner.joined and index == 0):
            return None
        last = self._pages[index].view
        if not last.is_last or not last.times or self._order == "ascending":
            return None
        held = all(page.view.times[-1] >= last.times[-1] for page in self._pages if page.view.times)
        if held and not self._joiner.go_below(last):
            return None
        self._was_confirmed = True
        del self._pages[index]
        return Fetch(Window(self._window.start, last.to), last.offset)

    def _merged(self, chain: Sequence[int], ties: Sequence[TieReader]) -> Step[Part]:
        """Encode the rows of a chain of pages, from where the joined rows that were returned end."""
        pages = [self._pages[index] for index in chain]
        latest = max((page.number for page in self._pages), default=0) + 1
        found = merged([*pages, *(Page(self._pages[0].view, list(tie.rows.values()), latest) for tie in ties)])
        rows = found.rows
        if found.conflicts:
            if self._conflicts and (stable := found.conflicts & self._conflicts):
                return Failed(f"segmentId {printable(min(stable), 80)} is on two rows with different contents")
            if self._conflicts is None:
                return Failed("an id came with different contents", again=True, conflicts=found.conflicts)
        whole = in_order(row for row in rows.values() if row.endTimeL >= self._joiner.at)
        if self._joiner.rows and not self._joiner.are_different(whole):
            return Failed("an id came twice in pages that were joined", again=True)
        own = [row for row in whole if row.endTimeL < self._window.end]
        self._pages.clear()
        self._parts += [self._encode(own[at : at + self._limit]) for at in range(0, len(own), self._limit)]
        keys = [*self._joiner.keys, keys_of(own)]
        proven = Proven(self._parts, self._joiner.rows + len(own), len(found.conflicts), keys)
        return self.accept(proven, self._joiner.rows + self._joiner.foreign + len(whole))
