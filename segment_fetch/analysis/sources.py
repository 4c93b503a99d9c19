"""A destination's segments as one SQL relation, for every kind of destination.

Every relation has the columns `segment_id`, `start_ms`, `close_ms`, `handle_ms`, `conversation_id`, `skill_id`,
`agent_id`, `group_id`, `employee_id` and `end_reason`, for DuckDB or, if `database` is set, for PostgreSQL. Only files
that the manifest names are read, so leftovers of an interrupted run never count.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct

from segment_fetch.errors import DestinationError
from segment_fetch.local.regular_files import refuse_irregular
from segment_fetch.manifest.format import Manifest, WindowEntry
from segment_fetch.query import Window
from segment_fetch.sinks.base import Sink
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.files.folder import FolderSink
from segment_fetch.sinks.files.spreadsheets import FORMULA_STARTS, dialect_of
from segment_fetch.sinks.objects.sink import ObjectSink
from segment_fetch.sinks.tables.base import TableSink

_WIRE = {
    "segment_id": ("segmentId", "VARCHAR"),
    "start_ms": ("startTimeL", "BIGINT"),
    "close_ms": ("endTimeL", "BIGINT"),
    "handle_ms": ("totalHandleTimeMillis", "BIGINT"),
    "conversation_id": ("conversationId", "VARCHAR"),
    "skill_id": ("skillId", "BIGINT"),
    "agent_id": ("agentId", "BIGINT"),
    "group_id": ("groupId", "BIGINT"),
    "employee_id": ("employeeId", "VARCHAR"),
    "end_reason": ("endReason", "VARCHAR"),
}
_EMPTY = "(SELECT " + ", ".join(f"NULL::{kind} AS {name}" for name, (_, kind) in _WIRE.items()) + " WHERE false)"
_PARQUET = (
    "(SELECT segment_id, epoch_ms(start_time) AS start_ms, epoch_ms(end_time) AS close_ms, "
    "total_handle_time_millis AS handle_ms, conversation_id, skill_id, agent_id, group_id, employee_id, "
    "end_reason FROM {source})"
)
_POSTGRES = (
    "(SELECT segment_id, (extract(epoch FROM start_time) * 1000)::bigint AS start_ms, "
    "(extract(epoch FROM end_time) * 1000)::bigint AS close_ms, total_handle_time_millis AS handle_ms, "
    "conversation_id, skill_id, agent_id, group_id, employee_id, end_reason FROM {source}) AS segments"
)


class Source(Struct, frozen=True):
    """A relation to select from; `database` is the open PostgreSQL sink to query, None to use DuckDB.

    `attach` is a DuckDB file that the relation is in. `columnar`: reading it again costs less than keeping a copy.
    """

    relation: str
    database: TableSink | None = None
    attach: Path | None = None
    columnar: bool = False


@contextmanager
def source_of(sink: Sink[Any], manifest: Manifest, asked: Window) -> Iterator[Source]:
    """Yield a destination's segments in the windows that touch a range. Raises DestinationError if it is unreadable."""
    if isinstance(sink, TableSink):
        with _table(sink) as source:
            yield source
        return
    if not isinstance(sink, FileSink):
        raise DestinationError("this destination cannot be read back: name a folder, an object store or a database")
    entries = [
        entry
        for entry in manifest.windows
        if entry.file is not None and entry.segments and _touches(entry.window, asked)
    ]
    settings = manifest.query
    columnar = settings.get("format") == "parquet"
    if isinstance(sink, ObjectSink):
        with TemporaryDirectory(prefix="segment_fetch-") as folder:
            yield Source(files_relation(_downloaded(sink, entries, Path(folder)), settings), columnar=columnar)
    elif isinstance(sink, FolderSink):
        files = [sink.folder / str(entry.file) for entry in entries]
        _refuse_irregular(files)
        yield Source(files_relation(files, settings), columnar=columnar)
    else:
        raise DestinationError("this destination cannot be read back: name a folder, an object store or a database")


