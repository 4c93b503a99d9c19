"""Every call that changes a folder, in one thin place, so that a test can let each of them fail or lose power."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class Disk:
    """The file system. Each method is one call to it; OSError passes through."""

    def make_folder(self, folder: Path) -> None:
        """Creates the folder and its parents, if need be."""
        folder.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> BinaryIO:
        """A new, empty file, replacing one of that name; unbuffered."""
        return path.open("wb", buffering=0)

    def write(self, file: BinaryIO, data: bytes) -> None:
        """All of the data; a full disk is an error, not a short write."""
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]

    def write_back(self, file: BinaryIO, start: int, length: int) -> None:
        """Has the system begin to bring a part of the file to the disk, so that `sync` finds less to wait for.

        A hint, and never an error: where it is not taken, `sync` does it all, and says what is wrong with the disk.
        """
        if hasattr(os, "posix_fadvise"):  # Linux begins to write what it is told it need not keep
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_DONTNEED)

    def sync(self, file: BinaryIO) -> None:
        """What was written survives a loss of power."""
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Renames, atomically, over what is there."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """The folder's names survive a loss of power."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Deletes a file; one that is not there is fine."""
        path.unlink(missing_ok=True)
