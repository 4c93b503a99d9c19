"""Handle time by interval and group, from the contents of a destination.

A segment counts in the interval in which it *closed*: the API does not say when during a segment the agent worked on
it, so no figure here says how much work was in progress at a time. (The API's breakdown files do; they are not read.)
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import tzinfo
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from segment_fetch.analysis.intervals import Every, Intervals, check_every, overlapping
from segment_fetch.analysis.sources import Source, source_of
from segment_fetch.errors import DestinationBusyError, DestinationError, InputError, MissingExtraError
from segment_fetch.manifest import verify
from segment_fetch.manifest.format import Manifest
from segment_fetch.query import Window
from segment_fetch.sinks.base import Sink
from segment_fetch.sinks.registry import file_sink, table_sink
from segment_fetch.timerange import TimeLike, parse_time, zone_of

try:
    import duckdb
    import pyarrow as pa
except ImportError:
    raise MissingExtraError("handle time needs an extra: pip install 'segment-fetch[duckdb]'") from None

Group: TypeAlias = Literal["skill", "agent", "group", "employee", "end-reason"]
"""A property by which handle time can be grouped."""

GROUPS: dict[Group, str] = {
    "skill": "skill_id",
    "agent": "agent_id",
    "group": "group_id",
    "employee": "employee_id",
    "end-reason": "end_reason",
}
"""Group -> its column."""

FILL_LIMIT = 1_000_000
"""Maximum number of rows of a result with empty intervals filled in."""

MEMORY_LIMIT = "400MB"
"""DuckDB's memory limit; beyond it, DuckDB uses a temporary folder."""

_TEXTS = frozenset({"employee_id", "end_reason"})
_MEASURES = (
    ("segments", "count(*)"),
    ("handle_time_ms", "sum(handle_ms)"),
    ("with_time", "count(handle_ms)"),
    ("longest_ms", "max(handle_ms)"),
)
_QUANTILES = "quantile_cont(handle_ms, [0.5, 0.9])"  # in one call: separate ones would keep all values twice
_QUANTILES_OF_POSTGRES = tuple(
    (name, f"percentile_cont({at}) WITHIN GROUP (ORDER BY handle_ms)")
    for name, at in (("median_ms", 0.5), ("p90_ms", 0.9))
)
_RESULT = (
    "coalesce(s.segments, 0)::BIGINT AS segments",
    "coalesce(s.conversations, 0)::BIGINT AS conversations",
    "coalesce(s.handle_time_ms, 0)::BIGINT AS handle_time_ms",
    "round(s.handle_time_ms / nullif(s.with_time, 0))::BIGINT AS aht_segment_ms",
    "round(s.handle_time_ms / nullif(s.conversations, 0))::BIGINT AS aht_conversation_ms",
    "round(s.median_ms)::BIGINT AS median_ms",
    "round(s.p90_ms)::BIGINT AS p90_ms",
    "s.longest_ms::BIGINT AS longest_ms",
)
_WITHOUT_TIME = "(coalesce(s.segments, 0) - coalesce(s.with_time, 0))::BIGINT AS without_time"


class HandleTime(Struct, frozen=True):
    """Handle time of a range. `table` has a row for each interval and group, in that order; durations in milliseconds.

    Its columns: `interval_start` (ISO 8601, local, with offset), the columns of `by`, `segments`, `conversations`
    (distinct), `handle_time_ms` (sum), `aht_segment_ms` and `aht_conversation_ms` (the sum divided by the segments that
    have a handle time, and by the conversations), `median_ms`, `p90_ms`, `longest_ms`, `provisional` (part of the
    interval is provisional or missing), `without_time` (segments that have no handle time: they count as segments, and
    in no average). Segments and handle time add up over any grouping; the others do not. A segment without a skill,
    agent, group, employee or end reason is in a row whose column is null.

    `start` and `end` are the range in epoch milliseconds; in its `provisional` parts more segments may appear, its
    `missing` parts are not stored. `complete_before` is the manifest's: everything that closed before it, from the
    first window on, is stored and final.
    """

    table: pa.Table
    start: int
    end: int
    every: Every
    by: tuple[Group, ...]
    zone: str
    provisional: tuple[Window, ...]
    missing: tuple[Window, ...]
    complete_before: int | None


