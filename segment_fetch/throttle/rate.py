"""How many requests to send in a second, learned from refusals. Part of the pacer; pure like it."""

import math
from typing import Annotated, Final

import msgspec

from segment_fetch.throttle.concurrency import LONGEST_RETRY, RETRY
from segment_fetch.throttle.meter import AcceptedMeter

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
CREEP_DOUBLES: Final = 6.0  # times at most; only a ceiling lets it come so far
GONE: Final = 1.04  # so far above a refused rate without a refusal, that limit is taken to be gone
WORTH: Final = 0.75  # below this share of the best rate of the run, going back to that is worth trying
PROVE: Final = 10.0  # seconds that the best rate has to hold before it counts as back
LONG: Final = 2.0  # seconds of a pause that is more than the least one and rounding
MARGIN: Final = 0.98  # of a ceiling: requests arrive a little closer to each other than they were sent
LOOSER: Final = 0.96  # of a rate at which a request alone was refused, as it came too early
NEAR: Final = 0.85  # of a ceiling
TICK: Final = 0.025  # seconds between two adjustments, if requests come as often: 2 % of a rate that doubles
SLOWEST: Final = 0.1  # requests a second
FASTEST: Final = 1e6


class Learned(msgspec.Struct, frozen=True):
    """What a run found out, for the next one.

    `rate` in requests a second, and whether it was `limited` by a refusal; `cap` in requests at once (None:
    no such limit was met); `at` is when, in whichever clock the caller keeps between runs. What is read from
    elsewhere has to be within these bounds.
    """

    rate: Annotated[float, msgspec.Meta(ge=SLOWEST, le=FASTEST)]
    limited: bool
    cap: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None
    at: float


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


class Rate:
    """How many requests to send in a second."""

    def __init__(self, ceiling: float, learned: Learned | None) -> None:
        self.ceiling = MARGIN * ceiling
        self._slowest = min(SLOWEST, self.ceiling)
        self.ramping = learned is None or not learned.limited
        self.aim = 0.0 if learned is None or self.ramping else learned.rate  # worth holding; 0: not known yet
        self.refused = self.aim / KEEP  # what the last refusal spoke against
        self.value = min(self.ceiling, max(self._slowest, self._known()) if self.aim else self._start(learned))
        self._step_at = self._quiet_since = -math.inf
        self._retry_at, self._wait, self._proved_at = math.inf, RETRY, math.inf
        self._before: tuple[float, float, float] | None = None  # to go back to if the best rate does not hold
        self._doubtful = False  # whether all that is known of a limit may have been about the number at once
        self._warm = not self.ramping  # whether nothing but an earlier run has told of a limit
        self.sharp = False  # whether the server seems to have no burst, so that each request counts by itself
        self._excused = 0  # the highest number at once that was not blamed for a refusal, as it came too early
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
        elapsed = min(elapsed, RECENT)  # after hours of silence, too
        lead = LEAD * meter.rate(now, max(1.0, LEAD / self.value))
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
            self._grow(1 + CREEP * 2 ** min(CREEP_DOUBLES, (now - self._quiet_since) / step / 2), math.inf)

    def _return(self, now: float, elapsed: float, best: float) -> None:
        """Goes back to the best rate of the run: who took a share of the limit may have left again."""
        if self._before is None:
            self._before = self.value, self.refused, self.aim
        self._grow(RISE**elapsed, best)
        if self.value >= min(best, self.ceiling):
            self._retry_at, self._proved_at, self._quiet_since = math.inf, now + PROVE, now
            self.refused, self.aim = max(self.refused, best / KEEP), max(self.aim, best)

    @property
    def _is_held(self) -> bool:
        """Whether this is what is worth holding, and no probing above it."""
        return ARRIVED * self.value <= self.aim

    def excuses(self, level: int) -> bool:
        """Whether a refusal that was alone speaks against no number at once: on a server without a burst, once each."""
        known, self._excused = self._excused, max(self._excused, level if self.sharp else 0)
        return self.sharp and level > known

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
            before, self.refused, self.aim = self._before
            self.value = min(self.value, max(before, DEEPEST_CUT * refusal.given))
            self._wait = min(2 * self._wait, LONGEST_RETRY)
            self._before, self._proved_at, self._retry_at = None, math.inf, refusal.at + self._wait
        elif refusal.again:
            least = DEEPEST_CUT * self.value if self.sharp else 0.0
            self.value = min(self.value, max(least, refusal.given))
        elif alone and (self.sharp or (self._warm and self._is_held) or self.value >= NEAR * self.ceiling):
            self.refused = self.value  # it came too early; there is nothing to be measured
            self.value = self.aim = max(self._slowest, LOOSER * self.value)
        elif self.ramping:
            self.refused = refusal.rate
            self.aim = RAMP_KEEP * self.refused
            most = RAMPED * self._spread(refusal, pause)
            self.sharp = not self.at_ceiling and SHARP * self.aim <= most
            self.value = self.aim if doubtful or not most else min(self.aim, most)
        else:
            self.sharp = self._warm = False
            self._cut(refusal.given, long=refusal.lasted > RECENT)
        self.value = max(self.value, self._slowest)

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
        self.value = max(least, min(CUT * self.value, given))

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
