"""The interface to a database that stores segments, and the columns of their table in SQL.

The SQL is limited to what both DuckDB and PostgreSQL understand.
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
    """An open connection. Every error of the driver is raised as DestinationError, without secrets."""

    types: Mapping[str, str]
    """The database's names for the types "text", "time", "number" and "json"."""

    byte_order: str = ""
    """The clause that makes ORDER BY sort text by its bytes."""

    indexed: bool = False
    """True if the database needs an index to find rows by time."""

    @abstractmethod
    def run(self, sql: str, *values: str | int) -> None:
        """Execute a statement; $1, $2, … stand for the values."""

    @abstractmethod
    def rows(self, sql: str, *values: str | int) -> Sequence[tuple[object, ...]]:
        """Execute a query, and return its rows."""

    @abstractmethod
    def load(self, table: str, rows: pa.Table, *, temporary: bool) -> None:
        """Append rows to the same-named columns of a table, possibly a temporary one, in bulk."""

    @abstractmethod
    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Execute a query, and yield its rows in batches."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Return the names and types of a table's columns; empty if there is no such table."""

    @abstractmethod
    def needless(self, table: str) -> set[str]:
        """Return the columns of a table that are nullable or have a default, which INSERT may omit."""

    @abstractmethod
    def primary_key(self, table: str) -> tuple[str, ...]:
        """Return the columns of a table's primary key."""

    @abstractmethod
    def preparing(self, table: str) -> AbstractContextManager[None]:
        """Return a context in which no other process creates the same tables."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; uncommitted changes are lost."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in a transaction: all of it takes effect, or nothing."""
        self.run("BEGIN")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            with suppress(DestinationError):  # without a connection there is nothing to roll back
                self.run("ROLLBACK")
            raise


def quoted(name: str) -> str:
    """Return a name quoted for SQL, whatever characters it contains."""
    return '"' + name.replace('"', '""') + '"'


def create(db: Database, table: str, schema: pa.Schema) -> None:
    """Create the table of segments, with its key and index."""
    types, key = column_types(db, schema), primary_key(schema)
    columns = [_column(field, types[field.name], db.byte_order) for field in schema]
    with db.transaction():
        db.run(f"CREATE TABLE {quoted(table)} ({', '.join(columns)}, PRIMARY KEY ({', '.join(key)}))")
        if db.indexed:
            by_time = ", ".join([*key[:-1], "end_time"])
            db.run(f"CREATE INDEX {quoted(table + '_end_time')} ON {quoted(table)} ({by_time})")


def primary_key(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns that identify a segment."""
    return (arrow.ACCOUNT, "segment_id") if arrow.ACCOUNT in schema.names else ("segment_id",)


def _column(field: pa.Field, kind: str, order: str) -> str:
    by_bytes = f" {order}" if field.name == "segment_id" else ""
    return f"{quoted(field.name)} {kind}{by_bytes}{'' if field.nullable else ' NOT NULL'}"


def column_types(db: Database, schema: pa.Schema) -> dict[str, str]:
    """Return the columns with the database's names for their types."""
    kinds = {field.name: db.types[_KINDS.get(field.type, "text")] for field in schema}
    return kinds | {arrow.EXTRAS: db.types["json"]}


def missing_columns(db: Database, table: str, place: str, schema: pa.Schema) -> list[str]:
    """Return the columns that a table of an older release lacks and that can be added.

    Additional columns of the user are fine if INSERT may omit them. Raises DestinationError that lists every other
    difference between the existing and the required table.
    """
    due, found, key = column_types(db, schema), db.columns(table), db.primary_key(table)
    addable = {field.name for field in schema if field.nullable and arrow.SINCE.get(field.name, 1) > 1}
    differences = [
        f"{name} is {found[name]} but must be {kind}" if name in found else f"{name} {kind} is missing"
        for name, kind in due.items()
        if found.get(name, "").lower() != kind.lower() and (name in found or name not in addable)
    ]
    needed = found.keys() - due.keys() - db.needless(table)
    differences += [f"{name} {found[name]} is unknown and has no default" for name in found if name in needed]
    if set(key) != set(primary_key(schema)):
        differences.append(
            f"the primary key is {', '.join(key) or 'missing'} but must be {', '.join(primary_key(schema))}"
        )
    if differences:
        raise DestinationError(f"{place}, table {table} does not match: {'; '.join(differences)}; use another table")
    return [name for name in due if name not in found]


def add_columns(db: Database, table: str, names: Sequence[str], schema: pa.Schema) -> None:
    """Add columns to the table of an older release; existing rows get null."""
    types = column_types(db, schema)
    with db.transaction():
        for name in names:
            db.run(f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(name)} {types[name]}")
