"""The calls that change a folder, and its lock; tests can make each of them fail or lose power."""

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
    """The file system. Each method is one operation; OSError passes through."""

    def make_folder(self, folder: Path) -> None:
        """Create a folder in an existing parent; an existing folder is fine."""
        folder.mkdir(exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """Create an empty file, unbuffered. Raises FileExistsError if the name exists, even as a link."""
        return create_regular(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        """Write all of the data; a full disk is an error, not a short write."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def write_back(self, file: BinaryIO, start: int, length: int) -> None:
        """Ask the system to start writing a part of the file to disk, so that `sync` has less to wait for.

        A hint that never fails: otherwise `sync` writes everything, and reports the disk's errors.
        """
        if hasattr(os, "posix_fadvise"):  # makes Linux start writing
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_DONTNEED)

    def sync(self, file: BinaryIO) -> None:
        """Make the written data survive a loss of power."""
        full = getattr(fcntl, "F_FULLFSYNC", None)
        if full is not None:  # macOS: fsync leaves the data in the drive's cache
            try:
                fcntl.fcntl(file.fileno(), full)
            except OSError as error:
                if error.errno not in _NO_SYNC:  # else a network file system, which supports only fsync
                    raise
            else:
                return
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file atomically, replacing the target."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder survive a loss of power.

        Some file systems, such as SMB and some FUSE ones, refuse to sync a folder; then nothing more can be done.
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
        """Delete a file, if it exists."""
        path.unlink(missing_ok=True)


def make_folders(disk: Disk, folder: Path) -> None:
    """Create a folder and its missing parents, so that all of them survive a loss of power."""
    missing: list[Path] = []
    place = folder
    while not place.exists() and place.parent != place:
        missing.append(place)
        place = place.parent
    for each in reversed(missing):
        disk.make_folder(each)
        disk.sync_folder(each.parent)
    if not missing:
        disk.make_folder(folder)  # fails if it is a file


def is_locked(path: Path) -> bool:
    """Return True if a run holds the lock. Takes it briefly, in shared mode; creates no file."""
    try:
        handle = open_lock(path, create=False)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    finally:
        release(handle)
    return False


def take_lock(path: Path, place: Path) -> int | None:
    """Return a descriptor that holds the lock until it is released; or warn and return None if locks do not work.

    The lock ends with the process, however that ends, so none is ever left behind; the file stays. `place` is shown in
    messages. Raises DestinationBusyError if another run holds the lock, OSError if the file cannot be created.
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
        "the file system of %s does not lock files: make sure that only one run at a time writes there; a second is "
        "noticed only when it commits",
        place,
    )
    return None


def _lock(handle: int) -> bool:
    """Take the lock; return False if the file system has none. Raises BlockingIOError if it stays taken.

    Processes that only check for a run hold it briefly, too, so it is tried more than once.
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
    """Return True if a second descriptor of the file is refused the lock that this process holds."""
    second = open_lock(path, create=False)
    try:
        fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        release(second)
    return False


def release(handle: int) -> None:
    """Release a lock. Even a failed close frees the descriptor, so its error is only logged."""
    try:
        os.close(handle)
    except OSError as error:
        _log.warning("closing the lock file failed: %s; the lock is released all the same", error.strerror or error)
