"""`plan`: the windows, counts and pages that an extraction would read, and the expected time."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from segment_fetch.cli import arguments, exit_codes, signals
from segment_fetch.cli.console import Console
from segment_fetch.cli.formatting import plural, width, wrapped
from segment_fetch.client import Rate
from segment_fetch.errors import lasting
from segment_fetch.events import per_second
from segment_fetch.timerange import format_time
from segment_fetch.windows.planning import Plan

USAGE = "--from TIME [options]"
REQUIRED = ("--from",)
DESCRIPTION = """\
Show the windows, counts and pages of a range, and about how long its extraction takes. Extracts nothing."""
EXAMPLES = """\
  segment-fetch plan --from now-28d
  segment-fetch plan --from 2026-11-01 --to now-1d --json"""


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    arguments.add_range(parser)
    arguments.add_connection(parser)
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Plan, report, and return the exit code; errors of the library pass through."""
    client = arguments.client(args, console.credentials(), console)

    async def work() -> Plan:
        async with client:
            return await client.plan(args.start, args.end, clamp=args.clamp)

    with console.show_progress():
        plan = signals.run(work(), console.on_signal)
    rate = arguments.requests_per_second(args)
    console.report(as_text(plan, width()), as_json(plan, rate))
    return exit_codes.OK


def as_json(plan: Plan, rate: Rate) -> dict[str, Any]:
    """Return the plan in machine-readable form."""
    windows = [
        {"from": format_time(at.window.start), "to": format_time(at.window.end), "count": at.count, "pages": at.pages}
        for at in plan.windows
    ]
    totals = {"windows": len(windows), "segments": plan.segments, "pages": plan.pages}
    return {
        "command": "plan",
        "exit_code": exit_codes.OK,
        "totals": totals,
        **_estimate(plan, rate),
        "windows": windows,
    }


def _estimate(plan: Plan, rate: Rate) -> dict[str, Any]:
    """Return the requested rate, the rate that the estimate assumes, and the estimate in seconds."""
    return {"rate": rate, "assumed_rate": plan.rate, "seconds": plan.seconds}


def as_text(plan: Plan, columns: int) -> str:
    """Return the plan as text: a line for each window, and the totals."""
    rows = [("from (UTC)", "to (UTC)", "count", "pages")]
    rows += [(_short(at.window.start), _short(at.window.end), f"{at.count:,}", f"{at.pages:,}") for at in plan.windows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{start:<{widths[0]}} {end:<{widths[1]}} {count:>{widths[2]}} {pages:>{widths[3]}}"
        for start, end, count, pages in rows
    ]
    return "\n".join([*lines, wrapped(_totals(plan), columns)])


def _totals(plan: Plan) -> str:
    totals = f"{plural(len(plan.windows), 'window')}, {plural(plan.segments, 'segment')}, {plural(plan.pages, 'page')}"
    if plan.seconds is None or plan.rate is None:
        return f"{totals}; with --rate none the time cannot be estimated."
    known = "" if plan.rate_known else ", an assumption: the API's limit is not known yet"
    return f"{totals}; about {lasting(plan.seconds)} at {per_second(plan.rate)} requests a second{known}."


def _short(ms: int) -> str:
    """Return a time as 2026-11-01 08:00:00.123, at most 23 columns, so that a row fits into 60."""
    return format_time(ms).replace("T", " ").removesuffix("Z")
