"""`demo`: the simulator in a process of its own, and a real extraction from it."""

from __future__ import annotations

import secrets
import shlex
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from segment_fetch.api.auth import OAuth1Key
from segment_fetch.cli import arguments, destinations, exit_codes, summary
from segment_fetch.cli.commands import demo_query, demo_simulator, extract
from segment_fetch.cli.console import Console
from segment_fetch.cli.credentials import ACCOUNT, OAUTH1, Credentials
from segment_fetch.cli.formatting import program, width
from segment_fetch.cli.log import say
from segment_fetch.extraction.report import Report

_ACCOUNT = "demo"
_SOURCE = "segment_fetch_demo"
_DAYS = 20
_FAULTS = ("error_500=0.03", "drop=0.03", "truncated=0.03")
_RETRY_DELAYS = "0.2,0.4,0.8,1,1,1"

_INTRODUCTION = """\
Demo: {segments:,} made-up segments of {days} days from a simulator on this machine, which acts like the real \
API: OAuth 1.0, 30 to 120 ms an answer, a limit of 40 requests a second that the extraction finds out from its \
429s, now and then a 500, a dropped connection or half an answer. Waits before a repeat are shortened for the demo \
({delays} s; else 5,10,15 s)."""


def run(args: Namespace, console: Console) -> int:
    """The command. Returns the exit code of its extraction."""
    destinations.check(args.out, console)  # what cannot be a destination is refused before anything starts
    start, end = _range(datetime.now(UTC))
    values = [secrets.token_hex(16) for _ in OAUTH1]
    console.hide(values)
    introduction = _INTRODUCTION.format(segments=args.segments, days=_DAYS, delays=_RETRY_DELAYS)
    say("info", "demo", introduction)
    environ = _environ(console.environ, dict(zip(OAUTH1, values, strict=True)))
    with demo_simulator.simulator(_simulation(args, start, end), environ) as announced:
        credentials = Credentials(_ACCOUNT, OAuth1Key(*values), "OAuth 1.0 key", "the demo")
        options = _extraction(args, announced["base_url"], start, end)
        report = extract.extracted(options, console, credentials)
    return _concluded(args, console, report)


def _range(now: datetime) -> tuple[str, str]:
    """Whole days of UTC: old enough to be settled, young enough for the API's month."""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = today - timedelta(days=2)
    return (end - timedelta(days=_DAYS)).date().isoformat(), end.date().isoformat()


def _environ(own: Mapping[str, str], secret: dict[str, str]) -> dict[str, str]:
    """The environment of the simulator: none of the user's own credentials."""
    kept = {name: value for name, value in own.items() if not name.startswith("LIVEPERSON_")}
    return {**kept, ACCOUNT: _ACCOUNT, **secret}


def _simulation(args: Namespace, start: str, end: str) -> list[str]:
    options = ["--auth", "oauth1", "--segments", str(args.segments), "--from", start, "--to", end, "--daily-load"]
    options += ["--latency", "30-120", "--limit", "40/s:10"]
    return options + [text for fault in _FAULTS for text in ("--fault", fault)]


def _extraction(args: Namespace, base_url: str, start: str, end: str) -> Namespace:
    """The options of `extract`, as a user would write them."""
    options = ["--base-url", base_url, "--from", start, "--to", end, f"--out={args.out}", "--source", _SOURCE]
    options += ["--state", "none", "--retry-delays", _RETRY_DELAYS, "--network-retry-delays", _RETRY_DELAYS]
    return arguments.parse(["extract", *options])


def _concluded(args: Namespace, console: Console, report: Report) -> int:
    code = extract.exit_code(report, console)
    told = summary.Run(args.out, console.command)
    value = summary.as_json(report, told, code, command="demo", source=_SOURCE, **console.progress.final_pace)
    text = summary.as_text(report, told, width())
    if code == exit_codes.OK and (table := destinations.table(args.out, console)) is not None:
        rows = demo_query.by_skill(table)
        value["handle_time_by_skill"] = [row._asdict() for row in rows]
        text += f"\n\nHandle time by skill, asked of the table:\n{demo_query.as_text(rows)}\n"
    console.report(f"{text}\n{_next(args, console, report)}" if code == exit_codes.OK else text, value)
    return code


def _next(args: Namespace, console: Console, report: Report) -> str:
    lines = ["Next:", f"  {_look(args, console)}"]
    if report.windows:
        lines.append(f"  {console.command}   # again: nothing left to do")
    lines.append(f"  {program()} doctor  # your own account")
    return "\n".join(lines)


def _look(args: Namespace, console: Console) -> str:
    """The command that shows what has come."""
    if (table := destinations.table(args.out, console)) is not None:
        return demo_query.command(table)
    out = shlex.quote(args.out)
    return f"{program()} verify --out {out}" if "://" in args.out else f"head -qn 1 {out}/*.jsonl"
