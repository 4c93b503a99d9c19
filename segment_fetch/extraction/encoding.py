"""Encode rows for a consumer a slice at a time, and write the parts of a window that are ready before it is proven.

A proof can release the pages of a whole window at once, and encoding 50,000 rows in one go would block the event loop
for 40 ms. So rows are encoded at once only until the task's time slice is used up; the others wait for later turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeAlias, cast

from msgspec import Struct, structs

from segment_fetch.errors import UnstorableValueError
from segment_fetch.extraction.loop_turns import Turns
from segment_fetch.manifest.committer import Committer
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.query import Window
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part, Segment

ROWS_AT_ONCE = 500
"""Rows encoded in one step: a page."""


class Unencoded(Struct, frozen=True):
    """Rows of a window, in order, that are not encoded yet."""

    rows: Sequence[Segment]


MaybeEncoded: TypeAlias = Part | Unencoded


class PartEncoder(Generic[Part]):
    """Encodes rows with the consumer's function, at most one slice per turn of the event loop."""

    def __init__(self, encode: Callable[[Sequence[Segment]], Part], turns: Turns) -> None:
        self._encode = encode
        self._turns = turns

    def now_or_later(self, rows: Sequence[Segment]) -> MaybeEncoded[Part]:
        """Return the rows encoded if there is time left in this turn, else unencoded."""
        if self._turns.is_over or len(rows) > ROWS_AT_ONCE:
            return Unencoded(rows)
        try:
            return self._encode(rows)
        except UnstorableValueError:
            return Unencoded(rows)  # raised again where the window can be left out for it

    def encode_while_turn_lasts(self, parts: deque[MaybeEncoded[Part]], *, at_least: int = 0) -> list[Part]:
        """Remove parts from the front and return them encoded, until the turn is over; at least `at_least` of them."""
        encoded: list[Part] = []
        while parts and not (isinstance(parts[0], Unencoded) and at_least <= 0 and self._turns.is_over):
            at_least -= 1
            part = parts.popleft()
            encoded.extend(self._encoded(part.rows) if isinstance(part, Unencoded) else [part])
        return encoded

    def _encoded(self, rows: Sequence[Segment]) -> Iterable[Part]:
        return (self._encode(rows[at : at + ROWS_AT_ONCE]) for at in range(0, len(rows), ROWS_AT_ONCE))

    async def encode_all(self, parts: Iterable[MaybeEncoded[Part]]) -> list[Part]:
        """Return all parts encoded, over as many turns as needed."""
        left = deque(parts)
        encoded = self.encode_while_turn_lasts(left)
        while left:
            await self._turns.take()
            encoded += self.encode_while_turn_lasts(left, at_least=1)
        return encoded


def unstored(read: WindowRead[Any], error: UnstorableValueError) -> WindowRead[Any]:
    """Return a window that is left out because one of its values cannot be stored."""
    return structs.replace(
        read, status="unproven", reason=str(error), code=error.code, parts=[], segments=0, duplicates=0, keys=()
    )


def with_parts(read: WindowRead[MaybeEncoded[Part]], parts: list[Part]) -> WindowRead[Part]:
    """Return a window with its parts, all encoded."""
    return structs.replace(cast("WindowRead[Part]", read), parts=parts)


class WindowWriter:
    """Writes the windows of a run to its destination, encoded for its sink.

    It is the outlet of the windows: parts that are ready are encoded and written at once while there is time left in
    the turn; once a part of a window has to wait, those after it wait, too.
    """

    def __init__(self, committer: Committer, turns: Turns) -> None:
        self._committer = committer
        self._encoder = PartEncoder[Any](committer.encode, turns)
        self._left: dict[Window, deque[Any]] = {}
        self._unstorable: dict[Window, UnstorableValueError] = {}

    def encode(self, rows: Sequence[Segment]) -> MaybeEncoded[Any]:
        """Return the rows encoded, or unencoded if there is no time left in this turn."""
        return self._encoder.now_or_later(rows)

    def put(self, window: Window, parts: Sequence[MaybeEncoded[Any]]) -> None:
        """Schedule the writing of parts that are ready."""
        if window in self._unstorable:
            return
        left = self._left.setdefault(window, deque())
        left.extend(parts)
        try:
            ready = self._encoder.encode_while_turn_lasts(left)
        except UnstorableValueError as error:
            self._unstorable[window] = error
        else:
            if ready:
                self._committer.put(window, ready)

    def withdraw(self, window: Window) -> None:
        """Schedule the removal of the parts written so far."""
        self._left.pop(window, None)
        self._unstorable.pop(window, None)
        self._committer.withdraw(window)

    async def commit(self, read: WindowRead[MaybeEncoded[Any]]) -> WindowEntry:
        """Write the remaining parts of a window that has ended, and commit it; leave it out if a value has no room."""
        parts = [*self._left.pop(read.window, ()), *read.parts]
        read.parts.clear()
        try:
            if (error := self._unstorable.pop(read.window, None)) is not None and read.status != "unproven":
                raise error
            encoded = await self._encoder.encode_all(parts)
        except UnstorableValueError as unstorable:
            self._committer.withdraw(read.window)
            return await self._committer.commit(unstored(read, unstorable))
        return await self._committer.commit(with_parts(read, encoded))
