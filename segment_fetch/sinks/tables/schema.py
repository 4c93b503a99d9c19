"""The columns of a table, in a database's own words."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from segment_fetch import arrow
from segment_fetch.errors import DestinationError
from segment_fetch.sinks.tables.database import Database, quoted

_KINDS = {pa.string(): "text", pa.int64(): "number", pa.timestamp("ms", "UTC"): "time"}


def create(db: Database, table: str) -> None:
    """Creates the table, as a whole."""
    types = column_types(db)
    columns = [_column(field, types[field.name], db.byte_order) for field in arrow.schema()]
    with db.transaction():
        db.run(f"CREATE TABLE {quoted(table)} ({', '.join(columns)}, PRIMARY KEY (segment_id))")
        if db.indexed:
            db.run(f"CREATE INDEX {quoted(table + '_end_time')} ON {quoted(table)} (end_time)")


def _column(field: pa.Field, kind: str, order: str) -> str:
    by_bytes = f" {order}" if field.name == "segment_id" else ""
    return f"{quoted(field.name)} {kind}{by_bytes}{'' if field.nullable else ' NOT NULL'}"


def column_types(db: Database) -> dict[str, str]:
    """The columns, and what the database calls their types."""
    kinds = {field.name: db.types[_KINDS.get(field.type, "text")] for field in arrow.schema()}
    return kinds | {arrow.EXTRAS: db.types["json"]}


def check_columns(place: str, due: Mapping[str, str], found: Mapping[str, str], key: tuple[str, ...]) -> None:
    """DestinationError that names each difference between the columns of a table and those that it needs."""
    differences = [
        f"{name} is {found[name]} and has to be {kind}" if name in found else f"{name} {kind} is missing"
        for name, kind in due.items()
        if found.get(name, "").lower() != kind.lower()
    ]
    differences += [f"{name} {found[name]} is not known" for name in found if name not in due]
    if key != ("segment_id",):
        differences.append(f"the primary key is {', '.join(key) or 'missing'} and has to be segment_id")
    if differences:
        raise DestinationError(f"{place} is another one: {'; '.join(differences)}; use another table")
