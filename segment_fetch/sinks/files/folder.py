"""The sink for a folder: one file per window, complete or absent, and a manifest that describes them."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from segment_fetch.errors import DestinationError, check_type
from segment_fetch.local.regular_files import open_regular
from segment_fetch.query import Window
from segment_fetch.sinks.base import Key, Written, write_all
from segment_fetch.sinks.files.base import FileDraft, FileSink
from segment_fetch.sinks.files.compression import compressor
from segment_fetch.sinks.files.disk import Disk, is_locked, make_folders, release, take_lock
from segment_fetch.sinks.files.file_names import DAY, PARTIAL, TOKEN_BYTES, day, is_leftover, is_segments, stem
from segment_fetch.sinks.files.folder_manifest import FolderManifest
from segment_fetch.sinks.files.formats import Csv, FileFormat, JsonLines, Packer
from segment_fetch.wire.models import Part

T = TypeVar("T")
_LOCK = ".lock"
_ABANDONED_S = 86_400.0  # seconds after which an uncommitted file counts as left over, if there are no locks
_WRITE_BACK = 4 * 2**20  # bytes written before the disk is asked to start on them


class FolderSink(FileSink[Part]):
    """Files of one format in one folder, which is created if necessary.

    `partition="day"` puts them into a folder per UTC day, in Hive style: `date=2026-11-01/`.
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
        check_type("folder", folder, (str, Path), "the path of a folder")
        if disk is not None:
            check_type("disk", disk, Disk, "a Disk or None")
        self.folder = Path(folder)
        self._disk = disk or Disk()
        self._lock: int | None = None
        self._manifest = FolderManifest(self.folder, self._disk, form.manifest, self._write_whole)
        self._unlocked = False
        """True while the destination is open on a file system that does not lock files."""

    def names(self) -> list[str]:
        return self._listed(None)

    def _listed(self, window: Window | None) -> list[str]:
        """Return the names of all files; given a window, only its days' folders are searched."""
        found = _names(self.folder)
        for each in [name for name in found if name.startswith(DAY) and _overlaps(name, window)]:
            if (self.folder / each).is_dir():
                found += [f"{each}/{name}" for name in _names(self.folder / each)]
        return sorted(found)

    def open(self) -> bytes | None:
        with self._translated():
            make_folders(self._disk, self.folder)
            self._lock = take_lock(self.folder / _LOCK, self.folder)
            self._unlocked = self._lock is None
            self.appends = not self._unlocked  # without a lock two runs could append to the same log
            try:
                return self._opened()
            except BaseException:
                self.close()
                raise

    def _opened(self) -> bytes | None:
        self._remove_partial()
        manifest = self._manifest.read()
        if manifest is None:
            self._refuse_strangers()
            self._sync_parent()
        if not self._unlocked:
            self._manifest.tidy()
        return manifest

    def look(self) -> bytes | None:
        with self._translated():
            if not self.folder.is_dir():
                raise DestinationError(f"there is no folder {self.folder}: name the destination of an extraction")
            return self._manifest.read()

    def appended(self) -> Sequence[bytes]:
        return self._manifest.records

    def _sync_parent(self) -> None:
        """Make a new destination survive a loss of power, even if an earlier run created it and was killed."""
        with suppress(PermissionError):  # a parent that may not be listed cannot be synced, either
            self._disk.sync_folder(self.folder.absolute().parent)

    def _remove_partial(self) -> None:
        for name in sorted(_names(self.folder)):
            if is_leftover(name) and self._is_abandoned(self.folder / name):
                self._disk.remove(self.folder / name)

    def _is_abandoned(self, path: Path) -> bool:
        """Return True if an uncommitted file cannot be one that another run is about to commit.

        The lock guarantees it. Without a lock, the file must be a day old.
        """
        return not self._unlocked or time.time() - path.stat().st_mtime > _ABANDONED_S

    def _refuse_strangers(self) -> None:
        """Raise DestinationError if there are files of windows but no manifest.

        Their contents are unknown, and deleting them could lose data that the API no longer has.
        """
        found = next((name for name in self.names() if is_segments(name)), None)
        if found is not None:
            raise DestinationError(
                f"{self.folder} holds {found} but no {self._manifest.name}: restore the manifest, or move the files "
                "elsewhere"
            )

    def _new_file(self, window: Window, packer: Packer[Part]) -> FolderDraft[Part]:
        name = self.name(window)
        if self._unlocked:  # two runs may write the same window, and must not overwrite each other's file
            name = f"{self._day(window)}{stem(window)}-{secrets.token_hex(TOKEN_BYTES)}.{self._suffix}"
        self._make_day(name)
        return self._draft(name, packer)

    def _draft(self, name: str, packer: Packer[T]) -> FolderDraft[T]:
        return FolderDraft(
            name, packer, self._translated, disk=self._disk, folder=self.folder, check=self._manifest.refuse_overtaken
        )

    def _write_whole(self, name: str, data: bytes) -> None:
        write_all(self._draft(name, compressor("none")), [data])

    def _make_day(self, name: str) -> None:
        place = (self.folder / name).parent
        if place != self.folder and not place.is_dir():
            make_folders(self._disk, place)

    @property
    def place(self) -> Path:
        return self.folder

    @property
    def manifest_name(self) -> str:
        return self._manifest.name

    @property
    def in_use(self) -> bool:
        return is_locked(self.folder / _LOCK)

    def intact(self, written: Written) -> bool:
        if written.file is None or not self.holds(written):
            return False
        with self._translated(), open_regular(self.folder / written.file) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256

    def keys(self, written: Written) -> Iterator[Key]:
        return iter(()) if written.file is None else self._file_keys(self.folder / written.file)

    def _file_keys(self, path: Path) -> Iterator[Key]:
        """Yield the keys in a file. Raises ValueError if it is not of its format."""
        with self._translated(), open_regular(path) as file:
            yield from self._format.keys_in(file, self._compress)

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        with self._translated():
            self._manifest.publish(manifest)
            self._remove(obsolete)

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        with self._translated():
            self._manifest.append(record)
            self._remove(obsolete)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        with self._translated():
            left = self._left_over(self._listed(window), keep, window)
            self._remove(name for name in left if self._is_abandoned(self.folder / name))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._disk.remove(self.folder / name)

    def size(self, name: str) -> int | None:
        path = self.folder / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError:
            return None

    def close(self) -> None:
        self._manifest.close()
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
    """A file in the folder, under a temporary name that begins with a dot until it is complete."""

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
        """Create the file. `check` raises if another run has taken the folder; called before a file is replaced."""
        super().__init__(name, packer, translated)
        self._disk = disk
        self._check = check
        self._target = folder / name
        # An unpredictable name: no link can be planted there, and no other run writes to the same file.
        self._partial = folder / f".{self._target.name}.{secrets.token_hex(TOKEN_BYTES)}{PARTIAL}"
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
        try:
            self._file.close()
        finally:
            self._disk.remove(self._partial)


