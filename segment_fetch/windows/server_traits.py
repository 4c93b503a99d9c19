"""The habits of a server that a run learns once and all of its windows share."""

from __future__ import annotations

from segment_fetch.windows import coverage
from segment_fetch.wire.models import SegmentPage


class ServerTraits:
    """The answers of this server to what the specification leaves open. No proof needs them to be right: they
    save requests, or say where to divide a window.
    """

    def __init__(self) -> None:
        self.order: coverage.Order | None = None
        """The order of the last page whose close times told one, for pages that tell none."""
        self.links_mean_nothing = False
        """True if a `next` link behind a last page was followed, and led nowhere."""
        self.is_probing = False
        """True while one window follows such a link, so that the others wait for what comes of it."""
        self.count_cap: int | None = None
        """The number at which the server stops counting."""
        self.page_limit: int | None = None
        """The most rows that the server puts on a page, where that is less than was asked for."""
        self.largest_page = 0
        """The most rows that were on an accepted page."""


def goes_on(page: SegmentPage) -> bool:
    """True if a page links to a next one."""
    return any(link.rel == "next" for link in page.pagination.references or ())
