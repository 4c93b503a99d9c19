"""The program: parse, dispatch, and the one switch from errors to exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING

from segment_fetch.cli import exit_codes, parser
from segment_fetch.cli.formatting import program
from segment_fetch.errors import (
    DestinationError,
    ServiceError,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from segment_fetch.cli.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code."""
    _open_streams()
    argv_given = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser.parse(argv_given)
    except SystemExit:  # after --help and --version
        return exit_codes.OK
    except exit_codes.UsageError as error:
        sys.stderr.write(f"{error}\n")
        return exit_codes.USAGE
    return _run(args, argv_given)


def _open_streams() -> None:
    """Stands in for streams that were closed before the program began, so that writing fails as on any other."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(args: Namespace, argv: Sequence[str]) -> int:
    from segment_fetch.cli.console import Console  # noqa: PLC0415 - `--help` does without the log and its modules

    console = Console(args, argv, os.environ)
    with console.logging():
        try:
            return int(import_module(f"segment_fetch.cli.commands.{args.command.replace('-', '_')}").run(args, console))
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for users
            return _failed(error, console)
        except KeyboardInterrupt:
            console.say("warning", "interrupted", "interrupted")
            return 130


def _failed(error: Exception, console: Console) -> int:
    code = exit_codes.exit_code(error, progressed=console.progress.pages > 0)
    if isinstance(error, DestinationError):
        console.abandon_output()
    if not isinstance(error, exit_codes.InterruptedRunError):
        console.say("error", "failed", _message(error, code, console), error=type(error).__name__, exit_code=code)
        console.trace(error)
    return code


def _message(error: Exception, code: int, console: Console) -> str:
    if code == exit_codes.INTERNAL:
        return (
            f"an error in this program: {type(error).__name__}: {error}; run it again with --log-level debug for the "
            "traceback, and report it"
        )
    if isinstance(error, ServiceError) and code == exit_codes.SERVICE:
        return f"{error}; try again later; `{program()} doctor` checks each step on the way"
    said_already = isinstance(error, DestinationError) and not console.streaming
    if code == exit_codes.INCOMPLETE and console.advice and console.progress.pages and not said_already:
        return f"{error}; {console.advice}"
    return str(error)
