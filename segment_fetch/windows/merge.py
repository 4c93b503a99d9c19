"""The one order in which a window's segments are written: by close time, oldest first, then by segmentId.

Pages come newest first, in any sequence; rows that share a millisecond may be ordered differently in two answers. So
that a page can be encoded as soon as it comes, only its edges wait: the rows that share their millisecond with the
page's first or last row, as the neighbouring page may hold more of them. A page of lines waits as it is, since that
costs nothing; when the next page comes, it most often becomes one part, of the very bytes that the scanner made.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, neg
from types import MappingProxyType
from typing import Generic, TypeAlias

from msgspec import Struct

from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import RawRows

_More: TypeAlias = Mapping[int, Mapping[str, Segment]]
_NONE: _More = MappingProxyType({})

close_order = attrgetter("endTimeL", "segmentId")
"""Sort key of the order."""


OrderedPage: TypeAlias = "EncodedPage[Part] | RawRows"
"""A page as a `PartJoiner` takes it."""


class EncodedPage(Struct, Generic[Part], frozen=True):
    """A page in the written order: `middle` is encoded, the edges wait for their neighbours.

    `between` is how many rows the middle holds.
    """

    oldest: Sequence[Segment]
    middle: Part | None
    newest: Sequence[Segment]
    between: int = 0


def since(times: Sequence[int], at: int) -> int:
    """How many of these close times, newest first, are `at` or later."""
    return bisect_left(times, 1 - at, key=neg)


def in_order(rows: Iterable[Segment]) -> list[Segment]:
    """Segments in the written order."""
    return sorted(rows, key=close_order)


def encode_page(
    newest_first: Sequence[Segment],
    times: Sequence[int],
    encode: Callable[[Sequence[Segment]], Part],
) -> EncodedPage[Part]:
    """A page's rows and their close times, newest first, in the written order and cut at the edges."""
    rows = newest_first[::-1]
    if not rows:
        return EncodedPage((), None, ())
    if not isinstance(rows, RawRows):  # which are in the written order
        rows = in_order(rows)
    low, high = len(times) - since(times, times[-1] + 1), len(times) - since(times, times[0])
    if low > high:  # all of one millisecond
        return EncodedPage(list(rows), None, ())
    middle = encode(rows[low:high]) if low < high else None
    return EncodedPage(list(rows[:low]), middle, list(rows[high:]), high - low)


def ordered_page(
    newest_first: Sequence[Segment],
    times: Sequence[int],
    encode: Callable[[Sequence[Segment]], Part],
) -> OrderedPage[Part]:
    """A page's rows and their close times, newest first, made ready for a `PartJoiner`.

    RawRows are in the written order; they stay a page, as hardly ever a neighbour shares an instant with them.
    """
    return newest_first[::-1] if isinstance(newest_first, RawRows) else encode_page(newest_first, times, encode)


class PartJoiner(Generic[Part]):
    """The encoded parts of a window, from pieces given oldest page first.

    `more` has further segments by close time and id, of instants that page boundaries cut. At such a cut the same
    segment may be in two pieces; it is kept once.
    """

    def __init__(self, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self.rows = 0
        """How many segments the parts hold that were given."""
        self._encode = encode
        self._page: RawRows | None = None  # waits for the next piece; else the edge may
        self._edge: dict[str, Segment] = {}
        self._at = 0

    def cuts(self, piece: OrderedPage[Part]) -> bool:
        """Whether an instant is cut by the boundary between the last piece and this one."""
        return bool(self._page or self._edge) and _oldest(piece) == self._at

    def add(self, piece: OrderedPage[Part], more: _More = _NONE) -> Iterator[Part]:
        """The parts that are whole, now that the next piece is there."""
        cuts = self.cuts(piece)
        if cuts:
            yield from self._cut(more)
        if not isinstance(piece, RawRows):
            yield from self._add(piece, more)
        elif cuts or _oldest(piece) in more:
            yield from self._add(_slice(piece, self._encode), more)
        elif piece:
            yield from self.end(more)
            self._page, self._at = piece, piece.times[-1]

    def _cut(self, more: _More) -> Iterator[Part]:
        """Takes the page that waits apart, as its newest instant is not whole."""
        if self._page is not None:
            page, self._page = self._page, None
            yield from self._add(_slice(page, self._encode), more)

    def _add(self, piece: EncodedPage[Part], more: _More) -> Iterator[Part]:
        for rows, behind in ((piece.oldest, piece.middle), (piece.newest, None)):
            if rows and rows[0].endTimeL != self._at:
                yield from self.end(more)
                self._at = rows[0].endTimeL
            self._edge.update((row.segmentId, row) for row in rows)
            if behind is not None:
                yield from self.end(more)
                self.rows += piece.between
                yield behind

    def end(self, more: _More = _NONE) -> Iterator[Part]:
        """What waited for a next piece, as there is none."""
        if self._at in more:
            yield from self._cut(more)
        if self._page is not None:
            page, self._page = self._page, None
            self.rows += len(page)
            yield self._encode(page)
        if self._edge:
            rows = {**self._edge, **more.get(self._at, {})}
            self._edge.clear()
            self.rows += len(rows)
            yield self._encode(in_order(rows.values()))


def _oldest(piece: OrderedPage[Part]) -> int | None:
    if isinstance(piece, RawRows):
        return piece.times[0] if piece else None
    return piece.oldest[0].endTimeL if piece.oldest else None


def _slice(page: RawRows, encode: Callable[[Sequence[Segment]], Part]) -> EncodedPage[Part]:
    newest_first = page[::-1]
    return encode_page(newest_first, newest_first.times, encode)
