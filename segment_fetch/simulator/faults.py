"""The faults that an answer can have, and the choice of the requests that get one."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from segment_fetch.simulator.checks import check_not_negative, check_share
from segment_fetch.simulator.timeline import mix

if TYPE_CHECKING:
    from segment_fetch.simulator.answers import Answer


class Fault(StrEnum):
    """The kinds of fault. Each value is also the name of its share in `Faults`."""

    TOO_MANY = "too_many"
    """429 with `Retry-After`."""
    TOO_MANY_SILENT = "too_many_silent"
    """429 without `Retry-After`."""
    ERROR_500 = "error_500"
    """500 with an `internalCode`."""
    ERROR_503 = "error_503"
    """503, as during maintenance."""
    DROP = "drop"
    """The connection is closed before an answer."""
    RESET = "reset"
    """The connection is reset in the middle of the body."""
    TRUNCATED = "truncated"
    """The connection is closed before all bytes of the `Content-Length` have been sent."""
    BAD_JSON = "bad_json"
    """200 and a body that starts like JSON but is not."""
    HTML = "html"
    """200 and an HTML page, as a proxy would send."""
    ERROR_BODY = "error_body"
    """200 and the JSON of an error."""
    STALL = "stall"
    """There is no answer; the connection stays open."""
    STALL_BODY = "stall_body"
    """Headers and the start of the body, then nothing; the connection stays open."""
    SHORT_PAGE = "short_page"
    """A page with rows missing, but the right count."""
    STALE_COUNT = "stale_count"
    """A complete page whose count is too low."""
    SLOW_BODY = "slow_body"
    """The body is sent in small chunks over `slow_body_s`."""
    HUGE = "huge"
    """A body of more than 64 MiB, but small in transfer if the client accepts gzip."""
    REDIRECT = "redirect"
    """302 to another path."""
    UNAVAILABLE = "unavailable"
    """503 with `Retry-After`."""
    UNAUTHORIZED = "unauthorized"
    """401, although the credentials are valid."""
    FORBIDDEN = "forbidden"
    """403 and an HTML page, as a gateway would send."""
    NOT_FOUND = "not_found"
    """404, although the path is right."""
    CONFLICT = "conflict"
    """409."""
    MISDIRECTED = "misdirected"
    """421."""
    LOCKED = "locked"
    """423."""
    TOO_EARLY = "too_early"
    """425."""
    BIG_HEADER = "big_header"
    """A correct page with a header of 9 kB."""
    TWO_LENGTHS = "two_lengths"
    """A page with two different `Content-Length` headers."""
    ZSTD = "zstd"
    """A correct page in zstd, whatever the client accepts."""
    BROTLI = "brotli"
    """An answer labelled as br that is not."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """The share of requests, 0 to 1, that gets each kind of fault; the sum is at most 1.

    The seed and the number of the request select the requests, so the same run has the same faults. `retry_after_s`
    is the value of `Retry-After`, `slow_body_s` the duration of a slow body, both in seconds. Raises `ValueError`,
    naming the share, if one is out of its range.
    """

    too_many: float = 0.0
    too_many_silent: float = 0.0
    error_500: float = 0.0
    error_503: float = 0.0
    drop: float = 0.0
    reset: float = 0.0
    truncated: float = 0.0
    bad_json: float = 0.0
    html: float = 0.0
    error_body: float = 0.0
    stall: float = 0.0
    stall_body: float = 0.0
    short_page: float = 0.0
    stale_count: float = 0.0
    slow_body: float = 0.0
    huge: float = 0.0
    redirect: float = 0.0
    unavailable: float = 0.0
    unauthorized: float = 0.0
    forbidden: float = 0.0
    not_found: float = 0.0
    conflict: float = 0.0
    misdirected: float = 0.0
    locked: float = 0.0
    too_early: float = 0.0
    big_header: float = 0.0
    two_lengths: float = 0.0
    zstd: float = 0.0
    brotli: float = 0.0
    seed: int = 1
    retry_after_s: int = 1
    slow_body_s: float = 1.0

    def __post_init__(self) -> None:
        for kind in Fault:
            check_share(kind, getattr(self, kind))
        total = sum(getattr(self, kind) for kind in Fault)
        if total > 1.0 + 1e-9:
            raise ValueError(f"the shares of all faults must be at most 1 together, not {total}")
        check_not_negative("retry_after_s", self.retry_after_s)
        check_not_negative("slow_body_s", self.slow_body_s)


class FaultPlan:
    """The faults of one kind of request: replaceable shares, and single faults requested by a test."""

    def __init__(self) -> None:
        self._next: deque[Fault | Answer] = deque()
        self._request = 0
        self.exchange(Faults())

    def exchange(self, faults: Faults) -> None:
        """Replace the shares, from the next request on."""
        self.faults = faults
        shares = ((kind, getattr(faults, kind)) for kind in Fault)
        self._shares = [(kind, share) for kind, share in shares if share]

    def fail_next(self, fault: Fault, count: int) -> None:
        """Apply a fault to the next `count` requests, after the faults already queued."""
        self._next.extend([fault] * count)

    def answer_next(self, answer: Answer, count: int) -> None:
        """Send an answer to the next `count` requests instead of the correct one."""
        self._next.extend([answer] * count)

    def choose(self) -> Fault | Answer | None:
        """Count a request, and return its fault, the answer to send instead, or None."""
        self._request += 1
        if self._next:
            return self._next.popleft()
        draw = mix(self.faults.seed, self._request) / 2**64 if self._shares else 0.0
        for kind, share in self._shares:
            draw -= share
            if draw < 0:
                return kind
        return None
