"""The sink for a DuckDB file. Needs the extra `duckdb`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from segment_fetch.errors import (
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    InputError,
    MissingExtraError,
    check_type,
)

try:
    import duckdb
    import pyarrow as pa
except ImportError:
    raise MissingExtraError("DuckDB needs an extra: pip install 'segment-fetch[duckdb]'") from None

from segment_fetch.local.regular_files import refuse_irregular
from segment_fetch.sinks.files.disk import release, take_lock
from segment_fetch.sinks.tables.base import TABLE, TableSink
from segment_fetch.sinks.tables.database import ConflictError, Database, quoted

_SOURCE = "segment_fetch_rows"
_MAGIC, _MAGIC_AT = b"DUCK", 8
_PREPARING = Lock()


class DuckDbSink(TableSink):
    """A table in a DuckDB file, created if necessary, with the columns of `segment_fetch.arrow` and key segment_id.

    The manifest is in the table of the same name with the suffix `_manifest`. A window is replaced in one transaction.
    While a run has the file open, other processes cannot open it, as DuckDB allows only one. DuckDB extensions are
    neither loaded nor downloaded. Raises InputError if the path is empty or the table name invalid.
    """

    latest = (2**63 - 2) // 1000  # DuckDB counts microseconds; the largest number means infinity
    earliest = -9_223_372_022_400_000  # in 290309 BC

    def __init__(self, path: str | Path, table: str = TABLE, *, account_id: str | None = None) -> None:
        check_type("path", path, (str, Path), "the path of a file")
        check_type("table", table, str, "the name of a table")
        super().__init__(table, account_id)
        if not str(path).strip() or str(path).startswith(":memory:"):
            raise InputError("DuckDbSink needs the path of a file; an in-memory database would be lost at the end")
        self.path = Path(path)

    @property
    def place(self) -> str:
        return str(self.path)

    def connect(self, table: str, *, reading: bool) -> Database:
        if reading:
            return _DuckDb(self.path, reading=True)
        lock = self._locked()
        try:
            return _DuckDb(self.path, lock=lock)
        except BaseException:
            if lock is not None:
                release(lock)
            raise

    def _locked(self) -> int | None:
        try:
            own = "" if self.account_id is None else f".{self.account_id}"
            return take_lock(self.path.with_name(f".{self.path.name}{own}.lock"), self.path)
        except FileNotFoundError:
            raise DestinationError(f"{self.path}: there is no folder {self.path.parent}; create it first") from None
        except OSError as error:
            raise DestinationError(f"{self.path} cannot be opened: {error.strerror}") from error


class _DuckDb(Database):
    types = {"text": "VARCHAR", "time": "TIMESTAMP WITH TIME ZONE", "number": "BIGINT", "json": "JSON"}  # noqa: RUF012

    def __init__(self, path: Path, *, lock: int | None = None, reading: bool = False) -> None:
        self._path = path
        self._lock = lock
        _refuse_irregular(path)
        if reading and not path.is_file():
            raise DestinationError(f"{path}: there is no such file")
        self._connection = _opened(path, reading=reading)

    def run(self, sql: str, *values: str | int) -> None:
        with self._translated():
            self._connection.execute(sql, list(values))

    def rows(self, sql: str, *values: str | int) -> Sequence[tuple[object, ...]]:
        with self._translated():
            found: Sequence[tuple[object, ...]] = self._connection.execute(sql, list(values)).fetchall()
            return found

    def load(self, table: str, rows: pa.Table, *, temporary: bool) -> None:
        with self._translated():
            self._connection.register(_SOURCE, rows)
            self._connection.execute(f"INSERT INTO {quoted(table)} BY NAME SELECT * FROM {_SOURCE}")  # noqa: S608
            self._connection.unregister(
                _SOURCE
            )  # not after an error, where it would raise another; the next rows replace these

    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        with self._translated():
            yield from pa.RecordBatchReader.from_stream(self._connection.sql(sql))

    def columns(self, table: str) -> dict[str, str]:
        found = self.rows(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = $1 "
            "AND database_name = current_database() AND schema_name = current_schema() ORDER BY column_index",
            table,
        )
        return {str(name): str(kind) for name, kind in found}

    def needless(self, table: str) -> set[str]:
        found = self.rows(
            "SELECT column_name FROM duckdb_columns() WHERE table_name = $1 AND database_name = current_database() "
            "AND schema_name = current_schema() AND (is_nullable OR column_default IS NOT NULL)",
            table,
        )
        return {str(name) for (name,) in found}

    @contextmanager
    def preparing(self, table: str) -> Iterator[None]:
        with _PREPARING:  # no other process can have the file open
            yield

    def primary_key(self, table: str) -> tuple[str, ...]:
        found = self.rows(
            "SELECT unnest(constraint_column_names) FROM duckdb_constraints() WHERE table_name = $1 "
            "AND database_name = current_database() AND schema_name = current_schema() "
            "AND constraint_type = 'PRIMARY KEY'",
            table,
        )
        return tuple(str(name) for (name,) in found)

    def close(self) -> None:
        try:
            with self._translated():
                self._connection.close()
        finally:
            if self._lock is not None:
                release(self._lock)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except duckdb.ConstraintException as error:
            raise ConflictError(f"{self._path}: {_first_line(error)}") from error
        except (duckdb.OperationalError, duckdb.FatalException) as error:
            advice = "fix it and run again; what is committed stays"
            raise DestinationUnavailableError(f"cannot write {self._path}: {_first_line(error)}; {advice}") from error
        except duckdb.Error as error:
            raise DestinationError(f"{self._path}: {_first_line(error)}") from error


def _refuse_irregular(path: Path) -> None:
    """Raise DestinationError if DuckDB would block on a FIFO, or follow a planted link."""
    log = path.with_name(f"{path.name}.wal")
    try:
        for place, found in ((path, path.stat), (log, log.lstat)):
            with suppress(FileNotFoundError):
                refuse_irregular(found(), place)
    except OSError as error:
        raise DestinationError(f"{error.filename} cannot be opened: {error.strerror}; name another file") from None


def _opened(path: Path, *, reading: bool) -> duckdb.DuckDBPyConnection:
    try:
        return _connected(path, reading=reading)
    except duckdb.IOException as error:
        if _is_something_else(path):
            raise DestinationError(
                f"{path} exists and is not a valid DuckDB database file: choose another file"
            ) from error
        if "lock" in str(error):  # there is no error code for it
            raise DestinationBusyError(f"{path} is open in another process: {_first_line(error)}") from error
        raise DestinationError(f"{path} cannot be opened: {_first_line(error)}") from error
    except duckdb.Error as error:
        raise DestinationError(f"{path} cannot be opened: {_first_line(error)}") from error


def _is_something_else(path: Path) -> bool:
    """Return True if a file that DuckDB cannot open is not a DuckDB file.

    Never called for an open file: closing a file releases the locks that this process has on it.
    """
    try:
        with path.open("rb") as file:
            return not file.read(_MAGIC_AT + len(_MAGIC)).endswith(_MAGIC)
    except OSError:
        return False


def _connected(path: Path, *, reading: bool) -> duckdb.DuckDBPyConnection:
    place = path.absolute()  # in md:name, DuckDB takes the part before the colon as the name of an extension
    try:
        return _bare(place, reading=reading)
    except duckdb.ConnectionException:
        return _shared(place, reading=reading)


def _bare(place: Path, *, reading: bool) -> duckdb.DuckDBPyConnection:
    """Return a connection that never downloads an extension: everything needed is built in."""
    without = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
    return duckdb.connect(place, read_only=reading, config={**without})


def _shared(place: Path, *, reading: bool) -> duckdb.DuckDBPyConnection:
    """Return a connection to a file that this process already has open, with the settings of the first connection."""
    if reading:
        try:
            return _bare(place, reading=False)
        except duckdb.ConnectionException:
            return duckdb.connect(place)
    return duckdb.connect(place)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
