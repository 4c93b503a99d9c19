"""Limits on the time that a request may take."""

from __future__ import annotations

from msgspec import Struct

from segment_fetch.errors import InputError, check_type


class Timeouts(Struct, frozen=True):
    """Timeouts in seconds: to connect, between two pieces of an answer, and for one attempt in total."""

    connect: float = 10.0
    read: float = 30.0
    total: float = 120.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            seconds = getattr(self, name)
            check_type(f"timeouts: {name}", seconds, (int, float), "a number of seconds")
            if not seconds > 0:
                raise InputError(f"timeouts: {name} must be more than zero seconds")