def _overlaps(day_folder: str, window: Window | None) -> bool:
    """Return True if a day folder can hold files of a window, which is within one day."""
    return window is None or day(window.start) <= day_folder.removeprefix(DAY) <= day(window.end - 1)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as found:  # creating 50,000 path objects takes longer than reading the names
        return [each.name for each in found]


def _advice(error: OSError, folder: Path) -> str:
    place = error.filename or folder
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"no space left for {folder}: free some and run again; what is committed stays"
        case errno.EACCES | errno.EPERM:
            return f"no permission to write {place}: grant it, or choose another folder"
        case errno.EROFS:
            return f"{place} cannot be written, as its file system is read-only: choose another folder"
        case errno.ENOTDIR | errno.EEXIST:
            return f"{place} is not a folder: choose another one"
    return (
        f"cannot write {place}: {error.strerror or error}; fix that, or choose another folder, and run again; what is "
        "committed stays"
    )


class JsonlSink(FolderSink[bytes]):
    """JSON Lines files in a folder. `compress` is "none", "gzip" or "zstd", `partition` "none" or "day"."""

    def __init__(
        self, folder: str | Path, compress: str = "none", *, partition: str = "none", disk: Disk | None = None
    ) -> None:
        super().__init__(folder, JsonLines(), compress, partition=partition, disk=disk)


class CsvSink(FolderSink[bytes]):
    """CSV files in a folder. `safe` keeps spreadsheets from evaluating text as a formula.

    `excel`, a country such as "de", and `local_times`, an IANA name, are as in `Csv`.
    """

    def __init__(
        self,
        folder: str | Path,
        compress: str = "none",
        *,
        safe: bool = False,
        excel: str | None = None,
        local_times: str | None = None,
        partition: str = "none",
        disk: Disk | None = None,
    ) -> None:
        form = Csv(safe=safe, excel=excel, local_times=local_times)
        super().__init__(folder, form, compress, partition=partition, disk=disk)
