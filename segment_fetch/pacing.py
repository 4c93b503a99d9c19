"""How fast to send to a server whose limit is not published: find the limit, stay under it, notice it move.

The limit may be a rate, a count in some window of time, or a number of requests at once. Only a refusal (429)
tells that it was crossed. So the pacer keeps two figures, a rate and a cap on the requests in flight, decides
which of the two each refusal speaks against, and returns towards the refused figure more and more carefully.

Nothing here waits, reads a clock or does I/O: the caller passes the time in (seconds, any origin, never
backwards). `docs/pacing.md` says why each rule is there and what it is worth.
"""

import math
from typing import Annotated, Final, Literal

import msgspec

from segment_fetch.concurrency import LONGEST_RETRY, RETRY, ConcurrencyCap, Ticket
from segment_fetch.meter import AcceptedMeter

Blame = Literal["rate", "concurrency"]
Phase = Literal["ramping", "holding", "probing", "paused"]

START: Final = 10.0  # requests a second, before anything is known
RAMP: Final = 2.0  # growth in a second until the first refusal
BRISK: Final = 2.5  # the same above BRISK_ABOVE a second, where overshooting costs a small share
BRISK_ABOVE: Final = 50.0
RISE: Final = 1.15  # growth in a second where a limit is thought to be gone, or not to be the rate
LEAD: Final = 2.0  # the rate grows to at most so many times what is being accepted
RECENT: Final = 10.0  # seconds over which the accepted rate is taken for what the server gives
RAMPED: Final = 1.5  # what was accepted while the rate still grew, times this, is what a server may well give
SHARP: Final = 0.9  # of the refused rate: on a burst the ramp goes on, and leaves what was accepted further behind
RAMP_KEEP: Final = 0.955  # the share of the first refused rate that is worth holding: a growing one has overshot
CUT: Final = 0.98  # a refused rate falls at least to this share of itself
DEEPEST_CUT: Final = 0.7  # and at most to this one, once the ramp is over
KEEP: Final = 0.97  # the share of a refused rate that is worth holding
APPROACH: Final = 0.3  # of the way from the rate to the one worth holding, in a step
ARRIVED: Final = 0.985  # of the rate worth holding: near enough to go to it
STEP: Final = 5.0  # seconds
STEP_REQUESTS: Final = 50.0  # a step of creeping is at least so many requests: a slow limit is probed slowly
CREEP: Final = 0.001  # the first step above the rate worth holding; two steps on, it has doubled
GONE: Final = 1.04  # so far above a refused rate without a refusal, that limit is taken to be gone
WORTH: Final = 0.75  # below this share of the best rate of the run, going back to that is worth trying
PROVE: Final = 10.0  # seconds that the best rate has to hold before it counts as back
PLENTY: Final = 100  # accepted since a short pause: what was stored in that is small beside them
FEW: Final = 4  # a refusal after fewer accepted than this is the same congestion, not a new measurement
LONG: Final = 2.0  # seconds of a pause that is more than the least one and rounding
LONGEST_PAUSE: Final = 8.0  # seconds, unless Retry-After says more
GRAIN: Final = 0.01  # seconds of sending that a caller which woke late makes up for
FAST: Final = 50.0  # a second; from there on timers are so coarse beside the spacing that several are due at once
RESOLUTION: Final = 1e-6  # seconds that are not worth waiting for
FIRST: Final = 0.005  # seconds by which the first request may be sent later than it was allowed to be
MARGIN: Final = 0.98  # of a ceiling: requests arrive a little closer to each other than they were sent
LOOSER: Final = 0.96  # of a rate at which a request alone was refused, as it came too early
NEAR: Final = 0.85  # of a ceiling
SPARED: Final = 2  # accepted behind a refused one, and more than were refused there: it was alone
TICK: Final = 0.025  # seconds between two adjustments, if requests come as often: 2 % of a rate that doubles
SLOWEST: Final = 0.1  # requests a second
ENOUGH: Final = 20  # answers from which a run has something to say to the next
FULL: Final = 0.5  # the share of sends that wait for an answer, from which the cap is what slows the client


