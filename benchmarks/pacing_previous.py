"""The pacer of version 0.1, as it was, for comparison in pairs; nothing else uses it.

Its constants and rules were chosen by the fixed servers of `benchmarks.pacing` alone.
"""

import math
from collections import deque
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

RETRY: Final = 20.0
LONGEST_RETRY: Final = 160.0
TRUST: Final = 20
GROW_EVERY: Final = 0.5


class Ticket(NamedTuple):
    sent_at: float
    level: int
    rate: float = 0.0
    number: int = 0


class InFlight:
    def __init__(self) -> None:
        self._sent = 0
        self._out: dict[int, Ticket] = {}
        self._uncertain: dict[int, Ticket] = {}
        self._oldest = math.inf

    def __len__(self) -> int:
        return len(self._out)

    def sent(self, now: float, rate: float) -> Ticket:
        self._sent += 1
        ticket = self._out[self._sent] = Ticket(now, len(self._out) + 1, rate, self._sent)
        return ticket

    def accepted(self, ticket: Ticket) -> None:
        self._uncertain[ticket.number] = self._out.pop(ticket.number)

    def dropped(self, ticket: Ticket) -> None:
        del self._out[ticket.number]

    def refused(self, ticket: Ticket) -> int:
        level = self._out.pop(ticket.number).level
        for tickets in (self._out, self._uncertain):
            for number, one in tickets.items():
                if number > ticket.number:
                    tickets[number] = one._replace(level=one.level - 1)
        return level

    def certain(self, since: float) -> list[Ticket]:
        oldest = next((number for number, one in self._out.items() if one.sent_at > since), math.inf)
        if oldest == self._oldest < math.inf:
            return []
        self._oldest = oldest
        found = [one for number, one in self._uncertain.items() if number < oldest]
        for one in found:
            del self._uncertain[one.number]
        return found


class ConcurrencyCap:
    def __init__(self, connections: int, learned: int | None) -> None:
        self.connections = connections
        self.limit = min(connections, learned or connections)
        self._refused = self.limit + 1 if learned else None
        self._refused_until: float | None = None
        self._wait = RETRY
        self._since = self._grow_at = -math.inf
        self._trust = 0

    def accepted(self, ticket: Ticket) -> None:
        if ticket.sent_at < self._since:
            return
        if ticket.level >= self.limit:
            self._trust = min(self._trust + 1, 4 * TRUST)
        if self._refused and ticket.level >= self._refused:
            self._refused, self._wait = None, RETRY

    def is_to_blame(self, level: int, most_accepted: int) -> bool:
        if self._refused is None:
            return level > most_accepted
        if level >= self._refused:
            return True
        if self._trust >= TRUST:
            self._trust -= TRUST
            return True
        self._refused, self.limit = None, self.connections
        return False

    def lower(self, level: int, now: float, resume: float) -> None:
        if self._refused is None:
            self._trust = 0
        elif level == self._refused:
            self._wait = min(2 * self._wait, LONGEST_RETRY)
        self._refused, self._since, self._refused_until = level, resume, now + self._wait
        self.limit = max(1, level - 1)

    def grow(self, now: float) -> None:
        if self._refused_until is None:
            self._refused_until = now + self._wait
        known = self._refused or self.connections
        top = min(self.connections, known if now >= self._refused_until else known - bool(self._refused))
        if now >= self._grow_at and self.limit < top:
            self._grow_at = now + GROW_EVERY
            self.limit += 1


BUCKET: Final = 0.5
BUCKETS: Final = 60
SPAN: Final = BUCKET * BUCKETS


class AcceptedMeter:
    def __init__(self) -> None:
        self.best = 0.0
        self._past: deque[tuple[int, int]] = deque(maxlen=BUCKETS)
        self._count = self._level = 0
        self._ends = -math.inf

    def add(self, now: float) -> None:
        if self._ends == -math.inf:
            self._ends = now + BUCKET
        elif now >= self._ends:
            self.roll(now)
        self._count += 1

    def reach(self, level: int) -> None:
        self._level = max(self._level, level)

    def roll(self, now: float) -> None:
        if self._ends == -math.inf:
            return
        if now - self._ends > SPAN:
            self._past.clear()
            self._count = self._level = 0
            self._ends = now + BUCKET
        while now >= self._ends:
            self._past.append((self._count, self._level))
            self._count = self._level = 0
            self._ends += BUCKET
            if len(self._past) == BUCKETS:
                self.best = max(self.best, sum(count for count, _ in self._past) / SPAN)

    def rate(self, now: float, seconds: float) -> float:
        self.roll(now)
        if self._ends == -math.inf:
            return 0.0
        past = list(self._past)[-int(seconds / BUCKET) :]
        took = len(past) * BUCKET + now - (self._ends - BUCKET)
        return (self._count + sum(count for count, _ in past)) / max(BUCKET, took)

    def level(self) -> int:
        return max(self._level, max((level for _, level in self._past), default=0))


