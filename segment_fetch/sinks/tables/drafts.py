"""A window's rows before they are published: in memory, or in a temporary table if there are many."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import pyarrow as pa

from segment_fetch.errors import DestinationError
from segment_fetch.sinks.base import Draft, Written
from segment_fetch.sinks.tables.database import Database, quoted
from segment_fetch.sinks.tables.row_checksum import RowsDigest


class TableDraft(Draft["pa.RecordBatch"]):
    """A window's rows. A temporary table vanishes with the connection, so it leaves nothing behind."""

    def __init__(
        self,
        database: Database,
        name: str,
        like: str,
        temporary: str,
        *,
        held: int,
        drafts: Collection[TableDraft],
        schema: pa.Schema,
    ) -> None:
        """Store the arguments. `drafts` are all open drafts, this one included; `held` limits their rows in memory."""
        self.rows = 0
        """Number of rows in memory."""
        self._schema = schema
        self._database = database
        self._name = name
        self._like = like
        self._temporary = temporary
        self._most = held
        self._drafts = drafts
        self._spilled = False
        self._written: Written | None = None
        self._digest = RowsDigest(schema)
        self._held: list[pa.RecordBatch] = []

    def has(self, sha256: str | None) -> bool:
        """Return True if the draft is finished and has this checksum."""
        return self._written is not None and self._written.sha256 == sha256

    @property
    def finished(self) -> bool:
        """True if all of the window's rows have been added."""
        return self._written is not None

    def add(self, part: pa.RecordBatch) -> None:
        self._held.append(part)
        self.rows += len(part)
        if sum(draft.rows for draft in self._drafts) > self._most:
            max(self._drafts, key=lambda draft: draft.rows).spill()

    def _joined(self) -> pa.Table:
        rows = pa.Table.from_batches(self._held, self._schema).combine_chunks()
        self._held = rows.to_batches()
        return rows

    def spill(self) -> None:
        """Move its rows from memory to its temporary table."""
        if not self.finished:
            self._digest.add(self._joined())
        if not self._spilled:
            columns = ", ".join(map(quoted, self._schema.names))  # without the user's additional ones
            like = f"SELECT {columns} FROM {quoted(self._like)} LIMIT 0"  # noqa: S608
            self._database.run(f"CREATE TEMPORARY TABLE {self._temporary} AS {like}")
            self._spilled = True
        if self._held:
            self._database.load(self._temporary, self._joined(), temporary=True)
            self._held, self.rows = [], 0

    def finish(self) -> Written:
        self._digest.add(self._joined())
        self._written = Written(file=self._name, sha256=self._digest.hexdigest())
        return self._written

    def temporary(self) -> str:
        """Return the name of a temporary table with all of the rows."""
        self.spill()
        return self._temporary

    def insert(self, columns: str) -> None:
        """Insert the rows into the table. Raises ConflictError if one of them exists."""
        if self._spilled:
            into = f"INSERT INTO {quoted(self._like)} ({columns})"
            self._database.run(f"{into} SELECT {columns} FROM {self._temporary}")  # noqa: S608
        if self._held:
            self._database.load(self._like, self._joined(), temporary=False)

    def drop(self) -> None:
        self._held, self.rows, self._written = [], 0, None
        if self._spilled:
            self._spilled = False
            with suppress(DestinationError):  # a table that cannot be dropped vanishes with the connection
                self._database.run(f"DROP TABLE {self._temporary}")
