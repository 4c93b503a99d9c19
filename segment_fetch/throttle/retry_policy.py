"""Seconds to wait before another attempt: a function of the kind and number of failures, with randomness passed in."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal, TypeAlias

from msgspec import Struct

from segment_fetch.errors import InputError, check_type

Kind: TypeAlias = Literal["network", "server"]


class RetryPolicy(Struct, frozen=True):
    """Seconds before the first, second, … retry of a page; there are as many retries as delays.

    The `server` delays are the vendor's advice for 500 and 503, and also apply to refusals and logins; `network` is
    for connection failures and timeouts. They are minimum waits: `jitter` lengthens each by up to that share, so that
    pages which failed together are not retried together. `parked` are the seconds before each of the later rounds.
    While the service is down, one probe is sent every `probe` seconds, until `patience` seconds have passed.
    """

    server: tuple[float, ...] = (5.0, 10.0, 15.0)
    network: tuple[float, ...] = (0.5, 1.0, 2.0)
    jitter: float = 0.2
    parked: tuple[float, ...] = (30.0, 120.0)
    probe: float = 15.0
    patience: float = 900.0

    def __post_init__(self) -> None:
        for name in ("server", "network", "parked"):
            check_type(f"retry: {name}", getattr(self, name), (tuple, list), "a tuple of seconds")
            for delay in getattr(self, name):
                check_type(f"retry: {name}", delay, (int, float), "a tuple of seconds")
        for name in ("jitter", "probe", "patience"):
            check_type(f"retry: {name}", getattr(self, name), (int, float), "a number")
        for delay in (*self.server, *self.network, *self.parked, self.probe, self.patience):
            if not 0 <= delay < inf:
                raise InputError(f"retry delays: {delay} is not a finite number of seconds, 0 or more")
        if not 0 <= self.jitter < 1:
            raise InputError("retry jitter: must be at least 0 and less than 1")

    @property
    def login_pause(self) -> float:
        """The minimum number of seconds between a failed login and the next."""
        return self.server[0] if self.server else 0.0

    def delay(self, kind: Kind, failures: int, chance: Callable[[], float]) -> float | None:
        """Return the seconds to wait after a page's `failures`-th failure; None once its retries are used up."""
        delays = self.server if kind == "server" else self.network
        if failures > len(delays):
            return None
        return delays[failures - 1] * (1 + self.jitter * chance())
