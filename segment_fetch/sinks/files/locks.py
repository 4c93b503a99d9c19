"""One run at a time at one destination, for destinations that are files."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from segment_fetch.errors import DestinationBusyError


def is_locked(path: Path) -> bool:
    """Whether a run holds the lock. Takes it for an instant, shared; makes no file, and says no where none is."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def locked(path: Path, place: Path) -> int:
    """A handle that holds the lock until it is closed; the file stays. OSError where the file cannot be made.

    The lock ends with the process, however it ends, so none is ever left behind. `place` is what an error names.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise DestinationBusyError(f"another run is writing to {place}: wait for it to end") from None
        raise
    return handle
