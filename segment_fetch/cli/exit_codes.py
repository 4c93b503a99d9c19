"""Exit codes, which scripts rely on, and the errors that only the command line has."""

from __future__ import annotations

import errno
import signal

from segment_fetch.cli.formatting import NAME, program
from segment_fetch.errors import (
    CredentialsError,
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    InputError,
    ManifestError,
    MissingExtraError,
    SegmentFetchError,
    ServiceError,
)

OK = 0
USAGE = 2
INCOMPLETE = 3
CREDENTIALS = 4
SERVICE = 5
INTERNAL = 70

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EPIPE, errno.EBADF)

MEANINGS = (
    ("0", "complete and proven"),
    ("2", "wrong usage or input"),
    ("3", "incomplete: some window is unproven, or the run broke off; what is committed stays, run it again"),
    ("4", "credentials missing or refused"),
    ("5", "the service failed before anything could be read"),
    ("70", "an error in this program"),
    ("130", "interrupted by Ctrl-C (143: by SIGTERM, 129: by SIGHUP); what is committed stays, run it again"),
)


class InterruptedRunError(Exception):
    """SIGINT, SIGTERM or SIGHUP ended the run; everything in flight has been stopped."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.code = 128 + signum


class OutputError(DestinationError):
    """Standard output cannot be written. `closed`: its reader has gone away."""

    def __init__(self, error: OSError) -> None:
        self.closed = isinstance(error, BrokenPipeError)
        super().__init__(
            "the reader of standard output closed it before the end"
            if self.closed
            else f"cannot write to standard output: {error.strerror or error}; free space, or send it elsewhere"
        )


class UsageError(InputError):
    """The command line cannot be understood. `prog` is the program with its command, as in `segment-fetch plan`."""

    def __init__(self, prog: str, message: str) -> None:
        super().__init__(message)
        self.prog = prog

    def __str__(self) -> str:
        return f"{self.prog}: error: {self.message}\nSee {self.prog.replace(NAME, program(), 1)} --help."


def exit_code(error: Exception, *, progressed: bool) -> int:
    """Return the exit code of an error. `progressed`: something had been read before it."""
    match error:
        case InterruptedRunError():
            return error.code
        case CredentialsError():
            return CREDENTIALS
        case InputError() | ManifestError() | MissingExtraError():
            return INCOMPLETE if progressed else USAGE
        case DestinationError():
            return USAGE if not progressed and _is_unusable(error) else INCOMPLETE
        case ServiceError():
            return INCOMPLETE if progressed else SERVICE
    return INCOMPLETE if isinstance(error, SegmentFetchError) else INTERNAL


def _is_unusable(error: DestinationError) -> bool:
    """Return True if a destination can never be written as it is; False if it is busy, away, full or closed."""
    if isinstance(error, (DestinationBusyError, DestinationUnavailableError, OutputError)):
        return False
    cause = error.__cause__
    return not (isinstance(cause, OSError) and cause.errno in _MAY_PASS)
