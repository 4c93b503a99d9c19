"""What a destination in tables needs of a database. Its words are SQL that DuckDB and PostgreSQL both understand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa

from segment_fetch.errors import DestinationError


class ConflictError(DestinationError):
    """A row with this primary key is there already."""


class Database(ABC):
    """An open connection. Every error of the driver comes as DestinationError, without any secret."""

    types: Mapping[str, str]
    """What the database calls the types "text", "time", "number" and "json"."""

    byte_order: str = ""
    """What makes ORDER BY sort texts by their bytes."""

    indexed: bool = False
    """Whether finding rows by time takes an index."""

    @abstractmethod
    def run(self, sql: str, *values: str | int) -> None:
        """Executes a statement; $1, $2, … stand for the values."""

    @abstractmethod
    def rows(self, sql: str, *values: str | int) -> Sequence[tuple[object, ...]]:
        """Executes a query, and returns its rows."""

    @abstractmethod
    def load(self, table: str, rows: pa.Table, *, temporary: bool) -> None:
        """Appends rows to a table, which may be a temporary one, with columns of these names, as fast as it goes."""

    @abstractmethod
    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Executes a query, and gives its rows as they come."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, str]:
        """Name and type of each column of a table; none where there is no such table."""

    @abstractmethod
    def primary_key(self, table: str) -> tuple[str, ...]:
        """The columns of a table's primary key."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection; what has not been committed is gone."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block, or nothing of it."""
        self.run("BEGIN")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            with suppress(DestinationError):  # without a connection there is nothing to take back
                self.run("ROLLBACK")
            raise


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'
