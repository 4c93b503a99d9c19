"""The live display: a bar and a line below it, drawn by rich. Imported only if rich is installed."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segment_fetch.cli.formatting import pace
from segment_fetch.cli.progress import Display, RunProgress
from segment_fetch.errors import lasting

_REDRAWS_PER_S = 8


class LiveDisplay(Display):
    """A progress bar that appears once the range is planned, and leaves nothing behind."""

    def __init__(self, stream: TextIO, progress: RunProgress) -> None:
        self._progress = progress
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
        if self._progress.started and not self._live.is_started:
            self._live.start()

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        progress = self._progress
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        bar = ProgressBar(total=1.0, completed=progress.fraction)
        grid.add_row(bar, beside(progress))
        return Group(grid, Text(below(progress), no_wrap=True, overflow="ellipsis"))


def beside(progress: RunProgress) -> str:
    """Return the text beside the bar, short enough for 60 columns."""
    paced = f" {pace(progress.pace, brief=True)}" if progress.pace else ""
    return f"{int(progress.fraction * 100):3}% {counted(progress)}{paced}"


def counted(progress: RunProgress) -> str:
    """Return 21,000 of 60,000, with a tilde before a guess."""
    return f"{progress.read:,} of {'' if progress.sure else '~'}{progress.expected:,}"


def below(progress: RunProgress) -> str:
    """Return the second line, which fits into 60 columns."""
    left = f", {lasting(progress.left)} left" if progress.left is not None and progress.fraction < 1 else ""
    return (
        f"windows {progress.done}/{progress.windows}, retries {progress.retries}, pauses {progress.pauses}, "
        f"{progress.elapsed:.0f} s{left}"
    )
