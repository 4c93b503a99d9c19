"""`report`: the contents of a destination, as one HTML page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from segment_fetch.cli import arguments, destinations, exit_codes
from segment_fetch.cli.console import Console
from segment_fetch.errors import InputError
from segment_fetch.local.regular_files import open_named, replacing

USAGE = "--out DIR --html FILE [options]"
REQUIRED = ("--out", "--html")
DESCRIPTION = """\
Write a page about the contents of a destination: proof, days and gaps, handle time by hour, weekday, skill, agent and \
group, and anomalies. The page is self-contained: it can be sent by mail and printed."""
EXAMPLES = """\
  segment-fetch report --out segments --html segments.html
  segment-fetch report --out segments --html week.html \\
    --from 2026-11-02 --to 2026-11-09 \\
    --timezone Europe/Berlin"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    group = parser.add_argument_group("source")
    group.add_argument(
        "--out", type=arguments.path, metavar="DIR", help="the folder, object store or database with the segments"
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
        "--timezone", metavar="ZONE", default="UTC", help="time zone of the page: an IANA name (default: UTC)"
    )
    group.add_argument(
        "--run-log",
        type=arguments.path,
        metavar="FILE",
        help="the log of a run (--log-format json --log-level debug), for a chart of its requests and pauses",
    )
    group = parser.add_argument_group("result")
    group.add_argument("--html", type=arguments.path, metavar="FILE", help="the page to write")
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Run the command. Return its exit code; errors of the library pass through."""
    destinations.check(args.out, console)
    from segment_fetch.analysis import report  # noqa: PLC0415 - brings DuckDB

    asked = {"start": args.start, "end": args.end, "timezone": args.timezone}
    if args.run_log is None:
        page = report(args.out, **asked)
    else:
        try:
            with open_named(args.run_log) as lines:
                page = report(args.out, **asked, run_log=lines)
        except OSError as error:
            raise InputError(f"--run-log {args.run_log}: cannot be read: {error.strerror or error}") from None
    path, data = Path(args.html), page.encode()
    try:
        with replacing(path) as target:
            target.write(data)
    except OSError as error:
        raise InputError(f"--html {path}: cannot be written: {error.strerror}") from None
    value = {"command": "report", "destination": args.out, "html": str(path), "bytes": len(data), "exit_code": 0}
    console.report(f"{path}: a page of {len(data) / 1000:,.0f} kB about {args.out}", value)
    return exit_codes.OK
