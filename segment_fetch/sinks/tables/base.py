"""The sink for a table of a database, with the manifest in tables next to it.

A window's rows are those whose close time is in the window. They wait in memory or, if there are many, in a temporary
table, which vanishes with the connection; one transaction then deletes the older rows, inserts the new ones and stores
the manifest.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from segment_fetch import arrow
from segment_fetch.errors import DestinationError, InputError, ManifestError, check_type
from segment_fetch.query import Window
from segment_fetch.sinks.base import AGAIN, Finding, Key, Sink, Written, write_all
from segment_fetch.sinks.files.file_names import PATTERN, stem, window_in
from segment_fetch.sinks.tables.database import (
    ConflictError,
    Database,
    add_columns,
    create,
    missing_columns,
    quoted,
)
from segment_fetch.sinks.tables.drafts import TableDraft
from segment_fetch.sinks.tables.manifest_rows import ManifestRows
from segment_fetch.sinks.tables.row_checksum import RowsDigest
from segment_fetch.timerange import format_time
from segment_fetch.wire.models import Segment

TABLE = "agent_segments"
_NAME = re.compile(PATTERN, re.ASCII)
_LONGEST_NAME = 63  # bytes; PostgreSQL truncates longer names
_WIRE = {column: name for name, column in arrow.COLUMNS.items()}


class _Entry(msgspec.Struct, gc=False):
    segments: int
    file: str | None = None
    sha256: str | None = None


class _Windows(msgspec.Struct):
    windows: tuple[_Entry, ...]


class TableSink(Sink["pa.RecordBatch"]):
    """A table of a database; subclasses for each database define `connect`.

    With an `account_id` the table can hold the segments of several accounts, whose runs may write concurrently: the
    account is in the column `account_id`, part of the primary key, and each has a separate manifest.
    """

    earliest: int
    latest: int
    """The first and the last time that the database can hold, in epoch milliseconds."""

    zero_characters = True
    """True if text in the database can contain the character U+0000."""

    appends = True
    always_whole = True
    mend = "delete its rows from the table"
    held = 250_000
    """Maximum number of unpublished rows in memory, of all windows; beyond it the largest window moves to a temporary
    table."""

    def __init__(self, table: str, account_id: str | None = None) -> None:
        if not re.fullmatch(r"\w+", table):
            raise InputError(f"{table!r} is not a table name: use letters, digits and underscores, without a schema")
        if account_id is not None:
            check_type("account_id", account_id, str, "the account number as text, or None")
        if account_id is not None and not re.fullmatch(r"[\w-]+", account_id, re.ASCII):
            raise InputError(f"account_id {account_id!r}: letters, digits, '-' and '_' only")
        self.account_id = account_id
        self.schema = arrow.schema(account=account_id is not None)
        self._table = table
        own = "" if account_id is None else f"_{account_id}"
        self._head = f"{table}_manifest{own}"
        self._manifest = ManifestRows(self._head, f"{table}_windows{own}")
        if len(self._head.encode()) > _LONGEST_NAME:
            raise InputError(f"the name {self._head!r} has more than {_LONGEST_NAME} bytes: choose a shorter table")
        self._database: Database | None = None
        self._drafts: dict[str, TableDraft] = {}
        self._numbers = count(1)
        self._entries: dict[str, _Entry] = {}

    @property
    @abstractmethod
    def place(self) -> str:
        """The destination as shown in messages, without secrets."""

    @abstractmethod
    def connect(self, table: str, *, reading: bool) -> Database:
        """Open a connection, and unless it is for `reading` only, take the write lock of this table.

        With an account, that of its rows in the table. Raises DestinationBusyError if another run holds the lock.
        """

    def settings(self) -> dict[str, str]:
        account = {} if self.account_id is None else {arrow.ACCOUNT: self.account_id}
        return {"format": "table", "schema_version": str(arrow.SCHEMA_VERSION), **account}

    def migrates(self, name: str, stored: object) -> bool:
        return arrow.migrates(name, stored)

    def name(self, window: Window) -> str:
        """Return the name of a window's rows in the manifest."""
        return stem(window)

    def open(self) -> bytes | None:
        return self._opened(reading=False)

    def look(self) -> bytes | None:
        """Open the destination for reading only, even while a run is writing to it; return the manifest."""
        return self._opened(reading=True)

    def _opened(self, *, reading: bool) -> bytes | None:
        self._database = self.connect(self._table, reading=reading)
        try:
            if reading:
                self._db.run("BEGIN")  # everything read from now on is one snapshot
            self._prepare(reading=reading)
            manifest = self._read_manifest()
            self._entries = _named(manifest)
        except BaseException:
            self.close()
            raise
        return manifest

    def _prepare(self, *, reading: bool) -> None:
        """Create missing tables, and check existing ones; the user's additional columns are left alone."""
        db = self._db
        if reading:
            if db.columns(self._table):
                missing = missing_columns(db, self._table, self.place, self.schema)
                self.schema = pa.schema([field for field in self.schema if field.name not in missing])
            return
        with db.preparing(self._table):
            if db.columns(self._table):
                if missing := missing_columns(db, self._table, self.place, self.schema):
                    add_columns(db, self._table, missing, self.schema)
            else:
                create(db, self._table, self.schema)
            self._manifest.create(db)

    def _read_manifest(self) -> bytes | None:
        db = self._db
        manifest = self._manifest.read(db)
        if manifest is None and db.columns(self._table) and db.rows(f"SELECT 1 FROM {self._own_rows} LIMIT 1"):  # noqa: S608
            raise DestinationError(
                f"{self.place}: table {self._table} has rows, but {self._head} has no manifest: "
                "restore it, or use another table"
            )
        return manifest

    @property
    def _db(self) -> Database:
        if self._database is None:
            raise DestinationError(f"{self.place} is not open")
        return self._database

    @property
    def _columns(self) -> str:
        return ", ".join(map(quoted, self.schema.names))

    def encode(self, segments: Sequence[Segment]) -> pa.RecordBatch:
        batch = arrow.record_batch(segments)
        for field, column in zip(batch.schema, batch.columns, strict=True):
            misfits = self._misfits(column)
            if misfits is not None and pc.any(misfits).as_py():
                segment = segments[pc.index(misfits, True).as_py()]
                raise arrow.unstorable(segment, _WIRE.get(field.name, field.name), f"has no place in {self.place}")
        return batch if self.account_id is None else arrow.with_account(batch, self.account_id)

    def _misfits(self, column: pa.Array) -> pa.Array | None:
        """Return a mask of the values that the database cannot store; None if it can store all of their type."""
        if pa.types.is_timestamp(column.type):
            number = column.view(pa.int64())
            return pc.or_(pc.greater(number, self.latest), pc.less(number, self.earliest))
        if self.zero_characters:
            return None
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        return pc.match_substring(column, "\0") if pa.types.is_string(column.type) else None

    def write(self, window: Window, parts: Iterable[pa.RecordBatch]) -> Written:
        return write_all(self.begin(window), parts)

    def begin(self, window: Window) -> TableDraft:
        name = self.name(window)
        self._forget(name)
        temporary = f"segment_fetch_{next(self._numbers)}"
        draft = TableDraft(
            self._db, name, self._table, temporary, held=self.held, drafts=self._drafts.values(), schema=self.schema
        )
        self._drafts[name] = draft
        return draft

    def _forget(self, name: str) -> None:
        if (draft := self._drafts.pop(name, None)) is not None:
            draft.drop()

    def keys(self, written: Written) -> Iterator[Key]:
        if written.file is None:
            return
        draft = self._drafts.get(written.file)
        source = draft.temporary() if draft is not None and draft.finished else self._stored(written.file)
        for rows in list(
            self._read(source, "end_time, segment_id")
        ):  # read at once, as others may use the connection in between
            closes = rows.column(0).cast(pa.timestamp("ms", "UTC")).view(pa.int64())
            yield from zip(closes.to_pylist(), rows.column(1).to_pylist(), strict=True)

    def _read(self, source: str, columns: str) -> Iterator[pa.RecordBatch]:
        ordered = f"ORDER BY end_time, segment_id {self._db.byte_order}"
        return self._db.read(f"SELECT {columns} FROM {source} {ordered}")  # noqa: S608

    def _stored(self, name: str) -> str:
        return f"{self._own_rows}{' WHERE' if self.account_id is None else ' AND'} {_within(name)}"

    @property
    def _own_rows(self) -> str:
        """The table and the condition for the rows of this sink's account, as written after FROM."""
        own = "" if self.account_id is None else f" WHERE {arrow.ACCOUNT} = '{self.account_id}'"
        return f"{quoted(self._table)}{own}"

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        entries = _named(manifest)
        self._commit(entries, obsolete, lambda: self._manifest.replace(self._db, manifest))
        self._entries = entries

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        entries = _named(record)
        self._commit(entries, obsolete, lambda: self._manifest.append(self._db, record))
        for name in obsolete:
            self._entries.pop(name, None)
        self._entries |= entries

    def _commit(self, entries: Mapping[str, _Entry], obsolete: Sequence[str], store: Callable[[], None]) -> None:
        """Move the finished rows of these windows into the table, and store their manifest entries."""
        ready = {
            name: draft for name, draft in self._drafts.items() if name in entries and draft.has(entries[name].sha256)
        }
        try:
            self._replace(ready, obsolete, store, taken=False)
        except ConflictError:
            for draft in ready.values():
                draft.temporary()
            self._replace(ready, obsolete, store, taken=True)
        for name in ready:
            self._forget(name)

    def _replace(
        self, ready: dict[str, TableDraft], obsolete: Sequence[str], store: Callable[[], None], *, taken: bool
    ) -> None:
        """Replace windows and their manifest entries in one transaction.

        With `taken`, rows of other windows have the same ids, because close times have changed: the newer reading keeps
        them, and the next run notices the window that lost a row and reads it again.
        """
        db = self._db
        with db.transaction():
            for name in {*obsolete, *ready}:
                db.run(f"DELETE FROM {self._stored(name)}")  # noqa: S608
            for draft in ready.values():
                if taken:
                    ids = f"SELECT segment_id FROM {draft.temporary()}"  # noqa: S608
                    where = "WHERE" if self.account_id is None else "AND"
                    db.run(f"DELETE FROM {self._own_rows} {where} segment_id IN ({ids})")  # noqa: S608
                draft.insert(self._columns)
            store()

    def holds(self, written: Written) -> bool:
        """Return True if the table has as many rows of the window as the manifest says."""
        entry = self._entries.get(written.file or "")
        return entry is not None and self.found(entry.file) == entry.segments

    def fault(self, window: Window, segments: int, written: Written) -> Finding | None:
        found = self.found(written.file)
        if found != segments:
            due = f"the table has {found} rows of it but should have {segments}"
            return Finding("wrong row count", str(window), f"{due}; {AGAIN}")
        if not self.intact(written):
            told = "its row count is right, but values have changed"
            return Finding("changed", str(window), f"{told}; {self.mend}, and {AGAIN}")
        return None

    def strangers(self, known: AbstractSet[str]) -> Iterator[Finding]:
        if not self._db.columns(self._table):
            return
        if strangers := self.found() - sum(map(self.found, known)):
            told = "have close times in no window of the manifest; delete them, or keep them in another table"
            yield Finding("extra rows", self.place, f"{strangers} rows {told}")

    def found(self, name: str | None = None) -> int:
        """Return the number of rows in the table, of one window or in total."""
        source = self._own_rows if name is None else self._stored(name)
        [(rows,)] = self._db.rows(f"SELECT count(*) FROM {source}")  # noqa: S608
        return int(str(rows))

    @property
    def table_name(self) -> str:
        """The table's name, quoted for a query."""
        return self._table if re.fullmatch("[a-z_][a-z0-9_]*", self._table) else quoted(self._table)

    def ask(self, sql: str) -> Sequence[tuple[object, ...]]:
        """Run a query while the sink is open, and return its rows."""
        return self._db.rows(sql)

    def intact(self, written: Written) -> bool:
        """Return True if the values of the window's rows in the table are those that were written."""
        if written.file is None:
            return False
        digest = RowsDigest(self.schema)
        columns = self._columns.replace('"extras"', f"CAST(extras AS {self._db.types['text']}) AS extras")
        try:
            for rows in self._read(self._stored(written.file), columns):
                digest.add(pa.Table.from_batches([rows]))
        except pa.ArrowInvalid:  # a time that is not a whole number of milliseconds
            return False
        return digest.hexdigest() == written.sha256

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        """Drop this run's drafts within the window; those of earlier runs vanished with their connections."""
        for name in list(self._drafts):
            staged = _window(name)
            if staged.start < window.end and staged.end > window.start:
                self._forget(name)

    def close(self) -> None:
        database, self._database = self._database, None
        self._drafts.clear()
        if database is not None:
            database.close()


def _named(manifest: bytes | None) -> dict[str, _Entry]:
    """Return the windows in the table, by name. The commit log checks everything else in a manifest."""
    if manifest is None:
        return {}
    try:
        windows = msgspec.json.decode(manifest, type=_Windows).windows
    except msgspec.DecodeError as error:
        raise ManifestError(f"the manifest is damaged: {error}; restore it, or use another table") from None
    return {entry.file: entry for entry in windows if entry.file is not None}


def _window(name: str) -> Window:
    window = window_in(f"{name}.")
    if window is None or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a window")
    return window


def _within(name: str) -> str:
    window = _window(name)
    start, end = (f"TIMESTAMPTZ '{format_time(moment)}'" for moment in (window.start, window.end))
    return f"end_time >= {start} AND end_time < {end}"
