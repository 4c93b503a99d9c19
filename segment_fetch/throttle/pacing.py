"""How fast to send to a server whose limit is not published: find the limit, stay under it, notice it move.

The limit may be a rate, a count in some window of time, or a number of requests at once. Only a refusal (429)
tells that it was crossed. So the pacer keeps two figures, a rate and a cap on the requests in flight, decides
which of the two each refusal speaks against, and returns towards the refused figure more and more carefully.

Nothing here waits, reads a clock or does I/O: the caller passes the time in (seconds, any origin, never
backwards). `docs/pacing.md` says why each rule is there and what it is worth.
"""

import math
from typing import Final, Literal

import msgspec

from segment_fetch.throttle import CONNECTIONS
from segment_fetch.throttle.concurrency import ConcurrencyCap, InFlight, Ticket
from segment_fetch.throttle.meter import AcceptedMeter
from segment_fetch.throttle.rate import FASTEST, LONG, RECENT, SLOWEST, STEP, TICK, Learned, Rate, Refusal

Blame = Literal["rate", "concurrency"]
Phase = Literal["ramping", "holding", "probing", "paused"]

PLENTY: Final = 100  # accepted since a short pause: what was stored in that is small beside them
FEW: Final = 4  # a refusal after fewer accepted than this is the same congestion, not a new measurement
PAUSES: Final = (1.0, 2.0, 4.0, 8.0)  # seconds, for the first refusal and again; unless Retry-After says more
GRAIN: Final = 0.01  # seconds of sending that a caller which woke late makes up for
FAST: Final = 50.0  # a second; from there on timers are so coarse beside the spacing that several are due at once
RESOLUTION: Final = 1e-6  # seconds that are not worth waiting for
FIRST: Final = 0.005  # seconds by which the first request may be sent later than it was allowed to be
PATIENT: Final = 4.0  # times the latency; what is answered later is no 429
SPARED: Final = 2  # accepted behind a refused one, and more than were refused there: it was alone
ENOUGH: Final = 20  # answers from which a run has something to say to the next
FULL: Final = 0.5  # the share of sends that wait for an answer, from which the cap is what slows the client


class Snapshot(msgspec.Struct, frozen=True):
    """Requests a second, the cap on those in flight, and which of the two the last refusal spoke against."""

    rate: float
    cap: int
    in_flight: int
    phase: Phase
    blame: Blame | None


