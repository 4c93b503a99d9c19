"""The sink for a PostgreSQL table, loaded by binary COPY. Needs the extra `postgres`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

from segment_fetch.errors import (
    DestinationBusyError,
    DestinationError,
    DestinationUnavailableError,
    MissingExtraError,
    check_type,
)

try:
    import adbc_driver_manager
    import adbc_driver_postgresql.dbapi
    import pyarrow as pa
except ImportError:
    raise MissingExtraError("PostgreSQL needs an extra: pip install 'segment-fetch[postgres]'") from None

from segment_fetch.sinks.tables.base import TABLE, TableSink
from segment_fetch.sinks.tables.database import ConflictError, Database, quoted
from segment_fetch.sinks.tables.dsn import Dsn

_UNIQUE = "23505"
_MAY_PASS = ("08", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE that concern the server's state, not the statement."""

_AGAIN = "run again; what is committed stays"
_UNANSWERED = "no password supplied"
_AWAY = ("connection to server", "could not translate host name")
_SESSION = (
    "SET client_min_messages = warning",  # libpq writes notices to standard error
    "SET TimeZone = 'UTC'",
)


class PostgresSink(TableSink):
    """A PostgreSQL table, created if necessary, with the columns of `segment_fetch.arrow` and primary key segment_id.

    `dsn` is a URL, postgresql://user@host:port/database. libpq finds omitted parts, the password above all, as for any
    other program: in PGPASSWORD and so on, in ~/.pgpass, in a service file (?service=name). The manifest is in the
    table of the same name with the suffix `_manifest`. A window is replaced in one transaction; an advisory lock
    excludes a second run.
    """

    latest = (2**63 - 1) // 1000  # the last that Arrow can count in microseconds, in the year 294247
    earliest = -210_866_803_200_000  # in 4714 BC
    zero_characters = False

    def __init__(
        self, dsn: str, table: str | None = None, schema: str | None = None, *, account_id: str | None = None
    ) -> None:
        check_type("dsn", dsn, str, "a URL as text")
        for name, value in (("table", table), ("schema", schema)):
            if value is not None:
                check_type(name, value, str, f"the name of a {name}, or None")
        self._dsn = Dsn(dsn)
        self._namespace = schema or self._dsn.schema
        named = self._dsn.table if table is None else table
        super().__init__(TABLE if named is None else named, account_id or self._dsn.account_id)

    @property
    def place(self) -> str:
        return str(self._dsn)

    def connect(self, table: str, *, reading: bool) -> Database:
        db = _Postgres(self._dsn)
        try:
            db.prepare(self._namespace, reading=reading)
            if not reading:
                db.lock(table if self.account_id is None else f"{table} {self.account_id}")
        except BaseException:
            db.close()
            raise
        return db


