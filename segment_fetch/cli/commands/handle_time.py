"""`handle-time`: the sums that planners need, from the contents of a destination."""

from __future__ import annotations

import io
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from segment_fetch.cli import arguments, destinations, exit_codes
from segment_fetch.cli.console import Console
from segment_fetch.cli.failures import OutputError
from segment_fetch.cli.formatting import plural
from segment_fetch.errors import InputError
from segment_fetch.local.regular_files import replacing

if TYPE_CHECKING:
    from segment_fetch.analysis import HandleTime
    from segment_fetch.query import Window

USAGE = "--out DESTINATION [options]"
REQUIRED = ("--out",)
DESCRIPTION = """\
Sum the handle time of the segments in a destination, by interval and group, without a request to the API. A segment \
counts in the interval in which it closed: the API does not say when during a segment the agent worked on it."""
EXAMPLES = """\
  segment-fetch handle-time --out segments --by skill
  segment-fetch handle-time --out segments --by skill \\
    --every 15m --timezone Europe/Berlin --write week.xlsx
  segment-fetch handle-time --out segments --every 1d \\
    --by agent --excel de --write agents.csv"""

_LISTED = 10
_GROUPS = ("skill", "agent", "group", "employee", "end-reason")
_FORMATS = ("table", "csv", "json", "parquet", "xlsx")


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    group = parser.add_argument_group("source")
    group.add_argument(
        "--out",
        type=arguments.path,
        metavar="DESTINATION",
        help="the folder, object store or database with the segments",
    )
    group.add_argument(
        "--from",
        dest="start",
        type=arguments.moment,
        metavar="TIME",
        help="first close time (default: the first one stored)",
    )
    group.add_argument(
        "--to", dest="end", type=arguments.moment, metavar="TIME", help="exclusive end (default: the last one stored)"
    )
    group.add_argument(
        "--timezone", metavar="ZONE", default="UTC", help="time zone: an IANA name such as Europe/Berlin (default: UTC)"
    )
    group = parser.add_argument_group("sums")
    group.add_argument(
        "--by", metavar="GROUP,...", default="", help=f"group by any of {', '.join(_GROUPS)} (default: none)"
    )
    group.add_argument(
        "--every",
        choices=("15m", "30m", "1h", "1d", "1w", "none"),
        default="none",
        help="length of the intervals, in local time (default: none, the whole range)",
    )
    group.add_argument("--fill", action="store_true", help="add a row of zeros if a group has no segments")
    group.add_argument(
        "--names",
        type=arguments.path,
        metavar="FILE",
        action="append",
        default=[],
        help="a CSV file of ids and names, with a heading such as skill_id,name; once for each group",
    )
    group = parser.add_argument_group("result")
    group.add_argument("--format", choices=_FORMATS, help="(default: table, or the suffix of the --write file)")
    group.add_argument(
        "--excel",
        nargs="?",
        const="en",
        choices=arguments.COUNTRIES,
        metavar="COUNTRY",
        help=f"CSV that opens correctly in a country's spreadsheet: {', '.join(arguments.COUNTRIES)} (default: en)",
    )
    group.add_argument(
        "--write", type=arguments.path, metavar="FILE", help="write the result to this file, not to standard output"
    )
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Run the command. Return its exit code; errors of the library pass through."""
    form = _form(args)
    destinations.check(args.out, console)
    from segment_fetch.analysis import handle_time  # noqa: PLC0415 - brings DuckDB
    from segment_fetch.analysis.names import with_names  # noqa: PLC0415

    result = handle_time(
        args.out,
        by=[name.strip() for name in args.by.split(",") if name.strip()],
        every=args.every,
        timezone=args.timezone,
        start=args.start,
        end=args.end,
        fill=args.fill,
    )
    for file in args.names:
        result = with_names(result, file)
    _warn(result, console)
    _write(result, form, args, console)
    return exit_codes.OK


def _form(args: Namespace) -> str:
    """Return the format of the result. Raises InputError for contradictory options."""
    if args.excel is not None and (args.json or args.format not in (None, "csv")):
        raise InputError("--excel writes CSV: omit the other format (a workbook is --format xlsx)")
    if args.json and args.format not in (None, "json"):
        raise InputError(f"--json and --format {args.format} exclude each other: choose one")
    ending = Path(args.write).suffix[1:].lower() if args.write else ""
    form = "json" if args.json else args.format or (ending if ending in _FORMATS else "table")
    if form in ("parquet", "xlsx") and not args.write and sys.stdout.isatty():
        raise InputError(
            f"--format {form} cannot be shown on a terminal: name a file with --write FILE, or redirect it"
        )
    return form


def _write(result: HandleTime, form: str, args: Namespace, console: Console) -> None:
    from segment_fetch.analysis import write_table  # noqa: PLC0415 - brings DuckDB

    if args.write:
        path = Path(args.write)
        try:
            with replacing(path) as target:
                write_table(result, form, target, excel=args.excel)
        except OSError as error:
            raise InputError(f"--write {path}: cannot be written: {error.strerror}") from None
        console.say("info", "written", f"{plural(result.table.num_rows, 'row')} written to {path}")
        return
    whole = io.BytesIO()  # a pipe has no positions, which Parquet and workbooks need
    try:
        if form in ("parquet", "xlsx"):
            write_table(result, form, whole)
            sys.stdout.buffer.write(whole.getvalue())
        else:
            write_table(result, form, sys.stdout.buffer, excel=args.excel)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(error) from None


def _warn(result: HandleTime, console: Console) -> None:
    """Warn about provisional and missing parts of the range, and about segments without a handle time."""
    for windows, event, message in (
        (result.missing, "missing", "no segments stored: extract it while the API has it"),
        (result.provisional, "provisional", "more segments may be added: run sync again after it has settled"),
    ):
        for window in windows[:_LISTED]:
            console.say("warning", event, f"{event}: {_local(window, result)}: {message}")
        if len(windows) > _LISTED:
            console.say("warning", event, f"{event}: and {len(windows) - _LISTED:,} more parts of the range")
    if without := sum(result.table["without_time"].to_pylist()):
        console.say(
            "warning", "without_time", f"{plural(without, 'segment')} without a handle time: counted, but in no average"
        )
    console.say(
        "info",
        "meaning",
        "a segment counts in the interval in which it closed; the API does not say when during it the agent worked",
    )


def _local(window: Window, result: HandleTime) -> str:
    from segment_fetch.analysis.intervals import Intervals  # noqa: PLC0415
    from segment_fetch.timerange import zone_of  # noqa: PLC0415

    label = Intervals(window.start, window.end, "none", zone_of(result.zone)).label
    return f"{label(window.start)} to {label(window.end)}"
