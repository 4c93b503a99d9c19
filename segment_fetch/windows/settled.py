"""A window in which nothing should change any more: pages end to end, proven by their count, encoded as they come."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

from segment_fetch.errors import TransientError
from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.windows.merge import OrderedPage, PartJoiner, ordered_page, since
from segment_fetch.windows.strategy import Failed, Pass, Proven
from segment_fetch.windows.ties import Fetch, TieReader, Ties
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import distinct, key_of


class _Digest:
    """What is held of a page until its window is proven: close times and the keys of ids, 16 bytes a row.

    Texts that outlive their page would scatter those of the next one over fresh memory, which costs as much as
    decoding it. Two ids of one key count as one: a proof by count may then fail, but never succeeds without ground.
    """

    def __init__(self, view: coverage.PageView) -> None:
        self.offset = view.offset
        self.rows = len(view.ids)
        self.newest, self.oldest = tuple(view.times[:1]), tuple(view.times[-1:])
        self._view = view.to, view.offset, view.count
        self._ids = view.ids
        self._times = view.times if isinstance(view.times, memoryview) else array("q", view.times)

    def view(self) -> coverage.PageView:
        """The page as a proof sees it."""
        return coverage.PageView(*self._view, self._ids, self._times)


_PREFIX = -1
"""Where a prefix stands among the pages: before that of offset 0, which may be asked for behind it."""


def _whole_instants(view: coverage.PageView, rows: Sequence[Segment]) -> tuple[coverage.PageView, Sequence[Segment]]:
    """A prefix without its oldest instant, of which more rows may lie behind it."""
    whole = since(view.times, view.times[-1] + 1) if view.times else 0
    ids, times = view.ids[:whole], view.times[:whole]
    return coverage.PageView(view.to, view.offset, None, ids, times, view.falling), rows[:whole]


def _goes_on(oldest: tuple[int, ...], times: Sequence[int]) -> bool:
    """Whether the page behind a prefix, asked to repeat its last row alone, does so.

    If a row of the prefix had vanished, the page would begin with an older instant; if one had come, it would begin
    with more rows than that of the last instant, or with a newer one.
    """
    return not oldest or (tuple(times[:1]) == oldest and tuple(times[1:2]) != oldest)


class SettledPass(Pass[Part]):
    """Pages end to end. Where equal close times meet at a page boundary and the count does not come out, the server
    may have ordered them differently in the two answers; those instants are then read by themselves.
    """

    def __init__(self, window: Window, limit: int, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self._window = window
        self._limit = limit
        self._encode = encode
        self._pages: list[_Digest] = []
        self._pieces: dict[int, OrderedPage[Part]] = {}
        self._joiner = PartJoiner(encode)
        self._behind: deque[int] = deque()
        self._foreign: set[Hashable] = set()
        self._count: int | None = None
        self._doubted: set[int] = set()
        self._ties = Ties()
        self._asked = self._mended = False

    def take(self, ask: Fetch, view: coverage.PageView, rows: Sequence[Segment]) -> str | None:
        if ask.instant is not None:
            ask.instant.take(view, rows)
            return None
        if view.count is None:
            view, rows = _whole_instants(view, rows)
        if view.count is not None and self._count not in (None, view.count):
            return self._moved(view.count)
        if self._count is None and self._pages and not _goes_on(self._pages[0].oldest, view.times):
            return "its newest segments changed while it was divided"
        self._count = view.count if self._count is None else self._count
        newer = since(view.times, self._window.end)  # which are the next window's own
        self._foreign.update(view.ids[:newer])
        at = _PREFIX if view.count is None else view.offset
        self._pieces[at] = ordered_page(rows[newer:], view.times[newer:], self._encode)
        self._pages.append(_Digest(view))
        return None

    def _moved(self, count: int) -> str:
        """One odd count can be a stale answer, which is a fault; two pages that agree on it: the window moves."""
        change = f"its count went from {self._count} to {count} while it was read"
        if count not in self._doubted:
            self._doubted.add(count)
            raise TransientError(change, status=200)
        return change

    def advance(self) -> list[Fetch] | Proven[Part] | Failed:
        if not self._asked:
            self._asked = self._count is not None
            reached = max(page.offset + page.rows for page in self._pages)
            offsets = self._offsets(reached)
            if self._asked:
                self._behind.extend(offsets)
            if offsets:
                return [Fetch(self._window, at) for at in offsets]
        unique = coverage.count_proof([page.view() for page in self._pages], distinct)
        return self._mend() if unique is None else self._proven(unique)

    def _offsets(self, reached: int) -> Sequence[int]:
        """Where to go on behind the first page, oldest first; a prefix has no count, so one page must tell it first."""
        return [max(0, reached - 1)] if self._count is None else range(reached, self._count, self._limit)[::-1]

    def ready(self) -> list[Part]:
        """The next parts in order, unless more rows of an instant that a page boundary cuts may have to be read."""
        parts: list[Part] = []
        while self._behind and (piece := self._pieces.get(self._behind[0])) is not None:
            if self._joiner.cuts(piece):
                break
            parts += self._joiner.add(piece)
            del self._pieces[self._behind.popleft()]
        return parts

    def _mend(self) -> list[Fetch] | Proven[Part] | Failed:
        if not self._mended:
            self._mended = True
            if tied := self._cut_ties():
                return [self._ties.add(TieReader(at, at + 1, self._limit, still=True)) for at in tied]
        step = self._ties.advance()
        if isinstance(step, list) and step:
            return step
        ids = {key for page in self._pages for key in page.view().ids}
        for instant in self._ties.all.values():
            keys = set(map(key_of, instant.rows))
            ids |= keys
            if instant.at >= self._window.end:
                self._foreign |= keys
        if isinstance(step, str) or len(ids) != self._count:
            return Failed(f"its pages did not hold each of its {self._count} segments once", again=True)
        return self._proven(len(ids))

    def _cut_ties(self) -> list[int]:
        """The instants that a page boundary cuts and of which a segment came twice: so another did not come at all."""
        ordered = sorted(self._pages, key=lambda page: page.offset)
        cut = {at for upper, lower in pairwise(ordered) for at in upper.oldest if upper.oldest == lower.newest}
        views = (page.view() for page in ordered)
        rows = Counter((at, key) for view in views for at, key in zip(view.times, view.ids, strict=True) if at in cut)
        return sorted({at for (at, _), times in rows.items() if times > 1})

    def _proven(self, unique: int) -> Proven[Part] | Failed:
        more = {at: instant.rows for at, instant in self._ties.all.items()}
        pieces = (self._pieces[offset] for offset in sorted(self._pieces, reverse=True))
        parts = [part for piece in pieces for part in self._joiner.add(piece, more)]
        parts += self._joiner.end(more)
        owned = unique - len(self._foreign)
        if self._joiner.rows != owned:
            return Failed(f"its pages held {self._joiner.rows} segments in order, but {owned} in all", again=True)
        return Proven(parts, owned)
