"""The first question that a table answers: how long the segments of each skill were handled."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from segment_fetch.sinks.tables.base import TableSink

_QUERY = """\
SELECT skill_id, count(*) AS segments, sum(total_handle_time_millis) / 3600000.0 AS hours, \
avg(total_handle_time_millis) / 60000.0 AS minutes_each \
FROM {table} GROUP BY skill_id ORDER BY hours DESC LIMIT 10"""
_HEADINGS = ("skill_id", "segments", "hours", "minutes each")


class Handled(NamedTuple):
    """What the segments of a skill took. `skill_id` is None for those that have none."""

    skill_id: int | None
    segments: int
    hours: float
    minutes_each: float


def query(sink: TableSink) -> str:
    """The question in SQL, in one line."""
    return _QUERY.format(table=sink.table_name)


def by_skill(sink: TableSink) -> list[Handled]:
    """The ten skills that took the most time."""
    sink.look()
    try:
        found = sink.ask(query(sink))
    finally:
        sink.close()
    return [
        Handled(None if skill is None else int(str(skill)), int(str(count)), *(float(str(time or 0)) for time in times))
        for skill, count, *times in found
    ]


def as_text(rows: Sequence[Handled]) -> str:
    """The answer as a table for people."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def _cells(row: Handled) -> tuple[str, ...]:
    return (
        "none" if row.skill_id is None else str(row.skill_id),
        f"{row.segments:,}",
        f"{row.hours:,.1f}",
        f"{row.minutes_each:.1f}",
    )


def command(sink: TableSink) -> str:
    """How to ask oneself, in a shell."""
    if sink.place.startswith("postgresql://"):
        return shlex.join(["psql", sink.place, "-c", query(sink)])
    place, asked = json.dumps(sink.place), json.dumps(query(sink))
    script = f"import duckdb; duckdb.connect({place}, read_only=True).sql({asked}).show()"
    return shlex.join([sys.executable, "-c", script])
