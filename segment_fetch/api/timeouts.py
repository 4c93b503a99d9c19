"""How long a request may take."""

from __future__ import annotations

from msgspec import Struct

from segment_fetch.errors import InputError


class Timeouts(Struct, frozen=True):
    """Seconds: to connect, between two pieces of an answer, and for one attempt in all."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 120.0

    def __post_init__(self) -> None:
        if not all(seconds > 0 for seconds in (self.connect, self.read, self.total)):
            raise InputError("timeouts: must be above zero seconds")
