"""The calls that change a folder, and its lock; a test can let each of them fail or lose power."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from segment_fetch.errors import DestinationBusyError
from segment_fetch.local.regular_files import create_regular, open_lock

_log = logging.getLogger(__name__)
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LOCKS = {errno.ENOLCK, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class Disk:
    """The file system. Each method is one call to it; OSError passes through."""

    def make_folder(self, folder: Path) -> None:
        """Create one folder, whose parent is there; one that is there already is fine."""
        folder.mkdir(exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """Create an empty file, unbuffered. FileExistsError where there is one, or a link, of that name."""
        return create_regular(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        """Write all of the data; a full disk is an error, not a short write."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def write_back(self, file: BinaryIO, start: int, length: int) -> None:
        """Have the system begin to bring a part of the file to the disk, so that `sync` finds less to wait for.

        A hint, and never an error: where it is not taken, `sync` does it all, and says what is wrong with the disk.
        """
        if hasattr(os, "posix_fadvise"):  # Linux begins to write what it is told it need not keep
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_DONTNEED)

    def sync(self, file: BinaryIO) -> None:
        """Make what was written survive a loss of power."""
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:  # macOS: fsync leaves the data in the drive's own cache
            try:
                fcntl.fcntl(file.fileno(), full)
            except OSError as error:
                if error.errno not in _NO_SYNC:  # else a network file system, which knows fsync alone
                    raise
            else:
                return
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Rename, atomically, over what is there."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder survive a loss of power.

        File systems that cannot sync a folder, as SMB and some of FUSE, refuse it: then the names are as safe as they
        get.
        """
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Delete a file; one that is not there is fine."""
        path.unlink(missing_ok=True)


def make_folders(disk: Disk, folder: Path) -> None:
    """Create a folder and its parents, if need be, so that all of them survive a loss of power."""
    missing: list[Path] = []
    place = folder
    while not place.exists() and place.parent != place:
        missing.append(place)
        place = place.parent
    for each in reversed(missing):
        disk.make_folder(each)
        disk.sync_folder(each.parent)
    if not missing:
        disk.make_folder(folder)  # an error where it is a file


def is_locked(path: Path) -> bool:
    """Return True if a run holds the lock. Takes it for an instant, shared; creates no file."""
    try:
        handle = open_lock(path, create=False)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # without locks nobody holds one
        return False
    finally:
        release(handle)
    return False


def take_lock(path: Path, place: Path) -> int | None:
    """Return a descriptor that holds the lock until it is released, or None, with a warning, where locks do not work.

    The lock ends with the process, however it ends, so none is ever left behind; the file stays. `place` is what a
    message names. DestinationBusyError where another run has the lock, OSError where the file cannot be made.
    """
    handle = open_lock(path, create=True)
    try:
        if _lock(handle) and _is_refused_twice(path):
            return handle
    except BlockingIOError:
        release(handle)
        raise DestinationBusyError(f"another run is writing to {place}: wait for it to end") from None
    except BaseException:
        release(handle)
        raise
    release(handle)
    _log.warning(
        "the file system of %s does not lock files: make sure that one run at a time writes there; a second one is "
        "noticed only when it commits",
        place,
    )
    return None


def _lock(handle: int) -> bool:
    """Take the lock; False where the file system has none. BlockingIOError where it stays taken.

    Whoever only looks whether a run is there takes it for an instant, too: that is waited for.
    """
    for pause in (0.005, 0.02, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is None:
                raise
            time.sleep(pause)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise
        else:
            return True
    return False


def _is_refused_twice(path: Path) -> bool:
    """Return True if the lock, which this process holds, is refused to a second opening of its file."""
    second = open_lock(path, create=False)
    try:
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        release(second)
    return False


def release(handle: int) -> None:
    """Give a lock back. A descriptor is gone however its closing ends, so an error of that is only logged."""
    try:
        os.close(handle)
    except OSError as error:
        _log.warning("closing the lock failed: %s; the lock is given back all the same", error.strerror or error)
