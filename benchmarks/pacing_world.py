"""Servers with a limit, simulated by events: what the pacing benchmarks run their pacers against.

The client always has work. A request reaches the server after the network's time, and the server decides then. An
accepted request takes a log-normal time, a refused one a short time or as long as if it had been accepted, and the
answer takes the network's time again. Nothing here really waits.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol


class Paced(Protocol):
    """The calls that the benchmark makes to a pacer; `segment_fetch.throttle.pacer.Pacer` documents them."""

    def next_send(self, now: float) -> float: ...
    def sent(self, now: float) -> Any: ...
    def accepted(self, ticket: Any, now: float) -> None: ...
    def refused(self, ticket: Any, now: float, retry_after: float | None = None) -> None: ...
    def dropped(self, ticket: Any, now: float) -> None: ...


class Limit(Protocol):
    """`offer` is asked about a request that lasts `took`: 0 admits it, else seconds until one would pass.

    `capacity` is in requests a second, where each lasts `latency`; `reserve` the requests that a run of so many
    seconds may be admitted beyond that.
    """

    def offer(self, at: float, took: float) -> float: ...
    def scale(self, factor: float) -> None: ...
    def capacity(self, latency: float) -> float: ...
    def reserve(self, seconds: float) -> float: ...


class TokenBucket:
    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.filled_at = rate, burst, burst, 0.0

    def offer(self, at: float, took: float) -> float:
        self.tokens = min(self.burst, self.tokens + (at - self.filled_at) * self.rate)
        self.filled_at = at
        if self.tokens < 1 - 1e-9:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0

    def scale(self, factor: float) -> None:
        self.rate *= factor

    def capacity(self, latency: float) -> float:
        return self.rate

    def reserve(self, seconds: float) -> float:
        return self.burst


class SlidingWindow:
    """Admits `count` in any `seconds`. With `penalise` a refused request counts like an admitted one."""

    def __init__(self, count: int, seconds: float, *, penalise: bool = False) -> None:
        self.count, self.seconds, self.penalise = count, seconds, penalise
        self.counted: deque[float] = deque()

    def offer(self, at: float, took: float) -> float:
        while self.counted and self.counted[0] <= at - self.seconds:
            self.counted.popleft()
        full = len(self.counted) >= self.count
        wait = self.counted[-self.count] + self.seconds - at if full else 0.0
        if not full or self.penalise:
            self.counted.append(at)
        return wait

    def scale(self, factor: float) -> None:
        self.count = max(1, int(self.count * factor))

    def capacity(self, latency: float) -> float:
        return self.count / self.seconds

    def reserve(self, seconds: float) -> float:
        return max(0.0, self.count - self.capacity(0) * seconds)


class FixedWindow:
    """Admits `count` in each window of `seconds`; the first is as far on as `phase` says when the run begins."""

    def __init__(self, count: int, seconds: float, phase: float = 0.0) -> None:
        self.count, self.seconds, self.phase, self.window, self.used = count, seconds, phase, 0, 0

    def offer(self, at: float, took: float) -> float:
        window = int((at + self.phase) / self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used >= self.count:
            return (window + 1) * self.seconds - self.phase - at
        self.used += 1
        return 0.0

    def scale(self, factor: float) -> None:
        self.count = max(1, int(self.count * factor))

    def capacity(self, latency: float) -> float:
        return self.count / self.seconds

    def reserve(self, seconds: float) -> float:
        return max(0.0, self.count - self.capacity(0) * seconds)


class AtOnce:
    def __init__(self, count: int) -> None:
        self.count = count
        self.ends: list[float] = []

    def offer(self, at: float, took: float) -> float:
        while self.ends and self.ends[0] <= at:
            heapq.heappop(self.ends)
        if len(self.ends) >= self.count:
            return self.ends[0] - at
        heapq.heappush(self.ends, at + took)
        return 0.0

    def scale(self, factor: float) -> None:
        self.count = max(1, int(self.count * factor))

    def capacity(self, latency: float) -> float:
        return self.count / latency

    def reserve(self, seconds: float) -> float:
        return 0.0


class RateAndAtOnce:
    """Both limits: a request has to be admitted by either."""

    def __init__(self, rate: TokenBucket, at_once: AtOnce) -> None:
        self.rate, self.at_once = rate, at_once

    def offer(self, at: float, took: float) -> float:
        ends = self.at_once.ends
        while ends and ends[0] <= at:
            heapq.heappop(ends)
        if len(ends) >= self.at_once.count:
            return ends[0] - at
        return self.rate.offer(at, took) or self.at_once.offer(at, took)

    def scale(self, factor: float) -> None:
        self.rate.scale(factor)
        self.at_once.scale(factor)

    def capacity(self, latency: float) -> float:
        return min(self.rate.capacity(latency), self.at_once.capacity(latency))

    def reserve(self, seconds: float) -> float:
        return self.rate.reserve(seconds)


class Unlimited:
    def offer(self, at: float, took: float) -> float:
        return 0.0

    def scale(self, factor: float) -> None: ...

    def capacity(self, latency: float) -> float:
        return math.inf

    def reserve(self, seconds: float) -> float:
        return 0.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The network, the service and the client of a run. Times are in seconds.

    `latency` is the mean time of service and `spread` the deviation of its logarithm; `network` is the time each way,
    and `jitter` the share by which it varies. A refusal takes `refusal`, or with `late` as long as an answer. `noise`
    is the share refused at random, `faults` the share that fails, `neighbour` the requests a second of another client,
    on and off every 30 s. The limit is multiplied by `scaled` midway. Timers are late by up to `timers`.
    """

    seconds: float = 300.0
    latency: float = 0.2
    spread: float = 0.5
    network: float = 0.0
    jitter: float = 0.0
    retry_after: bool = True
    late: bool = False
    refusal: float | None = None
    noise: float = 0.0
    faults: float = 0.0
    neighbour: float = 0.0
    scaled: float = 1.0
    connections: int = 16
    timers: float = 0.0

    @property
    def round_trip(self) -> float:
        return self.latency + 2 * self.network


