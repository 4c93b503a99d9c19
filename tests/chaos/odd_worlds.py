"""Servers whose answers do not agree with each other, and the rules as they were before that was allowed for.

Each answers a window of small segments over a real socket. Between two answers rows change places, arrive, or move to
another close time; two replicas answer by turns, one of them behind; counts are stale or stop at a number; answers are
for a part of the time frame, and say so.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

from segment_fetch.windows import coverage, overlap, page_checks, reader
from segment_fetch.windows.live_pass import LivePass
from segment_fetch.windows.settled_pass import SettledPass
from tests.support import Asked, http

Row = tuple[int, str]  # close time, id


class Odd(Struct, frozen=True):
    """The oddities of a server. Rates are events an answer; shares are of the answers."""

    swaps: float = 0.0
    """Rows that go while another comes."""
    burst: int = 0
    """Swaps at one moment of the reading."""
    moved: int = 0
    """Rows that get another close time at one moment of the reading."""
    arrivals: float = 0.0
    lag: int = 0
    """Events by which the second of two replicas is behind."""
    stale: float = 0.0
    """Share of the counts that are three events old."""
    cap: int | None = None
    """The number at which counts stop, while `next` links go on."""
    narrow: float = 0.0
    """Share of the answers for half of the time frame."""
    late: bool = False
    """True if nothing is answered for the first half of the window."""


class Replica:
    """Rows in order, oldest first, after so many of the events."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = list(rows)
        self.applied = 0

    def follow(self, events: list[tuple[Row | None, Row | None]], behind: int) -> None:
        for gone, new in events[self.applied : max(self.applied, len(events) - behind)]:
            if gone is not None:
                self.rows.pop(bisect_left(self.rows, gone))
            if new is not None:
                insort(self.rows, new)
            self.applied += 1


class OddServer:
    """Answers for one window. `throughout` are the ids that were there from the first answer to the last."""

    def __init__(self, odd: Odd, rows: list[Row], span: tuple[int, int], date: str, seed: int) -> None:
        self.odd = odd
        self.random = random.Random(seed)
        self.requests = 0
        self._span = span
        self._date = date
        self._events: list[tuple[Row | None, Row | None]] = []
        self._leader, self._behind = Replica(rows), Replica(rows)
        self._counted = Replica(rows)
        self._first = {name for _, name in rows}
        self._gone: set[str] = set()
        self._burst_at = self.random.randrange(2, 2 + len(rows) // 500)

    @property
    def throughout(self) -> set[str]:
        return self._first - self._gone

    def __call__(self, asked: Asked) -> bytes:
        self.requests += 1
        self._change()
        self._leader.follow(self._events, 0)
        self._behind.follow(self._events, self.odd.lag)
        self._counted.follow(self._events, 3)
        query = {name: int(values[0]) for name, values in parse_qs(urlsplit(asked.path).query).items() if name in NAMES}
        start, end = query["fromMillis"], query["toMillis"]
        if self.random.random() < self.odd.narrow and end - start > 1:
            middle = (start + end) // 2
            start, end = self.random.choice([(start, middle), (middle, end)])
        if self.odd.late:
            start, end = (max(at, sum(self._span) // 2) for at in (start, end))
        replica = self._behind if self.odd.lag and self.random.random() < 0.5 else self._leader
        return self._page(replica, start, end, query["offset"], query["limit"])

    def _page(self, replica: Replica, start: int, end: int, offset: int, limit: int) -> bytes:
        found = self._within(replica, start, end)[::-1]
        counted = self._counted if self.random.random() < self.odd.stale else replica
        count = len(self._within(counted, start, end))
        part = found[offset : offset + limit]
        links = [{"rel": "next", "href": "x"}] if offset + len(part) < len(found) else []
        body = {
            "segments": [{"segmentId": name, "endTimeL": at} for at, name in part],
            "pagination": {"count": min(count, self.odd.cap or count), "references": links},
            "timeframe": {"startTimeL": start, "endTimeL": end},
        }
        return http(200, json.dumps(body), Date=self._date)

    def _within(self, replica: Replica, start: int, end: int) -> list[Row]:
        return replica.rows[bisect_left(replica.rows, (start, "")) : bisect_left(replica.rows, (end + 1, ""))]

    def _change(self) -> None:
        for _ in range(self.odd.burst if self.requests == self._burst_at else self._times(self.odd.swaps)):
            gone = self._any()
            self._gone.add(gone[1])
            self._events.append((gone, self._new()))
        for _ in range(self.odd.moved if self.requests == self._burst_at else 0):
            gone = self._any()
            self._events.append((gone, (self._new()[0], gone[1])))
        for _ in range(self._times(self.odd.arrivals)):
            self._events.append((None, self._new()))

    def _any(self) -> Row:
        self._leader.follow(self._events, 0)
        return self.random.choice(self._leader.rows)

    def _new(self) -> Row:
        return self.random.randrange(*self._span), f"new-{self.requests}-{self.random.random()}"

    def _times(self, rate: float) -> int:
        return int(rate) + (self.random.random() < rate % 1)


NAMES = ("fromMillis", "toMillis", "offset", "limit")


@contextmanager
def rules_as_before() -> Iterator[None]:
    """Pages of settled windows end to end, which need not meet; counts and time frames that are believed."""
    in_settled = False

    def end_to_end(count: int, limit: int, k: int) -> range:
        return range(0, max(1, count), limit) if k < overlap.LIVE_OVERLAP else rightful_offsets(count, limit, k)

    def follows(first: int, last: int) -> bool:
        return in_settled or first > last

    def believed(page: coverage.PageView) -> bool:
        return page.count is not None and page.offset + len(page.ids) >= page.count

    def weakly(name: str) -> Callable[..., Any]:
        rightful = getattr(LivePass, name)

        def call(self: SettledPass[Any], *args: Any) -> Any:
            nonlocal in_settled
            in_settled = True
            try:
                return rightful(self, *args)
            finally:
                in_settled = False

        return call

    def unlinked(*_: Any) -> bool:
        return False

    rightful_offsets = overlap.offsets
    with ExitStack() as patched:
        for where, name, old in (
            (overlap, "offsets", end_to_end),
            (coverage, "follows", follows),
            (coverage.PageView, "is_last", property(believed)),
            (page_checks, "_check_frame", lambda *_: None),
            (page_checks, "goes_on", unlinked),
            (reader, "goes_on", unlinked),
        ):
            patched.enter_context(mock.patch.object(where, name, old))
        for name in ("ready", "advance"):
            patched.enter_context(mock.patch.object(SettledPass, name, weakly(name), create=True))
        yield
