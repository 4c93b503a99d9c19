"""The pass for a settled window: as for a live one, with the fewest shared rows that a proof allows."""

from __future__ import annotations

from segment_fetch.errors import TransientError
from segment_fetch.windows import overlap
from segment_fetch.windows.live_pass import LivePass
from segment_fetch.windows.pass_protocol import Failed, Fetch, Page, Proven
from segment_fetch.wire.models import Part


class SettledPass(LivePass[Part]):
    """Reads a chain of pages as for a live window, but accepts it only if nothing has changed: all pages of the window
    report the same count, and there are exactly as many ids.
    """

    name = "settled"
    _count: int | None = None
    _doubted: frozenset[int] = frozenset()

    def overlap_for(self, tie: int) -> int:
        return overlap.settled_overlap(tie)

    def take(self, fetch: Fetch, page: Page) -> str | None:
        if fetch.tie is None and fetch.window == self._window and page.view.count is not None:
            if self._count not in (None, page.view.count):
                return self._moved(page.view.count)
            self._count = page.view.count
        return super().take(fetch, page)

    def _moved(self, count: int) -> str:
        """Handle another count: a fault (a stale answer) the first time; the second time the window has changed."""
        change = f"its count went from {self._count} to {count} while it was read"
        if count not in self._doubted:
            self._doubted |= {count}
            raise TransientError(change, status=200)
        return change

    def accept(self, proven: Proven[Part], ids: int) -> Proven[Part] | Failed:
        if ids != self._count:
            return Failed(f"its pages hold {ids} different ids, but its count is {self._count}", again=True)
        return proven
