"""The limits behind a 429: a rate, a sliding window, or a number of requests at once.

Each limit is a frozen description; its `counter()` holds the state. `admit` is called when a request arrives, `leave`
when its answer has been sent.
"""

from collections import deque
from typing import Literal, Protocol

import msgspec

from segment_fetch.simulator.checks import check_not_negative, check_positive

RetryAfter = Literal["seconds", "date", "none"]


class LimitCounter(Protocol):
    """The state of one limit. Times are epoch seconds of the simulator's clock."""

    def admit(self, now: float) -> float:
        """Admit a request and return 0, or return the seconds until one would be admitted."""

    def leave(self) -> None:
        """Release the slot of an admitted request that has been served."""


class RateLimit(msgspec.Struct, frozen=True):
    """A token bucket: `rate` requests a second, and up to `burst` at once after a pause."""

    rate: float
    burst: int = 1
    retry_after: RetryAfter = "seconds"

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)
        check_positive("burst", self.burst)

    def counter(self) -> LimitCounter:
        """Return the state: a full bucket."""
        return _Bucket(self.rate, self.burst)


class SlidingWindow(msgspec.Struct, frozen=True):
    """At most `requests` in any period of `seconds`."""

    requests: int
    seconds: float
    retry_after: RetryAfter = "seconds"

    def __post_init__(self) -> None:
        check_positive("requests", self.requests)
        check_positive("seconds", self.seconds)

    def counter(self) -> LimitCounter:
        """Return the state: an empty window."""
        return _Window(self.requests, self.seconds)


class AtOnce(msgspec.Struct, frozen=True):
    """At most `requests` in service at any moment; 0 refuses all."""

    requests: int
    retry_after: RetryAfter = "seconds"

    def __post_init__(self) -> None:
        check_not_negative("requests", self.requests)

    def counter(self) -> LimitCounter:
        """Return the state: all slots free."""
        return _Places(self.requests)


Limit = RateLimit | SlidingWindow | AtOnce


class _Bucket:
    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._at: float | None = None

    def admit(self, now: float) -> float:
        if self._at is not None:
            self._level = min(self._burst, self._level + max(now - self._at, 0.0) * self._rate)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self._rate
        self._level -= 1.0
        return 0.0

    def leave(self) -> None:
        """Do nothing: only time refills a bucket."""


class _Window:
    def __init__(self, requests: int, seconds: float) -> None:
        self._requests = requests
        self._seconds = seconds
        self._arrivals: deque[float] = deque()

    def admit(self, now: float) -> float:
        while self._arrivals and self._arrivals[0] <= now - self._seconds:
            self._arrivals.popleft()
        if len(self._arrivals) >= self._requests:
            return self._arrivals[0] + self._seconds - now
        self._arrivals.append(now)
        return 0.0

    def leave(self) -> None:
        """Do nothing: only time empties a window."""


class _Places:
    def __init__(self, requests: int) -> None:
        self._free = requests

    def admit(self, now: float) -> float:
        if self._free <= 0:
            return 1.0
        self._free -= 1
        return 0.0

    def leave(self) -> None:
        self._free += 1