@dataclass(slots=True)
class Outcome:
    """The requests of a run, and when each was sent and refused."""

    accepted: int = 0
    possible: float = 0.0
    sends: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return len(self.refusals)

    @property
    def goodput(self) -> float:
        return self.accepted / self.possible

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.accepted + self.refused)


class World:
    """One run of one pacer against one limit; `run` plays it, once.

    The same seed draws the same server, network and neighbour for every pacer, each from a source of its own, so that
    pacers can be compared in pairs.
    """

    def __init__(self, limit: Limit, conditions: Conditions, seed: int) -> None:
        self.limit, self.conditions = limit, conditions
        self.service, self.network, self.chance, self.other, self.timers = (
            random.Random(5 * seed + source) for source in range(5)
        )
        self.outcome = Outcome()
        self.events: list[tuple[float, int, str, Any, float | None]] = []
        self.neighbour_at = self.other.random() if conditions.neighbour else math.inf
        self.order = 0
        self.mu = math.log(conditions.latency) - conditions.spread**2 / 2

    def run(self, pacer: Paced) -> Outcome:
        half = self.conditions.seconds / 2
        now = self._play(pacer, 0.0, half)
        self.limit.scale(self.conditions.scaled)
        self._play(pacer, now, 2 * half)
        return self.outcome

    def _play(self, pacer: Paced, now: float, until: float) -> float:
        """Send whenever it is allowed; else move to the next timer or the next event, whichever is first."""
        self.outcome.possible += self._possible() * (until - now)
        events, late = self.events, self.conditions.timers
        while now < until:
            wait = pacer.next_send(now)
            if wait <= 0:
                self.outcome.sends.append(now)
                self._arrive_later(now, pacer.sent(now))
            elif events and events[0][0] <= now + wait:
                now = self._take(pacer)
            else:
                now += wait + late * self.timers.random()
        return now

    def _possible(self) -> float:
        """Return the requests a second that the limit, the connections and the neighbour leave to the client."""
        conditions = self.conditions
        most = min(self.limit.capacity(conditions.round_trip), conditions.connections / conditions.round_trip)
        return most - conditions.neighbour / 2

    def _arrive_later(self, now: float, ticket: Any) -> None:
        if self.conditions.network:
            self._push(now + self._travel(), "arrives", ticket)
        else:
            self._serve(now, ticket)

    def _push(self, at: float, what: str, ticket: Any, retry_after: float | None = None) -> None:
        self.order += 1
        heapq.heappush(self.events, (at, self.order, what, ticket, retry_after))

    def _travel(self) -> float:
        conditions = self.conditions
        return conditions.network * (1 + conditions.jitter * (2 * self.network.random() - 1))

    def _serve(self, now: float, ticket: Any) -> None:
        """Admit a request that has arrived, or refuse it."""
        conditions = self.conditions
        while self.neighbour_at <= now:
            self._neighbour_sends()
        took = self.service.lognormvariate(self.mu, conditions.spread)
        noise, faulty = (share and self.chance.random() < share for share in (conditions.noise, conditions.faults))
        wait = 1.0 if noise else self.limit.offer(now, took)
        if not wait:
            self.outcome.accepted += 1
            self._push(now + took + self._travel(), "fails" if faulty else "answers", ticket)
            return
        self.outcome.refusals.append(now)
        quick = 0.01 + conditions.latency / 10 if conditions.refusal is None else conditions.refusal
        told = float(math.ceil(wait)) if conditions.retry_after else None
        self._push(now + (took if conditions.late else quick) + self._travel(), "refuses", ticket, told)

    def _neighbour_sends(self) -> None:
        if int(self.neighbour_at / 30) % 2:
            self.limit.offer(self.neighbour_at, self.conditions.latency)
        self.neighbour_at += self.other.expovariate(self.conditions.neighbour)

    def _take(self, pacer: Paced) -> float:
        now, _, what, ticket, retry_after = heapq.heappop(self.events)
        match what:
            case "arrives":
                self._serve(now, ticket)
            case "answers":
                pacer.accepted(ticket, now)
            case "refuses":
                pacer.refused(ticket, now, retry_after)
            case _:
                pacer.dropped(ticket, now)
        return now
