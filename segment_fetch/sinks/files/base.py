"""Destinations that consist of files, in a folder or an object store: the names, and a file while it is written."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager

from segment_fetch.errors import DestinationError, InputError, check_type
from segment_fetch.query import Window
from segment_fetch.sinks.base import AGAIN, Draft, Finding, Sink, Written, encoded_lines, write_all
from segment_fetch.sinks.files.file_names import DAY, day, is_leftover, is_name, is_segments, stem, window_in
from segment_fetch.sinks.files.formats import FileFormat, Packer
from segment_fetch.wire.models import Part, Segment


class FileDraft(Draft[Part]):
    """A file that appears under its name once complete, or leaves nothing behind.

    Packs the parts, and hashes and counts the stored bytes; subclasses store them.
    """

    def __init__(self, name: str, packer: Packer[Part], translated: Callable[[], AbstractContextManager[None]]) -> None:
        """Store the arguments. `translated` turns the medium's errors into DestinationErrors."""
        self.name = name
        self.size = 0
        self._packer = packer
        self._translated = translated
        self._sha = hashlib.sha256()

    def add(self, part: Part) -> None:
        with self._translated():
            self._put(self._packer.compress(part))

    def _put(self, data: bytes) -> None:
        if data:
            self._store(data)
            self._sha.update(data)  # now, while it is in the processor's cache
            self.size += len(data)

    def finish(self) -> Written:
        with self._translated():
            self._put(self._packer.flush())
            self._give_name()
        return Written(file=self.name, bytes=self.size, sha256=self._sha.hexdigest())

    def drop(self) -> None:
        with self._translated():
            self._discard()

    @abstractmethod
    def _store(self, data: bytes) -> None:
        """Append all of the data. Errors of the medium pass through, as in the next two methods."""

    @abstractmethod
    def _give_name(self) -> None:
        """Move the file to its name, so that it survives a loss of power."""

    @abstractmethod
    def _discard(self) -> None:
        """Delete the unfinished file."""


class FileSink(Sink[Part]):
    """One file per window, all of one format; defines the files' names.

    `partition="day"` puts them into a folder per UTC day, in Hive style: `date=2026-11-01/`.
    """

    appends = True
    mend = "delete the file"

    def __init__(self, form: FileFormat[Part], compress: str, partition: str) -> None:
        check_type("form", form, FileFormat, "a format of files: JsonLines(), Csv() or Parquet()")
        check_type("compress", compress, str, "text")
        check_type("partition", partition, str, "text")
        self.utc_days = _daily(partition)
        self._format = form
        self._compress = form.check(compress)
        self._suffix = form.suffix(self._compress)

    def settings(self) -> dict[str, str]:
        daily = {"partition": "day"} if self.utc_days else {}
        return {**self._format.settings(), "compress": self._compress, **daily}

    def migrates(self, name: str, stored: object) -> bool:
        return self._format.migrates(name, stored)

    def name(self, window: Window) -> str:
        """Return the name of a window's file, relative to the destination."""
        return f"{self._day(window)}{stem(window)}.{self._suffix}"

    def _day(self, window: Window) -> str:
        return f"{DAY}{day(window.start)}/" if self.utc_days else ""

    def may_be_called(self, window: Window, file: str | None) -> bool:
        folder = self._day(window)
        if file is None or not file.startswith(folder):
            return False
        return is_name(file[len(folder) :], window, self._suffix)

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the existing files, in the form used in the manifest."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return a file's length in bytes, None if it does not exist."""

    def holds(self, written: Written) -> bool:
        return written.file is not None and self.size(written.file) == written.bytes

    def fault(self, window: Window, segments: int, written: Written) -> Finding | None:
        name = str(written.file)
        size = self.size(name)
        if size is None:
            return Finding("missing file", name, f"it does not exist; {AGAIN}")
        if written.sha256 is None or written.bytes is None:
            advice = "its size or checksum is missing in the manifest: restore that from a copy"
            return Finding("bad manifest", name, advice)
        if size != written.bytes:
            return Finding("wrong size", name, f"it has {size} bytes but should have {written.bytes}; {AGAIN}")
        if not self.intact(written):
            told = f"its size is right but its contents have changed; {self.mend}, and {AGAIN}"
            return Finding("changed", name, told)
        return None

    def strangers(self, known: AbstractSet[str]) -> Iterator[Finding]:
        for name in self.names():
            if is_leftover(name):
                yield Finding("left over", name, "left by an interrupted run; the next run removes it")
            elif is_segments(name) and name not in known:
                told = "the manifest does not name it, but a reader of the folder would count it: move or delete it"
                yield Finding("extra file", name, told)

    def encode(self, segments: Sequence[Segment]) -> Part:
        return self._format.encode(segments)

    def encode_lines(self, lines: bytes) -> Part:
        return encoded_lines(self._format, lines)

    def write(self, window: Window, parts: Iterable[Part]) -> Written:
        return write_all(self.begin(window), parts)

    def begin(self, window: Window) -> Draft[Part]:
        if self.utc_days and day(window.start) != day(window.end - 1):
            raise DestinationError(
                f"{window} spans more than one day: with a folder per day, no window may extend past midnight"
            )
        with self._translated():
            draft = self._new_file(window, self._format.packer(self._compress))
        if self._format.header is not None:
            try:
                draft.add(self._format.header)
            except BaseException:
                draft.drop()
                raise
        return draft

    @abstractmethod
    def _new_file(self, window: Window, packer: Packer[Part]) -> FileDraft[Part]:
        """Return a draft for the file of a window."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Return a context that turns the medium's errors into DestinationErrors."""

    def _left_over(self, names: Iterable[str], keep: AbstractSet[str], window: Window) -> list[str]:
        """Return the names of this sink's files for windows that overlap this one, except those to keep."""
        found = ((name, window_in(name)) for name in sorted(names) if name not in keep)
        own = ((name, named) for name, named in found if named and self.may_be_called(named, name))
        return [name for name, named in own if named.start < window.end and named.end > window.start]


def _daily(partition: str) -> bool:
    if partition not in ("none", "day"):
        raise InputError(f"partition {partition!r} is unknown: choose none or day")
    return partition == "day"
