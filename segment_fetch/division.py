"""A window that is being divided, oldest part first: what is known of its parts before all of them are."""

from __future__ import annotations

from itertools import takewhile

from msgspec import structs

from segment_fetch.feed import PageAnswer
from segment_fetch.query import Window
from segment_fetch.splitting import Piece, Splitting


class Division(Splitting):
    """Gives each part as soon as the page between it and the next newer part is there, and those of all older ones.

    `parts` are the windows given so far, oldest first and without gap; `rest` is what lies above them.
    """

    def __init__(self, window: Window, first: PageAnswer, limit: int, bound: int) -> None:
        super().__init__(window, first, limit, bound)
        self.parts: list[Window] = []

    @property
    def rest(self) -> Window:
        """What no part that was given covers."""
        return Window(self.parts[-1].end if self.parts else self.window.start, self.window.end)

    def ready(self) -> list[Piece]:
        """The parts that have become known, oldest first, each once: all that are left as soon as it is complete.

        A page that came since may have put a cut elsewhere, if segments came or went; what is given stays.
        """
        cuts = sum(1 for _ in takewhile(lambda rank: rank not in self._wanted, self._ranks))
        pieces = self.pieces()
        known = pieces if self.complete else pieces[: min(cuts, len(pieces) - 1)]
        start = self.rest.start
        ready = [
            structs.replace(piece, window=Window(max(start, piece.window.start), piece.window.end))
            for piece in known
            if piece.window.end > start
        ]
        self.parts += [piece.window for piece in ready]
        return ready
