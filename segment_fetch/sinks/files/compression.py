"""Compression of files. The same data gives the same bytes: they contain no time and no name."""

from __future__ import annotations

import gzip
import io
import zlib
from types import ModuleType
from typing import BinaryIO, Literal, Protocol, TypeAlias

from segment_fetch.errors import InputError, MissingExtraError

Compression: TypeAlias = Literal["none", "gzip", "zstd"]

SUFFIXES: dict[str, str] = {"none": "", "gzip": ".gz", "zstd": ".zst"}

_GZIP_LEVEL = 6
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_ZSTD_LEVEL = 3


class Compressor(Protocol):
    """Compresses a file piece by piece."""

    def compress(self, data: bytes, /) -> bytes:
        """Return bytes to write; may be empty until more data arrives."""

    def flush(self) -> bytes:
        """Return the remaining bytes, which end the file."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def check_compression(name: str) -> Compression:
    """Return the name if it is known and its library is installed; else raise InputError or MissingExtraError."""
    match name:
        case "none" | "gzip":
            return name
        case "zstd":
            compressor(name)
            return name
    raise InputError(f"compression {name!r} is unknown: choose one of {', '.join(SUFFIXES)}")


def unpacked(file: BinaryIO, name: Compression) -> BinaryIO:
    """Return a reader of the decompressed contents. Closing it closes the file."""
    if name == "gzip":
        packed = gzip.GzipFile(fileobj=file, mode="rb")
        packed.myfileobj = file  # type: ignore[assignment] # so that it is closed, too
        return packed  # type: ignore[return-value]
    if name == "none":
        return file
    return io.BufferedReader(_zstandard().ZstdDecompressor().stream_reader(file, closefd=True))


def damage(name: Compression) -> tuple[type[Exception], ...]:
    """Return the exceptions raised when damaged data is read."""
    if name == "zstd":
        return (_zstandard().ZstdError,)
    return (EOFError, zlib.error, gzip.BadGzipFile)


def compressor(name: Compression) -> Compressor:
    """Return a compressor for one file."""
    if name == "gzip":
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    if name == "none":
        return _Plain()
    packer: Compressor = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj()
    return packer


def _zstandard() -> ModuleType:
    try:
        import zstandard  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("zstd needs an extra: pip install 'segment-fetch[zstd]'") from None
    return zstandard
