"""Parquet files, with the columns of `segment_fetch.arrow`. Needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from segment_fetch.errors import InputError, MissingExtraError, check_type
from segment_fetch.sinks.files.compression import Compression
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.file_names import HIDDEN_MANIFEST
from segment_fetch.sinks.files.folder import FolderSink
from segment_fetch.sinks.files.formats import FileFormat, Packer
from segment_fetch.sinks.files.local_times import LocalClock
from segment_fetch.wire.models import Segment

try:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from segment_fetch.arrow import ACCOUNT, COLUMNS, SCHEMA_VERSION, migrates, record_batch, schema, with_account
except (ImportError, MissingExtraError):
    raise MissingExtraError("Parquet needs an extra: pip install 'segment-fetch[parquet]'") from None

ROW_GROUP = 131_072
"""Rows in a row group, except the last of a file: few enough to be kept until they are written, about 25 MB, and
enough for readers that skip row groups."""

_CLOSE, _ID = COLUMNS["endTimeL"], COLUMNS["segmentId"]
_CODECS: dict[str, dict[str, Any]] = {
    "none": {"compression": "NONE"},
    "gzip": {"compression": "GZIP", "compression_level": 6},
    "zstd": {"compression": "ZSTD", "compression_level": 1},  # level 3 takes twice as long and saves nothing here
}
_FEW_VALUES = [COLUMNS[name] for name in ("agentId", "employeeId", "skillId", "groupId", "endReason")] + [ACCOUNT]
_AT_ONCE = 65_536
_LOCAL = {"start_time": "start", "end_time": "end"}
_WALL, _OFFSET = pa.timestamp("ms"), pa.int16()


class Parquet(FileFormat[pa.RecordBatch]):
    """Parquet, with each column compressed; declares its sort order, close time and then segmentId."""

    name = "parquet"
    manifest = HIDDEN_MANIFEST
    usual: Compression = "zstd"

    def __init__(self, *, account_id: str | None = None, local_times: str | None = None) -> None:
        """Store the settings. With an `account_id`, each row has it in a column of that name. With `local_times`, an
        IANA name, the columns `start_time_local` and `end_time_local` hold the local times of that zone, and
        `start_offset_minutes` and `end_offset_minutes` their offsets from UTC.
        """
        if account_id is not None:
            check_type("account_id", account_id, str, "the account number as text, or None")
        if local_times is not None:
            check_type("local_times", local_times, str, "the IANA name of a time zone, or None")
        self._account = account_id
        self._clock = None if local_times is None else LocalClock(local_times)
        self._schema = schema(account=account_id is not None)
        for name in _LOCAL.values() if self._clock else ():
            self._schema = self._schema.append(pa.field(f"{name}_time_local", _WALL))
            self._schema = self._schema.append(pa.field(f"{name}_offset_minutes", _OFFSET))

    def settings(self) -> dict[str, str]:
        account = {} if self._account is None else {ACCOUNT: self._account}
        local = {} if self._clock is None else {"local_times": self._clock.zone}
        return {"format": self.name, "schema_version": str(SCHEMA_VERSION), **account, **local}

    def migrates(self, name: str, stored: object) -> bool:
        return migrates(name, stored)

    def check(self, compress: str) -> Compression:
        match compress:
            case "none" | "gzip" | "zstd":
                return compress
        raise InputError(f"compression {compress!r} is unknown: choose one of {', '.join(_CODECS)}")

    def suffix(self, compress: Compression) -> str:
        return self.name

    def encode(self, segments: Sequence[Segment]) -> pa.RecordBatch:
        batch = record_batch(segments)
        if self._account is not None:
            batch = with_account(batch, self._account)
        return batch if self._clock is None else self._with_local_times(batch, self._clock)

    def _with_local_times(self, batch: pa.RecordBatch, clock: LocalClock) -> pa.RecordBatch:
        added = []
        for column in _LOCAL:
            moments = batch.column(column).cast(pa.int64()).to_pylist()
            shown = [None if moment is None else clock.wall(moment) for moment in moments]
            added.append(pa.array([None if each is None else each[0] for each in shown], _WALL))
            added.append(pa.array([None if each is None else each[1] for each in shown], _OFFSET))
        return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=self._schema)

    def packer(self, compress: Compression) -> Packer[pa.RecordBatch]:
        return ParquetPacker(compress, self._schema)

    def keys_in(self, file: BinaryIO, compress: Compression) -> Iterator[tuple[int, str]]:
        try:
            stored = pq.ParquetFile(file)
            for batch in stored.iter_batches(_AT_ONCE, columns=[_CLOSE, _ID]):
                closes = batch.column(_CLOSE).cast(pa.int64()).to_pylist()
                yield from zip(closes, batch.column(_ID).to_pylist(), strict=True)
        except (pa.ArrowException, KeyError, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # an error of the disk, not of the file's contents
            raise ValueError(f"it is not a Parquet file with these columns: {error}") from None


class ParquetPacker:
    """Encodes rows as one Parquet file; holds at most one row group."""

    def __init__(self, compress: Compression, columns: pa.Schema) -> None:
        self._schema = columns
        self._out = _Pieces()
        self._rows: list[pa.RecordBatch] = []
        self._count = 0
        order = [(_CLOSE, "ascending"), (_ID, "ascending")]
        self._writer = pq.ParquetWriter(
            self._out,
            columns,
            use_dictionary=[name for name in _FEW_VALUES if name in columns.names],
            sorting_columns=pq.SortingColumn.from_ordering(columns, order),
            write_page_index=True,
            **_CODECS[compress],
        )

    def compress(self, data: pa.RecordBatch, /) -> bytes:
        """Return bytes to write for these rows; empty until they fill a row group."""
        self._rows.append(data)
        self._count += data.num_rows
        while self._count >= ROW_GROUP:
            self._write_group()
        return self._out.take()

    def _write_group(self) -> None:
        table = pa.Table.from_batches(self._rows, self._schema)
        group = table.slice(0, ROW_GROUP).combine_chunks()  # many small chunks take longer to write
        self._writer.write_table(group, ROW_GROUP)
        self._rows = table.slice(ROW_GROUP).to_batches()
        self._count -= min(ROW_GROUP, self._count)

    def flush(self) -> bytes:
        """Return the last row group and the end of the file."""
        if self._count:
            self._write_group()
        self._writer.close()
        return self._out.take()


class _Pieces:
    """A file-like object for pyarrow that buffers written bytes until they are taken."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: written bytes are available immediately."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ParquetSink(FolderSink[pa.RecordBatch]):
    """Parquet files in a folder. `compress`, "zstd", "gzip" or "none", applies to the columns in them.

    With an `account_id`, each row has it in a column, so that folders of several accounts can be read together.
    """

    def __init__(
        self,
        folder: str | Path,
        compress: str = "zstd",
        *,
        partition: str = "none",
        account_id: str | None = None,
        local_times: str | None = None,
        disk: Disk | None = None,
    ) -> None:
        form = Parquet(account_id=account_id, local_times=local_times)
        super().__init__(folder, form, compress, partition=partition, disk=disk)
