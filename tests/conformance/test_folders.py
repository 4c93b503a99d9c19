"""Folder sinks, in every format and compression."""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from segment_fetch import Segment
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import CsvSink, JsonlSink, Sink
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.file_names import MANIFESTS
from segment_fetch.testing import Medium, Record, SinkConformance, as_json
from segment_fetch.wire.models import SEGMENT_FIELDS
from tests.support_runs import manifest, names, unpacked
from tests.support_sinks import LoggedDisk

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class FullDisk(LoggedDisk):
    """A disk that is found to be full once something has been written."""

    def before(self, call: str) -> None:
        if call == "sync" and self.calls[-1:] == ["write"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().before(call)


class Folder(Medium):
    def __init__(self, folder: Path, compress: str) -> None:
        self.folder = folder
        self.compress = compress

    def broken(self) -> Sink[Any]:
        return self.on(FullDisk())

    def sink(self) -> Sink[Any]:
        return self.on(Disk())

    def on(self, disk: Disk) -> Sink[Any]:
        return JsonlSink(self.folder, self.compress, disk=disk)

    def harm(self, entry: WindowEntry) -> None:
        path = self.folder / str(entry.file)
        stored = bytearray(path.read_bytes())
        stored[len(stored) // 2] ^= 1
        path.write_bytes(stored)

    def litter(self) -> list[str]:
        named = {entry.get("file") for entry in manifest(self.folder)["windows"]}
        return [name for name in names(self.folder) if name not in named and name not in MANIFESTS]

    def bytes(self, entry: WindowEntry) -> bytes:
        assert entry.file is not None
        stored = (self.folder / entry.file).read_bytes()
        assert len(stored) == entry.bytes
        return unpacked(entry.file, stored)

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [json.loads(line) for entry in entries for line in self.bytes(entry).split(b"\n") if line]

    def record(self, segment: Segment) -> Record:
        return as_json(segment)


class CsvFolder(Folder):
    safe = False

    def on(self, disk: Disk) -> Sink[Any]:
        return CsvSink(self.folder, self.compress, safe=self.safe, disk=disk)

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        texts = [io.StringIO(self.bytes(entry).decode(), newline="") for entry in entries]
        return [row for text in texts for row in csv.DictReader(text, strict=True)]

    def record(self, segment: Segment) -> Record:
        return {name: self.cell(getattr(segment, name)) for name in SEGMENT_FIELDS}

    def cell(self, value: object) -> str:
        return "" if value is None or value is UNSET else str(value)


class SafeCsvFolder(CsvFolder):
    safe = True

    def cell(self, value: object) -> str:
        text = super().cell(value)
        return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA_STARTS) else text


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
class TestFolders(SinkConformance):
    @pytest.fixture(params=[Folder, CsvFolder, SafeCsvFolder])
    def medium(self, request: pytest.FixtureRequest, tmp_path: Path, compress: str) -> Medium:
        made: Medium = request.param(tmp_path / "out", compress)
        return made