def handle_time(
    place: str | os.PathLike[str],
    *,
    by: Sequence[str] = (),
    every: str = "none",
    timezone: str = "UTC",
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    fill: bool = False,
    now_ms: int | None = None,
) -> HandleTime:
    """Return the handle time of the segments in a destination, by `by` and `every`, as Arrow.

    `place` is a folder or a URL as `segment_fetch.sinks.open_sink` takes it. `start` and `end` default to the range
    of the manifest; a text without an offset is local to `timezone`, an IANA name. `fill` adds a row of zeros for each
    interval in which a group has no segments. `now_ms` is the meaning of "now", by default the current time.

    Raises InputError for an argument that cannot be used, ManifestError or DestinationError where the destination
    cannot be read, and MissingExtraError where an optional package is not installed.
    """
    groups, length, zone = _checked_groups(by), check_every(every), zone_of(timezone)
    sink, manifest = destination(place)
    asked = asked_range(manifest, start, end, zone, now_ms)
    intervals = Intervals(asked.start, asked.end, length, zone)
    names = [GROUPS[group] for group in groups]
    provisional, missing = coverage_of(manifest, asked)
    with source_of(sink, manifest, asked) as source, duckdb_of(source) as connection:
        table = summed(connection, source, intervals, names, [*provisional, *missing], fill=fill)
    final = watermark_of(manifest)
    return HandleTime(
        table, asked.start, asked.end, length, groups, timezone, tuple(provisional), tuple(missing), final
    )


def destination(place: str | os.PathLike[str]) -> tuple[Sink[Any], Manifest]:
    """Return the sink that wrote a destination, not open, and its manifest."""
    text = os.fspath(place)
    if (table := table_sink(text)) is not None:
        return table, verify.manifest_of(table)
    manifest = verify.manifest_of(text)
    return file_sink(text, manifest.query), manifest


def watermark_of(manifest: Manifest) -> int | None:
    """Return the manifest's `complete_before` in epoch milliseconds; None if it has no windows."""
    text = manifest.complete_before
    return None if text is None else parse_time(text, 0)


def coverage_of(manifest: Manifest, asked: Window) -> tuple[list[Window], list[Window]]:
    """Return the parts of a range that are provisional, and those that are missing."""
    provisional: list[Window] = []
    missing: list[Window] = []
    at = asked.start
    for entry in sorted(manifest.windows, key=lambda entry: entry.window):
        window = entry.window
        if window.end <= asked.start or window.start >= asked.end:
            continue
        if window.start > at:
            missing.append(Window(at, window.start))
        part = Window(max(window.start, asked.start), min(window.end, asked.end))
        if entry.status == "provisional":
            provisional.append(part)
        elif entry.status == "unproven":
            missing.append(part)
        at = max(at, window.end)
    if at < asked.end:
        missing.append(Window(at, asked.end))
    return provisional, _joined(missing)


def _joined(windows: Iterable[Window]) -> list[Window]:
    found: list[Window] = []
    for window in windows:
        if found and found[-1].end == window.start:
            found[-1] = Window(found[-1].start, window.end)
        else:
            found.append(window)
    return found


def _checked_groups(by: Sequence[str]) -> tuple[Group, ...]:
    if isinstance(by, str):
        raise InputError(f"by {by!r}: give a list of names, such as ['skill', 'agent']")
    found: list[Group] = []
    for name in by:
        known = next((group for group in GROUPS if group == name), None)
        if known is None:
            raise InputError(f"by {name!r}: choose from {', '.join(GROUPS)}")
        if known not in found:
            found.append(known)
    return tuple(found)


