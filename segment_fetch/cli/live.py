"""The live display: a bar and a line below it, redrawn by rich. Imported only where rich is."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segment_fetch.cli.progress import Display
from segment_fetch.cli.tally import Tally
from segment_fetch.cli.words import pace
from segment_fetch.errors import lasting

_REDRAWS_PER_S = 8


class LiveDisplay(Display):
    """Begins to show when there is something to show, and leaves nothing behind."""

    def __init__(self, stream: TextIO, tally: Tally) -> None:
        self._tally = tally
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
        if self._tally.started and not self._live.is_started:
            self._live.start()

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        tally = self._tally
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=1.0, completed=tally.fraction)
        grid.add_row(bar, beside(tally))
        return Group(grid, Text(below(tally), no_wrap=True, overflow="ellipsis"))


def beside(tally: Tally) -> str:
    """What stands beside the bar; leaves some of 60 columns to it."""
    paced = f" {pace(tally.pace, brief=True)}" if tally.pace else ""
    return f"{int(tally.fraction * 100):3}% {counted(tally)}{paced}"


def counted(tally: Tally) -> str:
    """21,000 of 60,000; a tilde before a guess."""
    return f"{tally.read:,} of {'' if tally.sure else '~'}{tally.expected:,}"


def below(tally: Tally) -> str:
    """The second line; fits into 60 columns."""
    left = f", {lasting(tally.left)} left" if tally.left is not None and tally.fraction < 1 else ""
    return (
        f"windows {tally.done}/{tally.windows}, retries {tally.retries}, pauses {tally.pauses}, "
        f"{tally.elapsed:.0f} s{left}"
    )
