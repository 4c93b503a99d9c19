"""How many requests may be in flight at once, learned from refusals. Part of the pacer; pure like it."""

import math
from typing import Final, NamedTuple

RETRY: Final = 20.0  # seconds until a refused figure is tried again, doubled each time that is refused
LONGEST_RETRY: Final = 160.0
TRUST: Final = 20  # requests accepted at the cap, after which a refusal below it means a lower cap
GROW_EVERY: Final = 0.5  # seconds


class Ticket(NamedTuple):
    """One request: when it was sent, how many were then in flight, itself among them, and at how many a second it
    followed the one before.
    """

    sent_at: float
    level: int
    rate: float = 0.0


class ConcurrencyCap:
    """How many requests may be in flight: `limit`, of the `connections` there are."""

    def __init__(self, connections: int, learned: int | None) -> None:
        self.connections = connections
        self.limit = min(connections, learned or connections)
        self._refused = self.limit + 1 if learned else None  # the level that is too many
        self._refused_until: float | None = None  # when a request of that level may be tried again
        self._wait = RETRY
        self._since = self._grow_at = -math.inf
        self._trust = 0

    def accepted(self, ticket: Ticket) -> None:
        if ticket.level >= self.limit:
            self._trust = min(self._trust + 1, 4 * TRUST)
        if self._refused and ticket.level >= self._refused and ticket.sent_at >= self._since:
            self._refused, self._wait = None, RETRY

    def is_to_blame(self, level: int, most_accepted: int) -> bool:
        """Whether a refusal speaks for a limit on requests at once.

        It does if more were in flight than with any accepted request of the last 30 s, or the level that is
        known to be too many is refused again. Below that level a refusal disproves the cap, unless the cap
        has served long enough to be trusted: then the server's limit has fallen.
        """
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
        """One more every half second, up to the level that was refused; after a while that one too."""
        if self._refused_until is None:
            self._refused_until = now + self._wait
        known = self._refused or self.connections
        top = min(self.connections, known if now >= self._refused_until else known - bool(self._refused))
        if now >= self._grow_at and self.limit < top:
            self._grow_at = now + GROW_EVERY
            self.limit += 1
