"""The sink for an open stream, such as standard output: complete windows, oldest first. No state is kept."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from segment_fetch.errors import DestinationError, check_callback, check_type
from segment_fetch.query import Window
from segment_fetch.sinks.base import Sink, Written, encoded_lines
from segment_fetch.sinks.files.compression import check_compression, compressor
from segment_fetch.sinks.files.formats import Format, JsonLines
from segment_fetch.wire.models import Segment


class StreamClosedError(DestinationError):
    """The reader of the stream has closed it."""


class StreamSink(Sink[bytes]):
    """One continuous document on a binary stream, which the caller opens and closes."""

    ordered = True

    def __init__(self, stream: BinaryIO, form: Format | None = None, compress: str = "none") -> None:
        check_callback("stream", getattr(stream, "write", None), "a binary stream that can be written to")
        if form is not None:
            check_type("form", form, Format, "a format, such as JsonLines(), or None")
        check_type("compress", compress, str, "text")
        self._stream = stream
        self._format = form or JsonLines()
        self._compress = check_compression(compress)
        self._begin_document()

    def settings(self) -> dict[str, str]:
        return {**self._format.settings(), "compress": self._compress}

    def open(self) -> bytes | None:
        self._begin_document()
        return None

    def _begin_document(self) -> None:
        self._packer = compressor(self._compress)
        self._begun = False
        self._broken = False

    def encode(self, segments: Sequence[Segment]) -> bytes:
        return self._format.encode(segments)

    def encode_lines(self, lines: bytes) -> bytes:
        return encoded_lines(self._format, lines)

    def write(self, window: Window, parts: Iterable[bytes]) -> Written:
        self._begin()
        for part in parts:
            self._put(self._packer.compress(part))
        self._put(b"", flush=True)
        return Written()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._put(self._packer.compress(self._format.header))

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        """Do nothing: a stream keeps no manifest."""

    def close(self) -> None:
        if not self._broken:
            self._begin()
            self._put(self._packer.flush())
            self._put(b"", flush=True)

    def _put(self, data: bytes, *, flush: bool = False) -> None:
        try:
            self._write(data)
            if flush:
                self._stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream itself is closed
            self._broken = True
            if isinstance(error, BrokenPipeError):
                raise StreamClosedError("the reader of the output closed it before the end") from None
            reason = getattr(error, "strerror", None) or error
            raise DestinationError(f"cannot write to the output: {reason}") from error

    def _write(self, data: bytes) -> None:
        """Write all of the data; an unbuffered stream may take only part of it at a time."""
        view = memoryview(data)
        while view:
            taken: int | None = self._stream.write(view)
            if taken is None:
                raise BlockingIOError(errno.EAGAIN, "it is in non-blocking mode and its reader is too slow")
            view = view[taken:]
