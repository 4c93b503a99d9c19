"""The time and the memory that the sums and the report's page take over 5,000,000 segments.

    python -m benchmarks.handle_time [--segments N] [--folder DIR] [--smoke]

Handle time by skill and quarter of an hour, from Parquet and from JSON Lines, and the page from Parquet, each by the
command in a process of its own, from its start to its end. The goals at 5,000,000 segments: 5 s from Parquet, 10 s from
JSON Lines, 60 s and 500 MB for the page. Exit code 1 if one is missed; `--smoke` tries 20,000 segments and judges
nothing. The files are made by DuckDB, in `--folder` or a temporary one: 2.3 GB.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import msgspec

from benchmarks.report import table

START_MS, DAY_MS, DAYS = 1_793_577_600_000, 86_400_000, 28  # from 2026-11-02, four weeks in four windows
WEEK_MS = 7 * DAY_MS


class Goal(msgspec.Struct, frozen=True):
    """A command over a destination, and what it may take."""

    name: str
    form: str
    arguments: tuple[str, ...]
    seconds: float
    megabytes: float | None = None


_SUMS = (
    "handle-time",
    "--by",
    "skill",
    "--every",
    "15m",
    "--timezone",
    "Europe/Berlin",
    "--quiet",
    "--write",
    "sums.csv",
)
GOALS = (
    Goal("by skill and quarter, Parquet", "parquet", _SUMS, 5),
    Goal("by skill and quarter, JSON Lines", "jsonl", _SUMS, 10),
    Goal("the report's page, Parquet", "parquet", ("report", "--quiet", "--html", "page.html"), 60, 500),
)

_ROWS = """
    SELECT format('bench:{:d}:{:x}', n, hash(n)) AS segment_id,
           close_ms - 30_000 - (hash(n + 1) % 3_600_000)::BIGINT AS start_ms,
           close_ms,
           format('{:x}-{:x}', hash(n // 2), hash(n // 2 + 7)) AS conversation_id,
           287_000 + (hash(n + 2) % 2_000)::BIGINT AS agent_id,
           format('e{:d}', hash(n + 2) % 2_000) AS employee_id,
           146_000_000 + (hash(n + 3) % 40)::BIGINT AS skill_id,
           23_000_000 + (hash(n + 4) % 12)::BIGINT AS group_id,
           ['agentTransfer', 'agentClosed', 'consumerClosed', 'systemClosed'][1 + (hash(n + 5) % 4)::BIGINT]
               AS end_reason,
           10_000 + (hash(n + 6) % 3_000_000)::BIGINT AS handle_ms
    FROM (SELECT n, {start} + (n * {length} // {rows})::BIGINT AS close_ms FROM range({rows}) numbers(n))
"""
_PARQUET = """
    SELECT segment_id, make_timestamptz(start_ms * 1000) AS start_time, make_timestamptz(close_ms * 1000) AS end_time,
           conversation_id, agent_id, employee_id, skill_id, group_id, end_reason,
           handle_ms AS total_handle_time_millis, NULL::VARCHAR AS extras
    FROM rows
"""
_JSON = """
    SELECT segment_id AS segmentId, start_ms AS startTimeL, close_ms AS endTimeL, conversation_id AS conversationId,
           agent_id AS agentId, employee_id AS employeeId, skill_id AS skillId, group_id AS groupId,
           end_reason AS endReason, handle_ms AS totalHandleTimeMillis,
           strftime(make_timestamp(close_ms * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS endTime,
           strftime(make_timestamp(start_ms * 1000), '%Y-%m-%dT%H:%M:%S.%gZ') AS startTime
    FROM rows
"""
_COPIES = {"parquet": (_PARQUET, "FORMAT parquet, COMPRESSION zstd"), "jsonl": (_JSON, "FORMAT json")}


def make(folder: Path, form: str, segments: int) -> None:
    """Write a destination of so many segments, with its manifest."""
    folder.mkdir(parents=True)
    sql, options = _COPIES[form]
    windows = []
    with duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(folder / "spill")}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for week in range(DAYS // 7):
            start, rows = START_MS + week * WEEK_MS, segments // 4
            selected = (
                _ROWS.replace("{start}", str(start)).replace("{length}", str(WEEK_MS)).replace("{rows}", str(rows))
            )
            file = folder / f"segments-{_compact(start)}-{_compact(start + WEEK_MS)}.{form}"
            connection.execute(f"COPY (WITH rows AS ({selected}) {sql}) TO '{file}' ({options})")
            windows.append(_entry(start, rows, file))
    query = {"account": "111111", "source": "bench", "filters": {}, "format": form, "compress": "none"}
    if form == "parquet":
        query |= {"schema_version": "1", "compress": "zstd"}
    end = _text(START_MS + DAYS * DAY_MS)
    manifest = {"format_version": 2, "complete_before": end, "commits": 1, "query": query, "windows": windows}
    (folder / ("_manifest.json" if form == "parquet" else "manifest.json")).write_text(json.dumps(manifest))


def _entry(start: int, rows: int, file: Path) -> dict[str, object]:
    counts = {"count": rows, "segments": rows, "duplicates": 0, "pages": rows // 500, "requests": rows // 500}
    held = {"file": file.name, "bytes": file.stat().st_size, "sha256": "0" * 64}
    window = {"from": _text(start), "to": _text(start + WEEK_MS), "status": "complete"}
    return window | counts | held | {"read_at": "2026-12-01T00:00:00Z", "unknown_fields": []}


def _text(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))


def _compact(ms: int) -> str:
    return time.strftime("%Y%m%dT%H%M%S000Z", time.gmtime(ms // 1000))


def measured(goal: Goal, destination: Path) -> tuple[float, float]:
    """Run the command over a destination. Return its seconds and its peak memory in megabytes."""
    command = [sys.executable, "-m", "segment_fetch", goal.arguments[0], "--out", str(destination), *goal.arguments[1:]]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=destination.parent) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e6


def main() -> None:
    """Measure, print, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description="Measures handle-time and report.")
    parser.add_argument("--segments", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    segments = 20_000 if options.smoke else options.segments
    rows, missed = [], False
    with TemporaryDirectory(prefix="handle-time-", dir=options.folder) as folder:
        for form in dict.fromkeys(goal.form for goal in GOALS):
            make(Path(folder) / form, form, segments)
        for goal in GOALS:
            seconds, peak = measured(goal, Path(folder) / goal.form)
            allowed = f"{goal.seconds:.0f} s" + (f", {goal.megabytes:.0f} MB" if goal.megabytes else "")
            rows.append([goal.name, f"{seconds:.1f}", f"{peak:.0f}", allowed])
            missed |= seconds > goal.seconds or (goal.megabytes is not None and peak > goal.megabytes)
    print(f"{segments:,} segments, 40 skills, 2,000 agents, {DAYS} days\n")
    print(table(["task", "seconds", "peak memory, MB", "allowed"], rows))
    if missed and not options.smoke:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