def asked_range(
    manifest: Manifest, start: TimeLike | None, end: TimeLike | None, zone: tzinfo, now_ms: int | None
) -> Window:
    """Return the range, by default that of the manifest. Raises InputError if it is empty."""
    windows = sorted(entry.window for entry in manifest.windows)
    if not windows:
        raise InputError("the destination has no windows yet: run an extraction first")
    now = round(time.time() * 1000) if now_ms is None else now_ms
    first = windows[0].start if start is None else parse_time(start, now, zone)
    last = max(window.end for window in windows) if end is None else parse_time(end, now, zone)
    if first >= last:
        raise InputError("the range is empty: let it start before it ends")
    if first < 0:
        raise InputError("the range starts before 1970, when no segment can have closed")
    return Window(first, last)


def summed(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    intervals: Intervals,
    names: Sequence[str],
    open_parts: Sequence[Window],
    *,
    fill: bool = False,
    conversations: bool = True,
) -> pa.Table:
    """Return the table of a `HandleTime`, grouped by the columns `names`; `open_parts` are not final.

    Without `conversations` their counts are zero: counting them takes most of the time.
    """
    _sums(connection, source, _query(source, intervals, names), names, conversations=conversations)
    return _finished(connection, intervals, names, open_parts, fill=fill)


def _query(source: Source, intervals: Intervals, names: Sequence[str]) -> str:
    """Return the SQL that assigns the key of its interval to each segment of the range."""
    chosen = ", ".join(["close_ms", *names, "handle_ms", "conversation_id"])
    within = f"close_ms >= {intervals.start} AND close_ms < {intervals.end}"
    keyed = ", ".join([f"{intervals.key_sql('close_ms')} AS key", *names, "handle_ms", "conversation_id"])
    return f"SELECT {keyed} FROM (SELECT {chosen} FROM {source.relation} WHERE {within}) AS chosen"  # noqa: S608


def _sums(
    connection: duckdb.DuckDBPyConnection, source: Source, rows: str, names: Sequence[str], *, conversations: bool
) -> None:
    """Create the table `sums`: the measures by key and group.

    It takes two steps, so that each fits into memory or can spill to disk: DuckDB must keep the state of
    count(DISTINCT) in memory, but not that of SELECT DISTINCT. PostgreSQL computes its own sums.
    """
    by = ", ".join(["key", *names])
    measures = ", ".join(f"{sql} AS {name}" for name, sql in _MEASURES)
    if source.database is not None:
        quantiles = ", ".join(f"{sql} AS {name}" for name, sql in _QUANTILES_OF_POSTGRES)
        counts = "count(DISTINCT conversation_id) AS conversations"
        sql = f"SELECT {by}, {measures}, {quantiles}, {counts} FROM ({rows}) AS keyed GROUP BY {by}"  # noqa: S608
        columns = ["key", *names, *(name for name, _ in (*_MEASURES, *_QUANTILES_OF_POSTGRES)), "conversations"]
        answer = source.database.ask(sql)
        arrays = [_array(name, [row[at] for row in answer]) for at, name in enumerate(columns)]
        connection.register("found", pa.table(arrays, columns))
        connection.execute("CREATE OR REPLACE TEMP TABLE sums AS SELECT * FROM found")
        return
    copy = "VIEW" if source.columnar else "TABLE"
    connection.execute(f"CREATE OR REPLACE TEMP {copy} keyed AS {rows}")
    same = " AND ".join(f"s.{name} IS NOT DISTINCT FROM c.{name}" for name in ["key", *names])
    wanted = "conversation_id IS NOT NULL" if conversations else "false"
    distinct = f"SELECT DISTINCT {by}, conversation_id FROM keyed WHERE {wanted}"  # noqa: S608
    counted = f"SELECT {by}, count(*) AS conversations FROM ({distinct}) GROUP BY {by}"  # noqa: S608
    summed_up = f"SELECT {by}, {measures}, {_QUANTILES} AS quantiles FROM keyed GROUP BY {by}"  # noqa: S608
    connection.execute(f"CREATE OR REPLACE TEMP TABLE counted AS {counted}")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE sums AS SELECT s.* EXCLUDE (quantiles), quantiles[1] AS median_ms, "  # noqa: S608
        "quantiles[2] AS p90_ms, coalesce(c.conversations, 0) AS conversations "
        f"FROM ({summed_up}) s LEFT JOIN counted c ON {same}"
    )


