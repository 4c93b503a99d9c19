"""Failed runs: the errors that only the command line has, and the presentation of an error as text and JSON.

Every error has a stable code, a sentence on what happened and one on what to do (`segment_fetch.errors`); the page
docs/troubleshooting.md has a heading for each.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from segment_fetch.cli.formatting import NAME, program
from segment_fetch.errors import LOST, DestinationError, IncompleteError, InputError, SegmentFetchError, ServiceError

if TYPE_CHECKING:
    from segment_fetch.cli.console import Console


class UsageError(InputError):
    """The command line is invalid. `prog` is the program with its command, as in `segment-fetch plan`."""

    code = "SF-USAGE"
    summary = "The command line was not understood."
    advice = "Correct the argument that the message names; --help lists every option of a command."

    def __init__(self, prog: str, message: str) -> None:
        super().__init__(message)
        self.prog = prog

    def __str__(self) -> str:
        return f"{self.prog}: error: {self.message}\nSee {self.prog.replace(NAME, program(), 1)} --help. [{self.code}]"


class OutputError(DestinationError):
    """Standard output cannot be written. `closed`: its reader has closed it."""

    code = "SF-OUTPUT"
    summary = "Standard output could not be written."
    advice = "Free space, or keep the reader running to the end; then run the command again."

    def __init__(self, error: OSError) -> None:
        self.closed = isinstance(error, BrokenPipeError)
        super().__init__(
            "the reader of standard output closed it before the end"
            if self.closed
            else f"cannot write to standard output: {error.strerror or error}; free space, or send it elsewhere"
        )


class InterruptedRunError(SegmentFetchError):
    """SIGINT, SIGTERM or SIGHUP ended the run; everything in flight has been stopped."""

    code = "SF-INTERRUPTED"
    summary = "The run was interrupted by a signal."
    advice = "Run the same command again; what is committed stays."
    may_pass = True

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class InternalError(SegmentFetchError):
    """An exception that no part of the program expected."""

    code = "SF-INTERNAL"
    summary = "The program has a fault."
    advice = "Run the command again with --log-level debug, and report the traceback."


class LostRangeError(IncompleteError):
    """A range that the API no longer serves was never read."""

    code = LOST
    summary = "Part of the range was never read, and the API no longer has it."
    advice = "It cannot be recovered; run sync at least once a month, so that nothing more is lost."
    may_pass = False


class UnsoundError(DestinationError):
    """A destination does not match its manifest."""

    code = "SF-UNSOUND"
    summary = "The destination is not what its manifest says."
    advice = "Follow the advice of each finding; a window that the API still serves can be extracted again."
    may_pass = False


class ClockError(SegmentFetchError):
    """The clock of this machine is wrong by more than OAuth 1.0 allows."""

    code = "SF-CLOCK"
    summary = "The clock of this machine is wrong by more than OAuth 1.0 allows."
    advice = "Set the clock, for example with NTP, then run the command again."


def kind_of(code: str | None) -> type[SegmentFetchError] | None:
    """Return the error class with a code; None if there is none, or if it belongs to a later release."""
    kinds = [SegmentFetchError]
    for kind in kinds:  # grows during the loop
        if kind.code == code:
            return kind
        kinds += kind.__subclasses__()
    return None


def can_pass(codes: Iterable[str | None]) -> bool:
    """Return True if a retry may fix one of these errors; one without a code may be temporary."""
    kinds = [kind_of(code) for code in codes]
    return any(kind is None or kind.may_pass for kind in kinds)


def lasting_advice(codes: Iterable[str | None]) -> str:
    """Return advice for the errors that a retry does not fix, each sentence once."""
    kinds = [kind_of(code) for code in codes]
    return " ".join(dict.fromkeys(kind.advice for kind in kinds if kind is not None and not kind.may_pass))


def known(error: Exception) -> SegmentFetchError:
    """Return the error, or an InternalError in its place if it is not one of this package."""
    if isinstance(error, SegmentFetchError):
        return error
    return InternalError(f"an error in this program: {type(error).__name__}: {error}")


def as_json(error: SegmentFetchError) -> dict[str, str]:
    """Return an error in machine-readable form."""
    return {"code": error.code, "kind": type(error).__name__, "message": str(error), "advice": error.advice}


def outcome(command: str | None, error: SegmentFetchError, exit_code: int, **more: Any) -> Mapping[str, Any]:
    """Return the object that `--json` prints last when a command fails."""
    return {"command": command, "exit_code": exit_code, **more, "error": as_json(error)}


def as_text(error: SegmentFetchError, console: Console) -> str:
    """Return an error as text: what happened, what to do unless the message says it, and the code."""
    text = str(error)
    said_already = isinstance(error, DestinationError) and not console.streaming
    if console.progress.pages and console.destination and not said_already:
        text += f"; {console.what_next(same_command=error.may_pass)}"
    elif isinstance(error, ServiceError):
        text += f"; try again later; `{program()} doctor` checks each step on the way"
    elif isinstance(error, InternalError):
        text += f"; {error.advice[0].lower()}{error.advice[1:].rstrip('.')}"
    head, newline, rest = text.partition("\n")
    return f"{head} [{error.code}]{newline}{rest}"
