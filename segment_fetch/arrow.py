"""Segments as Arrow record batches, for pandas, Polars, DuckDB, Parquet and similar tools. Needs the extra `arrow`.

Two things differ from the API: Arrow has one kind of missing value, so absent and null are both null; and a time is
stored once, as an instant. Values without a column are in `extras`, so nothing else is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, structs

from segment_fetch.errors import DestinationError, MissingExtraError, UnstorableValueError
from segment_fetch.wire.models import SEGMENT_FIELDS, ExtendedSegment, Segment

try:
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError:
    raise MissingExtraError("Arrow needs an extra: pip install 'segment-fetch[arrow]'") from None

SCHEMA_VERSION = 1
"""Incremented whenever a column is added or removed, or changes its name, type or meaning."""

OLDEST_VERSION = 1
"""The oldest version since which columns were only added: tables and folders of it can still be used."""

SINCE: Mapping[str, int] = MappingProxyType({})
"""Column -> version in which it was added, if that is not the first one."""

VERSION_KEY = b"segment_fetch.schema_version"
"""The key of the version (in decimal digits) in a schema's metadata."""

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "segmentId": "segment_id",
        "startTimeL": "start_time",
        "endTimeL": "end_time",
        "conversationId": "conversation_id",
        "agentId": "agent_id",
        "employeeId": "employee_id",
        "skillId": "skill_id",
        "groupId": "group_id",
        "endReason": "end_reason",
        "totalHandleTimeMillis": "total_handle_time_millis",
    }
)
"""API name -> column, in the order of the columns.

`startTime` and `endTime`, the API's texts for the two instants, have no columns.
"""

EXTRAS = "extras"
"""The last column: a JSON object by API name, null if it would be empty.

It holds the fields that this release does not know, and a `startTime` or `endTime` that is not the same instant as its
`…TimeL` number.
"""

ACCOUNT = "account_id"
"""The column that `with_account` adds, for destinations with the segments of several accounts."""

_INTEGER = pa.int64()
_TIME = pa.timestamp("ms", "UTC")
_REPEATED = pa.dictionary(pa.int32(), pa.string())
_TYPES = {
    "segment_id": pa.string(),
    "start_time": _TIME,
    "end_time": _TIME,
    "conversation_id": pa.string(),
    "agent_id": pa.int64(),
    "employee_id": pa.string(),
    "skill_id": pa.int64(),
    "group_id": pa.int64(),
    "end_reason": _REPEATED,
    "total_handle_time_millis": pa.int64(),
    EXTRAS: pa.string(),
}
_NUMBERS = frozenset(name for name, column in COLUMNS.items() if _TYPES[column] in (_INTEGER, _TIME))
_ALWAYS = frozenset({"segment_id", "end_time"})
_TEXTS = {"startTime": "startTimeL", "endTime": "endTimeL"}
_TIMES = "both times"
_Wire: TypeAlias = Mapping[str, tuple[Any, ...]]
_SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=name not in _ALWAYS) for name, kind in _TYPES.items()],
    metadata={VERSION_KEY: str(SCHEMA_VERSION)},
)
MAX_ROWS = 65_536
"""Maximum number of rows in one batch of a stream."""
_ROWS = 1000  # converted at once, so that their data stays in the processor's cache
_MISFIT = (pa.ArrowException, TypeError, OverflowError, UnicodeError)
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def schema(*, account: bool = False) -> pa.Schema:
    """Return the columns that `record_batch` fills, followed by `account_id` if requested.

    The metadata contains the version.
    """
    return _SCHEMA.append(pa.field(ACCOUNT, _REPEATED, nullable=False)) if account else _SCHEMA


def with_account(batch: pa.RecordBatch, account: str) -> pa.RecordBatch:
    """Return the batch with the account in an additional last column."""
    codes = pa.repeat(pa.scalar(0, pa.int32()), batch.num_rows)
    column = pa.DictionaryArray.from_arrays(codes, pa.array([account], pa.string()))
    return pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema(account=True))


def migrates(name: str, stored: object) -> bool:
    """Return True if a setting of an older release's manifest can be replaced by this one's: see `OLDEST_VERSION`."""
    text = str(stored)
    return name == "schema_version" and text.isdecimal() and OLDEST_VERSION <= int(text) <= SCHEMA_VERSION


def record_batch(segments: Sequence[Segment]) -> pa.RecordBatch:
    """Return the segments as one batch, one row each, in order.

    Raises UnstorableValueError, which names the segment and the field, if a value does not fit its column, such as a
    number beyond 64 bits.
    """
    batches = [_few(segments[at : at + _ROWS]) for at in range(0, len(segments), _ROWS)]
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=_SCHEMA)
    return pa.Table.from_batches(batches, _SCHEMA).combine_chunks().to_batches()[0]


