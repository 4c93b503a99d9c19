"""Helpers for tests of sinks and of the commit log: windows that were read, disks that fail, a sink in memory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, BinaryIO

from segment_fetch import Filters, Segment, Window
from segment_fetch.events import Status
from segment_fetch.query import Query
from segment_fetch.sinks import Sink, Written
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.windows.reader import WindowRead

EPOCH = 1_793_491_200_000  # 2026-11-01T00:00:00Z
HOUR_MS = 3_600_000
_TOKEN = r"\.[0-9a-f]{12}(?=\.partial$)"
QUERY = Query("111111", "tests", Filters(skill_id="7"))


def hours(start: float, end: float) -> Window:
    """The window between two full hours of the first of November 2026, and on."""
    return Window(EPOCH + int(start * HOUR_MS), EPOCH + int(end * HOUR_MS))


def window_read(
    window: Window, parts: Iterable[Any] = (), status: Status = "complete", **values: Any
) -> WindowRead[Any]:
    """A window at the end of its reading. The parts are taken as they are, also those that come one by one."""
    proven = status != "unproven"
    held: Any = parts if proven else []
    defaults: dict[str, Any] = {
        "count": 1,
        "segments": 1 if proven else 0,
        "duplicates": 0,
        "pages": 1,
        "requests": 2,
        "read_at": EPOCH,
        "unknown_fields": (),
        "reason": None if proven else "it changed",
    }
    return WindowRead(window=window, status=status, parts=held, **(defaults | values))


class MemorySink(Sink[str]):
    """A sink in memory. `files` and `manifest` outlive a run; `log` is what was done."""

    def __init__(self, *, appends: bool = False) -> None:
        self.appends = appends
        self.records: list[bytes] = []
        self.files: dict[str, str] = {}
        self.manifest: bytes | None = None
        self.log: list[str] = []

    def settings(self) -> dict[str, str]:
        return {"format": "memory"}

    def open(self) -> bytes | None:
        return self.manifest

    def encode(self, segments: Sequence[Segment]) -> str:
        return ",".join(segment.segmentId for segment in segments)

    def name(self, window: Window) -> str:
        return f"{window.start}-{window.end}"

    def write(self, window: Window, parts: Iterable[str]) -> Written:
        self.log.append(f"write {self.name(window)}")
        self.files[self.name(window)] = text = "".join(parts)
        return Written(self.name(window), len(text), "")

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        self.log.append("publish")
        self.manifest = manifest
        self.records.clear()
        self._remove(obsolete)

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        self.log.append("append")
        self.records.append(record)
        self._remove(obsolete)

    def appended(self) -> Sequence[bytes]:
        return self.records

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.files.pop(name, None)

    def holds(self, written: Written) -> bool:
        return written.file is not None and len(self.files.get(written.file, "")) == written.bytes

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        for name in set(self.files) - keep:
            start, end = map(int, name.split("-"))
            if start < window.end and end > window.start:
                del self.files[name]

    def close(self) -> None:
        """Nothing is held."""


class LoggedDisk(Disk):
    """A disk that notes each call, and does not wait for the medium. `before` is called first, and may raise."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def before(self, call: str) -> None:
        self.calls.append(call)

    def make_folder(self, folder: Path) -> None:
        self.before("make_folder")
        super().make_folder(folder)

    def create(self, path: Path) -> BinaryIO:
        self.before(f"create {re.sub(_TOKEN, '', path.name)}")
        return super().create(path)

    def write(self, file: BinaryIO, data: bytes) -> None:
        self.before("write")
        super().write(file, data)

    def write_back(self, file: BinaryIO, start: int, length: int) -> None:
        self.before(f"write_back {length} from {start}")

    def sync(self, file: BinaryIO) -> None:
        self.before("sync")

    def replace(self, source: Path, target: Path) -> None:
        self.before(f"replace {target.name}")
        super().replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        self.before("sync_folder")

    def remove(self, path: Path) -> None:
        self.before(f"remove {re.sub(_TOKEN, '', path.name)}")
        super().remove(path)


class FailingDisk(LoggedDisk):
    """A disk whose call number `at` (from 0) fails with an error number."""

    def __init__(self, at: int, error: int) -> None:
        super().__init__()
        self._at = at
        self._error = error
        self.failed = False

    def before(self, call: str) -> None:
        super().before(call)
        if len(self.calls) == self._at + 1:
            self.failed = True
            raise OSError(self._error, os.strerror(self._error))


class DeathError(BaseException):
    """The process is killed."""


class DyingDisk(LoggedDisk):
    """A disk that does nothing any more from call number `at` on, as the process that calls it is dead."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    @property
    def failed(self) -> bool:
        return len(self.calls) > self._at

    def before(self, call: str) -> None:
        super().before(call)
        if self.failed:
            raise DeathError(call)
