"""The display of a fleet while it runs: accounts done, failed and in flight, and the slowest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from segment_fetch.cli.progress import Display
from segment_fetch.errors import lasting
from segment_fetch.events import Event, PageRead, WindowCommitted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from segment_fetch.fleet.run import AccountResult

_SLOWEST = 10
_RATE_S = 10.0
_REDRAWS_PER_S = 4


class FleetProgress:
    """Counts of a fleet's accounts and segments."""

    def __init__(self, accounts: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.accounts = accounts
        self.done = self.failed = self.segments = 0
        self.running: dict[str, tuple[float, int]] = {}
        """Account -> the time of its first event, and segments read."""
        self.committed: dict[str, int] = {}
        """Account with events -> segments of this run in its destination."""
        self._clock = clock
        self._started = clock()
        self._marks: list[tuple[float, int]] = [(self._started, 0)]

    def take(self, account: str, event: Event) -> None:
        """Count an event."""
        since, segments = self.running.get(account, (self._clock(), 0))
        committed = self.committed.get(account, 0)
        if isinstance(event, PageRead):
            segments += event.rows
            self.segments += event.rows
        elif isinstance(event, WindowCommitted):
            committed += event.segments
        self.committed[account] = committed
        self.running[account] = since, segments

    def end(self, result: AccountResult) -> None:
        """Count an account that has ended."""
        self.running.pop(result.account, None)
        self.done += 1
        self.failed += result.exit_code != 0

    @property
    def in_flight(self) -> int:
        """Number of accounts that have begun and not ended."""
        return len(self.running)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    def rate(self) -> float:
        """Return segments a second over the last ten seconds, and record the current count for later calls."""
        now = self._clock()
        self._marks.append((now, self.segments))
        while len(self._marks) > 2 and now - self._marks[1][0] > _RATE_S:
            self._marks.pop(0)
        (then, before), span = self._marks[0], now - self._marks[0][0]
        return (self.segments - before) / span if span > 0 and then < now else 0.0

    def slowest(self) -> list[tuple[str, float, int]]:
        """Return the accounts that have been running longest: account, seconds, segments read."""
        now = self._clock()
        ordered = sorted(self.running.items(), key=lambda item: item[1][0])
        return [(account, now - since, segments) for account, (since, segments) in ordered[:_SLOWEST]]

    def line(self) -> str:
        """Return the counts as a line."""
        return (
            f"{self.done:,} of {self.accounts:,} accounts done, {self.failed:,} not complete, {self.in_flight:,} in "
            f"flight; {self.segments:,} segments, {self.rate():,.0f}/s"
        )


class FleetTable(Display):
    """A table on a terminal, redrawn by rich; leaves nothing behind. Used only if rich is installed."""

    def __init__(self, stream: TextIO, progress: FleetProgress) -> None:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.live import Live  # noqa: PLC0415

        self._fleet = progress
        self._console = Console(file=stream, force_terminal=True, highlight=False, emoji=False, markup=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=_REDRAWS_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def update(self) -> None:
        if not self._live.is_started:
            self._live.start()

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False)
        for name in ("slowest", "running for", "segments"):
            table.add_column(name, justify="left" if name == "slowest" else "right")
        for account, seconds, segments in self._fleet.slowest():
            table.add_row(account, lasting(seconds), f"{segments:,}")
        return Group(Text(self._fleet.line(), no_wrap=True, overflow="ellipsis"), table)
