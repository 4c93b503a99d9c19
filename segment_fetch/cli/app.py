"""The program: parse the command line, run the command, and always end with an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING

from segment_fetch.cli import exit_codes, failures, parser
from segment_fetch.errors import DestinationError, SegmentFetchError

if TYPE_CHECKING:
    from argparse import Namespace

    from segment_fetch.cli.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    _open_streams()
    argv_given = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser.parse(argv_given)
    except SystemExit:  # after --help and --version
        return exit_codes.OK
    except SegmentFetchError as error:
        return _not_understood(error, as_json="--json" in argv_given)
    return _run(args, argv_given)


def _not_understood(error: SegmentFetchError, *, as_json: bool) -> int:
    prog = error.prog if isinstance(error, failures.UsageError) else ""
    sys.stderr.write(f"{error}\n" if prog else f"error: {error} [{error.code}]\n")
    if as_json:
        command = prog.partition(" ")[2] or None
        sys.stdout.write(f"{json.dumps(failures.outcome(command, error, exit_codes.USAGE, committed=None))}\n")
    return exit_codes.USAGE


def _open_streams() -> None:
    """Replace streams that were closed before the program began, so that writing fails as on any other."""
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(args: Namespace, argv: Sequence[str]) -> int:
    from segment_fetch.cli.console import Console  # noqa: PLC0415 - not needed for `--help`

    console = Console(args, argv, os.environ)
    with console.logging():
        for name, hint in parser.unknown_variables(os.environ).items():
            console.say("warning", "unknown_variable", f"{name}: no option has this variable, it is ignored{hint}")
        try:
            return int(import_module(f"segment_fetch.cli.commands.{args.command.replace('-', '_')}").run(args, console))
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for users
            return _failed(error, console)
        except KeyboardInterrupt:
            console.say("warning", "interrupted", "interrupted")
            return _failed(failures.InterruptedRunError(signal.SIGINT), console)


def _failed(error: Exception, console: Console) -> int:
    """Report an error, in the log and with `--json` as the last object, and return the exit code."""
    failure = failures.known(error)
    code = exit_codes.exit_code(failure, progressed=console.progress.pages > 0)
    if isinstance(failure, failures.OutputError) or (isinstance(failure, DestinationError) and console.streaming):
        console.abandon_output()
    if not isinstance(failure, failures.InterruptedRunError):  # a signal has already been reported
        about = {"error": type(error).__name__, "code": failure.code, "exit_code": code}
        console.say("error", "failed", failures.as_text(failure, console), **about)
        console.trace(error)
    if console.args.json:
        with suppress(failures.OutputError):
            value = failures.outcome(console.args.command, failure, code, committed=console.committed())
            console.report("", value)
    return code
