"""The properties of a server that a run learns once and all of its windows share."""

from __future__ import annotations

import re
from collections import defaultdict

from segment_fetch.query import Window
from segment_fetch.windows import coverage
from segment_fetch.wire.models import SegmentPage

MAX_FAULTY_WINDOWS = 3
"""Number of windows in which a fault of one kind is isolated, before others with it are given up immediately."""


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
        self.reach: int | None = None
        """The offset from which the server refuses pages, if it does."""
        self._short: defaultdict[int, set[Window]] = defaultdict(set)
        self._faulty: defaultdict[str, set[Window]] = defaultdict(set)

    def is_page_limit(self, rows: int, window: Window) -> bool:
        """Return True if a first page with too few rows shows the server's own page limit.

        If larger pages have been accepted before, a second window has to show the same.
        """
        windows = self._short[rows]
        windows.add(window)
        return rows >= self.largest_page or len(windows) > 1

    def may_isolate(self, fault: str, window: Window) -> bool:
        """Return True if a fault in a planned window may be isolated; False if three others had one of the same kind,
        because then it is everywhere.
        """
        windows = self._faulty[re.sub(r"\d+", "#", fault)]
        if window not in windows and len(windows) == MAX_FAULTY_WINDOWS:
            return False
        windows.add(window)
        return True


def goes_on(page: SegmentPage) -> bool:
    """Return True if a page links to a next one."""
    return any(link.rel == "next" for link in page.pagination.references or ())
