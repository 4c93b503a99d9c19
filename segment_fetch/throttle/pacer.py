"""The pace of requests to a server whose limit is not published: find it, stay just under it, notice when it moves.

The limit may be a rate, a count in some window of time, or a number of requests at once. Only a refusal (429) shows
that it was crossed. The pacer keeps a rate and a cap on the requests in flight, decides which of the two a refusal
speaks against, and returns to the refused value more carefully each time.

Nothing here waits or does I/O: the caller passes every answer and the time (seconds, any origin, never backwards).
"""

import math
from collections import deque
from itertools import takewhile
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from segment_fetch.throttle.defaults import CONNECTIONS, MIN_PAUSE_S

Cause = Literal["rate", "at_once"]

START: Final = 10.0  # requests a second before anything is known: few servers refuse it, and a day's data is read fast
GROWTH: Final = 2.0  # factor per second while no limit is known: faster overshoots by more than the first cut removes
LEAD: Final = 3.0  # largest factor between the rate and that of the answers: answers that lag prove nothing about more
RECENT: Final = 10.0  # seconds over which the answers are measured: less is noise, more misses a limit that fell
CERTAIN: Final = 0.6  # share of the way from the measured rate up to the refused one: either may be the limit
HOLD: Final = 0.98  # share of a refused rate, or of a ceiling, that is held: requests bunch up a little on their way
RETURN: Final = 3.0  # seconds in which the gap to the rate to hold shrinks to a third
CREEP: Final = 0.002  # first step above that, as a share; the steps double
DOUBLING: Final = 6.0  # seconds in which a step doubles: 20 s from 2 % below a limit to the limit
SLOW: Final = 2.5  # requests a second; below it all this takes longer in proportion, as a probe is one of few requests
SAME: Final = 0.05  # two refused rates that are no further apart are the same limit, which is then tested less often
PROOF: Final = 6  # accepted with so many in flight: fewer happen by chance, as the server frees a slot first
CHANCE: Final = 100  # accepted at the cap: a cap that has served so many is not changed for one refusal
RETRY: Final = 10.0  # seconds until a refused number at once is tried again
LONGEST: Final = 8  # factor by which pauses, retries and steps grow at most: a limit that rose is found in minutes
SLOWEST: Final = 0.1  # requests a second: one in 10 s notices that a server serves again
GRAIN: Final = 0.01  # seconds by which timers fire late; fast senders make up for it


class Learned(msgspec.Struct, frozen=True):
    """The findings of a run: requests a second, if a 429 set that rate, the most at once if known; epoch seconds."""

    rate: Annotated[float, msgspec.Meta(ge=SLOWEST, le=1e6)]
    limited: bool
    cap: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None
    at: float


class Permit(NamedTuple):
    """The right to send one request: the time of sending, the requests then in flight (this one included), the rate."""

    sent_at: float
    level: int
    rate: float


def _between(accepted: float, refused: float) -> float:
    return accepted * math.pow(refused / accepted, CERTAIN)


