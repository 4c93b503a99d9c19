"""The properties of a server that a run learns once and all of its windows share."""

from __future__ import annotations

from segment_fetch.windows import coverage
from segment_fetch.wire.models import SegmentPage


class ServerTraits:
    """This server's behaviour where the specification leaves it open. No proof depends on it: it saves requests, or
    says where to divide a window.
    """

    def __init__(self) -> None:
        self.order: coverage.Order | None = None
        """The sort order of the last page whose close times show one, for pages that show none."""
        self.links_mean_nothing = False
        """True if a `next` link on a last page was followed, and led to no rows."""
        self.is_probing = False
        """True while one window follows such a link and the others wait for the result."""
        self.count_cap: int | None = None
        """The number at which the server stops counting, if it does."""
        self.page_limit: int | None = None
        """The maximum number of rows that the server puts on a page, if that is less than the limit requested."""
        self.largest_page = 0
        """The largest number of rows on an accepted page so far."""


def goes_on(page: SegmentPage) -> bool:
    """Return True if a page links to a next one."""
    return any(link.rel == "next" for link in page.pagination.references or ())
