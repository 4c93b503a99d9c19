"""Other ways to pace, written from their public descriptions, for comparison with `segment_fetch.throttle.pacer`.

All of them run in the same client: so many connections, and everything pauses max(1 s, Retry-After) after a 429.
"""

import math
from collections.abc import Callable
from typing import NamedTuple


class Ticket(NamedTuple):
    """A request: when it was sent, and how many were then in flight, itself among them."""

    sent_at: float
    level: int


class Rival:
    """Base of the rivals: connections, the pause, and even spacing unless it overrides `spacing`."""

    rate = 5.0

    def __init__(self, connections: int = 16) -> None:
        self.connections = connections
        self.limit = float(connections)
        self.in_flight = 0
        self.next = self.resume = 0.0

    def spacing(self, now: float) -> float:
        return 1 / self.rate

    def next_send(self, now: float) -> float:
        if self.in_flight >= self.limit:
            return math.inf
        return max(0.0, max(self.next, self.resume) - now)

    def sent(self, now: float) -> Ticket:
        self.in_flight += 1
        self.next = max(self.next, now) + self.spacing(now)
        return Ticket(now, self.in_flight)

    def accepted(self, ticket: Ticket, now: float) -> None:
        self.in_flight -= 1
        self.answered(ticket, now, refused=False)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        self.in_flight -= 1
        fresh = ticket.sent_at >= self.resume
        self.resume = max(self.resume, now + max(1.0, retry_after or 0.0))
        self.answered(ticket, now, refused=True, fresh=fresh)

    def dropped(self, ticket: Ticket, now: float) -> None:
        self.in_flight -= 1

    def answered(self, ticket: Ticket, now: float, refused: bool, fresh: bool = True) -> None: ...


class Fixed(Rival):
    """A fixed rate, chosen with knowledge of the limit."""

    rate = 9.7


class Aimd(Rival):
    """Additive increase, multiplicative decrease: 0.5/s more each second, half at a refusal."""

    def __init__(self, connections: int = 16) -> None:
        super().__init__(connections)
        self.raised_at = 0.0

    def answered(self, ticket: Ticket, now: float, refused: bool, fresh: bool = True) -> None:
        if refused and fresh:
            self.rate = max(0.1, self.rate / 2)
        elif not refused and now > self.resume:
            self.rate += 0.5 * min(1.0, now - self.raised_at)
        self.raised_at = now


class AwsAdaptive(Rival):
    """The client side rate limiter of the AWS SDKs' adaptive mode: CUBIC over the measured send rate.

    Off until the first refusal. Beta 0.7, scale 0.4; the rate is measured in half seconds and smoothed by
    0.8; the bucket fills at 0.5/s or more, at most at twice the measured rate, and holds one second's worth.
    """

    def __init__(self, connections: int = 16) -> None:
        super().__init__(connections)
        self.rate, self.on = math.inf, False
        self.measured, self.count, self.bucket_at = 0.0, 0, 0.0
        self.peak = self.failed_at = self.tokens = self.filled_at = 0.0

    def next_send(self, now: float) -> float:
        wait = super().next_send(now)
        if wait or not self.on:
            return wait
        self.fill(now)
        return max(0.0, (1 - self.tokens) / self.rate) if self.tokens < 1 - 1e-9 else 0.0

    def sent(self, now: float) -> Ticket:
        self.fill(now)
        self.tokens -= 1
        return super().sent(now)

    def spacing(self, now: float) -> float:
        return 0.0

    def fill(self, now: float) -> None:
        if self.on:
            self.tokens = min(max(1.0, self.rate), self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now

    def measure(self, now: float) -> None:
        self.count += 1
        half = math.floor(now * 2) / 2
        if half > self.bucket_at:
            self.measured = 0.8 * self.count / (half - self.bucket_at) + 0.2 * self.measured
            self.count, self.bucket_at = 0, half

    def answered(self, ticket: Ticket, now: float, refused: bool, fresh: bool = True) -> None:
        self.measure(now)
        if refused:
            self.peak, self.failed_at = min(self.measured, self.rate), now
            wanted = 0.7 * self.peak
        else:
            inflection = (self.peak * 0.3 / 0.4) ** (1 / 3)
            wanted = 0.4 * (now - self.failed_at - inflection) ** 3 + self.peak
        self.fill(now)
        if refused and not self.on:
            self.on, self.tokens = True, 0.0
        if self.on:
            self.rate = max(0.5, min(wanted, 2 * self.measured))
            self.tokens = min(self.tokens, max(1.0, self.rate))


class Gradient2(Rival):
    """Netflix's concurrency limit by the gradient of latency, with its defaults except for the bounds.

    Smoothing 0.2, a queue of 4, a long average of 600 samples, gradient in 0.5 to 1. The bounds are 1 and the
    connections there are, instead of 20 and 200. It sees latency only: to it a quick refusal is a good sign.
    """

    def __init__(self, connections: int = 16) -> None:
        super().__init__(connections)
        self.rate, self.limit, self.long = math.inf, min(4.0, connections), 0.0

    def answered(self, ticket: Ticket, now: float, refused: bool, fresh: bool = True) -> None:
        short = now - ticket.sent_at
        self.long = short if not self.long else self.long + (short - self.long) * 2 / 601
        if self.long > 2 * short:
            self.long *= 0.9
        if ticket.level < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, self.long / short))
        wanted = self.limit * gradient + 4
        self.limit = max(1.0, min(float(self.connections), 0.8 * self.limit + 0.2 * wanted))


class Rclone(Rival):
    """rclone's default: a sleep between calls, doubled by a retry and cut by a quarter by a success.

    It stays between 10 ms and 2 s.
    """

    def __init__(self, connections: int = 16) -> None:
        super().__init__(connections)
        self.sleep = 0.01

    def spacing(self, now: float) -> float:
        return self.sleep

    def answered(self, ticket: Ticket, now: float, refused: bool, fresh: bool = True) -> None:
        self.sleep = min(2.0, 2 * self.sleep) if refused else max(0.01, 0.75 * self.sleep)


RIVALS: dict[str, Callable[[int], Rival]] = {
    "AIMD": Aimd,
    "AWS adaptive": AwsAdaptive,
    "gradient2": Gradient2,
    "rclone": Rclone,
}