class Learned(msgspec.Struct, frozen=True):
    """What a run found out, for the next one.

    `rate` in requests a second, and whether it was `limited` by a refusal; `cap` in requests at once (None:
    no such limit was met); `at` is when, in whichever clock the caller keeps between runs. What is read from
    elsewhere has to be within these bounds.
    """

    rate: Annotated[float, msgspec.Meta(ge=SLOWEST, le=1e6)]
    limited: bool
    cap: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None
    at: float


class Snapshot(msgspec.Struct, frozen=True):
    """Requests a second, the cap on those in flight, and which of the two the last refusal spoke against."""

    rate: float
    cap: int
    in_flight: int
    phase: Phase
    blame: Blame | None


class Refusal(msgspec.Struct, frozen=True):
    """A 429 that has begun a pause: how many were in flight with it, at which rate it followed another, when it came.

    `given` a second were accepted in the 10 s before it, or since the pause before it. `lasted` seconds have passed
    since the last such event; `again` says that hardly any were accepted since.
    """

    level: int
    rate: float
    at: float
    given: float
    again: bool
    lasted: float


class _Rate:
    """How many requests to send in a second."""

    def __init__(self, ceiling: float, learned: Learned | None) -> None:
        self.ceiling = MARGIN * ceiling
        self._slowest = min(SLOWEST, self.ceiling)
        self.ramping = learned is None or not learned.limited
        self.aim = 0.0 if learned is None or self.ramping else learned.rate  # worth holding; 0: not known yet
        self.refused = self.aim / KEEP  # what the last refusal spoke against
        self.value = min(self.ceiling, self._known() or self._start(learned))
        self._step_at = self._quiet_since = -math.inf
        self._retry_at, self._wait, self._proved_at = math.inf, RETRY, math.inf
        self._before: tuple[float, float, float] | None = None  # to go back to if the best rate does not hold
        self._doubtful = False  # whether all that is known of a limit may have been about the number at once
        self._warm = not self.ramping  # whether nothing but an earlier run has told of a limit
        self.sharp = False  # whether the server seems to have no burst, so that each request counts by itself
        self._lowered = 0  # times that a refusal was taken for a new measurement

    def _start(self, learned: Learned | None) -> float:
        """Somebody who sets a ceiling expects that much to be served."""
        if self.ceiling < math.inf:
            return self.ceiling
        return max(START, learned.rate / 2) if learned else START

    def _known(self) -> float:
        """What an earlier run found; a little less where no ceiling is near, so as not to begin with a refusal."""
        return self.aim if self.aim >= NEAR * self.ceiling else KEEP * self.aim

    @property
    def at_ceiling(self) -> bool:
        """Whether requests go as fast as the user allows."""
        return self.value >= self.ceiling

    def adjust(self, now: float, elapsed: float, meter: AcceptedMeter, capped: bool) -> None:
        if self._quiet_since == -math.inf:
            self._quiet_since = now
        lead = LEAD * meter.rate(now, 1.0)
        if self.ramping:
            self._grow((RAMP if self.value < BRISK_ABOVE else BRISK) ** elapsed, lead)
        elif capped and self.value < (self.aim or math.inf):
            self._grow(RISE**elapsed, min(lead, self.aim or lead))
        elif now >= self._retry_at:
            self._return(now, elapsed, meter.best)
        elif self.value > GONE * self.refused:
            self._grow(RISE**elapsed, lead)
        elif now >= self._step_at:
            self._step(now)
        if now >= self._proved_at:
            self._before, self._wait, self._proved_at = None, RETRY, math.inf

    def _grow(self, factor: float, most: float) -> None:
        self.value = max(self.value, min(self.value * factor, most, self.ceiling))

    def _step(self, now: float) -> None:
        """Goes part of the way to the rate worth holding; from there creeps up, ever faster."""
        if self.value < min(self.aim, self.ceiling):
            self._step_at = self._quiet_since = now + STEP
            nearer = self.value + (self.aim - self.value) * APPROACH
            self._grow(math.inf, self.aim if nearer > ARRIVED * self.aim else nearer)
        else:
            step = max(STEP, STEP_REQUESTS / self.value)
            self._step_at = now + step
            self._grow(1 + CREEP * 2 ** ((now - self._quiet_since) / step / 2), math.inf)

    def _return(self, now: float, elapsed: float, best: float) -> None:
        """Goes back to the best rate of the run: who took a share of the limit may have left again."""
        if self._before is None:
            self._before = self.value, self.refused, self.aim
        self._grow(RISE**elapsed, best)
        if self.value >= min(best, self.ceiling):
            self._retry_at, self._proved_at, self._quiet_since = math.inf, now + PROVE, now
            self.refused, self.aim = max(self.refused, best / KEEP), best

    def acquit(self) -> None:
        """Takes back a refusal of the ramp, if nothing else ever spoke against the rate, as it was about the number."""
        if self._doubtful:
            self.aim = self.refused = 0.0
            self._doubtful = self.sharp = False

    def lower(self, refusal: Refusal, pause: float, *, doubtful: bool = False, alone: bool = False) -> None:
        """Takes a refusal that is not about the number at once, after a pause of so many seconds.

        `doubtful`: it may have been, as both grew together. `alone`: most of those sent right behind it were accepted.
        """
        self._lowered += not refusal.again
        self._doubtful = doubtful
        if self._before is not None:
            self.value, self.refused, self.aim = self._before
            self._wait = min(2 * self._wait, LONGEST_RETRY)
            self._before, self._proved_at, self._retry_at = None, math.inf, refusal.at + self._wait
        elif refusal.again:
            least = DEEPEST_CUT * self.value if self.sharp else self._slowest
            self.value = min(self.value, max(least, refusal.given))
        elif alone and (self.sharp or self._warm or self.value >= NEAR * self.ceiling):
            self.refused = self.value  # it came too early; there is nothing to be measured
            self.value = self.aim = LOOSER * self.value
        elif self.ramping:
            self.refused = refusal.rate
            self.aim = RAMP_KEEP * self.refused
            most = RAMPED * self._spread(refusal, pause)
            self.sharp = not self.at_ceiling and SHARP * self.aim <= most
            self.value = max(self._slowest, self.aim if doubtful or not most else min(self.aim, most))
        else:
            self.sharp = self._warm = False
            self._cut(refusal.given, long=refusal.lasted > RECENT)

    @staticmethod
    def _spread(refusal: Refusal, pause: float) -> float:
        """What was accepted a second; a server that asks for a long pause counts over as long, so it is counted in."""
        took = max(TICK, min(refusal.lasted, RECENT))
        return refusal.given * took / (took + max(0.0, pause - LONG))

    def _cut(self, given: float, long: bool) -> None:
        """To what the server gave; where that is much less, and was measured across a pause, not all of the way."""
        self.refused = self.value
        self.aim = KEEP * self.refused
        if long:
            self.aim = (self.aim + min(given, self.refused)) / 2
        least = min(DEEPEST_CUT * self.value, math.sqrt(given * self.value))
        self.value = max(self._slowest, least, min(CUT * self.value, given))

    def found(self, before: Learned | None) -> tuple[float, bool]:
        """A rate, and whether it is a limit; where a run could not find out, because it went slower, what was known.

        One refusal below a ceiling where probing is slow is no limit yet: it may have been somebody else's doing, and
        the next run, without that ceiling, would be long at so slow a rate.
        """
        doubtful = self._lowered == 1 and self.ceiling < START
        if doubtful and before is not None:
            return before.rate, before.limited
        if self.aim and not doubtful:
            return self.aim, True
        return max(self.value, before.rate if before and not before.limited else 0.0), False

    def pause(self, now: float, resume: float, best: float) -> None:
        self.ramping = False
        self._step_at, self._quiet_since = resume + STEP, resume
        if self.value < WORTH * best and self._retry_at == math.inf:
            self._retry_at = now + self._wait


