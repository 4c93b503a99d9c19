"""The one order in which a window's segments are written: by close time, oldest first, then by segmentId.

Pages come newest first, in any sequence; rows that share a millisecond may be ordered differently in two answers. So
that a page can be encoded as soon as it comes, only its edges wait: the rows that share their millisecond with the
page's first or last row, as the neighbouring page may hold more of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, neg
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from segment_fetch.models import Segment
from segment_fetch.wire import Lines

Part = TypeVar("Part")

_More: TypeAlias = Mapping[int, Mapping[str, Segment]]
_NONE: _More = MappingProxyType({})

close_order = attrgetter("endTimeL", "segmentId")
"""Sort key of the order."""


class Slice(Struct, Generic[Part], frozen=True):
    """A page in the written order: `middle` is encoded, the edges wait for their neighbours.

    `between` is how many rows the middle holds.
    """

    oldest: Sequence[Segment]
    middle: Part | None
    newest: Sequence[Segment]
    between: int = 0


def in_order(rows: Iterable[Segment]) -> list[Segment]:
    """Segments in the written order."""
    return sorted(rows, key=close_order)


def slice_page(
    newest_first: Sequence[Segment],
    times: Sequence[int],
    encode: Callable[[Sequence[Segment]], Part],
    *,
    falling: bool = False,
) -> Slice[Part]:
    """A page's rows and their close times, newest first, made ready. `falling`: no two times are equal."""
    rows = newest_first[::-1]
    if falling and len(rows) > 2:
        return Slice(list(rows[:1]), encode(rows[1:-1]), list(rows[-1:]), len(rows) - 2)
    if not rows:
        return Slice((), None, ())
    if not isinstance(rows, Lines):  # which are in the written order
        rows = in_order(rows)
    low = len(times) - bisect_left(times, -times[-1], key=neg)
    high = len(times) - bisect_right(times, -times[0], key=neg)
    if low > high:  # all of one millisecond
        return Slice(list(rows), None, ())
    middle = encode(rows[low:high]) if low < high else None
    return Slice(list(rows[:low]), middle, list(rows[high:]), high - low)


class Joiner(Generic[Part]):
    """The encoded parts of a window, from slices given oldest page first.

    `more` has further segments by close time and id, of instants that page boundaries cut. At such a cut the same
    segment may be in two slices; it is kept once.
    """

    def __init__(self, encode: Callable[[Sequence[Segment]], Part]) -> None:
        self.rows = 0
        """How many segments the parts hold that were given."""
        self._encode = encode
        self._edge: dict[str, Segment] = {}
        self._at = 0

    def cuts(self, piece: Slice[Part]) -> bool:
        """Whether an instant is cut by the boundary between the last slice and this one."""
        return bool(self._edge and piece.oldest) and piece.oldest[0].endTimeL == self._at

    def add(self, piece: Slice[Part], more: _More = _NONE) -> Iterator[Part]:
        """The parts that are whole, now that the next slice is there."""
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
        """What waited for a next slice, as there is none."""
        if self._edge:
            rows = {**self._edge, **more.get(self._at, {})}
            self._edge.clear()
            self.rows += len(rows)
            yield self._encode(in_order(rows.values()))
