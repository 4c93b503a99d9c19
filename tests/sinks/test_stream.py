"""An open stream as a destination: one document, whole windows, and streams that misbehave."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import pytest

from segment_fetch import DestinationError, InputError, Segment
from segment_fetch.sinks import Csv, JsonLines, StreamSink
from segment_fetch.sinks.stream import StreamClosedError
from tests.support_runs import unpacked
from tests.support_sinks import hours

HEADER = b"segmentId,startTimeL,endTimeL,conversationId,agentId,employeeId,skillId,groupId,endReason,"


def lines(*names: str) -> list[bytes]:
    return [JsonLines().encode([Segment(segmentId=name, endTimeL=1)]) for name in names]


def written(sink: StreamSink, *windows: Sequence[bytes]) -> None:
    """A run that writes these windows."""
    assert sink.open() is None
    for number, parts in enumerate(windows):
        done = sink.write(hours(number, number + 1), parts)
        assert (done.file, done.bytes, done.sha256) == (None, None, None)
        sink.publish(b"{}", ["a file"])
    sink.close()


class Stream(io.RawIOBase):
    """A stream that takes `most` bytes at a time, None for all, and fails with `error` from `room` bytes on."""

    def __init__(self, *, most: int | None = None, room: int | None = None, error: OSError | None = None) -> None:
        self.taken = b""
        self._most = most
        self._room = room
        self._error = error

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        if self._room is not None and len(self.taken) >= self._room:
            if self._error is None:
                return None
            raise self._error
        piece = bytes(data[: self._most])
        self.taken += piece
        return len(piece)


def test_streams_want_windows_in_order() -> None:
    assert StreamSink(io.BytesIO()).ordered


@pytest.mark.parametrize(("compress", "suffix"), [("none", ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_windows_make_one_document(compress: str, suffix: str) -> None:
    stream = io.BytesIO()
    written(StreamSink(stream, JsonLines(), compress), lines("a", "b"), [], lines("c"))
    assert unpacked(suffix, stream.getvalue()) == b"".join(lines("a", "b", "c"))


@pytest.mark.parametrize("windows", [[], [[]], [lines("a"), lines("b")]], ids=["none", "empty", "two"])
@pytest.mark.parametrize(("compress", "suffix"), [("none", ""), ("gzip", ".gz")])
def test_header_comes_once(compress: str, suffix: str, windows: list[list[bytes]]) -> None:
    stream = io.BytesIO()
    written(StreamSink(stream, Csv(), compress), *windows)
    text = unpacked(suffix, stream.getvalue())
    assert text.startswith(HEADER)
    assert text.count(HEADER) == 1


@pytest.mark.parametrize(("compress", "suffix"), [("none", ""), ("gzip", ".gz")])
def test_stream_may_take_a_second_run(compress: str, suffix: str) -> None:
    stream = io.BytesIO()
    sink = StreamSink(stream, JsonLines(), compress)
    written(sink, lines("a"))
    written(sink, lines("b"))
    assert unpacked(suffix, stream.getvalue()) == b"".join(lines("a", "b"))


def test_each_window_is_flushed() -> None:
    raw = Stream()
    sink = StreamSink(io.BufferedWriter(raw, 1 << 20))
    sink.open()
    sink.write(hours(0, 1), lines("a"))
    assert raw.taken == b"".join(lines("a"))
    sink.close()


def test_settings_name_the_form() -> None:
    sink = StreamSink(io.BytesIO(), Csv(safe=True), "gzip")
    assert sink.settings() == {"format": "csv", "csv_safe": "true", "compress": "gzip"}


def test_unknown_compression_is_refused() -> None:
    with pytest.raises(InputError, match="'lz4'"):
        StreamSink(io.BytesIO(), compress="lz4")


@pytest.mark.parametrize("most", [1, 7])
def test_stream_that_takes_a_part_gets_the_rest(most: int) -> None:
    stream = Stream(most=most)
    written(StreamSink(cast(BinaryIO, stream)), lines("a", "b"), lines("c"))
    assert stream.taken == b"".join(lines("a", "b", "c"))


FAULTS: dict[str, tuple[Stream, str]] = {
    "full": (
        Stream(room=10, error=OSError(errno.ENOSPC, "No space left")),
        "cannot write to the output: No space left",
    ),
    "reader gone": (Stream(room=10, error=BrokenPipeError(errno.EPIPE, "Broken pipe")), "closed it before the end"),
    "does not wait": (Stream(room=10), "it is in non-blocking mode"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_failing_stream_is_a_destination_error(case: str) -> None:
    stream, says = FAULTS[case]
    sink = StreamSink(cast(BinaryIO, stream))
    sink.open()
    sink.write(hours(0, 1), lines("a long text"))
    with pytest.raises(DestinationError, match=says) as caught:
        sink.write(hours(1, 2), lines("a long text"))
    assert isinstance(caught.value, StreamClosedError) == (case == "reader gone")
    taken = stream.taken
    sink.close()
    assert stream.taken == taken, "nothing more is tried"


def test_closed_stream_is_a_destination_error() -> None:
    stream = io.BytesIO()
    sink = StreamSink(stream)
    stream.close()
    sink.open()
    with pytest.raises(DestinationError, match=r"cannot write to the output: .*closed file"):
        sink.write(hours(0, 1), lines("a"))
    sink.close()


def test_real_pipe_without_a_reader() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as output:
        sink = StreamSink(cast(BinaryIO, output))
        sink.open()
        with pytest.raises(StreamClosedError):
            sink.write(hours(0, 1), lines("a"))
        sink.close()
