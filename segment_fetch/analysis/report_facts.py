"""The facts of a report: proof, stored days, handle time by group, and anomalies.

Everything comes from the manifest and from sums over the segments; no rows are kept here, so memory does not grow with
the destination.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, get_args

import duckdb
import orjson
from msgspec import Struct

from segment_fetch.analysis.handle_time_sums import (
    GROUPS,
    asked_range,
    coverage_of,
    destination,
    duckdb_of,
    summed,
    watermark_of,
)
from segment_fetch.analysis.intervals import Every, Intervals
from segment_fetch.analysis.sources import Source, source_of
from segment_fetch.errors import InputError
from segment_fetch.events import Status
from segment_fetch.manifest.format import Manifest
from segment_fetch.query import Window
from segment_fetch.timerange import TimeLike, zone_of

TOP = 50
"""Number of rows of a group that are listed; the others are summed."""

DOCUMENTED_REASONS = (
    "closedByConsumer",
    "closedByAgent",
    "closedBySystem",
    "agentTransfer",
    "skillTransfer",
    "backToQueue",
    "other",
)
"""The end reasons that the API documents."""

ABSURD_MS = 24 * 3_600_000
"""A handle time above one day, in milliseconds, counts as an anomaly."""

_ODDITIES = {
    "negative handle time": "handle_ms < 0",
    "handle time above 24 hours": f"handle_ms > {ABSURD_MS}",
    "closed before it started": "close_ms < start_ms",
    "handle time longer than the segment": "handle_ms > close_ms - start_ms AND close_ms >= start_ms",
    "end reason that the API does not document": "end_reason NOT IN ({})".format(
        ", ".join(f"'{name}'" for name in DOCUMENTED_REASONS)
    ),
}
_OPTIONAL = {
    "start time": "start_ms",
    "handle time": "handle_ms",
    "conversation": "conversation_id",
    "agent": "agent_id",
    "employee": "employee_id",
    "skill": "skill_id",
    "group": "group_id",
    "end reason": "end_reason",
}
_EXAMPLES = 5

_MEMORY = "280MB"  # of DuckDB; the libraries themselves take 200 MB, and the page stays within 500


class Day(Struct, frozen=True):
    """A local day. `state` is "complete", "provisional" or "missing"; `hours_late` is the hours from its end to its
    last reading, None if it was not read.
    """

    date: str
    segments: int
    handle_time_ms: int
    state: str
    hours_late: float | None


class GroupRow(Struct, frozen=True):
    """The handle time of one member of a group, such as a skill; without a `name`, of all that are not listed."""

    name: str | None
    segments: int
    handle_time_ms: int
    median_ms: int | None = None
    p90_ms: int | None = None


class Oddity(Struct, frozen=True):
    """An anomaly: the number of segments, and the ids of a few."""

    kind: str
    segments: int
    examples: tuple[str, ...] = ()


class RunEvent(Struct, frozen=True):
    """An event of a run, from its log: `seconds` after the start; `value` is the pace in requests a second."""

    seconds: float
    kind: str
    value: float | None = None


class Facts(Struct, frozen=True):
    """Everything that a report shows. Times are epoch milliseconds unless the name says otherwise."""

    place: str
    query: Mapping[str, Any]
    made_at: int
    start: int
    end: int
    zone: str
    complete_before: int | None
    windows: Mapping[str, int]
    counted: int
    segments: int
    duplicates: int
    pages: int
    requests: int
    provisional: tuple[Window, ...]
    missing: tuple[Window, ...]
    unproven: tuple[tuple[str, str], ...]
    unknown_fields: tuple[str, ...]
    days: tuple[Day, ...]
    hours: tuple[tuple[int, ...], ...]
    groups: Mapping[str, tuple[GroupRow, ...]]
    sizes: Mapping[str, int]
    oddities: tuple[Oddity, ...]
    absent: tuple[tuple[str, int], ...]
    run: tuple[RunEvent, ...]


def facts_of(
    place: str | os.PathLike[str],
    *,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    timezone: str = "UTC",
    now_ms: int,
    run_log: Iterable[bytes] = (),
) -> Facts:
    """Return the facts about a range of a destination, by default all of it.

    `run_log` is the lines of a run's JSON log at level debug. Raises the same errors as `handle_time`.
    """
    zone = zone_of(timezone)
    sink, manifest = destination(place)
    asked = asked_range(manifest, start, end, zone, now_ms)
    provisional, missing = coverage_of(manifest, asked)
    entries = [each for each in manifest.windows if each.window.start < asked.end and each.window.end > asked.start]
    with source_of(sink, manifest, asked) as source, duckdb_of(source, _MEMORY) as connection:
        held = _held(connection, source, asked)

        def sums(every: Every, *names: str, fill: bool = False) -> list[dict[str, Any]]:
            intervals = Intervals(asked.start, asked.end, every, zone)
            table = summed(connection, held, intervals, names, (), fill=fill, conversations=False)
            rows: list[dict[str, Any]] = table.to_pylist()
            return rows

        starts = Intervals(asked.start, asked.end, "1d", zone).starts()
        days = _days(sums("1d", fill=True), [asked.start, *starts[1:], asked.end], manifest)
        hours = _hours(sums("1h"))
        groups = {group: sums("none", column) for group, column in GROUPS.items()}
        oddities, absent = _oddities(connection, held)
    return Facts(
        place=str(place),
        query=manifest.query,
        made_at=now_ms,
        start=asked.start,
        end=asked.end,
        zone=timezone,
        complete_before=watermark_of(manifest),
        windows={kind: sum(each.status == kind for each in entries) for kind in get_args(Status)},
        counted=sum(each.count for each in entries if each.status != "unproven"),
        segments=sum(day.segments for day in days),
        duplicates=sum(each.duplicates for each in entries),
        pages=sum(each.pages for each in entries),
        requests=sum(each.requests for each in entries),
        provisional=tuple(provisional),
        missing=tuple(missing),
        unproven=tuple((str(each.window), each.reason or "") for each in entries if each.status == "unproven"),
        unknown_fields=tuple(sorted({name for each in entries for name in each.unknown_fields})),
        days=days,
        hours=hours,
        groups={group: _top(rows, GROUPS[group]) for group, rows in groups.items()},
        sizes={group: len(rows) for group, rows in groups.items()},
        oddities=oddities,
        absent=absent,
        run=_run(run_log),
    )


def _held(connection: duckdb.DuckDBPyConnection, source: Source, asked: Window) -> Source:
    """Return a source of the range for repeated sums: text files are loaded into DuckDB once."""
    if source.database is not None:
        return source
    within = f"close_ms >= {asked.start} AND close_ms < {asked.end}"
    rows = f"SELECT * FROM {source.relation} WHERE {within}"  # noqa: S608
    if source.columnar:
        return Source(f"({rows})", columnar=True)
    connection.execute(f"CREATE TEMP TABLE held AS {rows}")
    return Source("held", columnar=True)


def _days(rows: Sequence[Mapping[str, Any]], edges: Sequence[int], manifest: Manifest) -> tuple[Day, ...]:
    found = []
    for row, (start, end) in zip(rows, pairwise(edges), strict=True):
        day = Window(start, end)
        provisional, missing = coverage_of(manifest, day)
        state = "missing" if missing else "provisional" if provisional else "complete"
        read = [
            parse_read_at(entry.read_at) - min(day.end, entry.window.end)
            for entry in manifest.windows
            if entry.read_at and entry.status != "unproven" and entry.window.start < end and entry.window.end > start
        ]
        late = max(read) / 3_600_000 if read else None
        found.append(Day(row["interval_start"][:10], row["segments"], row["handle_time_ms"], state, late))
    return tuple(found)


def parse_read_at(text: str) -> int:
    """Return the time of reading in a manifest, epoch milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _hours(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[int, ...], ...]:
    """Return handle time in milliseconds by weekday (Monday first) and hour of the local clock."""
    found = [[0] * 24 for _ in range(7)]
    for row in rows:
        local = datetime.fromisoformat(row["interval_start"])
        found[local.weekday()][local.hour] += row["handle_time_ms"]
    return tuple(map(tuple, found))