class _Postgres(Database):
    types = {"text": "text", "time": "timestamp with time zone", "number": "bigint", "json": "json"}  # noqa: RUF012
    byte_order = 'COLLATE "C"'
    indexed = True

    def __init__(self, dsn: Dsn) -> None:
        self._dsn = dsn
        try:
            self._connection = adbc_driver_postgresql.dbapi.connect(dsn.reveal(), autocommit=True)
        except adbc_driver_manager.Error as error:
            raise self._refused(error) from None
        self._cursor = self._connection.cursor()

    def prepare(self, schema: str | None, *, reading: bool) -> None:
        """Apply the session's settings."""
        for statement in _SESSION:
            self.run(statement)
        if schema is not None:
            self.run(f"SET search_path TO {quoted(schema)}")
        if reading:
            self.run("SET default_transaction_read_only = on")
            self.run("SET default_transaction_isolation = 'repeatable read'")
        if self.rows("SELECT current_schema()") == [(None,)]:
            raise DestinationError(
                f"{self._dsn}: there is no schema {schema or 'to create tables in'}; create it first"
            )

    def lock(self, name: str) -> None:
        """Take the write lock of a table, or of an account's rows in it, until the connection ends."""
        if self.rows("SELECT pg_try_advisory_lock($1)", self._key(name)) != [(True,)]:
            raise DestinationBusyError(f"another run is writing to {self._dsn}, table {name}: wait for it to end")

    def _key(self, name: str) -> int:
        """Return the number of a lock by its name."""
        [(schema,)] = self.rows("SELECT current_schema()")
        return int.from_bytes(hashlib.sha256(f"segment_fetch {schema}.{name}".encode()).digest()[:8], signed=True)

    @contextmanager
    def preparing(self, table: str) -> Iterator[None]:
        key = self._key(f"{table} is prepared")
        self.rows("SELECT pg_advisory_lock($1)::text", key)
        try:
            yield
        finally:
            with suppress(DestinationError):  # the lock ends with the connection anyway
                self.rows("SELECT pg_advisory_unlock($1)", key)

    def run(self, sql: str, *values: str | int) -> None:
        with self._translated():
            self._cursor.execute(sql, values or None)

    def rows(self, sql: str, *values: str | int) -> Sequence[tuple[object, ...]]:
        with self._translated():
            self._cursor.execute(sql, values or None)
            return [tuple(row) for row in self._cursor.fetchall()]

    def load(self, table: str, rows: pa.Table, *, temporary: bool) -> None:
        with self._translated():
            if temporary:
                self._cursor.adbc_ingest(table, rows, mode="append", temporary=True)
            else:
                self._cursor.adbc_ingest(table, rows, mode="append", db_schema_name=self._schema_of(table))

    def _schema_of(self, table: str) -> str:
        """Return the schema in which the search path finds a table."""
        [(schema,)] = self.rows(
            "SELECT nspname::text FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE pg_class.oid = to_regclass(quote_ident($1))",
            table,
        )
        return str(schema)

    def read(self, sql: str) -> Iterator[pa.RecordBatch]:
        with self._translated():
            self._cursor.execute(sql)
            yield from self._cursor.fetch_record_batch()

    def columns(self, table: str) -> dict[str, str]:
        found = self.rows(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(quote_ident($1)) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            table,
        )
        return {str(name): str(kind) for name, kind in found}

    def needless(self, table: str) -> set[str]:
        found = self.rows(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(quote_ident($1)) AND attnum > 0 "
            "AND NOT attisdropped AND (NOT attnotnull OR atthasdef OR attidentity <> '')",
            table,
        )
        return {str(name) for (name,) in found}

    def primary_key(self, table: str) -> tuple[str, ...]:
        found = self.rows(
            "SELECT attname::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) "
            "WHERE indrelid = to_regclass(quote_ident($1)) AND indisprimary ORDER BY attnum",
            table,
        )
        return tuple(str(name) for (name,) in found)

    def close(self) -> None:
        with self._translated(), closing(self._connection):
            self._cursor.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except adbc_driver_manager.Error as error:
            raise self._translation(error) from None  # the driver's message may quote its input

    def _translation(self, error: adbc_driver_manager.Error) -> DestinationError:
        code, told = error.sqlstate, f"{self._dsn}: {self._words(error)}"
        if code == _UNIQUE:
            return ConflictError(told)
        if code is None or code.startswith(_MAY_PASS):  # without a code, the connection failed
            return DestinationUnavailableError(f"{told}; {_AGAIN}")
        return DestinationError(told)

    def _refused(self, error: adbc_driver_manager.Error) -> DestinationError:
        told, text = f"cannot connect to {self._dsn}: {self._words(error)}", str(error)
        if _UNANSWERED in text:  # the client library's message, which has no code either
            return DestinationError(
                f"cannot connect to {self._dsn}: the server requires a password, and none is set; set PGPASSWORD, or "
                "write host:port:database:user:password into ~/.pgpass, with mode 600"
            )
        if "FATAL" not in text and any(words in text for words in _AWAY):  # such an error has no code
            return DestinationUnavailableError(f"{told}; {_AGAIN}")
        return DestinationError(f"{told}; fix the URL, or the password in PGPASSWORD or ~/.pgpass")

    def _words(self, error: adbc_driver_manager.Error) -> str:
        text = str(error)
        for start in ("ERROR:", "FATAL:", "[libpq]"):
            _, found, rest = text.partition(start)
            if found:
                text = rest
                break
        return self._dsn.redacted(text.strip().partition("\n")[0].strip())
