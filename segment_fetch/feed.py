"""What passes between the workers and what they work for: a page that is wanted, a page that came. No I/O."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from segment_fetch.errors import SegmentFetchError
from segment_fetch.models import SegmentPage
from segment_fetch.query import Window


class PageRequest(Struct, frozen=True):
    """A page that a feed wants. `reading` and `mark` are the feed's own, for what it belongs to."""

    window: Window
    offset: int
    limit: int
    reading: Any
    mark: Any = None


class PageAnswer(Struct, frozen=True):
    """A page, and the server's clock when it was made (epoch milliseconds; the local clock if it did not say)."""

    page: SegmentPage
    at_ms: int


class Feed(Protocol):
    """Says what to ask next and takes the answers. Called from one event loop only; never waits."""

    def next(self) -> PageRequest | None:
        """The next request; None where nothing can be asked before an answer comes or `Pool.wake` is called."""

    def wants(self, request: PageRequest) -> bool:
        """Whether a request that waits to be repeated is still of use."""

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        """Takes an answer. Raises TransientError where the page is faulty and should be asked for again."""

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        """Takes it that this page cannot be had."""

    def finished(self) -> bool:
        """Whether nothing more will be asked, whatever comes."""
