"""Which changes of the pace are worth telling: those that a 429 makes, and what has moved by a tenth. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from segment_fetch.events import PaceChanged, PaceReason
from segment_fetch.pacing import Blame, Pacer

NOTABLE: Final = 0.1  # share of the rate by which it has to move
EVERY: Final = 1.0  # seconds between two changes that no 429 made


class PaceWatch:
    """Looks at a pacer and tells when it has changed. Times are seconds of the caller's clock."""

    def __init__(self, pacer: Pacer, tell: Callable[[PaceChanged], None]) -> None:
        self._pacer = pacer
        self._tell = tell
        self._told: PaceChanged | None = None
        self._quiet_until = -math.inf
        self._was_refused = False

    def refused(self) -> None:
        """A 429 came; what it changes is told when the pause that it began is over."""
        self._was_refused = True

    def sent(self, now: float) -> None:
        """A request went out: tells of the pace at first, and when it has changed."""
        if now < self._quiet_until and not self._was_refused:
            return
        pace = self._pacer.snapshot(now)
        at_once, notable = self._pacer.found_cap, 0.0 if self._was_refused else NOTABLE
        if self._told is None or at_once != self._told.at_once or abs(pace.rate / self._told.rate - 1) > notable:
            self._told = PaceChanged(pace.rate, at_once, self._reason(pace.blame))
            self._tell(self._told)
        self._quiet_until, self._was_refused = now + EVERY, False

    def _reason(self, blame: Blame | None) -> PaceReason:
        if self._was_refused:
            return "too_many_at_once" if blame == "concurrency" else "too_fast"
        if self._told is None:
            return "remembered" if self._pacer.remembers else "started"
        return "no_refusals"
