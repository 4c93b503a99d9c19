"""Open files that must be regular (the manifest, credentials, stored state, a lock), and replace one atomically.

A plain `open` blocks forever on a FIFO, reads `/dev/zero` without end, and, when it creates a file, follows a link that
another user has planted at its name. These functions do none of that. All errors are OSErrors that name the path.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_AT_ONCE = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO without a writer opens at once, and is then refused
_DESCRIPTORS = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")
LARGEST = 2**30
"""Maximum bytes that `read_regular` reads: 1 GiB, a hundred times the manifest of a year."""


class NotRegularError(OSError):
    """The path is a FIFO, a device, a socket or a folder."""


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading; links are followed."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE))  # noqa: SIM115 - returned
    try:
        refuse_irregular(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """Return the contents of a regular file. Raises OSError if it has more than `largest` bytes."""
    with open_regular(path) as file:
        expected = os.fstat(file.fileno()).st_size
        data = file.read(min(expected, largest) + 1)  # read allocates that many bytes at once
        while len(data) <= largest and (more := file.read(65_536)):  # it has grown in the meantime
            data += more
    return _limited(data, path, largest)


def _limited(data: bytes, path: str | os.PathLike[str], largest: int) -> bytes:
    if len(data) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes", str(path))
    return data


def open_named(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a file that a user names for reading: a regular one, or an open descriptor of this process.

    The shell's `<(command)` is such a descriptor, to which another process writes.
    """
    if os.fspath(path).startswith(_DESCRIPTORS):
        return open(path, "rb")  # noqa: PTH123 - as above
    return open_regular(path)


def read_named(path: str | os.PathLike[str], largest: int = LARGEST) -> bytes:
    """Return the contents of a file that `open_named` opens. Raises OSError if it has more than `largest` bytes."""
    if not os.fspath(path).startswith(_DESCRIPTORS):
        return read_regular(path, largest)
    with open_named(path) as file:
        data = file.read(largest + 1)
    return _limited(data, path, largest)


def create_regular(path: Path) -> io.FileIO:
    """Create a file for writing, unbuffered. Raises FileExistsError if the name exists, even as a link."""
    return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that replaces `path` at the end of the block, and is deleted if the block fails.

    A link is kept, and so are the permissions of a replaced file. Anything but a regular file, such as a pipe, is
    written directly.
    """
    place = Path(os.path.realpath(path))  # `resolve` raises RuntimeError for links in a circle
    if place.exists() and not place.is_file():
        with open(place, "wb") as target:  # noqa: PTH123 - as above
            yield target
        return
    draft = place.with_name(f".{place.name}.{secrets.token_hex(6)}.partial")  # nobody can plant a file at that name
    created = create_regular(draft)
    try:
        with io.BufferedWriter(created) as target:
            if place.exists():
                os.fchmod(target.fileno(), stat.S_IMODE(place.stat().st_mode))
            yield target
            target.flush()
            os.fsync(target.fileno())
        draft.replace(place)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def open_lock(path: Path, *, create: bool) -> int:
    """Return a descriptor of a file that is only used to take a lock. A link at its name is not followed."""
    flags = os.O_NOFOLLOW | _AT_ONCE | (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY)
    handle = os.open(path, flags, 0o644)
    try:
        refuse_irregular(os.fstat(handle), path)
    except BaseException:
        os.close(handle)
        raise
    return handle


def refuse_irregular(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    """Raise NotRegularError, or IsADirectoryError, if a file is not regular."""
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise NotRegularError(errno.EINVAL, "it is not a regular file", str(path))
