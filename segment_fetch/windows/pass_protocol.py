"""The joint between a window's reader and the passes that read it. No I/O: pages in, requests out.

A pass is driven by its fetches: its reader sends each, hands every page to `take`, and, when none is left, calls
`advance`, which gives a `Step`: more fetches, the proof, or the reason why there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias

from msgspec import Struct

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import Column

if TYPE_CHECKING:
    from segment_fetch.windows.ties import TieReader


class Fetch(Struct, frozen=True, eq=False):
    """A page to ask for. `tie` is the reading of one millisecond that it belongs to, None for the window's own.

    A `probe` asks for what a `next` link behind the last page leads to.
    """

    window: Window
    offset: int = 0
    tie: TieReader | None = None
    probe: bool = False


class Page(NamedTuple):
    """The parts of a page that a proof needs, and its rows, newest first. `number` counts the pages as they came."""

    view: coverage.PageView
    rows: Sequence[Segment]
    number: int = 0


class More(Struct, frozen=True):
    """Further pages to ask for, in this order."""

    fetches: Sequence[Fetch]


class Proven(Struct, Generic[Part], frozen=True):
    """The segments that a window owns, encoded, in order; without the parts that `ready` gave.

    `duplicates` are rows left out because a later page has the same id with other content, `keys` those of all ids.
    """

    parts: list[Part]
    segments: int
    duplicates: int = 0
    keys: Sequence[Column] = ()


class Failed(Struct, frozen=True):
    """This pass cannot prove the window; `again` if another may. `conflicts` are ids that came with two contents,
    `code` is that of the error behind it, if there is one (`segment_fetch.errors`).
    """

    reason: str
    again: bool = False
    conflicts: frozenset[str] = frozenset()
    code: str | None = None


Step: TypeAlias = More | Proven[Part] | Failed


class Pass(ABC, Generic[Part]):
    """One way of reading a window."""

    @abstractmethod
    def take(self, fetch: Fetch, page: Page) -> str | None:
        """Hold a checked page. Return why the pass has become futile, if it has."""

    def ready(self) -> list[Part]:
        """Parts, in order, that will not change any more if the pass proves the window. Each is given once."""
        return []

    @abstractmethod
    def advance(self) -> Step[Part]:
        """The next step, now that every page asked for has come."""
