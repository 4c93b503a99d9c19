"""A window's rows on their way into a table: in a temporary one, which ends with the connection."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa

from segment_fetch import arrow
from segment_fetch.errors import DestinationError
from segment_fetch.sinks.base import Draft, Written
from segment_fetch.sinks.database import Database
from segment_fetch.sinks.digest import RowsDigest

_AT_ONCE = 10_000  # rows: fewer make many small statements, more take memory and gain nothing


class TableDraft(Draft["pa.RecordBatch"]):
    """A window's rows on their way into the table."""

    def __init__(self, database: Database, table: str, name: str) -> None:
        self.table = table
        self._database = database
        self._name = name
        self._written: Written | None = None
        self._digest = RowsDigest()
        self._held: list[pa.RecordBatch] = []
        self._rows = 0
        self._dropped = False

    @property
    def finished(self) -> bool:
        """Whether all of the window's rows are in the temporary table."""
        return self._written is not None

    def has(self, sha256: str | None) -> bool:
        """Whether these are the rows with this checksum, all of them."""
        return self._written is not None and self._written.sha256 == sha256

    def add(self, part: pa.RecordBatch) -> None:
        self._held.append(part)
        self._rows += len(part)
        if self._rows >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows = pa.Table.from_batches(self._held, arrow.schema()).combine_chunks()
        self._held, self._rows = [], 0
        self._digest.add(rows)
        self._database.load(self.table, rows)

    def finish(self) -> Written:
        if self._held:
            self._flush()
        self._written = Written(file=self._name, sha256=self._digest.hexdigest())
        return self._written

    def drop(self) -> None:
        if not self._dropped:
            self._dropped, self._written = True, None
            self._held.clear()
            with suppress(DestinationError):  # a table that cannot be dropped ends with the connection
                self._database.run(f"DROP TABLE {self.table}")
