"""How many requests may be in flight at once, learned from refusals. Part of the pacer; pure like it."""

import math
from typing import Final, NamedTuple

RETRY: Final = 20.0  # seconds until a refused figure is tried again, doubled each time that is refused
LONGEST_RETRY: Final = 160.0
TRUST: Final = 20  # requests accepted at the cap, after which a refusal below it means a lower cap
GROW_EVERY: Final = 0.5  # seconds


class Ticket(NamedTuple):
    """One request: when it was sent, how many were then in flight, itself among them, at how many a second it followed
    the one before, and its number in order.
    """

    sent_at: float
    level: int
    rate: float = 0.0
    number: int = 0


class InFlight:
    """The requests in flight, and how many of them those were at once that were accepted.

    For the client a refused request is in flight until its 429 comes; for the server it never was. So how many were
    accepted together is certain only when all that were sent before have been answered, or have been out for so long
    that no 429 is to be expected.
    """

    def __init__(self) -> None:
        self._sent = 0
        self._out: dict[int, Ticket] = {}  # by number, in the order in which they were sent
        self._uncertain: dict[int, Ticket] = {}  # accepted, while others that were sent before are out
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
        """How many there were at once with this one, as far as is known by now."""
        level = self._out.pop(ticket.number).level
        for tickets in (self._out, self._uncertain):
            for number, one in tickets.items():
                if number > ticket.number:
                    tickets[number] = one._replace(level=one.level - 1)
        return level

    def certain(self, since: float) -> list[Ticket]:
        """The accepted ones whose level has become certain since this was asked last.

        Of those out only what was sent after `since` may still be refused.
        """
        oldest = next((number for number, one in self._out.items() if one.sent_at > since), math.inf)
        if oldest == self._oldest < math.inf:
            return []
        self._oldest = oldest
        found = [one for number, one in self._uncertain.items() if number < oldest]
        for one in found:
            del self._uncertain[one.number]
        return found


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
        if ticket.sent_at < self._since:
            return
        if ticket.level >= self.limit:
            self._trust = min(self._trust + 1, 4 * TRUST)
        if self._refused and ticket.level >= self._refused:
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