def joined(batches: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of small batches in batches of at most 65,536, none of them empty."""
    table = pa.Table.from_batches(batches, _SCHEMA).combine_chunks()
    for at in range(0, table.num_rows, MAX_ROWS):
        yield from table.slice(at, MAX_ROWS).to_batches()


def join_some(batches: Sequence[pa.RecordBatch]) -> tuple[pa.RecordBatch, list[pa.RecordBatch]]:
    """Return up to 65,536 rows of small batches as one batch, and the batches that are left."""
    table = pa.Table.from_batches(batches, _SCHEMA)
    first = table.slice(0, MAX_ROWS).combine_chunks().to_batches()
    return first[0] if first else record_batch([]), table.slice(MAX_ROWS).to_batches()


def _few(segments: Sequence[Segment]) -> pa.RecordBatch:
    fields = zip(*map(structs.astuple, segments), strict=True)
    wire = dict(zip(SEGMENT_FIELDS, fields, strict=False))
    try:
        columns = _columns(wire)
    except _MISFIT:
        raise _misfit(segments, wire) from None
    plain = _is_at_end(fields) and _same_instants(wire["startTime"] + wire["endTime"], columns[_TIMES])
    extras = pa.nulls(len(segments), pa.string()) if plain else pa.array(map(_extras, segments), pa.string())
    return pa.RecordBatch.from_arrays([*(columns[name] for name in COLUMNS), extras], schema=_SCHEMA)


def _columns(wire: _Wire) -> dict[str, pa.Array]:
    """Return the columns by API name; both times are halves of one array, `_TIMES`, which is faster."""
    half = len(wire["endTimeL"])
    times = _integers(wire["startTimeL"] + wire["endTimeL"], _TIME)
    rest = {name: _column(name, wire[name]) for name in COLUMNS if name not in _TEXTS.values()}
    return {_TIMES: times, "startTimeL": times.slice(0, half), "endTimeL": times.slice(half), **rest}


def _column(field: str, values: Sequence[Any]) -> pa.Array:
    kind = _TYPES[COLUMNS[field]]
    return _integers(values, kind) if field in _NUMBERS else _array(values, kind)


def _is_at_end(fields: Iterator[Any]) -> bool:
    """Return True if no segment has more fields than those read; checking each type would take longer."""
    try:
        return next(fields, None) is None
    except ValueError:  # some have more, some have not
        return False


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return an array. Absent values are rare, so they are found by a failed conversion: checking each takes longer."""
    try:
        return pa.array(values, kind)
    except _MISFIT:
        return pa.array([None if value is UNSET else value for value in values], kind)


def _integers(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return an array of integers; if none is missing, in half the time."""
    try:
        data = struct.pack(f"={len(values)}q", *values)
    except struct.error:
        return _array(values, _INTEGER).view(kind)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def unstorable(segment: Segment, field: str, why: str) -> UnstorableValueError:
    """Return the error for a value of a segment that the destination cannot store; `field` is the API's name."""
    value = repr(getattr(segment, field, None))[:60]
    return UnstorableValueError(
        f"segment {segment.segmentId!r}: {field} {value} {why}; nothing of its window was stored, and JSON Lines can "
        "hold it",
        segment.segmentId,
        field,
    )


def _misfit(segments: Sequence[Segment], wire: _Wire) -> DestinationError:
    """Return the error for the first value that does not fit."""
    for field in COLUMNS:
        for segment, value in zip(segments, wire[field], strict=True):
            try:
                _column(field, [value])
            except _MISFIT:
                column = COLUMNS[field]
                return unstorable(segment, field, f"does not fit the column {column} ({_TYPES[column]})")
    return DestinationError(f"{len(segments)} segments do not fit into one Arrow array: pass fewer at once")


def _same_instants(texts: Sequence[Any], instants: pa.Array) -> bool:
    """Return True if each text that is present is the same instant as its number; False also if that is unclear."""
    try:
        told = _array(texts, pa.string()).cast(_TIME)
    except _MISFIT:
        return False
    if told.equals(instants):
        return True
    same = pc.fill_null(pc.equal(told, instants), False)
    return bool(pc.all(pc.or_(pc.is_null(told), same)).as_py())


def _extras(segment: Segment) -> bytes | None:
    found = dict(_other_times(segment))
    if isinstance(segment, ExtendedSegment):
        found |= segment.extras
    return msgspec.json.encode(found) if found else None


def _other_times(segment: Segment) -> Iterator[tuple[str, str]]:
    for name, number in _TEXTS.items():
        text = getattr(segment, name)
        if text is not UNSET and text is not None and _instant(text) != getattr(segment, number):
            yield name, text


def _instant(text: str) -> float | None:
    """Return epoch milliseconds; None if the text is not a time."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH) / timedelta(milliseconds=1)
    except (ValueError, TypeError, OverflowError):  # TypeError: without an offset from UTC
        return None


# pyarrow imports NumPy and pandas, where they are installed, when it is first given a list: here rather than in the
# event loop of the caller.
record_batch([Segment(segmentId="0", endTimeL=0, endTime="1970-01-01T00:00:00Z")])