def _refuse_irregular(files: Sequence[Path]) -> None:
    """Raise DestinationError for a FIFO or a device, on which DuckDB would block or read without end."""
    try:
        for path in files:
            refuse_irregular(path.stat(), path)
    except OSError as error:
        raise DestinationError(f"{error.filename} cannot be read: {error.strerror}; `verify` says what to do") from None


def _touches(one: Window, other: Window) -> bool:
    return one.start < other.end and other.start < one.end


@contextmanager
def _table(sink: TableSink) -> Iterator[Source]:
    path = getattr(sink, "path", None)
    if isinstance(path, Path):
        yield Source(_PARQUET.format(source=f"source.{sink.table_name}"), attach=path, columnar=True)
        return
    sink.look()
    try:
        yield Source(_POSTGRES.format(source=sink.table_name), database=sink)
    finally:
        sink.close()


def _downloaded(sink: ObjectSink[Any], entries: Sequence[WindowEntry], folder: Path) -> list[Path]:
    """Copy objects to a temporary folder: DuckDB's access to object stores would be a downloaded extension."""
    paths = []
    for number, entry in enumerate(entries):
        name = str(entry.file).rpartition("/")[2]
        path = folder / f"{number}-{name}"
        with sink.open_file(str(entry.file)) as file, path.open("wb") as copy:
            shutil.copyfileobj(file, copy, 2**20)
        paths.append(path)
    return paths


def files_relation(paths: Sequence[Path], settings: dict[str, Any]) -> str:
    """Return the relation of files, whose format is in `settings`, the manifest's query."""
    if not paths:
        return _EMPTY
    listed = "[" + ", ".join(_quoted(str(path)) for path in paths) + "]"
    form = settings.get("format")
    if form == "parquet":
        return _PARQUET.format(source=f"read_parquet({listed}, hive_partitioning = false)")
    compression = {"gzip": "gzip", "zstd": "zstd"}.get(str(settings.get("compress")), "uncompressed")
    if form == "jsonl":
        columns = ", ".join(f"{wire}: '{kind}'" for wire, kind in _WIRE.values())
        options = f"columns = {{{columns}}}, format = 'newline_delimited', compression = '{compression}'"
        chosen = ", ".join(f"{wire} AS {name}" for name, (wire, _) in _WIRE.items())
        return f"(SELECT {chosen} FROM read_json({listed}, {options}))"  # noqa: S608
    if form == "csv":
        excel = settings.get("excel")
        separator = "," if excel is None else dialect_of(excel).separator
        safe = settings.get("csv_safe") == "true" or excel is not None
        chosen = ", ".join(_csv_column(name, wire, kind, safe=safe) for name, (wire, kind) in _WIRE.items())
        options = (
            f"header = true, all_varchar = true, delim = '{separator}', quote = '\"', escape = '\"', "
            f"strict_mode = true, max_line_size = 4194304, compression = '{compression}'"
        )
        return f"(SELECT {chosen} FROM read_csv({listed}, {options}))"  # noqa: S608
    raise DestinationError(
        f"handle time is read from JSON Lines, CSV and Parquet, not from {form}: extract into one of those"
    )


def _csv_column(name: str, wire: str, kind: str, *, safe: bool) -> str:
    value = f"nullif({wire}, '')"
    if kind == "BIGINT":
        return f"ltrim({value}, '\t')::BIGINT AS {name}"
    if safe:  # an apostrophe precedes text that a spreadsheet would evaluate, a tab text that it would convert
        starts = ", ".join(map(_quoted, FORMULA_STARTS))
        marked = f"({wire}[1] = '''' AND {wire}[2] IN ({starts})) OR {wire}[1] = '\t'"
        value = f"CASE WHEN {marked} THEN {wire}[2:] ELSE {value} END"
    return f"{value} AS {name}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
