"""The interface of a database that holds segments, and the columns of their table in its words.

The SQL is what DuckDB and PostgreSQL both understand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import pyarrow as pa

from segment_fetch import arrow
from segment_fetch.errors import DestinationError

_KINDS = {pa.string(): "text", pa.int64(): "number", pa.timestamp("ms", "UTC"): "time"}


class ConflictError(DestinationError):
    """A row with this primary key already exists."""


class Database(ABC):
    """An open connection. Every error of the driver comes as DestinationError, without any secret."""

    types: Mapping[str, str]
    """The database's names of the types "text", "time", "number" and "json"."""

    byte_order: str = ""
    """The words that make ORDER BY sort texts by their bytes."""

    indexed: bool = False
    """True if finding rows by time takes an index."""

    @abstractmethod
    def run(self, sql: str, *values: str | int) -> None:
        """Execute a statement; $1, $2, … stand for the values."""

    @abstractmethod
    def rows(self, sql: str, *values: str | int) -> Sequence[tuple[object, ...]]:
        """Execute a query, and return its rows."""

    @abstractmethod
    def load(self, table: str, rows: pa.Table, *, temporary: bool) -> None:
        """Append rows to the columns of these names of a table, which may be a temporary one, as fast as it goes."""

    @abstractmethod
    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Execute a query, and yield its rows as they come."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Return name and type of each column of a table; nothing where there is no such table."""

    @abstractmethod
    def needless(self, table: str) -> set[str]:
        """Return the columns of a table that a new row need not name: they can be null, or have a default."""

    @abstractmethod
    def primary_key(self, table: str) -> tuple[str, ...]:
        """Return the columns of a table's primary key."""

    @abstractmethod
    def preparing(self, table: str) -> AbstractContextManager[None]:
        """Keep others from creating the same tables at the same time, for the length of the block."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; what has not been committed is gone."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block, or nothing of it."""
        self.run("BEGIN")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            with suppress(DestinationError):  # without a connection there is nothing to take back
                self.run("ROLLBACK")
            raise


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def create(db: Database, table: str, schema: pa.Schema) -> None:
    """Create the table of segments, as a whole."""
    types, key = column_types(db, schema), primary_key(schema)
    columns = [_column(field, types[field.name], db.byte_order) for field in schema]
    with db.transaction():
        db.run(f"CREATE TABLE {quoted(table)} ({', '.join(columns)}, PRIMARY KEY ({', '.join(key)}))")
        if db.indexed:
            by_time = ", ".join([*key[:-1], "end_time"])
            db.run(f"CREATE INDEX {quoted(table + '_end_time')} ON {quoted(table)} ({by_time})")


def primary_key(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that tell one segment from another."""
    return (arrow.ACCOUNT, "segment_id") if arrow.ACCOUNT in schema.names else ("segment_id",)


def _column(field: pa.Field, kind: str, order: str) -> str:
    by_bytes = f" {order}" if field.name == "segment_id" else ""
    return f"{quoted(field.name)} {kind}{by_bytes}{'' if field.nullable else ' NOT NULL'}"


def column_types(db: Database, schema: pa.Schema) -> dict[str, str]:
    """Return the columns with the database's names of their types."""
    kinds = {field.name: db.types[_KINDS.get(field.type, "text")] for field in schema}
    return kinds | {arrow.EXTRAS: db.types["json"]}


def missing_columns(db: Database, table: str, place: str, schema: pa.Schema) -> list[str]:
    """Return the columns that an older release did not have yet, and that can be added to its table.

    Columns of the user's own are fine where a row need not name them. DestinationError names every other difference
    between the table that is there and the one that is needed.
    """
    due, found, key = column_types(db, schema), db.columns(table), db.primary_key(table)
    addable = {field.name for field in schema if field.nullable and arrow.SINCE.get(field.name, 1) > 1}
    differences = [
        f"{name} is {found[name]} and has to be {kind}" if name in found else f"{name} {kind} is missing"
        for name, kind in due.items()
        if found.get(name, "").lower() != kind.lower() and (name in found or name not in addable)
    ]
    needed = found.keys() - due.keys() - db.needless(table)
    differences += [f"{name} {found[name]} is not known, and has no default" for name in found if name in needed]
    if set(key) != set(primary_key(schema)):
        differences.append(
            f"the primary key is {', '.join(key) or 'missing'} and has to be {', '.join(primary_key(schema))}"
        )
    if differences:
        raise DestinationError(f"{place}, table {table} does not fit: {'; '.join(differences)}; use another table")
    return [name for name in due if name not in found]


def add_columns(db: Database, table: str, names: Sequence[str], schema: pa.Schema) -> None:
    """Add columns to the table of an older release; the rows that are there have null in them."""
    types = column_types(db, schema)
    with db.transaction():
        for name in names:
            db.run(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {types[name]}")
