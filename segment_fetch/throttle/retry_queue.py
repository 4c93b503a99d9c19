"""When a page that failed is asked for again, and when the service counts as down. No clock of its own, no I/O.

A page that failed waits a little and is asked for again; one that used up those retries is parked, and comes back in
two later rounds before it counts as lost. Retries cost tokens, which successes earn, so that a service in trouble is
not asked more and more. When nothing comes through at all, the service is down: one probe now and then, until one
succeeds or the patience ends. A bulk job can wait.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from segment_fetch.errors import TransientError
from segment_fetch.throttle.retry_policy import RetryPolicy

TOKENS = 50.0
"""Retries that may be sent before any has been earned; also the most that are saved up."""
EARNED = 0.1
"""Tokens that a success earns."""
AFTER_OUTAGE = 10.0
"""Tokens, at least, when the service is back."""
DOWN_AFTER = 20
"""Failures in a row, of any pages, after which the service counts as down."""


class Attempt(Struct, eq=False):
    """A request on its way through its attempts. `since` is when it first failed or was refused."""

    request: Any
    tries: int = 0
    failures: int = 0
    rounds: int = 0
    since: float | None = None


class Again(Struct, frozen=True):
    """The page is asked for again in `delay` seconds; `parked` if its quick retries were used up."""

    delay: float
    parked: bool = False


class Down(Struct, frozen=True):
    """The service has been down for `seconds`; the page is kept."""

    seconds: float


class Lost(Struct, frozen=True):
    """The page cannot be had. `alone` if others came through meanwhile; `down` for how long nothing has, if it was
    waited for.
    """

    alone: bool
    down: float | None = None


class RetryQueue:
    """The pages that wait, and what the answers say of the service. Times are seconds of the caller's clock."""

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float], wanted: Callable[[Any], bool]) -> None:
        self._policy = policy
        self._chance = chance
        self._wanted = wanted
        self._free: list[tuple[float, int, Attempt]] = []
        self._charged: list[tuple[float, int, Attempt]] = []
        self._order = 0
        self._tokens = TOKENS
        self._in_a_row = 0
        self._row_began = 0.0
        self._succeeded_at: float | None = None
        self._down_since: float | None = None
        self._told = False
        self._probe_at = 0.0
        self._probing = False

    @property
    def is_down(self) -> bool:
        """Whether only probes are sent."""
        return self._down_since is not None

    @property
    def has_succeeded(self) -> bool:
        """Whether any page ever came."""
        return self._succeeded_at is not None

    def take(self, now: float, fresh: Callable[[], Any], *, idle: bool) -> Attempt | None:
        """What to send now: a page whose delay is over, or a fresh one; None where nothing may be sent.

        `idle` says that nothing is in flight: then waiting for tokens would be in vain.
        """
        for heap in (self._free, self._charged):
            while heap and not self._wanted(heap[0][2].request):
                heapq.heappop(heap)
        if self._down_since is not None:
            return self._probe(now, fresh)
        attempt = self._due(now)
        if attempt is None and (request := fresh()) is not None:
            attempt = Attempt(request)
        if attempt is None and idle and _is_due(self._charged, now):
            self._go_down(now, now)
        return attempt

    def _due(self, now: float) -> Attempt | None:
        if _is_due(self._free, now):
            return heapq.heappop(self._free)[2]
        if _is_due(self._charged, now) and (self._tokens >= 1 or self._succeeded_at is None):
            self._tokens = max(0.0, self._tokens - 1)
            return heapq.heappop(self._charged)[2]
        return None

    def _probe(self, now: float, fresh: Callable[[], Any]) -> Attempt | None:
        if self._probing or now < self._probe_at:
            return None
        if heap := self._free or self._charged:
            attempt = heapq.heappop(heap)[2]
        elif (request := fresh()) is not None:
            attempt = Attempt(request)
        else:
            return None
        self._probing = True
        return attempt

    def next_at(self, now: float) -> float | None:
        """When time alone may let something be sent; a page that waits for a token waits for answers, not for time."""
        if self._down_since is not None:
            nothing_waits = now >= self._probe_at and not (self._free or self._charged)
            return None if self._probing or nothing_waits else self._probe_at
        heads = [heap[0][0] for heap in (self._free, self._charged) if heap]
        if self._tokens < 1 and self._succeeded_at is not None and _is_due(self._charged, now):
            heads.pop()
        return min(heads, default=None)

    def succeeded(self, now: float) -> float | None:
        """A page came. Returns for how many seconds the service had been down, if that ends now."""
        self._succeeded_at = now
        self._in_a_row = 0
        self._tokens = min(TOKENS, self._tokens + EARNED)
        if self._down_since is None:
            return None
        seconds = now - self._down_since if self._told else None
        self._down_since, self._probing, self._told = None, False, False
        self._tokens = max(self._tokens, AFTER_OUTAGE)
        return seconds

    def given_up(self) -> None:
        """An answer came that is of no use and is not asked for again; if it was the probe, another may go."""
        self._probing = False

    def refused(self, attempt: Attempt, now: float, pause: float) -> float:
        """A 429, which is no failure of the page: it comes back when the pause is over, and costs nothing.

        Returns for how long nothing but 429 has been answered.
        """
        attempt.since = now if attempt.since is None else attempt.since
        self._probing = False
        self._wait(attempt, now + pause, paid=True)
        return now - max(attempt.since, attempt.since if self._succeeded_at is None else self._succeeded_at)

    def failed(self, attempt: Attempt, error: TransientError, now: float) -> Again | Down | Lost:
        """What becomes of a page that failed."""
        attempt.since = now if attempt.since is None else attempt.since
        if self._in_a_row == 0:
            self._row_began = now
        self._in_a_row += 1
        if self._down_since is not None:
            return self._still_down(attempt, now, self._down_since)
        attempt.failures += 1
        delay = self._policy.delay(error.kind, attempt.failures, self._chance)
        if self._succeeded_at is None:
            return self._later(attempt, now, delay) if delay is not None else Lost(alone=False)
        if self._in_a_row >= DOWN_AFTER or (delay is None and self._succeeded_at < attempt.since):
            self._go_down(self._row_began, now)
            return self._still_down(attempt, now, self._row_began)
        return self._later(attempt, now, delay) if delay is not None else self._park(attempt, now)

    def _later(self, attempt: Attempt, now: float, delay: float) -> Again:
        self._wait(attempt, now + delay, paid=False)
        return Again(delay)

    def _park(self, attempt: Attempt, now: float) -> Again | Lost:
        if attempt.rounds == len(self._policy.parked):
            return Lost(alone=True)
        delay = self._policy.parked[attempt.rounds]
        attempt.rounds += 1
        attempt.failures = 0
        self._wait(attempt, now + delay, paid=False)
        return Again(delay, parked=True)

    def _go_down(self, since: float, now: float) -> None:
        self._down_since = since
        self._probe_at = now
        self._probing = False

    def _still_down(self, attempt: Attempt, now: float, since: float) -> Down | Lost:
        self._probing = False
        self._told = True
        seconds = now - since
        left = self._policy.patience - seconds
        if left <= 0:
            return Lost(alone=False, down=seconds)
        self._probe_at = now + min(self._policy.probe, left)
        attempt.failures = 0
        self._wait(attempt, now, paid=True)
        return Down(seconds)

    def _wait(self, attempt: Attempt, until: float, *, paid: bool) -> None:
        self._order += 1
        heapq.heappush(self._free if paid else self._charged, (until, self._order, attempt))


def _is_due(heap: list[tuple[float, int, Attempt]], now: float) -> bool:
    return bool(heap) and heap[0][0] <= now
