"""Events of a run, as frozen structs for a callback; `str` gives a readable line. None contains a credential."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from segment_fetch.errors import lasting
from segment_fetch.query import Window

Status: TypeAlias = Literal["complete", "provisional", "unproven"]
"""complete: proven, and closed long enough ago that no segments are added. provisional: proven as of the time of
reading, but late segments may still appear. unproven: not accepted; the destination holds none of its segments."""


class RangePlanned(Struct, frozen=True, tag=True):
    """The range was divided: `windows` will be read, `skipped` were already complete."""

    windows: int
    skipped: int

    def __str__(self) -> str:
        there = f", {self.skipped:,} complete already" if self.skipped else ""
        return f"{_plural(self.windows, 'window')} to read{there}"


class WindowOpened(Struct, frozen=True, tag=True):
    """The first page of a window was read: it holds `count` segments."""

    window: Window
    count: int

    def __str__(self) -> str:
        return f"window {self.window} holds {_plural(self.count, 'segment')}"


class WindowSplit(Struct, frozen=True, tag=True):
    """A window held too many segments and was divided into `parts`, oldest first; each is opened separately."""

    window: Window
    parts: tuple[Window, ...]

    def __str__(self) -> str:
        return f"window {self.window} is large and is read in {len(self.parts)} parts"


class PageRead(Struct, frozen=True, tag=True):
    """A page was read and passed its checks. `fallback` says why it did not take the fast path; None if it did."""

    window: Window
    offset: int
    rows: int
    fallback: str | None = None

    def __str__(self) -> str:
        way = "" if self.fallback is None else f", decoded by the fallback: {self.fallback}"
        return f"window {self.window}, offset {self.offset}: a page of {_plural(self.rows, 'segment')}{way}"


class Retrying(Struct, frozen=True, tag=True):
    """A page failed for the `failures`-th time and will be retried after `delay` seconds.

    `parked` if its quick retries are used up, so that it waits for a later round.
    """

    window: Window
    offset: int
    failures: int
    delay: float
    reason: str
    parked: bool = False

    def __str__(self) -> str:
        return f"{self.reason}; retrying after {self.delay:.1f} s (window {self.window}, offset {self.offset})"


class ServiceDown(Struct, frozen=True, tag=True):
    """No request has succeeded for `seconds`; the service is probed at intervals, for at most `patience` seconds."""

    seconds: float
    patience: float
    reason: str

    def __str__(self) -> str:
        until = f"trying for up to {lasting(self.patience)}"
        return f"no request has succeeded for {lasting(self.seconds)}: {self.reason}; {until}"


class ServiceBack(Struct, frozen=True, tag=True):
    """The service answers again, after `seconds`."""

    seconds: float

    def __str__(self) -> str:
        return f"the service answers again, after {lasting(self.seconds)}"


class Paused(Struct, frozen=True, tag=True):
    """The API answered 429: no request is sent for `seconds`."""

    seconds: float

    def __str__(self) -> str:
        return f"the API answered 429 (too many): a pause of {self.seconds:.1f} s"


PaceReason: TypeAlias = Literal["started", "remembered", "too_fast", "too_many_at_once", "no_refusals"]
"""started, or remembered from an earlier run: the initial pace. too_fast, too_many_at_once: the cause to which a 429 is
attributed. no_refusals: there was none for a while, so the pace rises."""


class PaceChanged(Struct, frozen=True, tag=True):
    """At most `rate` requests a second are sent from now on; reported when that has changed noticeably.

    `at_once` is the maximum in flight; None if no such limit was met.
    """

    rate: float
    at_once: int | None
    reason: PaceReason

    def __str__(self) -> str:
        at_once = "" if self.at_once is None else f", {self.at_once} at once"
        return f"{_REASONS[self.reason]}: now {per_second(self.rate)} requests a second{at_once}"


class WindowReread(Struct, frozen=True, tag=True):
    """The window changed while it was read, and is read again; `passes` is the number of readings so far."""

    window: Window
    passes: int
    reason: str

    def __str__(self) -> str:
        return f"window {self.window} is read again: {self.reason}"


class WindowDone(Struct, frozen=True, tag=True):
    """A window was read to its end, or given up: `unproven`, with the reason, and the code of the error."""

    window: Window
    status: Status
    segments: int
    reason: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"window {self.window}: {_plural(self.segments, 'segment')}, {_PROVEN[self.status]}{reason}"


class WindowCommitted(Struct, frozen=True, tag=True):
    """A window's segments are in the destination and in its manifest: they stay, however the run ends."""

    window: Window
    status: Status
    segments: int

    def __str__(self) -> str:
        return f"window {self.window}: {_plural(self.segments, 'segment')} committed"


class NewFields(Struct, frozen=True, tag=True):
    """The API sends fields that this version does not know; reported once per name."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"the API sends fields that this version does not know: {', '.join(self.names)}"


class FastPathUnused(Struct, frozen=True, tag=True):
    """No page of a run took the fast path: `pages` were decoded by the fallback, the first for this reason.

    Reported once, at the end of the run. The segments are the same.
    """

    pages: int
    reason: str

    def __str__(self) -> str:
        return (
            f"no page took the fast path: {self.reason}; {_plural(self.pages, 'page')} took the fallback, which gives "
            "the same segments and needs more than twice the CPU time"
        )


class Warned(Struct, frozen=True, tag=True):
    """A warning for the user, in a sentence."""

    message: str

    def __str__(self) -> str:
        return self.message


Event: TypeAlias = (
    RangePlanned
    | WindowOpened
    | WindowSplit
    | PageRead
    | Retrying
    | Paused
    | PaceChanged
    | ServiceDown
    | ServiceBack
    | WindowReread
    | WindowDone
    | WindowCommitted
    | NewFields
    | FastPathUnused
    | Warned
)

_PROVEN: dict[Status, str] = {
    "complete": "proven complete",
    "provisional": "proven as of now; late segments may still come",
    "unproven": "not proven, and left out",
}
_REASONS: dict[PaceReason, str] = {
    "started": "first pace",
    "remembered": "pace of an earlier run",
    "too_fast": "the 429 is attributed to too many requests a second",
    "too_many_at_once": "the 429 is attributed to too many concurrent requests",
    "no_refusals": "no 429 for a while",
}


def per_second(rate: float) -> str:
    """Return a rate with as many digits as matter: 0.25, 9.7 or 120."""
    if rate < 1:
        return f"{rate:.2g}"
    return f"{rate:.1f}".removesuffix(".0") if rate < 100 else f"{rate:.0f}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
