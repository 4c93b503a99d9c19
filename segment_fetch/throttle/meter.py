"""What a server accepted lately, by the half second. No clock of its own: the caller passes the time in."""

import math
from collections import deque
from typing import Final

BUCKET: Final = 0.5  # seconds
BUCKETS: Final = 60
SPAN: Final = BUCKET * BUCKETS


class AcceptedMeter:
    """The accepted requests of the last 30 s: how many, and the most in flight with one of them.

    `best` is the most that was accepted a second over any full 30 s.
    """

    def __init__(self) -> None:
        self.best = 0.0
        self._past: deque[tuple[int, int]] = deque(maxlen=BUCKETS)
        self._count = self._level = 0
        self._ends = -math.inf

    def add(self, now: float) -> None:
        """One more."""
        if self._ends == -math.inf:
            self._ends = now + BUCKET
        elif now >= self._ends:
            self.roll(now)
        self._count += 1

    def reach(self, level: int) -> None:
        """So many were in flight together and accepted."""
        self._level = max(self._level, level)

    def roll(self, now: float) -> None:
        """Moves on to `now`. After more than 30 s of silence everything but `best` is forgotten."""
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
        """Accepted a second over the last `seconds`, or since the first of all if that is less."""
        self.roll(now)
        if self._ends == -math.inf:
            return 0.0
        past = list(self._past)[-int(seconds / BUCKET) :]
        took = len(past) * BUCKET + now - (self._ends - BUCKET)
        return (self._count + sum(count for count, _ in past)) / max(BUCKET, took)

    def level(self) -> int:
        return max(self._level, max((level for _, level in self._past), default=0))
