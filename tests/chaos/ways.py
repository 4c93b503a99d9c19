"""The two ways on which segments leave the library: in memory, and through files that are written while they come."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from segment_fetch import IncompleteError, SegmentClient
from segment_fetch.manifest.format import parse_manifest
from segment_fetch.sinks import JsonlSink
from segment_fetch.sinks.files.file_names import MANIFEST

Row = tuple[int, str]
"""Close time and segmentId."""


async def read(client: SegmentClient, start: int, end: int, *, stored: bool) -> tuple[list[Row], bool]:
    """The rows of a range as they come out, and whether all of it was proven."""
    return await (_stored(client, start, end) if stored else _streamed(client, start, end))


async def _streamed(client: SegmentClient, start: int, end: int) -> tuple[list[Row], bool]:
    rows: list[Row] = []
    try:
        async for batch in client.stream(start, end):
            rows += [(row.endTimeL, row.segmentId) for row in batch]
    except IncompleteError:
        return rows, False
    return rows, True


async def _stored(client: SegmentClient, start: int, end: int) -> tuple[list[Row], bool]:
    with tempfile.TemporaryDirectory() as folder:
        report = await client.extract(start, end, JsonlSink(folder))
        return _read_back(Path(folder)), report.complete


def _read_back(folder: Path) -> list[Row]:
    files = [entry.file for entry in parse_manifest((folder / MANIFEST).read_bytes()).windows if entry.file]
    left = {path.name for path in folder.iterdir()} - {*files, MANIFEST, ".lock"}
    assert not left, left
    decoded = [json.loads(line) for file in files for line in (folder / file).read_bytes().splitlines()]
    return [(row["endTimeL"], row["segmentId"]) for row in decoded]
