"""Exit codes, which scripts rely on: their meanings, and the one switch from errors to them."""

from __future__ import annotations

import errno

from segment_fetch.cli.failures import InternalError, InterruptedRunError, OutputError
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
    ("3", "incomplete: some window is unproven, or the run was cut short; what is committed stays, run it again"),
    ("4", "credentials missing or refused"),
    ("5", "the service failed before anything could be read"),
    ("70", "an error in this program"),
    ("130", "interrupted by Ctrl-C (143: by SIGTERM, 129: by SIGHUP); what is committed stays, run it again"),
)


def exit_code(error: Exception, *, progressed: bool) -> int:
    """Return the exit code of an error. `progressed`: something had been read before."""
    match error:
        case InterruptedRunError():
            return 128 + error.signum
        case CredentialsError():
            return CREDENTIALS
        case InputError() | ManifestError() | MissingExtraError():
            return INCOMPLETE if progressed else USAGE
        case DestinationError():
            return USAGE if not progressed and _is_unusable(error) else INCOMPLETE
        case ServiceError():
            return INCOMPLETE if progressed else SERVICE
    return INTERNAL if isinstance(error, InternalError) or not isinstance(error, SegmentFetchError) else INCOMPLETE


def _is_unusable(error: DestinationError) -> bool:
    """Return True if a destination cannot be used as it is; False if it is busy, unreachable, full or closed."""
    if isinstance(error, (DestinationBusyError, DestinationUnavailableError, OutputError)):
        return False
    cause = error.__cause__
    return not (isinstance(cause, OSError) and cause.errno in _MAY_PASS)
