"""Segments for benchmarks without a server, decoded as from pages of the API."""

from collections.abc import Iterator

import msgspec

from segment_fetch.query import Window
from segment_fetch.simulator import Dataset
from segment_fetch.wire.models import Segment

PAGE = 500
_DAY_MS = 86_400_000
_START = 1_793_491_200_000  # 2026-11-01T00:00:00Z
WINDOW = Window(_START, _START + _DAY_MS)
_decoder = msgspec.json.Decoder(list[Segment])


def bodies(segments: int) -> Iterator[bytes]:
    """Yield pages of one day's segments as JSON, in the order in which they are written."""
    dataset = Dataset(segments=segments, start=WINDOW.start, end=WINDOW.end)
    for first in range(0, segments, PAGE):
        last = min(first + PAGE, segments)
        rows = zip(range(first, last), dataset.close_times(first, last), strict=True)
        yield b"[" + b",".join(dataset.writer.render(rows)) + b"]"


def decoded(body: bytes) -> list[Segment]:
    """Return the segments of a page."""
    return _decoder.decode(body)


def pages(segments: int) -> Iterator[list[Segment]]:
    """Yield the pages of one day's segments, without keeping any."""
    return map(decoded, bodies(segments))
