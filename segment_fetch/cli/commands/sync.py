"""`sync`: the segments that have closed since the last run, day by day."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from segment_fetch.cli import arguments, destinations, signals, summary
from segment_fetch.cli.commands import extract
from segment_fetch.cli.console import Console
from segment_fetch.cli.formatting import plural, shown, width, wrapped
from segment_fetch.errors import InputError, NoStartError

if TYPE_CHECKING:
    from segment_fetch.extraction.report import Report

USAGE = "--out DIR [options]"
REQUIRED = ("--out",)
DESCRIPTION = """\
Keep a destination up to date, for example every night: extract from the end of the last run until now, in whole days, \
and settle provisional days. A day that did not change takes one small request; one that did is read again and \
replaced. The report says what was added and removed."""
EXAMPLES = """\
  segment-fetch sync --from now-28d --out segments
  segment-fetch sync --out segments
  segment-fetch sync --out segments --timezone Europe/Berlin
  segment-fetch sync --out duckdb:///segments.duckdb"""

_START_MISSING = "{out} is empty: give the time to start from, for example --from now-28d"


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    arguments.add_destination(parser)
    arguments.add_days(parser)
    arguments.add_connection(parser)
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Bring the destination up to date, report, and return the exit code; errors of the library pass through."""
    if args.out == "-":
        raise InputError("--out -: standard output keeps no record of the last run; name a folder, or use extract")
    sink = destinations.sink(args, console)
    if args.start is None and _is_empty(args.out):  # checked before a folder is created
        raise NoStartError(_START_MISSING.format(out=shown(args.out)))
    client = arguments.client(args, console.credentials(), console)
    console.destination = shown(args.out)

    async def work() -> Report:
        async with client:
            try:
                return await client.sync(sink, args.start, timezone=args.timezone, clamp=args.clamp)
            except NoStartError:
                raise NoStartError(_START_MISSING.format(out="the destination")) from None

    with console.show_progress():
        report = signals.run(work(), console.on_signal)
    code = extract.exit_code(report, console)
    about = summary.Run(shown(args.out), console.command, syncs=True)
    value = summary.as_json(report, about, code, command="sync", source=args.source, **console.progress.final_pace)
    console.report(as_text(report, about, width()), value)
    return code


def _is_empty(out: str) -> bool:
    """Return True if a folder is missing or empty. Other destinations are checked by their sink."""
    if "://" in out:
        return False
    try:
        return next(Path(out).iterdir(), None) is None
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def as_text(report: Report, about: summary.Run, columns: int) -> str:
    """Return the report as text."""
    lines = [f"LOST: {lost} was never read, and the API no longer has it." for lost in report.lost]
    if report.settled:
        lines.append(f"Settled {plural(report.settled, 'window')}: the API reports the same counts.")
    if report.windows:
        return "\n".join([summary.as_text(report, about, columns), *(wrapped(line, columns) for line in lines)])
    lines.append(f"{about.destination} is up to date; {plural(report.requests, 'request')} made.")
    return "\n".join(wrapped(line, columns) for line in lines)