START: Final = 10.0
RAMP: Final = 2.0
BRISK: Final = 2.5
BRISK_ABOVE: Final = 50.0
RISE: Final = 1.15
LEAD: Final = 2.0
RECENT: Final = 10.0
RAMPED: Final = 1.5
SHARP: Final = 0.9
RAMP_KEEP: Final = 0.955
CUT: Final = 0.98
DEEPEST_CUT: Final = 0.7
KEEP: Final = 0.97
APPROACH: Final = 0.3
ARRIVED: Final = 0.985
STEP: Final = 5.0
STEP_REQUESTS: Final = 50.0
CREEP: Final = 0.001
CREEP_DOUBLES: Final = 6.0
GONE: Final = 1.04
WORTH: Final = 0.75
PROVE: Final = 10.0
LONG: Final = 2.0
MARGIN: Final = 0.98
LOOSER: Final = 0.96
NEAR: Final = 0.85
TICK: Final = 0.025
SLOWEST: Final = 0.1
FASTEST: Final = 1e6


class Learned(msgspec.Struct, frozen=True):
    rate: Annotated[float, msgspec.Meta(ge=SLOWEST, le=FASTEST)]
    limited: bool
    cap: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None
    at: float


class Refusal(msgspec.Struct, frozen=True):
    level: int
    rate: float
    at: float
    given: float
    again: bool
    lasted: float


class Rate:
    def __init__(self, ceiling: float, learned: Learned | None) -> None:
        self.ceiling = MARGIN * ceiling
        self._slowest = min(SLOWEST, self.ceiling)
        self.ramping = learned is None or not learned.limited
        self.aim = 0.0 if learned is None or self.ramping else learned.rate
        self.refused = self.aim / KEEP
        self.value = min(self.ceiling, max(self._slowest, self._known()) if self.aim else self._start(learned))
        self._step_at = self._quiet_since = -math.inf
        self._retry_at, self._wait, self._proved_at = math.inf, RETRY, math.inf
        self._before: tuple[float, float, float] | None = None
        self._doubtful = False
        self._warm = not self.ramping
        self.sharp = False
        self._excused = 0
        self._lowered = 0

    def _start(self, learned: Learned | None) -> float:
        if self.ceiling < math.inf:
            return self.ceiling
        return max(START, learned.rate / 2) if learned else START

    def _known(self) -> float:
        return self.aim if self.aim >= NEAR * self.ceiling else KEEP * self.aim

    @property
    def at_ceiling(self) -> bool:
        return self.value >= self.ceiling

    def adjust(self, now: float, elapsed: float, meter: AcceptedMeter, capped: bool) -> None:
        if self._quiet_since == -math.inf:
            self._quiet_since = now
        elapsed = min(elapsed, RECENT)
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
        if self.value < min(self.aim, self.ceiling):
            self._step_at = self._quiet_since = now + STEP
            nearer = self.value + (self.aim - self.value) * APPROACH
            self._grow(math.inf, self.aim if nearer > ARRIVED * self.aim else nearer)
        else:
            step = max(STEP, STEP_REQUESTS / self.value)
            self._step_at = now + step
            self._grow(1 + CREEP * 2 ** min(CREEP_DOUBLES, (now - self._quiet_since) / step / 2), math.inf)

    def _return(self, now: float, elapsed: float, best: float) -> None:
        if self._before is None:
            self._before = self.value, self.refused, self.aim
        self._grow(RISE**elapsed, best)
        if self.value >= min(best, self.ceiling):
            self._retry_at, self._proved_at, self._quiet_since = math.inf, now + PROVE, now
            self.refused, self.aim = max(self.refused, best / KEEP), max(self.aim, best)

    @property
    def _is_held(self) -> bool:
        return ARRIVED * self.value <= self.aim

    def excuses(self, level: int) -> bool:
        known, self._excused = self._excused, max(self._excused, level if self.sharp else 0)
        return self.sharp and level > known

    def acquit(self) -> None:
        if self._doubtful:
            self.aim = self.refused = 0.0
            self._doubtful = self.sharp = False

    def lower(self, refusal: Refusal, pause: float, *, doubtful: bool = False, alone: bool = False) -> None:
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
            self.refused = self.value
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
        took = max(TICK, min(refusal.lasted, RECENT))
        return refusal.given * took / (took + max(0.0, pause - LONG))

    def _cut(self, given: float, long: bool) -> None:
        self.refused = self.value
        self.aim = KEEP * self.refused
        if long:
            self.aim = (self.aim + min(given, self.refused)) / 2
        least = min(DEEPEST_CUT * self.value, math.sqrt(given * self.value))
        self.value = max(least, min(CUT * self.value, given))

    def found(self, before: Learned | None) -> tuple[float, bool]:
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


