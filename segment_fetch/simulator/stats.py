"""Counters and a log of the requests received, for tests to assert on."""

from collections import Counter, deque

import msgspec

from segment_fetch.simulator.faults import Fault
from segment_fetch.simulator.query import SegmentQuery


class RequestRecord(msgspec.Struct, frozen=True):
    """One segments request. `query` is None if the request was refused before, or by, the check of its parameters.

    `status` is None if no answer was sent; `rows` is the number of segments in the answer; `fault` is its kind of
    fault, if any.
    """

    number: int
    at: float
    query: SegmentQuery | None
    status: int | None
    rows: int
    fault: Fault | None


class Stats:
    """Counters since the start. `requests` are segments requests; the others have separate counters.

    `answers` counts segments answers by status, `rows` the segments in them, `limited` the 429s of a limit,
    `refusals` the 401s by reason; `faults` counts the faults of all requests by kind. `nonces` are the OAuth
    1.0 nonces of accepted requests. `most_in_flight` is the highest number of requests in service at once,
    `most_per_second` the highest number that arrived within a second of the simulator's clock. `log` holds the last
    requests.
    """

    def __init__(self, log_size: int) -> None:
        self.requests = 0
        self.token_requests = 0
        self.domain_requests = 0
        self.limited = 0
        self.rows = 0
        self.answers: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.most_per_second = 0
        self.log: deque[RequestRecord] = deque(maxlen=log_size)
        self.nonces: set[str] = set()
        self._last_second: deque[float] = deque()

    def arrive(self, now: float) -> int:
        """Count a segments request at its arrival (epoch seconds); return its number, from 1."""
        self.requests += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        recent = self._last_second
        recent.append(now)
        while recent[0] <= now - 1.0:
            recent.popleft()
        self.most_per_second = max(self.most_per_second, len(recent))
        return self.requests

    def leave(self) -> None:
        """Count a segments request as finished."""
        self.in_flight -= 1

    def record(self, record: RequestRecord) -> None:
        """Count the answer to a segments request."""
        if record.status is not None:
            self.answers[record.status] += 1
        self.rows += record.rows
        self.log.append(record)
