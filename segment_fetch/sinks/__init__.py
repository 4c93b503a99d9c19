"""Destinations. `Sink` is what one must do; the others are those that come with the library."""

from importlib import import_module
from typing import TYPE_CHECKING

from segment_fetch.sinks.base import Draft, Sink, Written
from segment_fetch.sinks.files.folder import CsvSink, FolderSink, JsonlSink
from segment_fetch.sinks.files.formats import Csv, FileFormat, Format, JsonLines
from segment_fetch.sinks.objects.sink import ObjectSink
from segment_fetch.sinks.stream import StreamSink

if TYPE_CHECKING:
    from segment_fetch.sinks.files.parquet import Parquet, ParquetSink

__all__ = [
    "Csv",
    "CsvSink",
    "Draft",
    "FileFormat",
    "FolderSink",
    "Format",
    "JsonLines",
    "JsonlSink",
    "ObjectSink",
    "Parquet",
    "ParquetSink",
    "Sink",
    "StreamSink",
    "Written",
]

_WITH_EXTRAS = {"Parquet": "files.parquet", "ParquetSink": "files.parquet"}


def __getattr__(name: str) -> object:
    """What needs an optional package is imported when it is asked for; MissingExtraError where that is missing."""
    if name not in _WITH_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_EXTRAS[name]}"), name)
