"""Object stores, over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pytest

from segment_fetch import Segment
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks import JsonLines, ObjectSink, Sink
from segment_fetch.sinks.files.file_names import MANIFESTS
from segment_fetch.sinks.files.parquet import Parquet
from segment_fetch.testing import Medium, Record, SinkConformance, as_columns, as_json
from tests.conformance.test_parquet import ParquetFolder, rows_of
from tests.support_objects import Answer, Asked, Bucket
from tests.support_runs import unpacked


class Objects(Medium):
    def __init__(self, bucket: Bucket, compress: str) -> None:
        self.bucket = bucket
        self.compress = compress

    def sink(self) -> Sink[Any]:
        return ObjectSink(self.bucket.url, JsonLines(), self.compress, store=self.bucket.store())

    def broken(self) -> Sink[Any]:
        self.bucket.proxy.fault = self.fault
        return self.sink()

    def fault(self, asked: Asked) -> Answer | None:
        is_window = asked.method == "PUT" and asked.name.startswith("segments-")
        return Answer(503, "SlowDown") if is_window else None

    def harm(self, entry: WindowEntry) -> None:
        stored = bytearray(self.bucket.read(str(entry.file)))
        stored[len(stored) // 2] ^= 1
        self.bucket.put(str(entry.file), bytes(stored))

    def litter(self) -> list[str]:
        stored = self.bucket.contents()
        manifest = next(stored[name] for name in MANIFESTS if name in stored)
        named = {entry.get("file") for entry in json.loads(manifest)["windows"]}
        return [name for name in stored if name not in named and name not in MANIFESTS]

    def bytes(self, entry: WindowEntry) -> bytes:
        stored = self.bucket.read(str(entry.file))
        assert len(stored) == entry.bytes
        return unpacked(str(entry.file), stored)

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [json.loads(line) for entry in entries for line in self.bytes(entry).split(b"\n") if line]

    def record(self, segment: Segment) -> Record:
        return as_json(segment)


class ParquetDays(Objects):
    refuses = ParquetFolder.refuses

    def sink(self) -> Sink[Any]:
        store = self.bucket.store()
        return ObjectSink(self.bucket.url, Parquet(), self.compress, partition="day", store=store)

    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        return [row for entry in entries for row in rows_of(io.BytesIO(self.bucket.read(str(entry.file))))]

    def record(self, segment: Segment) -> Record:
        return as_columns(segment)


@pytest.mark.parametrize(("stored", "compress"), [(Objects, "gzip"), (ParquetDays, "zstd")])
class TestObjects(SinkConformance):
    @pytest.fixture
    def medium(self, bucket: Bucket, stored: type[Objects], compress: str) -> Medium:
        return stored(bucket, compress)
