"""Destinations: `open_sink` returns the sink for a URL; `Sink` is the interface for writing another one.

Called by the client and by users, who choose a destination; `manifest` commits windows into it. Calls only `wire` and
the storage medium, and knows neither the manifest's contents nor the API.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fetch.sinks.base import Draft, Finding, Sink, Written
    from segment_fetch.sinks.files.disk import Disk
    from segment_fetch.sinks.files.folder import CsvSink, FolderSink, JsonlSink
    from segment_fetch.sinks.files.formats import Csv, FileFormat, Format, JsonLines
    from segment_fetch.sinks.files.parquet import Parquet, ParquetSink
    from segment_fetch.sinks.objects.sink import ObjectSink
    from segment_fetch.sinks.objects.stores import Place
    from segment_fetch.sinks.registry import open_sink
    from segment_fetch.sinks.stream import StreamSink
    from segment_fetch.sinks.tables.database import Database
    from segment_fetch.sinks.tables.duckdb import DuckDbSink
    from segment_fetch.sinks.tables.postgres import PostgresSink

__all__ = [
    "Csv",
    "CsvSink",
    "Database",
    "Disk",
    "Draft",
    "DuckDbSink",
    "FileFormat",
    "Finding",
    "FolderSink",
    "Format",
    "JsonLines",
    "JsonlSink",
    "ObjectSink",
    "Parquet",
    "ParquetSink",
    "Place",
    "PostgresSink",
    "Sink",
    "StreamSink",
    "Written",
    "open_sink",
]

FORMATS = ("jsonl", "csv", "parquet")
"""The names of the file formats, for the command line: importing those of the registry takes longer."""

_MODULES = {
    "Csv": "files.formats",
    "CsvSink": "files.folder",
    "Database": "tables.database",
    "Disk": "files.disk",
    "Draft": "base",
    "DuckDbSink": "tables.duckdb",
    "FileFormat": "files.formats",
    "Finding": "base",
    "FolderSink": "files.folder",
    "Format": "files.formats",
    "JsonLines": "files.formats",
    "JsonlSink": "files.folder",
    "ObjectSink": "objects.sink",
    "Parquet": "files.parquet",
    "ParquetSink": "files.parquet",
    "Place": "objects.stores",
    "PostgresSink": "tables.postgres",
    "Sink": "base",
    "StreamSink": "stream",
    "Written": "base",
    "open_sink": "registry",
}


def __getattr__(name: str) -> object:
    """Import a name on first access: most programs use one sink. Raises MissingExtraError without its extra."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
