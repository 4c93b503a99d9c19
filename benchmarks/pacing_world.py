"""Servers with a limit, simulated by events: what the pacing benchmark runs its pacers against.

The client always has work. The server decides at the moment a request is sent; an accepted one is in flight
for a log-normal time, a refused one for 10 ms and a tenth of the mean latency, or for as long as if it were accepted.
Nothing here really waits.
"""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

SPREAD = 0.5


class Paced(Protocol):
    """What the benchmark asks of a pacer; `segment_fetch.throttle.pacing.Pacer` says what each call means."""

    def next_send(self, now: float) -> float: ...
    def sent(self, now: float) -> Any: ...
    def accepted(self, ticket: Any, now: float) -> None: ...
    def refused(self, ticket: Any, now: float, retry_after: float | None = None) -> None: ...


class Limit(Protocol):
    """`offer` is asked about a request that lasts `took`: 0 admits it, else seconds until one would pass."""

    def offer(self, at: float, took: float) -> float: ...
    def scale(self, factor: float) -> None: ...
    def capacity(self, latency: float) -> float: ...


class TokenBucket:
    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.filled_at = rate, burst, burst, 0.0

    def offer(self, at: float, took: float) -> float:
        self.tokens = min(self.burst, self.tokens + (at - self.filled_at) * self.rate)
        self.filled_at = at
        if self.tokens < 1:
            return (1 - self.tokens) / self.rate
        self.tokens -= 1
        return 0.0

    def scale(self, factor: float) -> None:
        self.rate *= factor

    def capacity(self, latency: float) -> float:
        return self.rate


class SlidingWindow:
    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds = count, seconds
        self.admitted: deque[float] = deque()

    def offer(self, at: float, took: float) -> float:
        while self.admitted and self.admitted[0] <= at - self.seconds:
            self.admitted.popleft()
        if len(self.admitted) >= self.count:
            return self.admitted[-self.count] + self.seconds - at
        self.admitted.append(at)
        return 0.0

    def scale(self, factor: float) -> None:
        self.count = int(self.count * factor)

    def capacity(self, latency: float) -> float:
        return self.count / self.seconds


class FixedWindow:
    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds, self.window, self.used = count, seconds, 0, 0

    def offer(self, at: float, took: float) -> float:
        window = int(at / self.seconds)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used >= self.count:
            return (window + 1) * self.seconds - at
        self.used += 1
        return 0.0

    def scale(self, factor: float) -> None:
        self.count = int(self.count * factor)

    def capacity(self, latency: float) -> float:
        return self.count / self.seconds


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
        self.count = int(self.count * factor)

    def capacity(self, latency: float) -> float:
        return self.count / latency


class Unlimited:
    def offer(self, at: float, took: float) -> float:
        return 0.0

    def scale(self, factor: float) -> None: ...

    def capacity(self, latency: float) -> float:
        return math.inf


@dataclass(frozen=True, slots=True)
class Conditions:
    """`noise` is a share refused at random, `neighbour` a rate on and off, `scaled` is from midway. With `late` a 429
    takes as long as an answer, so that others are sent behind it.
    """

    seconds: float = 300.0
    latency: float = 0.2
    retry_after: bool = True
    noise: float = 0.0
    neighbour: float = 0.0
    scaled: float = 1.0
    connections: int = 16
    late: bool = False


@dataclass(slots=True)
class Outcome:
    accepted: int = 0
    refused: int = 0
    possible: float = 0.0
    sends: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        return self.accepted / self.possible

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.accepted + self.refused)

    def busiest_second(self) -> int:
        best = start = 0
        for end, at in enumerate(self.sends):
            while self.sends[start] <= at - 1:
                start += 1
            best = max(best, end - start + 1)
        return best


class World:
    """One run of one pacer against one limit; `run` plays it, once."""

    def __init__(self, limit: Limit, conditions: Conditions, seed: int) -> None:
        self.limit, self.conditions = limit, conditions
        self.random = random.Random(seed)
        self.outcome = Outcome()
        self.answers: list[tuple[float, int, Any, float | None, bool]] = []
        self.neighbour_at = self.random.random()
        self.mu = math.log(conditions.latency) - SPREAD**2 / 2

    def run(self, pacer: Paced) -> Outcome:
        half = self.conditions.seconds / 2
        now = self._play(pacer, 0.0, half)
        self.limit.scale(self.conditions.scaled)
        self._play(pacer, now, 2 * half)
        return self.outcome

    def _play(self, pacer: Paced, now: float, until: float) -> float:
        """Sends whenever it may; else moves to the next chance or the next answer, whichever is first."""
        self.outcome.possible += self._possible() * (until - now)
        answers = self.answers
        while now < until:
            wait = pacer.next_send(now)
            if wait <= 0:
                self._send(pacer, now)
            elif answers and answers[0][0] <= now + wait:
                now = self._answer(pacer)
            else:
                now += wait
        return now

    def _possible(self) -> float:
        """Requests a second that the limit, the connections and the neighbour leave to the client."""
        conditions = self.conditions
        most = min(self.limit.capacity(conditions.latency), conditions.connections / conditions.latency)
        return most - conditions.neighbour / 2

    def _send(self, pacer: Paced, now: float) -> None:
        self.outcome.sends.append(now)
        ticket, (at, retry_after, refused) = pacer.sent(now), self._serve(now)
        heapq.heappush(self.answers, (at, len(self.outcome.sends), ticket, retry_after, refused))

    def _serve(self, now: float) -> tuple[float, float | None, bool]:
        """When the answer to a request sent now arrives, its Retry-After, and whether it is a refusal."""
        conditions = self.conditions
        while conditions.neighbour and self.neighbour_at <= now:
            self._neighbour_sends()
        took = self.random.lognormvariate(self.mu, SPREAD)
        chance = conditions.noise and self.random.random() < conditions.noise
        wait = 1.0 if chance else self.limit.offer(now, took)
        if not wait:
            self.outcome.accepted += 1
            return now + took, None, False
        self.outcome.refused += 1
        told = took if conditions.late else 0.01 + conditions.latency / 10
        return now + told, float(math.ceil(wait)) if conditions.retry_after else None, True

    def _neighbour_sends(self) -> None:
        if int(self.neighbour_at / 30) % 2:
            self.limit.offer(self.neighbour_at, self.conditions.latency)
        self.neighbour_at += self.random.expovariate(self.conditions.neighbour)

    def _answer(self, pacer: Paced) -> float:
        now, _, ticket, retry_after, refused = heapq.heappop(self.answers)
        if refused:
            pacer.refused(ticket, now, retry_after)
        else:
            pacer.accepted(ticket, now)
        return now
