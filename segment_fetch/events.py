"""Events of a run, as frozen structs for a callback. None of them carries a credential."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from segment_fetch.query import Window

Status: TypeAlias = Literal["complete", "provisional", "unproven"]
"""complete: proven, and closed long enough ago that nothing more will come. provisional: proven as of the moment of
reading, late segments may still come. unproven: not accepted; nothing of it is in the destination."""


class RangePlanned(Struct, frozen=True, tag=True):
    """The range was divided: `windows` will be read, `skipped` were complete already."""

    windows: int
    skipped: int


class WindowOpened(Struct, frozen=True, tag=True):
    """The first page of a window came: it holds `count` segments."""

    window: Window
    count: int


class WindowSplit(Struct, frozen=True, tag=True):
    """A window held too many segments and was divided into `parts`, oldest first; each is opened by itself."""

    window: Window
    parts: tuple[Window, ...]


class PageRead(Struct, frozen=True, tag=True):
    """A page came and passed its checks."""

    window: Window
    offset: int
    rows: int


class Retrying(Struct, frozen=True, tag=True):
    """A page failed for the `failures`-th time and will be asked for again after `delay` seconds.

    `parked` if its quick retries were used up, and it comes back in a later round.
    """

    window: Window
    offset: int
    failures: int
    delay: float
    reason: str
    parked: bool = False


class ServiceDown(Struct, frozen=True, tag=True):
    """Nothing comes through since `seconds`; the service is probed now and then, for at most `patience` seconds."""

    seconds: float
    patience: float
    reason: str


class ServiceBack(Struct, frozen=True, tag=True):
    """The service answers again, after `seconds`."""

    seconds: float


class Paused(Struct, frozen=True, tag=True):
    """The API answered 429: nothing is sent for `seconds`."""

    seconds: float


PaceReason: TypeAlias = Literal["started", "remembered", "too_fast", "too_many_at_once", "no_refusals"]
"""started, or remembered from an earlier run: where the pace begins. too_fast, too_many_at_once: what a 429 was taken
for. no_refusals: none came for a while, so more is tried."""


class PaceChanged(Struct, frozen=True, tag=True):
    """Requests go out at most at `rate` a second from now on, told where that has changed by more than a little.

    `at_once` is how many may be in flight; None where no limit of that kind was met.
    """

    rate: float
    at_once: int | None
    reason: PaceReason


class WindowReread(Struct, frozen=True, tag=True):
    """The window changed while it was read, and is read again; `passes` counts the readings so far."""

    window: Window
    passes: int
    reason: str


class WindowDone(Struct, frozen=True, tag=True):
    """A window was read to its end, or given up: `unproven`, with the reason, and the code of the error behind it."""

    window: Window
    status: Status
    segments: int
    reason: str | None = None
    code: str | None = None


class WindowCommitted(Struct, frozen=True, tag=True):
    """A window's segments are in the destination and in its manifest: they stay, however the run ends."""

    window: Window
    status: Status
    segments: int


class NewFields(Struct, frozen=True, tag=True):
    """The API sends fields that this version does not know; told once for each name."""

    names: tuple[str, ...]


class Warned(Struct, frozen=True, tag=True):
    """Something the user should know, in a sentence."""

    message: str


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
    | Warned
)
