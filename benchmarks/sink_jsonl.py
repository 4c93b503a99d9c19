"""JSON Lines in a folder, beside msgspec's encoder and a file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.sinks import Contest, Pages
from segment_fetch.sinks import JsonlSink


def plain(folder: Path, rows: Pages) -> None:
    """A page after the other, encoded and written."""
    encoder = msgspec.json.Encoder()
    with (folder / "segments.jsonl").open("wb") as file:
        for page in rows:
            file.write(encoder.encode_lines(page))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def contest() -> Iterator[Contest]:
    """Needs nothing."""
    yield Contest(JsonlSink, plain)
