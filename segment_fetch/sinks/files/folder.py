"""A folder: one file a window, complete or absent, and a manifest that says what they are."""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from segment_fetch.errors import DestinationBusyError, DestinationError
from segment_fetch.query import Window
from segment_fetch.regular_files import open_regular, read_regular
from segment_fetch.sinks.base import Key, Written, write_all
from segment_fetch.sinks.files.base import FileDraft, FileSink
from segment_fetch.sinks.files.compression import compressor
from segment_fetch.sinks.files.disk import Disk, is_locked, make_folders, release, take_lock
from segment_fetch.sinks.files.formats import Csv, FileFormat, JsonLines, Packer
from segment_fetch.sinks.files.names import MANIFEST, PATTERN, TOKEN, TOKEN_BYTES, is_segments, stem
from segment_fetch.wire.models import Part

T = TypeVar("T")
_LOCK = ".lock"
_PARTIAL = ".partial"
_ABANDONED_S = 86_400.0  # after which a file that is not committed is taken for left over, where no lock tells
_WRITE_BACK = 4 * 2**20  # bytes that are written before the disk is to begin with them
_OWN = rf"\.(?:{re.escape(MANIFEST)}|{PATTERN}(?:-{TOKEN})?\.[a-z.]+?)"
_OWN_PARTIAL = re.compile(rf"{_OWN}(?:\.{TOKEN})?{re.escape(_PARTIAL)}", re.ASCII)


def is_leftover(name: str) -> bool:
    """Return True if a file is named like one that was being written when its run ended."""
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
        self._known: tuple[int, int, int] | None = None
        self._digest: bytes | None = None
        self._unlocked = False
        """True while the destination is open on a file system that does not lock files."""

    def names(self) -> list[str]:
        days = [path for path in self.folder.glob("date=*") if path.is_dir()]
        found = [*self.folder.iterdir(), *(path for each in days for path in each.iterdir())]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def open(self) -> bytes | None:
        with self._translated():
            make_folders(self._disk, self.folder)
            self._lock = take_lock(self.folder / _LOCK, self.folder)
            self._unlocked = self._lock is None
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
            self._sync_parent()
        return manifest

    def _sync_parent(self) -> None:
        """Make a new destination survive a loss of power, also where an earlier run made it and was killed."""
        with suppress(PermissionError):  # a parent that may not be listed cannot be synced, either
            self._disk.sync_folder(self.folder.absolute().parent)

    def _read_manifest(self) -> bytes | None:
        try:
            found = self._signature()  # first: what is replaced while it is read is then found to have changed
            manifest = read_regular(self.folder / MANIFEST)
        except FileNotFoundError:
            found = manifest = None
        self._known = found
        self._digest = _digest(manifest)
        return manifest

    def _signature(self) -> tuple[int, int, int] | None:
        """Return a mark of the manifest that is there, which another one has not: inode, size and time of change."""
        try:
            found = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _refuse_overtaken(self) -> None:
        """Raise DestinationBusyError if the manifest is not the one that this run knows: the lock does not hold."""
        if self._signature() == self._known:
            return
        known = self._digest
        if _digest(self._read_manifest()) != known:  # else the file system merely changed the mark
            raise DestinationBusyError(
                f"another run has written to {self.folder} since this one began, as its file system does not lock "
                "files: what that one committed stays; wait for it to end, and run again"
            )

    def _remove_partial(self) -> None:
        for path in sorted(self.folder.iterdir()):
            if _OWN_PARTIAL.fullmatch(path.name) and self._is_nobodys(path):
                self._disk.remove(path)

    def _is_nobodys(self, path: Path) -> bool:
        """Return True if a file that no manifest names cannot be another run's, which is to commit it yet.

        The lock says so. Without one the file has to be a day old.
        """
        return not self._unlocked or time.time() - path.stat().st_mtime > _ABANDONED_S

    def _refuse_strangers(self) -> None:
        """Without a manifest nobody knows what a file holds; deleting it could lose what the API no longer has."""
        found = next((name for name in self.names() if is_segments(name)), None)
        if found is not None:
            raise DestinationError(
                f"{self.folder} holds {found} but no {MANIFEST}: restore the manifest, or move the files elsewhere"
            )

    def _new_file(self, window: Window, packer: Packer[Part]) -> FolderDraft[Part]:
        name = self.name(window)
        if self._unlocked:  # two runs may be writing the same window, and must not overwrite each other's file
            name = f"{self._day(window)}{stem(window)}-{secrets.token_hex(TOKEN_BYTES)}.{self._suffix}"
        self._make_day(name)
        return self._draft(name, packer)

    def _draft(self, name: str, packer: Packer[T]) -> FolderDraft[T]:
        return FolderDraft(
            name, packer, self._translated, disk=self._disk, folder=self.folder, check=self._refuse_overtaken
        )

    def _make_day(self, name: str) -> None:
        place = (self.folder / name).parent
        if place != self.folder and not place.is_dir():
            make_folders(self._disk, place)

    @property
    def in_use(self) -> bool:
        """True if a run is writing here, this one or another."""
        return is_locked(self.folder / _LOCK)

    def intact(self, written: Written) -> bool:
        if written.file is None or not self.holds(written):
            return False
        with self._translated(), open_regular(self.folder / written.file) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256

    def keys(self, written: Written) -> Iterator[Key]:
        return iter(()) if written.file is None else self._file_keys(self.folder / written.file)

    def _file_keys(self, path: Path) -> Iterator[Key]:
        """ValueError where the file is not what its name says."""
        with self._translated(), open_regular(path) as file:
            yield from self._format.keys_in(file, self._compress)

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        with self._translated():
            write_all(self._draft(MANIFEST, compressor("none")), [manifest])
            self._known, self._digest = self._signature(), _digest(manifest)
            for name in obsolete:
                self._disk.remove(self.folder / name)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        with self._translated():
            for name in self._left_over(self.names(), keep, window):
                if self._is_nobodys(self.folder / name):
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
        release(self._lock)
        self._lock = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DestinationError(_advice(error, self.folder)) from error


class FolderDraft(FileDraft[Part]):
    """A file beside the others, under a name of its own that begins with a dot, until it is whole."""

    def __init__(
        self,
        name: str,
        packer: Packer[Part],
        translated: Callable[[], AbstractContextManager[None]],
        *,
        disk: Disk,
        folder: Path,
        check: Callable[[], None],
    ) -> None:
        """`check` raises where another run has taken the folder; it is called before anything there is replaced."""
        super().__init__(name, packer, translated)
        self._disk = disk
        self._check = check
        self._target = folder / name
        # A name that nobody can guess: no link waits there, and no second run writes into the same file.
        self._partial = folder / f".{self._target.name}.{secrets.token_hex(TOKEN_BYTES)}{_PARTIAL}"
        self._file = disk.create(self._partial)
        self._on_its_way = 0

    def _store(self, data: bytes) -> None:
        self._disk.write(self._file, data)
        if (more := self.size + len(data) - self._on_its_way) >= _WRITE_BACK:
            self._disk.write_back(self._file, self._on_its_way, more)
            self._on_its_way += more

    def _give_name(self) -> None:
        with self._file:
            self._disk.sync(self._file)
        self._check()
        self._disk.replace(self._partial, self._target)
        self._disk.sync_folder(self._target.parent)

    def _discard(self) -> None:
        self._file.close()
        self._disk.remove(self._partial)


def _digest(manifest: bytes | None) -> bytes | None:
    return None if manifest is None else hashlib.sha256(manifest).digest()


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