class Pacer:
    """Says when the next request may go, from the answers to those before it.

    Ask `next_send`; when it says 0, send at once and report `sent`; give the ticket back exactly once, by
    whichever of `accepted`, `refused` and `dropped` came of the request, a cancelled one too.

    `ceiling` (requests a second) is the user's own limit: the pacer starts just below it and never goes above. Sends
    are evenly spaced; from 50 a second on, 10 ms by which a timer is late are made up for. `connections` is the most in
    flight, and `learned` what an earlier run found.
    """

    def __init__(
        self, ceiling: float | None = None, connections: int = CONNECTIONS, learned: Learned | None = None
    ) -> None:
        if connections < 1 or (ceiling is not None and not ceiling > 0):
            raise ValueError("a pacer needs at least one connection, and a ceiling above 0 or none")
        self.ceiling = ceiling
        self._before = learned
        self._rate = Rate(ceiling or math.inf, learned)
        self._begun_at = self._rate.value
        self._cap = ConcurrencyCap(connections, learned.cap if learned else None)
        self._meter = AcceptedMeter()
        self._in_flight = InFlight()
        self._next = self._resume = self._tick = self._adjusted = self._since = -math.inf
        self._full = False  # whether an answer had to come before the next request
        self._fullness = 0.0  # how much of the recent sending that is true of
        self._blame: Blame | None = None
        self._event: Refusal | None = None
        self._refused_at = math.inf
        self._accepted = self._leftover = 0  # since the last refusal, and before its pause was over
        self._streak = self._answers = 0
        self._spared = self._struck = 0  # of those sent between a refusal and the pause: accepted, refused
        self._latency = 0.0  # seconds, of recent answers
        self._spacing = self._begun_at  # requests a second, at which the next one is spaced from the last

    def next_send(self, now: float) -> float:
        """Seconds until a request may be sent: 0 is now, infinity is after another answer. Ask again then."""
        if now >= self._tick:
            self._adjust(now)
        if len(self._in_flight) >= self._cap.limit:
            self._full = True
            return math.inf
        wait = self._next - now
        return 0.0 if wait <= RESOLUTION else wait

    def sent(self, now: float) -> Ticket:
        rate = self._rate.value
        first = FIRST if self._next == -math.inf else 0.0
        made_up = GRAIN if rate >= FAST else 0.0
        self._next = max(self._next, now - made_up) + 1 / rate + first
        self._fullness += (self._full - self._fullness) / 16
        self._full = False
        spacing, self._spacing = self._spacing, rate
        return self._in_flight.sent(now, spacing)

    def accepted(self, ticket: Ticket, now: float) -> None:
        """For any answer that is not about the limit's being crossed and not a fault of the server."""
        self._accepted += 1
        self._answers += 1
        self._latency += (now - ticket.sent_at - self._latency) / min(self._answers, 16)
        self._meter.add(now)
        if self._refused_at < ticket.sent_at < self._resume:
            # At a limit on the number at once it was let in because another had just left, which is still in the level.
            self._spared += 1
            self._in_flight.dropped(ticket)
        else:
            self._in_flight.accepted(ticket)
        self._take_certain(now)

    def dropped(self, ticket: Ticket, now: float) -> None:
        """For what proves nothing about the limit: a server fault, a timeout, a lost or cancelled request."""
        self._in_flight.dropped(ticket)

    def _take_certain(self, now: float) -> None:
        for ticket in self._in_flight.certain(now - max(PAUSES[0], PATIENT * self._latency)):
            self._meter.reach(ticket.level)
            self._cap.accepted(ticket)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """For a 429. Everything pauses, for `retry_after` seconds and for 1 at least.

        A request that was sent before the pause belongs to the same event: it can only make the pause longer.
        """
        level = self._in_flight.refused(ticket)
        if ticket.sent_at < self._resume:
            self._struck += 1
            if retry_after:
                self._resume = self._next = self._tick = max(self._resume, now + retry_after)
            return
        again = self._refused_at < math.inf and self._accepted < FEW
        given, lasted = max(self._meter.rate(now, RECENT), self._given_since_pause(now)), now - self._since
        self._streak = min(self._streak + 1, len(PAUSES) - 1) if again else 0
        self._resume = self._next = self._tick = now + max(retry_after or 0.0, PAUSES[self._streak])
        self._refused_at = ticket.sent_at
        self._event = Refusal(level, ticket.rate, now, given, again, lasted)
        self._since, self._accepted, self._spared, self._struck = now, 0, 0, 0

    def _given_since_pause(self, now: float) -> float:
        """What was accepted a second since the last pause, if that is a measurement: 10 s have the pause in them."""
        took, came = now - self._resume, self._accepted - self._leftover
        short = self._resume - self._since <= LONG
        return came / took if short and STEP <= took < RECENT and came >= PLENTY else 0.0

    def _find_fault(self, event: Refusal, now: float) -> None:
        """Comes at the end of the pause, when what was in flight has been answered and tells how many may be."""
        self._take_certain(now)
        self._event, self._leftover = None, self._accepted
        told = self._rate.at_ceiling and not self._rate.refused  # which may well be the limit
        alone = self._spared >= max(SPARED, self._struck + 1)
        beside = self._spared >= event.level  # as many were at the server at once, and were accepted
        in_doubt = self._answers < FEW or told or beside or (alone and self._rate.excuses(event.level))
        at_once = not in_doubt and self._cap.is_to_blame(event.level, self._meter.level())
        doubtful = at_once and self._rate.ramping and self._is_due_to_rate(event)
        if at_once and not doubtful:
            self._blame = "concurrency"
            self._cap.lower(event.level, event.at, self._resume)
            self._rate.acquit()
        else:
            self._blame = "rate"
            self._rate.lower(event, self._resume - event.at, doubtful=doubtful, alone=alone)
        self._rate.pause(event.at, self._resume, self._meter.best)

    def _is_due_to_rate(self, event: Refusal) -> bool:
        """Whether there were as many in flight as the rate and the latency bring along, the refused one counted."""
        return self.found_cap is None and event.level <= event.rate * self._latency + 1

    def _adjust(self, now: float) -> None:
        if self._event is not None and now >= self._resume:
            self._find_fault(self._event, now)
        if self._adjusted == -math.inf:
            self._adjusted = self._since = now
        self._meter.roll(now)
        elapsed = now - max(self._adjusted, self._resume)
        self._tick, self._adjusted = now + TICK, now
        if elapsed > 0:
            capped = self._fullness > FULL
            self._rate.adjust(now, elapsed, self._meter, capped)
            if capped:
                self._cap.grow(now)

    @property
    def remembers(self) -> bool:
        """Whether it began with what an earlier run found, and not with the ceiling."""
        return self._before is not None and self._begun_at < self._rate.ceiling

    @property
    def resumes_at(self) -> float:
        """When the last pause ends or ended."""
        return self._resume

    @property
    def found_cap(self) -> int | None:
        """Requests at once, at most; None while no such limit is known."""
        return self._cap.limit if self._cap.limit < self._cap.connections else None

    @property
    def expected(self) -> float | None:
        """Requests a second that a long run is likely to reach; None where nothing is known yet."""
        if known := self._rate.aim or (self.ceiling and math.inf):
            return min(known, self._rate.ceiling)
        return self._begun_at if self.remembers else None

    def snapshot(self, now: float) -> Snapshot:
        return Snapshot(self._rate.value, self._cap.limit, len(self._in_flight), self._phase(now), self._blame)

    def _phase(self, now: float) -> Phase:
        if now < self._resume:
            return "paused"
        if self._rate.ramping:
            return "ramping"
        capped = self._fullness > FULL and self._cap.limit < self._cap.connections
        return "holding" if capped or self._rate.value <= self._rate.aim else "probing"

    @property
    def has_learned(self) -> bool:
        """Whether enough came of the requests that the next run should know of it."""
        return self._refused_at < math.inf or self._answers >= ENOUGH

    def learned(self, at: float) -> Learned:
        """What this run found, and what was known before where it could not find out."""
        if self._event is not None:
            self._find_fault(self._event, self._resume)
        cap, before = self.found_cap, self._before
        if before is not None and cap is None and before.cap and before.cap >= self._cap.connections:
            cap = before.cap
        rate, limited = self._rate.found(before)
        return Learned(min(max(SLOWEST, rate), FASTEST), limited, cap, at)
