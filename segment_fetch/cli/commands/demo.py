"""`demo`: the simulator in a separate process, and a real extraction from it."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from segment_fetch.api.auth import OAuth1Key
from segment_fetch.cli import arguments, destinations, exit_codes, parser, summary
from segment_fetch.cli.commands import extract
from segment_fetch.cli.console import Console
from segment_fetch.cli.credentials import ACCOUNT, OAUTH1, Credentials
from segment_fetch.cli.formatting import program, width
from segment_fetch.cli.log import say
from segment_fetch.errors import ServiceError
from segment_fetch.sinks import FORMATS

if TYPE_CHECKING:
    from segment_fetch.extraction.report import Report
    from segment_fetch.sinks.tables.base import TableSink

USAGE = "[options]"
DESCRIPTION = """\
Start the simulator in a separate process, with OAuth 1.0, a hidden request limit, latency and faults, and extract \
60,000 segments of 20 days from it. Needs no account and no network. Run it twice: the second run finds nothing to \
do."""
EXAMPLES = """\
  segment-fetch demo
  segment-fetch demo --format csv --out demo-csv
  segment-fetch demo --out duckdb:///demo.duckdb
  segment-fetch demo --out /tmp/demo --quiet --json"""

_ACCOUNT = "demo"
_SOURCE = "segment_fetch_demo"
_DAYS = 20
_FAULTS = ("error_500=0.03", "drop=0.03", "truncated=0.03")
_RETRY_DELAYS = "0.2,0.4,0.8,1,1,1"
_ENDS_WITHIN_S = 2.0

_INTRODUCTION = """\
Demo: {segments:,} generated segments of {days} days, from a simulator on this machine that behaves like the real API: \
OAuth 1.0, 30 to 120 ms an answer, a limit of 40 requests a second that the extraction learns from its 429 answers, \
and now and then a 500, a dropped connection or a truncated answer. Retries wait for a shorter time than usual \
({delays} s instead of 5,10,15 s)."""

_QUERY = """\
SELECT skill_id, count(*) AS segments, sum(total_handle_time_millis) / 3600000.0 AS hours, \
avg(total_handle_time_millis) / 60000.0 AS minutes_each \
FROM {table} GROUP BY skill_id ORDER BY hours DESC LIMIT 10"""
_HEADINGS = ("skill_id", "segments", "hours", "minutes each")


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--out",
        type=arguments.path,
        metavar="DIR",
        default="demo-out",
        help="a folder or duckdb:///FILE (default: demo-out)",
    )
    parser.add_argument("--format", choices=FORMATS, help="file format (default: jsonl)")
    parser.add_argument(
        "--segments", type=arguments.whole, default=60_000, metavar="N", help="number of segments (default: 60000)"
    )
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Run the demo, report, and return the exit code of its extraction."""
    destinations.check(args.out, console)  # refuse an invalid destination before anything starts
    start, end = _range(datetime.now(UTC))
    values = [secrets.token_hex(16) for _ in OAUTH1]
    console.hide(values)
    introduction = _INTRODUCTION.format(segments=args.segments, days=_DAYS, delays=_RETRY_DELAYS)
    say("info", "demo", introduction)
    environ = _environ(console.environ, dict(zip(OAUTH1, values, strict=True)))
    with simulator(_simulation(args, start, end), environ) as announced:
        credentials = Credentials(_ACCOUNT, OAuth1Key(*values), "OAuth 1.0 key", "the demo")
        options = _extraction(args, announced["base_url"], start, end)
        report = extract.extracted(options, console, credentials)
    return _concluded(args, console, report)


def _range(now: datetime) -> tuple[str, str]:
    """Return whole days of UTC, old enough to be settled and within the API's month."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = today - timedelta(days=2)
    return (end - timedelta(days=_DAYS)).date().isoformat(), end.date().isoformat()


def _environ(own: Mapping[str, str], secret: dict[str, str]) -> dict[str, str]:
    """Return the environment of the simulator, without the user's own credentials."""
    kept = {name: value for name, value in own.items() if not name.startswith("LIVEPERSON_")}
    return {**kept, ACCOUNT: _ACCOUNT, **secret}


def _simulation(args: Namespace, start: str, end: str) -> list[str]:
    options = ["--auth", "oauth1", "--segments", str(args.segments), "--from", start, "--to", end, "--daily-load"]
    options += ["--latency", "30-120", "--limit", "40/s:10"]
    return options + [text for fault in _FAULTS for text in ("--fault", fault)]