class Pacer:
    """Decides when the next request may go, from the answers to those before it.

    Ask `next_send`; when it says 0, send and call `sent`; give the permit back exactly once, to `accepted`, `refused`
    or `dropped`, for a cancelled request too. `ceiling` (requests a second) is the user's own limit, `connections`
    the most in flight, `learned` the state of an earlier run.
    """

    def __init__(
        self, ceiling: float | None = None, connections: int = CONNECTIONS, learned: Learned | None = None
    ) -> None:
        if connections < 1 or (ceiling is not None and not ceiling > 0):
            raise ValueError("a pacer needs at least one connection, and a ceiling above 0 or none")
        self.ceiling, self.connections, self.before = ceiling, connections, learned
        self.cause: Cause | None = None  # of the last refusal
        self.resumes_at = self._next = self._now = self._began = -math.inf
        self._fastest = HOLD * ceiling if ceiling else math.inf
        self._slowest = min(SLOWEST, self._fastest)
        self._hold = learned.rate if learned and learned.limited else 0.0
        self._refused_rate = self._hold / HOLD or None
        self._patience = 2.0 if self._hold else 1.0  # times that steps take longer
        start = HOLD * self._hold or max(START, learned.rate / 2 if learned else self._fastest if ceiling else START)
        self.rate = min(self._fastest, start)
        self.remembers = learned is not None and start < self._fastest  # begins with what an earlier run found
        self.cap = min(connections, learned.cap) if learned and learned.cap else connections
        self._refused_level = self.cap + 1 if self.cap < connections else None
        self._retry_at, self._retry_after = math.inf, RETRY
        self._level_accepted = [0] * (connections + 1)  # with so many in flight, since a refusal at that or fewer
        self._cap_accepted = 0  # at the cap, since it changed
        self.in_flight = self._accepted = self._accepted_since_pause = 0
        self._recent: deque[float] = deque()  # when the answers of the last 10 s came
        self._pause = MIN_PAUSE_S
        self._events: deque[tuple[float, int]] = deque(maxlen=2)  # when refusals came, and the accepted before each

    def next_send(self, now: float) -> float:
        """Return the seconds until a request may be sent: 0 is now, infinity is after another answer."""
        self._advance(now)
        wait = self._next - now if self.in_flight < self.cap else math.inf
        return wait if wait > 1e-6 else 0.0  # less may be too little for the clock to move

    def sent(self, now: float) -> Permit:
        late = GRAIN if GRAIN * self.rate >= 0.5 else 0.0  # a slower sender would bunch requests up
        self._next = max(self._next, now - late) + 1 / self.rate
        self.in_flight += 1
        return Permit(now, self.in_flight, self.rate)

    def accepted(self, permit: Permit, now: float) -> None:
        """Note an answer that is neither a 429 nor a server error."""
        self.in_flight -= 1
        self._accepted += 1
        self._accepted_since_pause += permit.sent_at >= self.resumes_at
        self._recent.append(now)
        while self._recent[0] <= now - RECENT:
            self._recent.popleft()
        self._level_accepted[permit.level] += 1
        self._cap_accepted += permit.level >= self.cap
        if self._cap_accepted >= PROOF:
            self._raise_cap()

    def dropped(self, permit: Permit, now: float) -> None:
        """Note a request that proves nothing: a server error or timeout, or one that was lost or cancelled."""
        self.in_flight -= 1

    def refused(self, permit: Permit, now: float, retry_after: float | None = None) -> None:
        """Note a 429. All requests pause for `retry_after` seconds, at least 1.

        A 429 for a request sent before the pause belongs to the same event, and can only make the pause longer.
        """
        self.in_flight -= 1
        if permit.sent_at < self.resumes_at:
            self._pause_until(now + (retry_after or 0.0))
            return
        blocked = bool(self._events) and not self._accepted_since_pause
        self._pause = min(2 * self._pause, LONGEST * MIN_PAUSE_S) if blocked else MIN_PAUSE_S
        self._pause_until(now + max(self._pause, retry_after or 0.0))
        self._accepted_since_pause = 0
        proof = sum(self._level_accepted[(level := permit.level) :])
        self._level_accepted[level:] = [0] * (self.connections + 1 - level)
        if blocked:
            self._slow_down(now)
            return
        tested = not self._events and self._refused_rate and 1 < permit.rate / self._refused_rate < GROWTH
        self._events.append((now, self._accepted))
        if level > 1 and proof < PROOF and not tested:
            self._lower_cap(level)
        elif not (self._refused_level and level >= self.cap and proof >= CHANCE):
            self._lower_rate(permit, now)

    def _pause_until(self, resume: float) -> None:
        self.resumes_at = max(self.resumes_at, resume)
        self._next = max(self._next, self.resumes_at)

    def _slow_down(self, now: float) -> None:
        """Fall to the average rate since the last refusal: nothing was accepted after the pause."""
        began, before = self._events[0] if len(self._events) == 2 else (self._began, 0)
        accepted = (self._accepted - before) / max(1.0, now - began)
        self.rate = max(self._slowest, min(self.rate, accepted) if self._accepted else self.rate / 2)
        if self._refused_rate and accepted:
            self._hold = min(self._hold, _between(accepted, self._refused_rate))

    def _lower_cap(self, level: int) -> None:
        self.cause = "at_once"
        self._retry_after = min(2 * self._retry_after, LONGEST * RETRY) if level == self._refused_level else RETRY
        self._refused_level, self.cap, self._cap_accepted = level, level - 1, 0
        self._retry_at = self.resumes_at + self._retry_after

    def _raise_cap(self) -> None:
        """Raise the cap by one, since requests at the cap were accepted; forget a refused number that now works."""
        if self._refused_level and self.cap >= self._refused_level:
            self._refused_level = None
        if self.cap < self.connections and self.cap + 1 != self._refused_level:
            self.cap, self._cap_accepted = self.cap + 1, 0

    def _lower_rate(self, permit: Permit, now: float) -> None:
        self.cause = "rate"
        if permit.level <= self.cap:  # the number at once was not the cause
            self.cap, self._refused_level, self._cap_accepted = self.connections, None, 0
        if not self._accepted:
            self.rate = max(self._slowest, self.rate / 2)
            return
        accepted = max(self._slowest, self._rate_of_answers(now, RECENT))
        refused, known = permit.rate, self._refused_rate
        if known is None:
            lower = accepted = accepted * math.sqrt(GROWTH)  # the answers are about half a second behind
        else:
            lower = math.sqrt(accepted * self.rate)
            if accepted <= known * (1 + SAME):  # the excess came from the server's burst allowance
                refused = min(refused, max(known, accepted))
            same = abs(refused / known - 1) <= SAME
            self._patience = min(LONGEST, 2 * self._patience) if same else 1.0
        self._refused_rate, self._hold = refused, min(HOLD * refused, _between(accepted, refused))
        self.rate = max(self._slowest, min(HOLD * self.rate, lower, self._hold))

    def _rate_of_answers(self, now: float, seconds: float) -> float:
        """Return the accepted requests a second, over that many seconds or since the start, whichever is shorter."""
        accepted = sum(1 for _ in takewhile(lambda at: at > now - seconds, reversed(self._recent)))
        return accepted / min(seconds, max(1.0, now - self._began))

    def _advance(self, now: float) -> None:
        """Let the rate grow by the time that passed outside a pause, and try a refused number when that is due."""
        if self._now == -math.inf:
            self._now = self._began = self.resumes_at = now
            self._retry_at = now + RETRY / 2  # what an earlier run found is tested soon
        elapsed = min(RECENT, now - max(self._now, self.resumes_at))  # after hours of silence, too
        if elapsed < 2 * GRAIN:
            return
        self._now = now
        if self._refused_rate is None:
            rate = self.rate * GROWTH**elapsed
        elif self.rate > self._refused_rate:  # that limit is gone, but another may be near
            rate = self.rate * GROWTH ** (elapsed / 3)
        else:
            slow = max(1.0, SLOW / self.rate)
            patience = self._patience if self._events else 0.3  # what an earlier run found is tested soon
            steps = min(20.0, (now - self.resumes_at) / (DOUBLING * slow * patience))
            hold = self._hold * (1 + CREEP * (2**steps - 1))
            rate = hold + (self.rate - hold) * math.exp(-elapsed / (RETURN * slow))
        lead = LEAD * self._rate_of_answers(now, max(1.0, LEAD / self.rate))
        self.rate = max(self.rate, min(rate, lead, self._fastest))
        if self.cap + 1 == self._refused_level and now >= self._retry_at and self._cap_accepted >= PROOF:
            self.cap, self._cap_accepted = self.cap + 1, 0
            self.rate = max(self._slowest, min(self.rate, self._rate_of_answers(now, RETURN)))

    @property
    def at_once(self) -> int | None:
        """The maximum number of requests at once; None while no such limit is known."""
        return self.cap if self.cap < self.connections else None

    @property
    def expected(self) -> float | None:
        """Requests a second that a long run is likely to reach; None where nothing is known yet."""
        if self._refused_rate:
            return min(max(self._hold, self.rate), self._fastest)
        return self._fastest if self.ceiling else self.rate if self.remembers else None

    @property
    def has_learned(self) -> bool:
        """True once there is something for the next run to start from."""
        return bool(self._events) or self._accepted >= PROOF

    def learned(self, at: float) -> Learned:
        """Return the limits this run found, completed by those known before where it found none."""
        before, cap, rate = self.before, self.at_once, self.rate
        if before and (before.cap or 0) >= self.connections:
            cap = cap or before.cap
        if limited := self._refused_rate is not None and rate <= self._refused_rate:
            rate = self._hold
        elif before and not before.limited:
            rate = max(rate, before.rate)
        return Learned(min(max(SLOWEST, rate), 1e6), limited, cap, at)
