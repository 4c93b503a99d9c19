"""Two ways to read a window to its proof. No I/O: pages in, questions out.

* `SettledPass` (in `still`), for a window in which nothing should change any more.
* `LivePass` (in `moving`), for a window that may change while it is read.

A pass is driven by its `asks`: whoever drives it sends each, hands every page to `take`, and, when none is left, calls
`advance`, which gives further asks, or says that the pass is at its end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic

from msgspec import Struct

from segment_fetch.windows import coverage
from segment_fetch.windows.ties import Fetch
from segment_fetch.wire.models import Part, Segment


class Proven(Struct, Generic[Part], frozen=True):
    """The segments that a window owns, encoded, in order; without the parts that `ready` gave."""

    parts: list[Part]
    segments: int


class Failed(Struct, frozen=True):
    """This way of reading cannot prove the window; `again` if another way may."""

    reason: str
    again: bool = False


class Pass(ABC, Generic[Part]):
    """One way of reading a window."""

    @abstractmethod
    def take(self, ask: Fetch, view: coverage.PageView, rows: Sequence[Segment]) -> str | None:
        """Holds a checked page. Says why the pass has become futile, if it has."""

    def ready(self) -> list[Part]:
        """Parts, in order, that will not change any more if the pass proves the window. Each is given once."""
        return []

    @abstractmethod
    def advance(self) -> list[Fetch] | Proven[Part] | Failed:
        """What next, now that every page asked for is there."""
