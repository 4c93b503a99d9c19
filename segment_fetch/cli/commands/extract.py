"""`extract`: a range of segments into a destination."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from segment_fetch.cli import arguments, destinations, exit_codes, signals, summary
from segment_fetch.cli.console import Console
from segment_fetch.cli.credentials import Credentials
from segment_fetch.cli.formatting import shown, width

if TYPE_CHECKING:
    from segment_fetch.extraction.report import Report

USAGE = "--from TIME --out DIR [options]"
REQUIRED = ("--from", "--out")
DESCRIPTION = """\
Extract a range of segments into a destination, or to standard output. Each window is written as a whole once it is \
proven complete, and never in part. Run the same command again to continue after an interruption, or to settle \
provisional windows; complete windows are not read again."""
EXAMPLES = """\
  segment-fetch extract --from now-7d --out segments
  segment-fetch extract --from 2026-11-01 --to 2026-11-08 \\
      --format csv --compress gzip --out november
  segment-fetch extract --from now-1d --out - --quiet |
      gzip > yesterday.jsonl.gz"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    arguments.add_destination(parser, f"{arguments.PLACES}, or - for standard output")
    arguments.add_range(parser)
    arguments.add_connection(parser)
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Extract, report, and return the exit code; errors of the library pass through."""
    report = extracted(args, console, console.credentials())
    code = exit_code(report, console)
    about = summary.Run(place(args), console.command, resumable=args.out != "-", settle_after=args.settle_after)
    value = summary.as_json(report, about, code, command="extract", source=args.source, **console.progress.final_pace)
    console.report(summary.as_text(report, about, width()), value)
    return code


def extracted(args: Namespace, console: Console, credentials: Credentials) -> Report:
    """Run the extraction, with progress, and return its report."""
    sink = destinations.sink(args, console)
    client = arguments.client(args, credentials, console)
    console.destination = place(args)

    async def work() -> Report:
        async with client:
            return await client.extract(args.start, args.end, sink, clamp=args.clamp)

    with console.show_progress():
        return signals.run(work(), console.on_signal)


def place(args: Namespace) -> str:
    """Return the destination for messages."""
    return "standard output" if args.out == "-" else shown(args.out)


def exit_code(report: Report, console: Console) -> int:
    """Return 0 if everything is proven; 3 if not; 5 if not one page could be read."""
    if report.complete:
        return exit_codes.OK
    return exit_codes.INCOMPLETE if console.progress.pages or report.skipped else exit_codes.SERVICE
