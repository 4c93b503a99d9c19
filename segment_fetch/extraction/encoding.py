"""Encode rows for a consumer a slice at a time, and write what is ready of a window before it is proven.

A proof can free the pages of a whole window at once, and to encode 50,000 rows in one go would stop the event loop for
40 ms. So rows are encoded where they are proven only while the turn of the loop lasts; the others wait for later turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeAlias, cast

from msgspec import Struct, structs

from segment_fetch.extraction.loop_turns import Turns
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part, Segment

ROWS_AT_ONCE = 500
"""Rows that are encoded in one step: a page."""


class Unencoded(Struct, frozen=True):
    """Rows of a window, in their order, that are still to be encoded."""

    rows: Sequence[Segment]


MaybeEncoded: TypeAlias = Part | Unencoded


class PartEncoder(Generic[Part]):
    """Encodes rows with a function of the consumer, at most a slice in a turn of the loop."""

    def __init__(self, encode: Callable[[Sequence[Segment]], Part], turns: Turns) -> None:
        self._encode = encode
        self._turns = turns

    def now_or_later(self, rows: Sequence[Segment]) -> MaybeEncoded[Part]:
        """Return the rows encoded while the turn lasts, and as they are once it is over."""
        if self._turns.is_over or len(rows) > ROWS_AT_ONCE:
            return Unencoded(rows)
        return self._encode(rows)

    def encode_while_turn_lasts(self, parts: deque[MaybeEncoded[Part]], *, at_least: int = 0) -> list[Part]:
        """Take parts from the front, encoded, until the turn is over, and `at_least` so many of them."""
        encoded: list[Part] = []
        while parts and not (isinstance(parts[0], Unencoded) and at_least <= 0 and self._turns.is_over):
            at_least -= 1
            part = parts.popleft()
            encoded.extend(self._encoded(part.rows) if isinstance(part, Unencoded) else [part])
        return encoded

    def _encoded(self, rows: Sequence[Segment]) -> Iterable[Part]:
        return (self._encode(rows[at : at + ROWS_AT_ONCE]) for at in range(0, len(rows), ROWS_AT_ONCE))

    async def encode_all(self, parts: Iterable[MaybeEncoded[Part]]) -> list[Part]:
        """Return all parts encoded, in as many turns as that takes."""
        left = deque(parts)
        encoded = self.encode_while_turn_lasts(left)
        while left:
            await self._turns.take()
            encoded += self.encode_while_turn_lasts(left, at_least=1)
        return encoded


def with_parts(read: WindowRead[MaybeEncoded[Part]], parts: list[Part]) -> WindowRead[Part]:
    """Return a window with its parts, now all of them encoded."""
    return structs.replace(cast("WindowRead[Part]", read), parts=parts)


class WindowWriter:
    """Brings the windows of a run into its destination, encoded as the sink wants them.

    It is the outlet of the windows: what is ready of one is written at once, encoded while the turn of the loop lasts;
    once a part of a window has to wait, the parts behind it wait, too.
    """

    def __init__(self, committer: Committer, turns: Turns) -> None:
        self._committer = committer
        self._encoder = PartEncoder[Any](committer.encode, turns)
        self._left: dict[Window, deque[Any]] = {}

    def encode(self, rows: Sequence[Segment]) -> MaybeEncoded[Any]:
        """Return the rows encoded, or as they are where that has to wait."""
        return self._encoder.now_or_later(rows)

    def put(self, window: Window, parts: Sequence[MaybeEncoded[Any]]) -> None:
        """Have written what is ready of a window."""
        left = self._left.setdefault(window, deque())
        left.extend(parts)
        if ready := self._encoder.encode_while_turn_lasts(left):
            self._committer.put(window, ready)

    def withdraw(self, window: Window) -> None:
        """Have dropped what was written of a window."""
        self._left.pop(window, None)
        self._committer.withdraw(window)

    async def commit(self, read: WindowRead[MaybeEncoded[Any]]) -> WindowEntry:
        """Write what is still to be written of a window that has ended, and make it count."""
        parts = [*self._left.pop(read.window, ()), *read.parts]
        read.parts.clear()
        encoded = await self._encoder.encode_all(parts)
        return await self._committer.commit(with_parts(read, encoded))
