"""A checksum of rows, independent of their division into batches and of the database that stores them."""

from __future__ import annotations

import hashlib
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from segment_fetch import arrow

_ABSENT = -1


class RowsDigest:
    """SHA-256 over the values of rows in the columns of a schema, in the order in which they are added.

    Two streams of each column are hashed: the lengths and characters of texts, or the null mask and values of numbers
    (times as epoch milliseconds). The digest is the hash of these hashes, column by column.
    A column that an older release did not have counts only if it has a value that is not null, so that rows stored
    before it was added keep their checksum.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = pa.schema([(field.name, _plain(field.type)) for field in schema])
        self._streams = [(hashlib.sha256(), hashlib.sha256()) for _ in self._schema]
        self._counts = [arrow.SINCE.get(field.name, 1) == 1 for field in self._schema]

    def add(self, rows: pa.Table) -> None:
        """Add rows, whose columns are those of the schema or can be cast to them."""
        for at, (column, (shape, values)) in enumerate(
            zip(rows.cast(self._schema).columns, self._streams, strict=True)
        ):
            self._counts[at] = self._counts[at] or column.null_count < len(column)
            for array in column.chunks:
                shape.update(_shape(array))
                values.update(_values(array))

    def hexdigest(self) -> str:
        """Return the digest of the rows added so far."""
        counting = [streams for streams, counts in zip(self._streams, self._counts, strict=True) if counts]
        return hashlib.sha256(b"".join(stream.digest() for stream in chain(*counting))).hexdigest()


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ms", "UTC")
    return pa.string() if pa.types.is_dictionary(kind) else kind


def _shape(array: pa.Array) -> memoryview:
    if pa.types.is_string(array.type):
        return _fixed(pc.fill_null(pc.binary_length(array), _ABSENT))
    return _fixed(pc.cast(pc.is_null(array), pa.uint8()))


def _values(array: pa.Array) -> memoryview:
    if not pa.types.is_string(array.type):
        number = array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array
        return _fixed(pc.fill_null(number, 0))
    dense = pc.fill_null(array, "")
    _, offsets, characters = dense.buffers()
    if characters is None or not len(dense):
        return memoryview(b"")
    ends = memoryview(offsets).cast("i")
    return memoryview(characters)[ends[dense.offset] : ends[dense.offset + len(dense)]]


def _fixed(array: pa.Array) -> memoryview:
    """Return the bytes of an array of numbers without nulls."""
    width = array.type.bit_width // 8
    data = array.buffers()[1]
    return memoryview(data)[array.offset * width : (array.offset + len(array)) * width] if data else memoryview(b"")
