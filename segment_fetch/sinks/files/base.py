"""What all destinations made of files have in common, wherever the files are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager

from segment_fetch.errors import DestinationError, InputError
from segment_fetch.query import Window
from segment_fetch.sinks.base import Draft, Sink, Written
from segment_fetch.sinks.encoding import encoded_lines
from segment_fetch.sinks.files.drafts import FileDraft, NewFile, write_all
from segment_fetch.sinks.files.formats import FileFormat
from segment_fetch.sinks.files.names import DAY, day, is_name, stem, window_in
from segment_fetch.wire.models import Part, Segment


class FileSink(Sink[Part]):
    """One file a window, of one format, and what the files are called.

    `partition="day"` puts them into a folder a day, as Hive does: `date=2026-11-01/`, days of UTC.
    """

    def __init__(self, form: FileFormat[Part], compress: str, partition: str) -> None:
        self.utc_days = _daily(partition)
        self._format = form
        self._compress = form.check(compress)
        self._suffix = form.suffix(self._compress)

    def settings(self) -> dict[str, str]:
        daily = {"partition": "day"} if self.utc_days else {}
        return {**self._format.settings(), "compress": self._compress, **daily}

    def name(self, window: Window) -> str:
        """The file's name for a window, from the folder on."""
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
        """The files that are there, named as the manifest does."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """A file's length in bytes, None where it is not there."""

    def holds(self, written: Written) -> bool:
        return written.file is not None and self.size(written.file) == written.bytes

    def encode(self, segments: Sequence[Segment]) -> Part:
        return self._format.encode(segments)

    def encode_lines(self, lines: bytes) -> Part:
        return encoded_lines(self._format, lines)

    def write(self, window: Window, parts: Iterable[Part]) -> Written:
        return write_all(self.begin(window), parts)

    def begin(self, window: Window) -> Draft[Part]:
        if self.utc_days and day(window.start) != day(window.end - 1):
            raise DestinationError(
                f"{window} is of more than one day: with a folder a day, no window reaches over midnight"
            )
        with self._translated():
            file = self._new_file(window)
        return FileDraft(file, self._format.packer(self._compress), self._format.header, self._translated)

    @abstractmethod
    def _new_file(self, window: Window) -> NewFile:
        """The file for a window, to be written."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Turns the medium's errors into DestinationErrors."""

    def _left_over(self, names: Iterable[str], keep: AbstractSet[str], window: Window) -> list[str]:
        """Those of the names that are of this sink's files, of windows that overlap this one, and not to be kept."""
        found = ((name, window_in(name)) for name in sorted(names) if name not in keep)
        own = ((name, named) for name, named in found if named and self.may_be_called(named, name))
        return [name for name, named in own if named.start < window.end and named.end > window.start]


def _daily(partition: str) -> bool:
    if partition not in ("none", "day"):
        raise InputError(f"partition {partition!r}: is none of none, day")
    return partition == "day"