def _top(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[GroupRow, ...]:
    ordered = sorted(rows, key=lambda row: (-row["handle_time_ms"], str(row[column])))
    shown = [
        GroupRow(
            "(none)" if row[column] is None else str(row[column]),
            row["segments"],
            row["handle_time_ms"],
            row["median_ms"],
            row["p90_ms"],
        )
        for row in ordered[:TOP]
    ]
    rest = ordered[TOP:]
    if rest:
        segments, times = sum(row["segments"] for row in rest), sum(row["handle_time_ms"] for row in rest)
        shown.append(GroupRow(None, segments, times))
    return tuple(shown)


def _oddities(
    connection: duckdb.DuckDBPyConnection, source: Source
) -> tuple[tuple[Oddity, ...], tuple[tuple[str, int], ...]]:
    """Return the anomalies, and the number of segments without each optional field."""
    ask = _asker(connection, source)
    odd = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in _ODDITIES.values())
    absent = ", ".join(f"count(*) - count({column})" for column in _OPTIONAL.values())
    [counts] = ask(f"SELECT {odd}, {absent} FROM {source.relation}")  # noqa: S608
    found = []
    for (kind, condition), segments in zip(_ODDITIES.items(), counts, strict=False):
        examples = ask(f"SELECT segment_id FROM {source.relation} WHERE {condition} LIMIT {_EXAMPLES}")  # noqa: S608
        found.append(Oddity(kind, int(segments), tuple(str(name) for (name,) in examples) if segments else ()))
    if source.database is None:  # in a table the id is the primary key
        # By hash first, which takes a tenth of the memory of the ids.
        hashes = f"SELECT hash(segment_id) FROM {source.relation} GROUP BY ALL HAVING count(*) > 1"  # noqa: S608
        rows = f"SELECT segment_id FROM {source.relation} WHERE hash(segment_id) IN ({hashes})"  # noqa: S608
        doubled = f"{rows} GROUP BY segment_id HAVING count(*) > 1"
        [(segments,)] = ask(f"SELECT count(*) FROM ({doubled})")  # noqa: S608
        examples = ask(f"{doubled} LIMIT {_EXAMPLES}") if segments else []
        found.append(Oddity("id in it more than once", int(segments), tuple(str(name) for (name,) in examples)))
    lacking = zip(_OPTIONAL, counts[len(_ODDITIES) :], strict=True)
    return tuple(found), tuple((name, int(segments)) for name, segments in lacking)


def _asker(connection: duckdb.DuckDBPyConnection, source: Source) -> Callable[[str], Sequence[tuple[Any, ...]]]:
    if source.database is not None:
        return source.database.ask
    return lambda sql: connection.execute(sql).fetchall()


def _run(lines: Iterable[bytes]) -> tuple[RunEvent, ...]:
    """Return the pace, the pauses and the windows of a run, from its log."""
    found, began = [], None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = orjson.loads(line)
            at, kind = datetime.fromisoformat(event["time"]).timestamp(), str(event["event"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise InputError(f"line {number} of the log is not a line of a JSON log") from None
        began = at if began is None else began
        rate = event.get("rate")
        if kind in ("pace_changed", "paused", "retrying", "window_done", "page_read"):
            found.append(RunEvent(at - began, kind, float(rate) if isinstance(rate, (int, float)) else None))
    return tuple(found)
