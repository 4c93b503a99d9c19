"""The manifest of a table: its head as JSON in one row, and one row per window in another table.

A commit replaces the rows of its windows and the head, so its cost does not depend on the number of windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from segment_fetch.query import MAX_WINDOW_MS
from segment_fetch.sinks.tables.database import Database, quoted
from segment_fetch.timerange import format_time, parse_time

_COLUMNS = {"window_start": "time", "window_end": "time", "status": "text", "segments": "number", "entry": "text"}
_TIME = pa.timestamp("ms", "UTC")


class _Entry(msgspec.Struct):
    from_: str = msgspec.field(name="from")
    to: str
    status: str
    segments: int


class _Record(msgspec.Struct):
    commit: int
    complete_before: str | None
    windows: tuple[msgspec.Raw, ...]


class ManifestRows:
    """The two tables of a manifest: `head` and `windows` are their names."""

    def __init__(self, head: str, windows: str) -> None:
        self._head = head
        self._windows = windows
        self._stored: dict[str, msgspec.Raw] = {}

    def create(self, db: Database) -> None:
        """Create the missing tables."""
        if not db.columns(self._head):
            db.run(f"CREATE TABLE {quoted(self._head)} (id INTEGER PRIMARY KEY, manifest TEXT NOT NULL)")
        if not db.columns(self._windows):
            columns = ", ".join(f"{name} {db.types[kind]} NOT NULL" for name, kind in _COLUMNS.items())
            db.run(f"CREATE TABLE {quoted(self._windows)} ({columns})")
            if db.indexed:
                db.run(f"CREATE INDEX {quoted(self._windows + '_start')} ON {quoted(self._windows)} (window_start)")

    def read(self, db: Database) -> bytes | None:
        """Return the whole manifest, None if there is none."""
        if not db.columns(self._head):
            return None
        found = db.rows(f"SELECT manifest FROM {quoted(self._head)} WHERE id = 1")  # noqa: S608
        if not found:
            return None
        text = str(found[0][0]).encode()
        try:
            self._stored = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except msgspec.DecodeError:
            return text  # damaged, as the parser will report
        if "commits" not in self._stored or not db.columns(self._windows):
            return text  # version 1: everything in one row
        joined = f"SELECT string_agg(entry, ',' ORDER BY window_start) FROM {quoted(self._windows)}"  # noqa: S608
        listed = str(db.rows(joined)[0][0] or "")  # as one text: so many rows would take long to fetch
        return msgspec.json.encode(self._stored | {"windows": msgspec.Raw(f"[{listed}]".encode())})

    def replace(self, db: Database, manifest: bytes) -> None:
        """Store a whole manifest in place of the existing one. Must be called in a transaction."""
        stored = msgspec.json.decode(manifest, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(stored["windows"], type=list[msgspec.Raw])
        db.run(f"DELETE FROM {quoted(self._windows)}")  # noqa: S608
        if entries:
            db.load(self._windows, _table(entries), temporary=False)
        self._store_head(db, stored | {"windows": msgspec.Raw(b"[]")})

    def append(self, db: Database, record: bytes) -> None:
        """Store the windows of one commit in place of all that they overlap. Must be called in a transaction."""
        commit = msgspec.json.decode(record, type=_Record)
        for raw in commit.windows:
            entry = msgspec.json.decode(raw, type=_Entry)
            start, end = parse_time(entry.from_, 0), parse_time(entry.to, 0)
            db.run(
                f"DELETE FROM {quoted(self._windows)} WHERE window_start < {_literal(end)} "  # noqa: S608
                f"AND window_end > {_literal(start)} AND window_start > {_literal(start - 2 * MAX_WINDOW_MS)}"
            )
        if commit.windows:
            db.load(self._windows, _table(commit.windows), temporary=False)
        head = {"complete_before": commit.complete_before, "commits": commit.commit}
        self._store_head(db, self._stored | {name: _raw(value) for name, value in head.items()})

    def _store_head(self, db: Database, head: Mapping[str, msgspec.Raw]) -> None:
        stored = f"INSERT INTO {quoted(self._head)} VALUES (1, $1)"  # noqa: S608
        text = msgspec.json.encode(head).decode()
        db.run(f"{stored} ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest", text)
        self._stored = dict(head)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _literal(ms: int) -> str:
    return f"TIMESTAMPTZ '{format_time(ms)}'"


def _table(entries: Sequence[msgspec.Raw]) -> pa.Table:
    parsed = [msgspec.json.decode(entry, type=_Entry) for entry in entries]
    return pa.table(
        {
            "window_start": pa.array([parse_time(each.from_, 0) for each in parsed], _TIME),
            "window_end": pa.array([parse_time(each.to, 0) for each in parsed], _TIME),
            "status": pa.array([each.status for each in parsed], pa.string()),
            "segments": pa.array([each.segments for each in parsed], pa.int64()),
            "entry": pa.array([bytes(entry).decode() for entry in entries], pa.string()),
        }
    )
