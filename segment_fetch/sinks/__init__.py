"""Destinations. `Sink` is what one must do; the others are those that come with the library."""

from segment_fetch.sinks.base import Sink, Written
from segment_fetch.sinks.files import CsvSink, FolderSink, JsonlSink
from segment_fetch.sinks.formats import Csv, Format, JsonLines
from segment_fetch.sinks.objects import ObjectSink
from segment_fetch.sinks.stream import StreamSink

__all__ = [
    "Csv",
    "CsvSink",
    "FolderSink",
    "Format",
    "JsonLines",
    "JsonlSink",
    "ObjectSink",
    "Sink",
    "StreamSink",
    "Written",
]
