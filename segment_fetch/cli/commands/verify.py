"""`verify`: check a destination against its manifest, and on request against the API."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

import msgspec

from segment_fetch.cli import arguments, destinations, exit_codes, failures, signals
from segment_fetch.cli.console import Console
from segment_fetch.cli.formatting import plural, shown, width, wrapped
from segment_fetch.errors import InputError, printable
from segment_fetch.manifest.format import Manifest, WindowEntry
from segment_fetch.manifest.verify import Audit
from segment_fetch.query import Window
from segment_fetch.sinks.base import Finding
from segment_fetch.timerange import oldest_start

USAGE = "--out DIR [options]"
REQUIRED = ("--out",)
DESCRIPTION = """\
Check every file or row of a destination against its manifest, without the network: files that are missing, truncated \
or changed, segments that are duplicated, missing or in the wrong file. With --against-api also compare the number of \
segments in each window with what the API reports now."""
EXAMPLES = """\
  segment-fetch verify --out segments
  segment-fetch verify --out segments --against-api --json"""

_LISTED = 50
_LONGEST = 1_000  # characters


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    group = parser.add_argument_group("destination")
    group.add_argument(
        "--out", type=arguments.path, metavar="DIR", help="the folder, object store or database to check"
    )
    group.add_argument(
        "--against-api", action="store_true", help="also compare each window's count with what the API reports now"
    )
    arguments.add_connection(parser)
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Check, report, and return the exit code; errors of the library pass through."""
    found = destinations.audit(args.out, console)
    compared = 0
    if args.against_api:
        compared, differing = _against_api(args, console)
        found = msgspec.structs.replace(found, findings=(*found.findings, *differing))
    code = exit_codes.OK if found.sound else exit_codes.INCOMPLETE
    text = as_text(found, args.out, compared, width())
    if console.quiet and not args.json and not found.sound:
        console.out(text)
    console.report(text, as_json(found, shown(args.out), compared, code))
    return code


def _against_api(args: Namespace, console: Console) -> tuple[int, list[Finding]]:
    """Return the number of windows that the API still serves, and a finding for each whose count differs."""
    manifest = destinations.manifest(args.out, console)
    credentials = console.credentials()
    if credentials.account != manifest.query.get("account"):
        raise InputError(f"{args.out} holds account {manifest.query.get('account')}, not {credentials.account}")
    args.source = manifest.query.get("source", args.source)
    for name, value in _filters(manifest).items():
        setattr(args, name, value)
    client = arguments.client(args, credentials, console)
    entries = {entry.window: entry for entry in manifest.windows if entry.status != "unproven"}

    async def work() -> dict[Window, int]:
        async with client:
            oldest = oldest_start(client.now_ms())
            return await client.counts(window for window in entries if window.start > oldest)

    with console.show_progress():
        counts = signals.run(work(), console.on_signal)
    return len(counts), [
        _difference(entries[window], count) for window, count in counts.items() if count != entries[window].count
    ]


def _filters(manifest: Manifest) -> dict[str, str]:
    names = {"AgentId": "agent_id", "SkillId": "skill_id", "GroupId": "group_id"}
    names |= {"EmployeeId": "employee_id", "ConversationId": "conversation_id"}
    return {names[name]: value for name, value in manifest.query.get("filters", {}).items() if name in names}


def _difference(entry: WindowEntry, count: int) -> Finding:
    mend = (
        "sync or extract it again"
        if entry.status == "provisional"
        else "delete its file, or its rows, and extract it again"
    )
    return Finding(
        "differs", str(entry.window), f"the API reports {plural(count, 'segment')} now, {entry.count:,} then; {mend}"
    )


def as_json(found: Audit, folder: str, compared: int, code: int) -> dict[str, Any]:
    """Return the findings in machine-readable form."""
    facts: dict[str, Any] = msgspec.to_builtins(found)
    failure = failures.UnsoundError(f"{plural(len(found.findings), 'finding')} in {folder}")
    return {
        "command": "verify",
        "destination": folder,
        "exit_code": code,
        "sound": found.sound,
        "compared": compared,
        **facts,
        **({} if found.sound else {"error": failures.as_json(failure)}),
    }


def as_text(found: Audit, folder: str, compared: int, columns: int) -> str:
    """Return the findings as text."""
    lines = [
        printable(f"{finding.kind.upper()}: {finding.where}: {finding.message}", _LONGEST)
        for finding in found.findings[:_LISTED]
    ]
    if len(found.findings) > _LISTED:
        lines.append(f"and {len(found.findings) - _LISTED:,} more (--json lists all)")
    what = f"{plural(found.windows, 'window')}, {plural(found.segments, 'segment')}"
    asked = f"; {plural(compared, 'window')} compared with the API" if compared else ""
    if found.sound:
        provisional = f", {found.provisional:,} of them provisional" if found.provisional else ""
        lines.append(f"{folder} is sound: {what}{provisional}{asked}.")
    else:
        lines.append(f"{folder} is NOT sound: {plural(len(found.findings), 'finding')} in {what}{asked}.")
    if found.running:
        lines.append("A run is writing there now; files that it has not committed yet were not checked.")
    return "\n".join(wrapped(line, columns) for line in lines)
