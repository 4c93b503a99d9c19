"""The output of a command: data and reports on standard output, progress and the log on standard error.

Everything except the data passes through one function, which removes secrets and neutralises control characters.
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TextIO

import orjson

from segment_fetch.api.auth import Auth
from segment_fetch.cli import credentials
from segment_fetch.cli.failures import OutputError
from segment_fetch.cli.formatting import harmless, harmless_json, program, width, wrapped
from segment_fetch.cli.log import log, logging_to, say
from segment_fetch.cli.progress import Display, Lines, RunProgress, Silent, may_be_live
from segment_fetch.errors import printable, redacted
from segment_fetch.events import Event, NewFields

_SHORTEST_SECRET = 4
_LONGEST_NAMES = 500  # characters


class Console:
    """The output of one run of the program. Everything except the data goes through `_outgoing`."""

    def __init__(self, args: Namespace, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.args = args
        self.environ = environ
        self.command = f"{program()} {shlex.join(argv)}"
        self.destination = ""
        """The destination of the data, for messages; set by a command when it starts to write."""
        self.progress = RunProgress()
        self._secrets: list[str] = []
        self._display: Display = Silent(sys.stderr, self.progress)

    @property
    def quiet(self) -> bool:
        """True if only warnings and errors are printed."""
        return bool(self.args.quiet)

    @property
    def streaming(self) -> bool:
        """True if the data goes to standard output."""
        return getattr(self.args, "out", "") == "-"

    def credentials(self) -> credentials.Credentials:
        """Return the credentials of the options and the environment, and redact them from now on."""
        found = credentials.given(self.args.credentials, self.environ)
        self.hide([value for name, value in found.values.items() if name != credentials.ACCOUNT])
        if found.warning:
            say("warning", "credentials_readable", found.warning)
        return credentials.load(self.args.account, found)

    def hide(self, secrets: Sequence[str] | Auth) -> None:
        """Redact these values in all output."""
        values = secrets.secrets() if isinstance(secrets, Auth) else secrets
        for value in values:
            if len(value) >= _SHORTEST_SECRET:
                self._secrets += [value, orjson.dumps(value, default=str).decode()[1:-1]]

    def _outgoing(self, text: str, *, is_json: bool) -> str:
        """Return a text without secrets and without terminal control characters."""
        text = redacted(text, self._secrets, unescape=not is_json)
        return harmless_json(text) if is_json else harmless(text)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Write the log to standard error for the duration of the block."""
        level = self.args.log_level
        if self.quiet and level == "info":
            level = "warning"
        timed = not sys.stderr.isatty()
        accounts = getattr(self.args, "command", "") == "fleet"
        with logging_to(self._line, level=level, form=self.args.log_format, timed=timed, accounts=accounts):
            yield

    @contextmanager
    def show_progress(self, display: Display | None = None) -> Iterator[None]:
        """Show the progress of the run for the duration of the block, in `display` or the default one."""
        self._display = display or self._new_display()
        try:
            yield
        finally:
            self._display.close()

    def _new_display(self) -> Display:
        if self.quiet:
            return Silent(sys.stderr, self.progress)
        data_on_screen = self.streaming and sys.stdout.isatty()
        if self.args.log_format == "text" and may_be_live(sys.stderr) and not data_on_screen:
            from segment_fetch.cli.progress_bar import LiveDisplay  # noqa: PLC0415 - rich is optional, and takes 60 ms

            return LiveDisplay(sys.stderr, self.progress)
        return Lines(sys.stderr, self.progress)

    def watch(self, event: Event) -> None:
        """Handle an event of the library."""
        self.progress.take(event)
        if isinstance(event, NewFields) and getattr(self.args, "format", "") == "csv":
            names = printable(", ".join(event.names), _LONGEST_NAMES)
            say(
                "warning",
                "fields_left_out",
                f"left out: {names}; CSV cannot hold them: use --format jsonl to keep them",
            )
        self._display.update()

    def redraw(self) -> None:
        """Update the display."""
        self._display.update()

    def on_signal(self, signum: int) -> None:
        """Report immediately what an interrupted run leaves behind, while requests in flight are stopped."""
        self._display.close()
        name = "interrupted" if signum == 2 else "terminated"
        say(
            "warning",
            name,
            f"{name}: {self.what_next(same_command=True) if self.destination else 'nothing was changed'}",
        )

    def what_next(self, *, same_command: bool) -> str:
        """Return a text on what an aborted run leaves behind. `same_command`: running it again can succeed."""
        if self.streaming:
            return "the output is cut off" + ("; run the command again to get all of it" if same_command else "")
        kept = f"what is committed in {self.destination} stays"
        return f"{kept}; the same command continues from there:\n  {self.command}" if same_command else kept

    def committed(self) -> dict[str, Any] | None:
        """Return what this run has committed so far, in machine-readable form; None if it writes nothing."""
        if not self.destination:
            return None
        windows, segments = self.progress.committed
        return {"destination": self.destination, "windows": windows, "segments": segments}

    def _line(self, text: str) -> None:
        text = self._outgoing(text, is_json=self.args.log_format == "json")
        if sys.stderr.isatty() and self.args.log_format == "text":
            text = wrapped(text, width())
        with suppress(OSError, ValueError):
            self._display.line(text)

    def out(self, text: str, stream: TextIO | None = None, *, is_json: bool = False) -> None:
        """Write a text to standard output. Raises OutputError."""
        stream = stream or sys.stdout
        try:
            stream.write(self._outgoing(text, is_json=is_json) + "\n")
            stream.flush()
        except OSError as error:
            raise OutputError(error) from None

    def report(self, text: str, value: Mapping[str, Any]) -> None:
        """Write the report, as JSON or text, unless quiet; to standard error if the data goes to standard output."""
        stream = sys.stderr if self.streaming else sys.stdout
        if self.args.json or (self.streaming and self.args.log_format == "json" and not self.quiet):
            self.out(orjson.dumps(value).decode(), stream, is_json=True)
        elif not self.quiet:
            self.out(text, stream)

    def data(self) -> BinaryIO:
        """Return standard output for data."""
        return sys.stdout.buffer

    def abandon_output(self) -> None:
        """Discard the buffer of standard output, which would fail again when the process ends."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)

    def say(self, level: str, event: str, message: str, **fields: object) -> None:
        """Log a line."""
        say(level, event, message, **fields)

    def trace(self, error: Exception) -> None:
        """Log the traceback of an error, at debug level."""
        log.debug("where it happened:", exc_info=error)
