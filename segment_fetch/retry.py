"""How long to wait before another attempt: a function of what failed and how often, with chance passed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from segment_fetch.errors import InputError


class RetryPolicy(Struct, frozen=True):
    """Seconds before the first, second, … further attempt; as many attempts as there are delays.

    The server delays are the vendor's advice for 500 and 503. `jitter` spreads each delay by that share both ways, so
    that pages which failed together do not come back together.
    """

    server: tuple[float, ...] = (5.0, 10.0, 15.0)
    network: tuple[float, ...] = (0.5, 1.0, 2.0)
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if any(delay < 0 for delay in (*self.server, *self.network)):
            raise InputError("retry delays: must not be negative")
        if not 0 <= self.jitter < 1:
            raise InputError("retry jitter: must be a share from 0 to below 1")

    def delay(self, kind: Literal["network", "server"], failures: int, chance: Callable[[], float]) -> float | None:
        """Seconds to wait after the `failures`-th failure of a page; None where its retries are used up."""
        delays = self.server if kind == "server" else self.network
        if failures > len(delays):
            return None
        return delays[failures - 1] * (1 + self.jitter * (2 * chance() - 1))
