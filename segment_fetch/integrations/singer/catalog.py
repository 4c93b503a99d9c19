"""The tap's catalog: its one stream, and the selection in a catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from segment_fetch.errors import InputError
from segment_fetch.wire.models import SEGMENT_FIELDS

STREAM = "agent_segments"
KEY = "segmentId"
REPLICATION_KEY = "endTimeL"
EXTRAS = "extras"
"""The property that holds fields unknown to this release, by name; absent if there are none."""

_AUTOMATIC = (KEY, REPLICATION_KEY)
_TEXTS = frozenset({"conversationId", "employeeId", "endReason"})
_TIMES = frozenset({"endTime", "startTime"})


def schema() -> dict[str, Any]:
    """Return the JSON schema of a record: the API's names and types. A record never contains anything else."""
    properties = {name: _property(name) for name in (*SEGMENT_FIELDS, EXTRAS)}
    return {"type": "object", "properties": properties, "required": list(_AUTOMATIC), "additionalProperties": False}


def _property(name: str) -> dict[str, Any]:
    if name in _AUTOMATIC:
        return {"type": "string" if name == KEY else "integer"}
    if name == EXTRAS:
        return {"type": ["null", "object"], "additionalProperties": True}
    if name in _TIMES:
        return {"type": ["null", "string"], "format": "date-time"}
    return {"type": ["null", "string" if name in _TEXTS else "integer"]}


def discovered() -> dict[str, Any]:
    """Return the catalog that `--discover` prints. Unchanged, it selects everything."""
    stream = {
        "inclusion": "available",
        "selected-by-default": True,
        "table-key-properties": [KEY],
        "valid-replication-keys": [REPLICATION_KEY],
        "replication-key": REPLICATION_KEY,
        "forced-replication-method": "INCREMENTAL",
    }
    fields = {name: "automatic" if name in _AUTOMATIC else "available" for name in (*SEGMENT_FIELDS, EXTRAS)}
    return {
        "streams": [
            {
                "tap_stream_id": STREAM,
                "stream": STREAM,
                "schema": schema(),
                "key_properties": [KEY],
                "replication_key": REPLICATION_KEY,
                "replication_method": "INCREMENTAL",
                "metadata": [
                    {"breadcrumb": [], "metadata": stream},
                    *(
                        {"breadcrumb": ["properties", name], "metadata": {"inclusion": inclusion}}
                        for name, inclusion in fields.items()
                    ),
                ],
            }
        ]
    }


class _Metadata(Struct, rename="kebab"):
    inclusion: Literal["automatic", "available", "unsupported"] | None = None
    selected: bool | None = None
    selected_by_default: bool | None = None

    def selects(self, otherwise: bool) -> bool:
        if self.inclusion == "unsupported":
            return False
        if self.selected is not None:
            return self.selected
        return otherwise if self.selected_by_default is None else self.selected_by_default


class _Entry(Struct):
    breadcrumb: tuple[str, ...]
    metadata: _Metadata


class _Schema(Struct):
    properties: dict[str, dict[str, Any]]


class _Stream(Struct):
    tap_stream_id: str
    schema: _Schema
    stream: str | None = None
    metadata: Sequence[_Entry] = ()


class _Catalog(Struct):
    streams: Sequence[_Stream]


class Selection(Struct, frozen=True):
    """The output: the stream's name, and the selected properties as the catalog describes them."""

    stream: str
    properties: Mapping[str, Mapping[str, Any]]

    @property
    def fields(self) -> tuple[str, ...]:
        """The selected fields that this release knows, in the API's order."""
        return tuple(name for name in SEGMENT_FIELDS if name in self.properties)

    @property
    def named(self) -> frozenset[str]:
        """Selected properties that this release does not know: fields with these names are emitted like any other."""
        return frozenset(self.properties) - {*SEGMENT_FIELDS, EXTRAS}

    @property
    def extras(self) -> bool:
        """True if other new fields are emitted, in the property `extras`."""
        return EXTRAS in self.properties


def selection(catalog: bytes | None, where: str = "the catalog") -> Selection | None:
    """Return the selection of a catalog, or of everything if there is none; None if the stream is not selected.

    Key and replication key are always selected. Raises InputError if it is not a catalog of this tap.
    """
    found = _decoded(msgspec.json.encode(discovered()) if catalog is None else catalog, where)
    metadata = {entry.breadcrumb: entry.metadata for entry in found.metadata}
    if not metadata.get((), _Metadata()).selects(otherwise=False):
        return None
    chosen = {
        name: words
        for name, words in found.schema.properties.items()
        if name in _AUTOMATIC or metadata.get(("properties", name), _Metadata()).selects(otherwise=True)
    }
    return Selection(found.stream or STREAM, {name: _property(name) for name in _AUTOMATIC} | chosen)


def _decoded(catalog: bytes, where: str) -> _Stream:
    try:
        streams = msgspec.json.decode(catalog, type=_Catalog).streams
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: is not a Singer catalog: {error}; create one with --discover") from None
    for stream in streams:
        if stream.tap_stream_id == STREAM:
            return stream
    raise InputError(f"{where}: has no stream {STREAM}, the only one of this tap; create one with --discover")