class Pacer:
    """Says when the next request may go, from the answers to those before it.

    Ask `next_send`; when it says 0, send at once and report `sent`; give the ticket back exactly once, by
    whichever of `accepted`, `refused` and `dropped` came of the request, a cancelled one too.

    `ceiling` (requests a second) is the user's own limit: the pacer starts just below it and never goes above. Sends
    are evenly spaced; from 50 a second on, 10 ms by which a timer is late are made up for. `connections` is the most in
    flight, and `learned` what an earlier run found.
    """

    def __init__(self, ceiling: float | None = None, connections: int = 16, learned: Learned | None = None) -> None:
        if connections < 1 or (ceiling is not None and not ceiling > 0):
            raise ValueError("a pacer needs at least one connection, and a ceiling above 0 or none")
        self.ceiling = ceiling
        self._before = learned
        self._rate = _Rate(ceiling or math.inf, learned)
        self._begun_at = self._rate.value
        self._cap = ConcurrencyCap(connections, learned.cap if learned else None)
        self._meter = AcceptedMeter()
        self._in_flight = 0
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
        if self._in_flight >= self._cap.limit:
            self._full = True
            return math.inf
        wait = self._next - now
        return 0.0 if wait <= RESOLUTION else wait

    def sent(self, now: float) -> Ticket:
        self._in_flight += 1
        rate = self._rate.value
        first = FIRST if self._next == -math.inf else 0.0
        made_up = GRAIN if rate >= FAST else 0.0
        self._next = max(self._next, now - made_up) + 1 / rate + first
        self._fullness += (self._full - self._fullness) / 16
        self._full = False
        spacing, self._spacing = self._spacing, rate
        return Ticket(now, self._in_flight, spacing)

    def accepted(self, ticket: Ticket, now: float) -> None:
        """For any answer that is not about the limit's being crossed and not a fault of the server."""
        self._in_flight -= 1
        self._accepted += 1
        self._answers += 1
        self._latency += (now - ticket.sent_at - self._latency) / min(self._answers, 16)
        # What was sent between a refusal and the pause was in flight with requests that had left the server already.
        sound = ticket.sent_at >= self._resume or ticket.sent_at <= self._refused_at
        self._spared += not sound
        self._meter.add(now, ticket.level if sound else 0)
        self._cap.accepted(ticket)

    def dropped(self, ticket: Ticket, now: float) -> None:
        """For what proves nothing about the limit: a server fault, a timeout, a lost or cancelled request."""
        self._in_flight -= 1

    def refused(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """For a 429. Everything pauses, for `retry_after` seconds and for 1 at least.

        A request that was sent before the pause belongs to the same event: it can only make the pause longer.
        """
        self._in_flight -= 1
        if ticket.sent_at < self._resume:
            self._struck += 1
            if retry_after:
                self._resume = self._next = self._tick = max(self._resume, now + retry_after)
            return
        again = self._refused_at < math.inf and self._accepted < FEW
        given, lasted = max(self._meter.rate(now, RECENT), self._given_since_pause(now)), now - self._since
        self._streak = self._streak + 1 if again else 0
        self._resume = self._next = self._tick = now + max(retry_after or 0.0, min(LONGEST_PAUSE, 2.0**self._streak))
        self._refused_at = ticket.sent_at
        self._event = Refusal(ticket.level, ticket.rate, now, given, again, lasted)
        self._since, self._accepted, self._spared, self._struck = now, 0, 0, 0

    def _given_since_pause(self, now: float) -> float:
        """What was accepted a second since the last pause, if that is a measurement: 10 s have the pause in them."""
        took, came = now - self._resume, self._accepted - self._leftover
        short = self._resume - self._since <= LONG
        return came / took if short and STEP <= took < RECENT and came >= PLENTY else 0.0

    def _find_fault(self, event: Refusal) -> None:
        """Comes at the end of the pause, when what was in flight has been answered and tells how many may be."""
        self._event, self._leftover = None, self._accepted
        told = self._rate.at_ceiling and not self._rate.refused  # which may well be the limit
        alone = self._spared >= max(SPARED, self._struck + 1)
        in_doubt = self._answers < FEW or told or (alone and self._rate.sharp)
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
            self._find_fault(self._event)
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
        """Whether it began with what an earlier run found."""
        return self._before is not None

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
        return Snapshot(self._rate.value, self._cap.limit, self._in_flight, self._phase(now), self._blame)

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
            self._find_fault(self._event)
        cap, before = self.found_cap, self._before
        if before is not None and cap is None and before.cap and before.cap >= self._cap.connections:
            cap = before.cap
        rate, limited = self._rate.found(before)
        return Learned(max(SLOWEST, rate), limited, cap, at)