Blame = Literal["rate", "concurrency"]
Phase = Literal["ramping", "holding", "probing", "paused"]

PLENTY: Final = 100
FEW: Final = 4
PAUSES: Final = (1.0, 2.0, 4.0, 8.0)
GRAIN: Final = 0.01
FAST: Final = 50.0
RESOLUTION: Final = 1e-6
FIRST: Final = 0.005
PATIENT: Final = 4.0
SPARED: Final = 2
ENOUGH: Final = 20
FULL: Final = 0.5


class Snapshot(msgspec.Struct, frozen=True):
    rate: float
    cap: int
    in_flight: int
    phase: Phase
    blame: Blame | None


class Pacer:
    def __init__(self, ceiling: float | None = None, connections: int = 16, learned: Learned | None = None) -> None:
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
        self._full = False
        self._fullness = 0.0
        self._blame: Blame | None = None
        self._event: Refusal | None = None
        self._refused_at = math.inf
        self._accepted = self._leftover = 0
        self._streak = self._answers = 0
        self._spared = self._struck = 0
        self._latency = 0.0
        self._spacing = self._begun_at

    def next_send(self, now: float) -> float:
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
        self._accepted += 1
        self._answers += 1
        self._latency += (now - ticket.sent_at - self._latency) / min(self._answers, 16)
        self._meter.add(now)
        if self._refused_at < ticket.sent_at < self._resume:
            self._spared += 1
            self._in_flight.dropped(ticket)
        else:
            self._in_flight.accepted(ticket)
        self._take_certain(now)

    def dropped(self, ticket: Ticket, now: float) -> None:
        self._in_flight.dropped(ticket)

    def _take_certain(self, now: float) -> None:
        for ticket in self._in_flight.certain(now - max(PAUSES[0], PATIENT * self._latency)):
            self._meter.reach(ticket.level)
            self._cap.accepted(ticket)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
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
        took, came = now - self._resume, self._accepted - self._leftover
        short = self._resume - self._since <= LONG
        return came / took if short and STEP <= took < RECENT and came >= PLENTY else 0.0

    def _find_fault(self, event: Refusal, now: float) -> None:
        self._take_certain(now)
        self._event, self._leftover = None, self._accepted
        told = self._rate.at_ceiling and not self._rate.refused
        alone = self._spared >= max(SPARED, self._struck + 1)
        beside = self._spared >= event.level
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
        return self._before is not None and self._begun_at < self._rate.ceiling

    @property
    def resumes_at(self) -> float:
        return self._resume

    @property
    def found_cap(self) -> int | None:
        return self._cap.limit if self._cap.limit < self._cap.connections else None

    @property
    def expected(self) -> float | None:
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
        return self._refused_at < math.inf or self._answers >= ENOUGH

    def learned(self, at: float) -> Learned:
        if self._event is not None:
            self._find_fault(self._event, self._resume)
        cap, before = self.found_cap, self._before
        if before is not None and cap is None and before.cap and before.cap >= self._cap.connections:
            cap = before.cap
        rate, limited = self._rate.found(before)
        return Learned(min(max(SLOWEST, rate), FASTEST), limited, cap, at)
