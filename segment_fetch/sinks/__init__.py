"""Destinations: `open_sink` returns the one that a URL names; `Sink` is the interface to write another one.

Called by the client and by users, who choose a destination; `manifest` commits windows into it. Calls `wire` and the
medium alone, and knows neither the manifest's contents nor the API.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from segment_fetch.sinks.base import Draft, Finding, Sink, Written
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.folder import CsvSink, FolderSink, JsonlSink
from segment_fetch.sinks.files.formats import Csv, FileFormat, Format, JsonLines
from segment_fetch.sinks.objects.sink import ObjectSink
from segment_fetch.sinks.objects.stores import Place
from segment_fetch.sinks.registry import open_sink
from segment_fetch.sinks.stream import StreamSink

if TYPE_CHECKING:
    from segment_fetch.sinks.files.parquet import Parquet, ParquetSink
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

_WITH_EXTRAS = {
    "Database": "tables.database",
    "DuckDbSink": "tables.duckdb",
    "Parquet": "files.parquet",
    "ParquetSink": "files.parquet",
    "PostgresSink": "tables.postgres",
}


def __getattr__(name: str) -> object:
    """Import a sink that needs an extra when it is first asked for; MissingExtraError where that is not installed."""
    if name not in _WITH_EXTRAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WITH_EXTRAS[name]}"), name)
