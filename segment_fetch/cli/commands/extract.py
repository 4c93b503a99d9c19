"""`extract`: a range into a destination, and what came of it."""

from __future__ import annotations

from argparse import Namespace

from segment_fetch.cli import exit_codes, settings, signals, summary
from segment_fetch.cli.console import Console
from segment_fetch.cli.credentials import Credentials
from segment_fetch.cli.formatting import shown, width
from segment_fetch.extraction.report import Report


def run(args: Namespace, console: Console) -> int:
    """The command. Returns its exit code; errors of the library pass through."""
    report = extracted(args, console, console.credentials())
    code = exit_code(report, console)
    told = summary.Run(_place(args), console.command, args.out != "-")
    value = summary.as_json(report, told, code, command="extract", source=args.source, **console.progress.final_pace)
    console.report(summary.as_text(report, told, width()), value)
    return code


def extracted(args: Namespace, console: Console, credentials: Credentials) -> Report:
    """Runs the extraction, with progress."""
    sink = settings.sink(args, console)
    client = settings.client(args, credentials, console)
    console.advice = _advice(args, console)

    async def work() -> Report:
        async with client:
            return await client.extract(args.start, args.end, sink, clamp=args.clamp)

    with console.show_progress():
        return signals.run(work(), console.on_signal)


def exit_code(report: Report, console: Console) -> int:
    """0 if everything is proven; 3 if not; 5 if not one page could be read."""
    if report.complete:
        return exit_codes.OK
    return exit_codes.INCOMPLETE if console.progress.pages or report.skipped else exit_codes.SERVICE


def _place(args: Namespace) -> str:
    return "standard output" if args.out == "-" else shown(args.out)


def _advice(args: Namespace, console: Console) -> str:
    if args.out == "-":
        return "the output is cut off; run the command again to get it whole"
    return f"what is committed in {args.out} stays; the same command goes on from there:\n  {console.command}"
