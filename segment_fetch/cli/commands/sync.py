"""`sync`: a folder that is up to date, and what changed in it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from segment_fetch.cli import settings, signals, summary
from segment_fetch.cli.commands import extract
from segment_fetch.cli.console import Console
from segment_fetch.cli.formatting import plural, shown, width, wrapped
from segment_fetch.errors import InputError, NoStartError
from segment_fetch.extraction.report import Report

_WHERE = "{out} is empty: say where to begin with --from (--from now-28d)"


def run(args: Namespace, console: Console) -> int:
    """The command. Returns its exit code; errors of the library pass through."""
    if args.out == "-":
        raise InputError("--out -: standard output remembers nothing of the last run; name a folder, or use extract")
    sink = settings.sink(args, console)
    if args.start is None and _is_empty(args.out):  # asked before a folder is made
        raise InputError(_WHERE.format(out=shown(args.out)))
    client = settings.client(args, console.credentials(), console)
    console.advice = f"what is committed in {args.out} stays; the same command goes on from there:\n  {console.command}"

    async def work() -> Report:
        async with client:
            try:
                return await client.sync(sink, args.start, timezone=args.timezone, clamp=args.clamp)
            except NoStartError:
                raise InputError(_WHERE.format(out="the destination")) from None

    with console.show_progress():
        report = signals.run(work(), console.on_signal)
    code = extract.exit_code(report, console)
    told = summary.Run(shown(args.out), console.command, syncs=True)
    value = summary.as_json(report, told, code, command="sync", source=args.source, **console.progress.final_pace)
    console.report(as_text(report, told, width()), value)
    return code


def _is_empty(out: str) -> bool:
    """Whether a folder is not there, or nothing is in it. What else `--out` names is looked into by its sink."""
    if "://" in out:
        return False
    try:
        return next(Path(out).iterdir(), None) is None
    except OSError as error:
        return isinstance(error, FileNotFoundError)


def as_text(report: Report, told: summary.Run, columns: int) -> str:
    """The report for people."""
    lines = [f"LOST: {lost} was never read, and the API no longer has it." for lost in report.lost]
    if report.settled:
        lines.append(f"Settled {plural(report.settled, 'window')}: the API still counts as many segments.")
    if report.windows:
        return "\n".join([summary.as_text(report, told, columns), *(wrapped(line, columns) for line in lines)])
    lines.append(f"{told.destination} is up to date; {plural(report.requests, 'request')} made.")
    return "\n".join(wrapped(line, columns) for line in lines)
