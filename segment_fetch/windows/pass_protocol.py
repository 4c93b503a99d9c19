"""The interface between a window's reader and the passes that read it. No I/O: pages in, requests out.

The reader sends each fetch of a pass and hands every page to `take`. When no fetch is left it calls `advance`, which
returns a `Step`: more fetches, the proof, or the reason why there is none.
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
    """A page to request. `tie` is the reader of one millisecond that it belongs to; None for a page of the window.

    A `probe` requests the page to which a `next` link on the last page leads. `limit` is that of a smaller page than
    usual, requested to find a row at fault.
    """

    window: Window
    offset: int = 0
    tie: TieReader | None = None
    probe: bool = False
    limit: int | None = None


class Page(NamedTuple):
    """The parts of a page that a proof needs, and its rows, newest first. `number` is its place in order of arrival."""

    view: coverage.PageView
    rows: Sequence[Segment]
    number: int = 0


class More(Struct, frozen=True):
    """Further pages to request, in this order."""

    fetches: Sequence[Fetch]


class Proven(Struct, Generic[Part], frozen=True):
    """The segments that a window owns, encoded, in order; without the parts that `ready` has returned.

    `duplicates` is the number of rows left out because a later page has the same id with other content; `keys` are
    those of all ids.
    """

    parts: list[Part]
    segments: int
    duplicates: int = 0
    keys: Sequence[Column] = ()


class Failed(Struct, frozen=True):
    """This pass cannot prove the window; `again` if another may. `conflicts` are ids that came with different contents;
    `code` is the code of the error that caused it, if any (`segment_fetch.errors`).
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
        """Store a checked page. Return the reason if the pass can no longer succeed, else None."""

    def ready(self) -> list[Part]:
        """Return the parts, in order, that are final if the pass proves the window. Each is returned once."""
        return []

    @abstractmethod
    def advance(self) -> Step[Part]:
        """Return the next step, once every requested page has arrived."""
