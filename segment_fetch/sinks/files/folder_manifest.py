"""The manifest of a folder: a whole one, replaced atomically, and a log to which each commit is appended."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from segment_fetch.errors import DestinationBusyError, DestinationError
from segment_fetch.local.regular_files import read_regular
from segment_fetch.sinks.files.commit_records import frame, unframe
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.file_names import MANIFESTS, log_name

_log = logging.getLogger(__name__)


class FolderManifest:
    """The manifest and its log in one folder. OSError passes through.

    `usual` is the name for a new manifest; `write` replaces a file by bytes, completely or not at all.
    """

    def __init__(self, folder: Path, disk: Disk, usual: str, write: Callable[[str, bytes], None]) -> None:
        self.name = usual
        self.records: Sequence[bytes] = ()
        """The records that were in the log when it was read; empty once a manifest has been published."""
        self._folder = folder
        self._disk = disk
        self._usual = usual
        self._write = write
        self._log: BinaryIO | None = None
        self._left_log = False
        self._known: tuple[int, int, int] | None = None
        self._digest: bytes | None = None

    @property
    def _log_path(self) -> Path:
        return self._folder / log_name(self.name)

    def read(self) -> bytes | None:
        """Return the whole manifest, None if there is none, and set `records` to those in the log.

        The log is read first, so a manifest that a run stores in the meantime contains at least the log's records.
        """
        there = [name for name in MANIFESTS if (self._folder / name).exists()]
        if len(there) > 1:
            raise DestinationError(f"{self._folder} has {' and '.join(there)}: move the one away that is not in use")
        self.name = there[0] if there else self._usual
        logged = _bytes(self._log_path)
        self._left_log = logged is not None
        self.records = unframe(logged or b"", self._log_path.name)
        return self._read_whole()

    def _read_whole(self) -> bytes | None:
        self._known = self._signature()  # taken first, so that a replacement during the reading is noticed
        manifest = _bytes(self._folder / self.name)
        self._digest = _digest(manifest)
        return manifest

    def _signature(self) -> tuple[int, int, int] | None:
        """Return the signature of the current manifest: inode, size and time of change."""
        try:
            found = (self._folder / self.name).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def refuse_overtaken(self) -> None:
        """Raise DestinationBusyError if the manifest is not the one this run knows: locking does not work here."""
        if self._signature() == self._known:
            return
        known = self._digest
        self._read_whole()
        if self._digest != known:  # else only the signature changed
            raise self._overtaken()

    def _overtaken(self) -> DestinationBusyError:
        return DestinationBusyError(
            f"another run has written to {self._folder} since this one began, as its file system does not lock files: "
            "what it committed stays; wait for it to end, and run again"
        )

    def tidy(self) -> None:
        """Delete a log that a killed run left without a single complete record."""
        if not self.records:
            self._drop_log()

    def publish(self, data: bytes) -> None:
        """Replace the manifest, and then delete the log, whose records it contains."""
        self._write(self.name, data)
        self._known, self._digest = self._signature(), _digest(data)
        self._drop_log()

    def append(self, record: bytes) -> None:
        """Append a record to the log, and wait until it is on disk."""
        begun = self._log is not None
        if self._log is None:
            self._drop_log()  # the complete records of an older log have been published, or were in the manifest
            try:
                self._log = self._disk.create(self._log_path)
            except FileExistsError:
                raise self._overtaken() from None
        self.refuse_overtaken()
        if not os.fstat(self._log.fileno()).st_nlink:  # another run has deleted it
            raise self._overtaken()
        self._disk.write(self._log, frame(record))
        self._disk.sync(self._log)
        if not begun:
            self._disk.sync_folder(self._folder)

    def _drop_log(self) -> None:
        if self._log is not None or self._left_log:
            self.close()
            self._disk.remove(self._log_path)
            self._left_log, self.records = False, ()

    def close(self) -> None:
        """Close the log file, and keep it. Its records have been synced, so an error is only logged."""
        log, self._log = self._log, None
        if log is None:
            return
        try:
            log.close()
        except OSError as error:
            _log.warning("closing %s failed: %s; its records are on disk all the same", self._log_path, error.strerror)


def _bytes(path: Path) -> bytes | None:
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None


def _digest(manifest: bytes | None) -> bytes | None:
    return None if manifest is None else hashlib.sha256(manifest).digest()
