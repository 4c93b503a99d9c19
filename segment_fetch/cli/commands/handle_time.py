"""`handle-time`: the sums that planners need, from what a destination holds."""

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
Sum handle time from what a destination holds, by interval and group; the API is not asked. A segment counts in the \
interval in which it closed: when within a segment the agent worked on it, the API does not tell."""
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
        help="the folder, object store or database that holds segments",
    )
    group.add_argument(
        "--from", dest="start", type=arguments.moment, metavar="TIME", help="first close time (default: the first held)"
    )
    group.add_argument(
        "--to", dest="end", type=arguments.moment, metavar="TIME", help="where the range ends (default: the last held)"
    )
    group.add_argument(
        "--timezone", metavar="ZONE", default="UTC", help="whose clock: an IANA name, Europe/Berlin say (default: UTC)"
    )
    group = parser.add_argument_group("sums")
    group.add_argument(
        "--by", metavar="GROUP,...", default="", help=f"group by any of {', '.join(_GROUPS)} (default: by none)"
    )
    group.add_argument(
        "--every",
        choices=("15m", "30m", "1h", "1d", "1w", "none"),
        default="none",
        help="length of the intervals, on the local clock (default: none, the whole range)",
    )
    group.add_argument("--fill", action="store_true", help="a row of zeros where a group has no segment")
    group.add_argument(
        "--names",
        metavar="FILE",
        action="append",
        default=[],
        help="a CSV file of ids and names, headed skill_id,name say; may be given once for each group",
    )
    group = parser.add_argument_group("result")
    group.add_argument("--format", choices=_FORMATS, help="(default: table; or what the name after --write ends with)")
    group.add_argument(
        "--excel",
        nargs="?",
        const="en",
        choices=arguments.COUNTRIES,
        metavar="COUNTRY",
        help=f"CSV that a spreadsheet opens right by double click: {', '.join(arguments.COUNTRIES)} (default: en)",
    )
    group.add_argument("--write", metavar="FILE", help="write the result here, not to standard output")
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
    """Return the form of the result. InputError for options that contradict each other."""
    if args.excel is not None and (args.json or args.format not in (None, "csv")):
        raise InputError("--excel writes CSV: leave out the other format (a workbook is --format xlsx)")
    if args.json and args.format not in (None, "json"):
        raise InputError(f"--json and --format {args.format} exclude each other: choose one")
    ending = Path(args.write).suffix[1:].lower() if args.write else ""
    form = "json" if args.json else args.format or (ending if ending in _FORMATS else "table")
    if form in ("parquet", "xlsx") and not args.write and sys.stdout.isatty():
        raise InputError(f"--format {form} is not for a screen: name a file with --write FILE, or redirect it")
    return form


def _write(result: HandleTime, form: str, args: Namespace, console: Console) -> None:
    from segment_fetch.analysis import write_table  # noqa: PLC0415 - brings DuckDB

    if args.write:
        path = Path(args.write).expanduser()
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
    """Say what nobody should plan on: what is provisional or missing of the range, and segments without a time."""
    for windows, event, message in (
        (result.missing, "missing", "nothing is held of it: extract it while the API has it"),
        (result.provisional, "provisional", "more segments may come: run sync again after it has settled"),
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
        "a segment counts in the interval in which it closed; when within it the agent worked, the API does not tell",
    )


def _local(window: Window, result: HandleTime) -> str:
    from segment_fetch.analysis.intervals import Intervals  # noqa: PLC0415
    from segment_fetch.timerange import zone_of  # noqa: PLC0415

    label = Intervals(window.start, window.end, "none", zone_of(result.zone)).label
    return f"{label(window.start)} to {label(window.end)}"
