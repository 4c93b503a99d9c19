"""A folder: one file a window, complete or absent, and a manifest that says what they are."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

from segment_fetch.errors import DestinationError
from segment_fetch.query import Window
from segment_fetch.sinks.base import Key, Written
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.formats import Csv, FileFormat, JsonLines
from segment_fetch.sinks.files.locks import is_locked, locked
from segment_fetch.sinks.files.names import MANIFEST, PATTERN, is_segments
from segment_fetch.wire.models import Part

_LOCK = ".lock"
_PARTIAL = ".partial"
_WRITE_BACK = 4 * 2**20  # bytes that are written before the disk is to begin with them
_OWN_PARTIAL = re.compile(rf"\.(?:{re.escape(MANIFEST)}|{PATTERN}\.[a-z.]+){re.escape(_PARTIAL)}", re.ASCII)


def is_leftover(name: str) -> bool:
    """Whether a file is named like one that was being written when its run ended."""
    return _OWN_PARTIAL.fullmatch(name) is not None


class FolderSink(FileSink[Part]):
    """Files of one format in one folder, which is created if need be.

    `partition="day"` puts them into a folder a day, as Hive does: `date=2026-11-01/`, days of UTC.
    """

    def __init__(
        self,
        folder: str | Path,
        form: FileFormat[Part],
        compress: str = "none",
        *,
        partition: str = "none",
        disk: Disk | None = None,
    ) -> None:
        super().__init__(form, compress, partition)
        self.folder = Path(folder)
        self._disk = disk or Disk()
        self._lock: int | None = None

    def names(self) -> list[str]:
        days = [path for path in self.folder.glob("date=*") if path.is_dir()]
        found = [*self.folder.iterdir(), *(path for each in days for path in each.iterdir())]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def open(self) -> bytes | None:
        with self._translated():
            self._disk.make_folder(self.folder)
            self._lock = locked(self.folder / _LOCK, self.folder)
            try:
                return self._opened()
            except BaseException:
                self.close()
                raise

    def _opened(self) -> bytes | None:
        self._remove_partial()
        manifest = self._read_manifest()
        if manifest is None:
            self._refuse_strangers()
        return manifest

    def _read_manifest(self) -> bytes | None:
        try:
            return (self.folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None

    def _remove_partial(self) -> None:
        for path in sorted(self.folder.iterdir()):
            if _OWN_PARTIAL.fullmatch(path.name):
                self._disk.remove(path)

    def _refuse_strangers(self) -> None:
        """Without a manifest nobody knows what a file holds; deleting it could lose what the API no longer has."""
        found = next((name for name in self.names() if is_segments(name)), None)
        if found is not None:
            raise DestinationError(
                f"{self.folder} holds {found} but no {MANIFEST}: restore the manifest, or move the files elsewhere"
            )

    def _new_file(self, window: Window) -> Replacement:
        name = self.name(window)
        self._make_day(name)
        return Replacement(self._disk, self.folder, name)

    def _make_day(self, name: str) -> None:
        place = (self.folder / name).parent
        if place != self.folder and not place.is_dir():
            self._disk.make_folder(place)
            self._disk.sync_folder(self.folder)

    @property
    def in_use(self) -> bool:
        """Whether a run is writing here, this one or another."""
        return is_locked(self.folder / _LOCK)

    def intact(self, written: Written) -> bool:
        if written.file is None or not self.holds(written):
            return False
        with self._translated(), (self.folder / written.file).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256

    def keys(self, written: Written) -> Iterator[Key]:
        return iter(()) if written.file is None else self._file_keys(self.folder / written.file)

    def _file_keys(self, path: Path) -> Iterator[Key]:
        """ValueError where the file is not what its name says."""
        with self._translated(), path.open("rb") as file:
            yield from self._format.keys_in(file, self._compress)

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        with self._translated():
            file = Replacement(self._disk, self.folder, MANIFEST)
            try:
                file.write(manifest)
                file.finish()
            except BaseException:
                file.drop()
                raise
            for name in obsolete:
                self._disk.remove(self.folder / name)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        with self._translated():
            for name in self._left_over(self.names(), keep, window):
                self._disk.remove(self.folder / name)

    def size(self, name: str) -> int | None:
        path = self.folder / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError:
            return None

    def close(self) -> None:
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(_advice(error, self.folder)) from error


class Replacement:
    """A file that takes its name when it is whole, or leaves nothing behind. OSError passes through."""

    def __init__(self, disk: Disk, folder: Path, name: str) -> None:
        self.name = name
        self._disk = disk
        self._folder = folder
        self._partial = _partial(folder, name)
        self._file = disk.create(self._partial)
        self._size = self._on_its_way = 0

    def write(self, data: bytes) -> None:
        """Appends all of the data."""
        self._disk.write(self._file, data)
        self._size += len(data)
        if (more := self._size - self._on_its_way) >= _WRITE_BACK:
            self._disk.write_back(self._file, self._on_its_way, more)
            self._on_its_way = self._size

    def finish(self) -> None:
        """Gives it its name, in a way that survives a loss of power."""
        with self._file:
            self._disk.sync(self._file)
        _give_name(self._disk, self._folder, self.name)

    def drop(self) -> None:
        """Deletes what there is of it."""
        self._file.close()
        self._disk.remove(self._partial)


def _partial(folder: Path, name: str) -> Path:
    """Where a file is while it is written."""
    return folder / f".{Path(name).name}{_PARTIAL}"


def _give_name(disk: Disk, folder: Path, name: str) -> None:
    """Gives a file its name when all of it is on the disk, in a way that survives a loss of power."""
    target = folder / name
    disk.replace(_partial(folder, name), target)
    disk.sync_folder(target.parent)


def _advice(error: OSError, folder: Path) -> str:
    place = error.filename or folder
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"no space left for {folder}: free some and run again; what is committed stays"
        case errno.EACCES | errno.EPERM:
            return f"no permission for {place}: give it, or choose another folder"
        case errno.EROFS:
            return f"{place} cannot be written, as its file system is read-only: choose another folder"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{place} is not a folder: choose another one"
    return (
        f"cannot write {place}: {error.strerror or error}; mend that, or choose another folder, and run again; what is "
        "committed stays"
    )


class JsonlSink(FolderSink[bytes]):
    """JSON Lines files in a folder. `compress` is "none", "gzip" or "zstd", `partition` "none" or "day"."""

    def __init__(
        self, folder: str | Path, compress: str = "none", *, partition: str = "none", disk: Disk | None = None
    ) -> None:
        super().__init__(folder, JsonLines(), compress, partition=partition, disk=disk)


class CsvSink(FolderSink[bytes]):
    """CSV files in a folder. `safe` keeps spreadsheets from running a text as a formula."""

    def __init__(
        self,
        folder: str | Path,
        compress: str = "none",
        *,
        safe: bool = False,
        partition: str = "none",
        disk: Disk | None = None,
    ) -> None:
        super().__init__(folder, Csv(safe=safe), compress, partition=partition, disk=disk)