def _array(name: str, values: Sequence[Any]) -> pa.Array:
    """Return a column of PostgreSQL's result, whose sums and quantiles are decimals."""
    if name in _TEXTS:
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    if name in ("median_ms", "p90_ms"):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else int(value) for value in values], pa.int64())


def _finished(
    connection: duckdb.DuckDBPyConnection,
    intervals: Intervals,
    names: Sequence[str],
    open_parts: Sequence[Window],
    *,
    fill: bool,
) -> pa.Table:
    """Return the result: `sums` in order, with the name of each interval, and empty intervals filled in if `fill`."""
    starts = intervals.starts()
    open_starts = overlapping(starts, intervals.end, [(part.start, part.end) for part in open_parts])
    found = pa.table(
        {
            "at": pa.array(starts, pa.int64()),
            "key": pa.array(map(intervals.key_of, starts), pa.int64()),
            "interval_start": pa.array(map(intervals.label, starts), pa.string()),
            "provisional": pa.array([start in open_starts for start in starts], pa.bool_()),
        }
    )
    connection.register("intervals", found)
    groups = ", ".join(f"g.{name}" for name in names)
    if fill:
        listed = f"(SELECT DISTINCT {', '.join(names)} FROM sums)" if names else "(SELECT 1)"  # noqa: S608
        [(rows,)] = connection.execute(f"SELECT count(*) FROM {listed}").fetchall()  # noqa: S608
        if len(starts) * rows > FILL_LIMIT:
            raise InputError(
                f"fill: {len(starts):,} intervals of {rows:,} groups are more than {FILL_LIMIT:,} rows: choose longer "
                "intervals, fewer groups, or a shorter range"
            )
        same = "".join(f" AND s.{name} IS NOT DISTINCT FROM g.{name}" for name in names)
        source = f"intervals i CROSS JOIN {listed} g LEFT JOIN sums s ON s.key = i.key{same}"
    else:
        groups = ", ".join(f"s.{name}" for name in names)
        source = "intervals i JOIN sums s ON s.key = i.key"
    chosen = ", ".join(["i.interval_start", *([groups] if names else []), *_RESULT, "i.provisional", _WITHOUT_TIME])
    order = ", ".join(["i.at", *(f"{name} NULLS LAST" for name in groups.split(", ") if name)])
    return connection.sql(f"SELECT {chosen} FROM {source} ORDER BY {order}").to_arrow_table()  # noqa: S608


@contextmanager
def duckdb_of(source: Source, memory: str = MEMORY_LIMIT) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB in memory, bounded, that loads no extension, with the source's file attached if it is one."""
    with TemporaryDirectory(prefix="segment_fetch-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "temp_directory": spill,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "false",
        }
        with _translated(source), closing(duckdb.connect(":memory:", config=config)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if source.attach is not None:
                path = str(source.attach).replace("'", "''")
                connection.execute(f"ATTACH '{path}' AS source (READ_ONLY)")
            yield connection


@contextmanager
def _translated(source: Source) -> Iterator[None]:
    try:
        yield
    except duckdb.IOException as error:
        if source.attach is not None and "lock" in str(error).lower():
            raise DestinationBusyError(f"{source.attach}: a run has the file open: wait for it to end") from None
        raise DestinationError(f"the destination cannot be read: {error}") from None
    except duckdb.Error as error:
        raise DestinationError(f"the destination cannot be read: {error}") from None
