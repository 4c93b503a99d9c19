"""The queue of failed pages, and the decision that the service is down. No clock, no I/O.

A page that failed is retried after a short delay; one that has used up those retries is parked, and retried in two
later rounds before it counts as lost. Retries cost tokens, which successes earn, so that a service in trouble does not
get more and more requests. When every request fails, the service counts as down: it is probed at intervals until a
probe succeeds or the patience ends. A bulk job can wait. Credentials that were accepted before and are refused now are
handled in the same way with fewer probes, so that the account is not locked.

The very first request is sent alone, so that an error that affects every request is always reported for the same one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from segment_fetch.errors import SegmentFetchError, TransientError
from segment_fetch.throttle.retry_policy import RetryPolicy

TOKENS = 50.0
"""Retries available at the start; also the maximum that can be saved up."""
EARNED = 0.1
"""Tokens that a success earns."""
AFTER_OUTAGE = 10.0
"""Minimum number of tokens once the service is back."""
DOWN_AFTER = 20
"""Consecutive failures, of any pages, after which the service counts as down."""


class Attempt(Struct, eq=False):
    """A request and its attempts so far. `since` is the time at which it first failed or was refused."""

    request: Any
    tries: int = 0
    failures: int = 0
    rounds: int = 0
    since: float | None = None
    fault: str = ""
    equal: int = 0

    def met(self, fault: str) -> int:
        """Note the fault of an answer. Return the number of consecutive answers with the same fault."""
        self.equal = self.equal + 1 if fault == self.fault else 1
        self.fault = fault
        return self.equal


class Again(Struct, frozen=True):
    """The page is retried in `delay` seconds; `parked` if its quick retries are used up."""

    delay: float
    parked: bool = False


class Down(Struct, frozen=True):
    """The service has been down for `seconds`; the page stays in the queue."""

    seconds: float


class Lost(Struct, frozen=True):
    """The page is given up. `alone` if others succeeded meanwhile; `down` is the seconds for which the service has been
    down, or None.
    """

    alone: bool
    down: float | None = None


class RetryQueue:
    """The pages that wait for a retry, and the state of the service. Times are seconds of the caller's clock.

    `served` is True if the service has returned a page before, to an earlier run of the same client.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        chance: Callable[[], float],
        wanted: Callable[[Any], bool],
        *,
        served: bool = False,
    ) -> None:
        self._policy = policy
        self._chance = chance
        self._wanted = wanted
        self._free: list[tuple[float, int, Attempt]] = []
        self._charged: list[tuple[float, int, Attempt]] = []
        self._order = 0
        self._tokens = TOKENS
        self._in_a_row = 0
        self._row_began = 0.0
        self._failing: set[int] = set()  # the pages that failed since one came, by identity
        self._served = served
        self._succeeded_at: float | None = None
        self._closed_since: float | None = None
        self._probe: Attempt | None = None
        self._probe_at = 0.0
        self._rejections = 0
        self._is_down_reported = False

    @property
    def is_closed(self) -> bool:
        """True while only probes are sent: the service is down, or has refused the credentials."""
        return self._closed_since is not None

    @property
    def has_served(self) -> bool:
        """True if the service has ever returned a page, to this run or an earlier one."""
        return self._served

    def may_send(self, attempt: Attempt) -> bool:
        """Return True if an attempt may still be sent, now that it has its permit."""
        return self._wanted(attempt.request) and (self._closed_since is None or attempt is self._probe)

    def take(self, now: float, fresh: Callable[[], Any], *, idle: bool) -> Attempt | None:
        """Return the page to send now, one whose delay is over or a fresh one; None if nothing may be sent.

        `idle` is True if nothing is in flight, so that no success can earn a token.
        """
        for heap in (self._free, self._charged):
            while heap and not self._wanted(heap[0][2].request):
                heapq.heappop(heap)
        if not (self._served or idle):
            return None
        if self._closed_since is not None:
            return self._take_probe(now, fresh)
        attempt = self._take_due(now)
        is_alone = not self._served and (self._free or self._charged)
        if attempt is None and not is_alone and (request := fresh()) is not None:
            attempt = Attempt(request)
        if attempt is None and idle and _is_due(self._charged, now):
            self._close(now, now)
        return attempt

    def _take_due(self, now: float) -> Attempt | None:
        if _is_due(self._free, now):
            return heapq.heappop(self._free)[2]
        if _is_due(self._charged, now) and (self._tokens >= 1 or self._succeeded_at is None):
            self._tokens = max(0.0, self._tokens - 1)
            return heapq.heappop(self._charged)[2]
        return None

    def _take_probe(self, now: float, fresh: Callable[[], Any]) -> Attempt | None:
        if self._probe is not None or now < self._probe_at:
            return None
        heaps = (self._free, self._charged)
        if heap := next((heap for heap in heaps if _is_due(heap, now)), None):
            self._probe = heapq.heappop(heap)[2]
        elif (request := fresh()) is not None:
            self._probe = Attempt(request)
        elif heap := self._free or self._charged:
            self._probe = heapq.heappop(heap)[2]
        return self._probe

    def next_at(self, now: float) -> float | None:
        """Return the earliest time at which a timer alone makes a request eligible; None if only an answer can."""
        if self._closed_since is not None:
            nothing_waits = now >= self._probe_at and not (self._free or self._charged)
            return None if self._probe is not None or nothing_waits else self._probe_at
        heads = [heap[0][0] for heap in (self._free, self._charged) if heap]
        if self._tokens < 1 and self._succeeded_at is not None and _is_due(self._charged, now):
            heads.pop()
        return min(heads, default=None)

    def put_back(self, attempt: Attempt, now: float) -> None:
        """Put back a page that was taken and not sent; it is sent as soon as possible."""
        self._end_probe(attempt)
        self._wait(attempt, now, paid=True)

    def succeeded(self, now: float) -> float | None:
        """Note a success. Return the seconds for which the service was down, if that ends now; else None."""
        self._served = True
        self._succeeded_at = now
        self._in_a_row = 0
        self._failing.clear()
        self._tokens = min(TOKENS, self._tokens + EARNED)
        if self._closed_since is None:
            return None
        seconds = now - self._closed_since if self._is_down_reported else None
        self._closed_since, self._probe, self._is_down_reported = None, None, False
        self._rejections = 0
        self._tokens = max(self._tokens, AFTER_OUTAGE)
        return seconds

    def given_up(self, attempt: Attempt) -> None:
        """Note that a page is not retried any more; if it was the probe, another may be sent."""
        self._end_probe(attempt)

    def throttled(self, attempt: Attempt, now: float, pause: float) -> float:
        """Requeue a page that got a 429: that is not a failure, so it is sent again after the pause and costs no token.

        Return the seconds for which all answers have been 429.
        """
        attempt.since = now if attempt.since is None else attempt.since
        self._end_probe(attempt)
        self._wait(attempt, now + pause, paid=True)
        return now - max(attempt.since, attempt.since if self._succeeded_at is None else self._succeeded_at)

    def failed(
        self, attempt: Attempt, error: TransientError, now: float, *, refused: bool = False
    ) -> Again | Down | Lost:
        """Decide what to do with a page that failed.

        One that was `refused` is not parked: unless other pages fail as well, the refusal concerns that page alone.
        """
        attempt.since = now if attempt.since is None else attempt.since
        if self._in_a_row == 0:
            self._row_began = now
        self._in_a_row += 1
        self._failing.add(id(attempt.request))
        least = self._asked_pause(error)
        if self._closed_since is not None:
            return self._still_down(attempt, now, self._closed_since, least)
        attempt.failures += 1
        delay = self._policy.delay(error.kind, attempt.failures, self._chance)
        if self._succeeded_at is None:
            return self._later(attempt, now, max(delay, least)) if delay is not None else Lost(alone=False)
        if refused and delay is None and (self._succeeded_at >= attempt.since or len(self._failing) == 1):
            return Lost(alone=True)
        if self._in_a_row >= DOWN_AFTER or (delay is None and self._succeeded_at < attempt.since):
            self._close(self._row_began, now)
            return self._still_down(attempt, now, self._row_began, least)
        return self._later(attempt, now, max(delay, least)) if delay is not None else self._park(attempt, now, least)

    def refused(self, attempt: Attempt, error: TransientError, now: float, *, parks: bool = False) -> Again | Lost:
        """Decide what to do with a page that the service refused or returned broken. As it answered, this is not an
        outage, but the page is requested again before the answer counts.
        """
        self._end_probe(attempt)
        attempt.failures += 1
        delay = self._policy.delay(error.kind, attempt.failures, self._chance)
        if delay is None:
            return self._park(attempt, now, self._asked_pause(error)) if parks else Lost(alone=True)
        delay = max(delay, self._asked_pause(error))
        if self._closed_since is not None:
            self._probe_at = now + delay
        return self._later(attempt, now, delay)

    def rejected(self, attempt: Attempt, error: SegmentFetchError, now: float) -> Again | Lost:
        """Decide what to do with a page whose credentials were refused although they have been accepted before.

        Only one probe at a time is sent until a page succeeds.
        """
        attempt.since = now if attempt.since is None else attempt.since
        if self._closed_since is None:
            self._close(now, now)
        elif attempt is not self._probe:  # sent before the first refusal: it adds nothing
            return self._wait_for_probe(attempt, now)
        self._probe = None
        attempt.failures += 1
        self._rejections += 1
        delay = self._policy.delay("server", self._rejections, self._chance)
        if delay is None:
            return Lost(alone=False)
        self._probe_at = now + max(delay, self._asked_pause(error))
        if self._policy.delay("server", attempt.failures, self._chance) is None:
            return self._park(attempt, now, 0.0)  # others are tried in between
        return self._wait_for_probe(attempt, now)

    def _wait_for_probe(self, attempt: Attempt, now: float) -> Again:
        self._wait(attempt, max(now, self._probe_at), paid=True)
        return Again(max(0.0, self._probe_at - now))

    def _asked_pause(self, error: SegmentFetchError) -> float:
        """Return the seconds that the answer asked to wait, at most the patience."""
        return min(error.retry_after or 0.0, self._policy.patience)

    def _later(self, attempt: Attempt, now: float, delay: float) -> Again:
        self._wait(attempt, now + delay, paid=False)
        return Again(delay)

    def _park(self, attempt: Attempt, now: float, least: float) -> Again | Lost:
        if attempt.rounds == len(self._policy.parked):
            return Lost(alone=True)
        delay = max(self._policy.parked[attempt.rounds], least)
        attempt.rounds += 1
        attempt.failures = 0
        self._wait(attempt, now + delay, paid=False)
        return Again(delay, parked=True)

    def _close(self, since: float, now: float) -> None:
        self._closed_since = since
        self._probe_at = now
        self._probe = None
        self._rejections = 0

    def _still_down(self, attempt: Attempt, now: float, since: float, least: float) -> Down | Lost:
        self._end_probe(attempt)
        self._is_down_reported = True
        seconds = now - since
        left = self._policy.patience - seconds
        if left <= 0:
            return Lost(alone=False, down=seconds)
        self._probe_at = now + min(max(self._policy.probe, least), left)
        attempt.failures = 0
        self._wait(attempt, now, paid=True)
        return Down(seconds)

    def _end_probe(self, attempt: Attempt) -> None:
        if attempt is self._probe:
            self._probe = None

    def _wait(self, attempt: Attempt, until: float, *, paid: bool) -> None:
        self._order += 1
        heapq.heappush(self._free if paid else self._charged, (until, self._order, attempt))


def _is_due(heap: list[tuple[float, int, Attempt]], now: float) -> bool:
    return bool(heap) and heap[0][0] <= now
