"""The three messages of Singer, one JSON line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from segment_fetch.integrations.singer.catalog import EXTRAS, KEY, REPLICATION_KEY, Selection
from segment_fetch.timerange import format_time
from segment_fetch.wire.models import SEGMENT_FIELDS, ExtendedSegment, Segment


class _Record(Struct, tag_field="type", tag="RECORD"):
    stream: str
    record: Segment | dict[str, Any]
    time_extracted: str


def schema_message(selection: Selection) -> bytes:
    """Return the SCHEMA message: the selected part of the schema."""
    schema = {
        "type": "object",
        "properties": selection.properties,
        "required": [KEY, REPLICATION_KEY],
        "additionalProperties": False,
    }
    message = {
        "type": "SCHEMA",
        "stream": selection.stream,
        "schema": schema,
        "key_properties": [KEY],
        "bookmark_properties": [REPLICATION_KEY],
    }
    return msgspec.json.encode(message) + b"\n"


def state_message(value: Mapping[str, Any]) -> bytes:
    """Return the STATE message: everything before it may be recorded as loaded."""
    return msgspec.json.encode({"type": "STATE", "value": value}) + b"\n"


class Records:
    """Encodes segments as records with the selected properties. Absent stays absent, null stays null."""

    def __init__(self, selection: Selection, now_ms: Callable[[], int]) -> None:
        self._stream = selection.stream
        self._selection = selection
        self._fields = selection.fields
        self._whole = self._fields == SEGMENT_FIELDS
        self._now_ms = now_ms
        self._encoder = msgspec.json.Encoder()

    def __call__(self, segments: Sequence[Segment]) -> bytes:
        time = format_time(self._now_ms())
        plain = self._whole and ExtendedSegment not in set(map(type, segments))
        records = segments if plain else map(self._record, segments)
        return self._encoder.encode_lines([_Record(self._stream, record, time) for record in records])

    def _record(self, segment: Segment) -> dict[str, Any]:
        known = {name: value for name in self._fields if (value := getattr(segment, name)) is not UNSET}
        return known | self._new(segment.extras) if isinstance(segment, ExtendedSegment) else known

    def _new(self, found: Mapping[str, Any]) -> dict[str, Any]:
        named = {name: value for name, value in found.items() if name in self._selection.named}
        others = {name: value for name, value in found.items() if name not in named}
        return named | {EXTRAS: others} if others and self._selection.extras else named