def _extraction(args: Namespace, base_url: str, start: str, end: str) -> Namespace:
    """Return the arguments of `extract`, parsed as a user would write them."""
    options = ["--base-url", base_url, "--from", start, "--to", end, f"--out={args.out}", "--source", _SOURCE]
    options += ["--format", args.format] if args.format else []
    options += ["--state", "none", "--retry-delays", _RETRY_DELAYS, "--network-retry-delays", _RETRY_DELAYS]
    return parser.parse(["extract", *options], environ={})


def _concluded(args: Namespace, console: Console, report: Report) -> int:
    code = extract.exit_code(report, console)
    about = summary.Run(args.out, console.command)
    value = summary.as_json(report, about, code, command="demo", source=_SOURCE, **console.progress.final_pace)
    text = summary.as_text(report, about, width())
    if code == exit_codes.OK and (table := destinations.table(args.out, console)) is not None:
        rows = handle_time_by_skill(table)
        value["handle_time_by_skill"] = [row._asdict() for row in rows]
        text += f"\n\nHandle time by skill, queried from the table:\n{_as_table(rows)}\n"
    console.report(f"{text}\n{_next(args, console, report)}" if code == exit_codes.OK else text, value)
    return code


def _next(args: Namespace, console: Console, report: Report) -> str:
    lines = ["Next:", f"  {_look(args, console)}"]
    if report.windows:
        lines.append(f"  {console.command}   # again: nothing left to do")
    lines.append(f"  {program()} doctor  # your own account")
    return "\n".join(lines)


def _look(args: Namespace, console: Console) -> str:
    """Return the command that shows what was extracted."""
    if (table := destinations.table(args.out, console)) is not None:
        return _query_command(table)
    out = shlex.quote(args.out)
    if "://" in args.out or args.format not in (None, "jsonl", "csv"):
        return f"{program()} verify --out {out}"
    return f"head -qn {2 if args.format == 'csv' else 1} {out}/*.{args.format or 'jsonl'}"


@contextmanager
def simulator(options: Sequence[str], environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Run `simulate` in a process for the duration of the block; yield its JSON announcement.

    It ends when its standard input does, which the system closes if this process is killed. It has a session of its
    own, so that Ctrl-C in the terminal reaches it only by way of this process. Secrets go through `environ`.
    """
    command = [sys.executable, "-m", "segment_fetch", "simulate", "--json", "--until-stdin-closes", *options]
    process = subprocess.Popen(  # noqa: S603 - this program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield _announced(process)
    finally:
        _end(process)


def _announced(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    line = process.stdout.readline()
    announced: dict[str, Any] = orjson.loads(line) if line else {}
    if "base_url" not in announced:
        said = process.stderr.read().decode(errors="replace").strip()
        raise ServiceError(f"the simulator did not start: {said or 'it said nothing'}")
    return announced


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


class SkillTime(NamedTuple):
    """The handle time of a skill's segments. `skill_id` is None for segments without a skill."""

    skill_id: int | None
    segments: int
    hours: float
    minutes_each: float


def _query(sink: TableSink) -> str:
    """Return the query in SQL, in one line."""
    return _QUERY.format(table=sink.table_name)


def handle_time_by_skill(sink: TableSink) -> list[SkillTime]:
    """Return the ten skills with the most handle time."""
    sink.look()
    try:
        found = sink.ask(_query(sink))
    finally:
        sink.close()
    return [
        SkillTime(
            None if skill is None else int(str(skill)), int(str(count)), *(float(str(time or 0)) for time in times)
        )
        for skill, count, *times in found
    ]


def _as_table(rows: Sequence[SkillTime]) -> str:
    """Return the rows as a text table."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    )


def _cells(row: SkillTime) -> tuple[str, ...]:
    return (
        "none" if row.skill_id is None else str(row.skill_id),
        f"{row.segments:,}",
        f"{row.hours:,.1f}",
        f"{row.minutes_each:.1f}",
    )


def _query_command(sink: TableSink) -> str:
    """Return the same query as a command for a shell."""
    if sink.place.startswith("postgresql://"):
        return shlex.join(["psql", sink.place, "-c", _query(sink)])
    place, asked = json.dumps(sink.place), json.dumps(_query(sink))
    script = f"import duckdb; found = duckdb.connect({place}, read_only=True); found.sql({asked}).show()"
    return shlex.join([sys.executable, "-c", script])
