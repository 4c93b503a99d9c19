"""`fleet`: many accounts, listed in a file, concurrently; by shards of a cluster, or on Ray."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import msgspec

from segment_fetch.cli import arguments, signals, zlib_backend
from segment_fetch.cli.console import Console
from segment_fetch.cli.failures import InterruptedRunError
from segment_fetch.cli.fleet_progress import FleetProgress, FleetTable
from segment_fetch.cli.formatting import plural, shown, width, wrapped
from segment_fetch.cli.progress import Silent, may_be_live
from segment_fetch.errors import InputError, lasting, printable
from segment_fetch.events import Event
from segment_fetch.extraction.event_log import EventLog

if TYPE_CHECKING:
    from segment_fetch.fleet import AccountJob, AccountResult, FleetSummary

USAGE = "FILE [options]"
DESCRIPTION = """\
Extract many accounts concurrently, each like sync (or like extract, if it has a `to`), with its own pacer, \
destination and manifest. An account that fails does not affect the others. Run it again to continue: accounts that \
are up to date take one small request each."""
EXAMPLES = """\
  segment-fetch fleet accounts.toml
  segment-fetch fleet accounts.toml --only 111111,222222
  segment-fetch fleet accounts.toml --json > report.json
  segment-fetch fleet accounts.toml \\
    --failed-from report.json
  segment-fetch fleet accounts.toml --shard 0/8
  segment-fetch fleet accounts.toml --shards 8
  segment-fetch fleet accounts.toml \\
    --engine ray --shards 16"""

_LISTED = 20
_LONGEST = 1_000  # characters of a message
_NAMED = 5


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "file", type=arguments.path, metavar="FILE", help="TOML: [defaults], and a table [accounts.ID] for each account"
    )
    group = parser.add_argument_group("accounts")
    group.add_argument("--only", metavar="ID,...", default="", help="only these accounts")
    group.add_argument(
        "--failed-from",
        type=arguments.path,
        metavar="REPORT",
        help="only accounts that were not complete in this JSON report",
    )
    group.add_argument("--shard", metavar="I/N", help="shard I (from 0 on) of N, by a hash of the account")
    group.add_argument(
        "--shards",
        type=arguments.positive,
        metavar="N",
        help="one of N shards, its index from JOB_COMPLETION_INDEX or AWS_BATCH_JOB_ARRAY_INDEX; on Ray: N tasks",
    )
    group.add_argument(
        "--balance",
        type=arguments.path,
        metavar="REPORT",
        help="balance the shards by the seconds in this JSON report",
    )
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="local: this process; ray: Ray tasks, one per shard (default: local)",
    )
    group.add_argument("--address", metavar="ADDRESS", help="ray: address of a cluster (default: start Ray here)")
    group.add_argument(
        "--shared-storage", action="store_true", help="ray: all machines of the cluster see the same local paths"
    )
    group = parser.add_argument_group("limits for all accounts together")
    group.add_argument("--accounts-at-once", type=arguments.positive, default=200, metavar="N", help="(default: 200)")
    group.add_argument(
        "--connections", type=arguments.positive, default=256, metavar="N", help="concurrent requests (default: 256)"
    )
    group.add_argument(
        "--rows",
        type=arguments.positive,
        default=500_000,
        metavar="N",
        help="segments held in memory (default: 500000)",
    )
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Run the fleet, report, and return the exit code."""
    from segment_fetch.fleet import summarize  # noqa: PLC0415 - loads the TOML parser

    zlib_backend.use_fast_gzip()
    jobs = chosen(args, console)
    progress = FleetProgress(len(jobs))
    console.destination = "the destinations of its accounts"
    results: list[AccountResult] = []

    def watch(account: str, event: Event) -> None:
        progress.take(account, event)
        console.redraw()

    def ended(result: AccountResult) -> None:
        results.append(result)
        progress.end(result)
        _log_result(result, console)
        console.redraw()

    source = _results(args, jobs, watch, console)
    live = not args.quiet and args.log_format == "text" and may_be_live(sys.stderr)
    display = FleetTable(sys.stderr, progress) if live else Silent(sys.stderr, console.progress)
    # Ray prints messages about lost workers on standard output, where the report goes.
    aside = redirect_stdout(sys.stderr) if args.engine == "ray" else nullcontext()
    with aside, console.show_progress(display):
        try:
            summary = signals.run(summarize(jobs, source, on_result=ended), console.on_signal)
        except InterruptedRunError as error:
            summary = _interrupted(jobs, results, progress, error)
    console.report(as_text(summary, width()), as_json(summary))
    return summary.exit_code


def _interrupted(
    jobs: Sequence[AccountJob], results: Sequence[AccountResult], progress: FleetProgress, error: InterruptedRunError
) -> FleetSummary:
    """Return the summary of a run that a signal ended, with an entry for each account that has no result."""
    from segment_fetch.fleet.run import interrupted_result, summary_of  # noqa: PLC0415

    ended = {result.account for result in results}
    broken = [
        interrupted_result(job.account, error, progress.committed.get(job.account))
        for job in jobs
        if job.account not in ended
    ]
    return summary_of(jobs, [*results, *broken], progress.elapsed)


def _results(
    args: Namespace, jobs: Sequence[AccountJob], watch: Callable[[str, Event], None], console: Console
) -> AsyncGenerator[AccountResult, None]:
    """Return the results of the engine that was chosen."""
    from segment_fetch.fleet import FleetLimits, run_fleet  # noqa: PLC0415 - brings aiohttp

    def warn(account: str, text: str) -> None:
        console.say("warning", "credentials_readable", f"{account}: {text}", account=account)

    limits = FleetLimits(args.accounts_at_once, args.connections, args.rows)
    if args.engine == "ray":
        from segment_fetch.integrations.ray import run_on_ray  # noqa: PLC0415 - an optional extra

        logs = {job.account: EventLog(job.account) for job in jobs}  # log records stay on the worker

        def log_and_watch(account: str, event: Event) -> None:
            logs[account].take(event)
            watch(account, event)

        return run_on_ray(
            jobs,
            address=args.address,
            shards=args.shards,
            shared_storage=args.shared_storage,
            weights=_weights(args),
            limits=limits,
            on_event=log_and_watch,
            on_warning=warn,
        )
    return run_fleet(
        jobs, limits=limits, on_event=watch, on_secrets=console.hide, on_warning=warn, environ=console.environ
    )


def _weights(args: Namespace) -> Mapping[str, float] | None:
    from segment_fetch.fleet.run import weights_in  # noqa: PLC0415

    return None if args.balance is None else weights_in(_report(args.balance, "--balance"))


def chosen(args: Namespace, console: Console) -> list[AccountJob]:
    """Return the jobs that the options choose. Raises InputError for an invalid file, report or shard."""
    from segment_fetch.fleet import load_accounts, shard_of  # noqa: PLC0415
    from segment_fetch.fleet.run import failed_in  # noqa: PLC0415
    from segment_fetch.fleet.shards import index_from, parse_shard  # noqa: PLC0415

    only = [name.strip() for name in args.only.split(",") if name.strip()]
    jobs = load_accounts(args.file, only=only, environ=console.environ)
    if args.failed_from is not None:
        failed = set(failed_in(_report(args.failed_from, "--failed-from")))
        jobs = [job for job in jobs if job.account in failed]
    _check_engine(args)
    if args.engine == "local" and (args.shard is not None or args.shards is not None):
        index, count = parse_shard(args.shard) if args.shard else (index_from(console.environ), args.shards)
        jobs = shard_of(jobs, index, count, weights=_weights(args))
    return jobs


def _check_engine(args: Namespace) -> None:
    """Raise InputError for shard and engine options that exclude each other."""
    if args.shard is not None and args.shards is not None:
        raise InputError("--shard and --shards exclude each other: give the index, or use the scheduler's")
    if args.engine == "ray" and args.shard is not None:
        raise InputError("--shard goes with --engine local; with --engine ray give the number of tasks, --shards N")
    if args.engine == "local" and args.balance is not None and args.shard is None and args.shards is None:
        raise InputError("--balance goes with --shard or --shards")
    if args.engine == "local" and (args.address is not None or args.shared_storage):
        raise InputError("--address and --shared-storage go with --engine ray")


def _report(file: str, option: str) -> bytes:
    from segment_fetch.local.regular_files import read_named  # noqa: PLC0415

    try:
        return read_named(file)
    except OSError as error:
        raise InputError(f"{option} {file}: cannot be read: {error.strerror or error}") from None


def _log_result(result: AccountResult, console: Console) -> None:
    fields = {"account": result.account, "exit_code": result.exit_code}
    if result.exit_code == 0:
        text = f"{result.account}: {plural(result.segments, 'segment')} in {lasting(result.seconds)}"
        console.say("info", "account_done", text, **fields)
    else:
        message = printable((result.error or {}).get("message", ""), _LONGEST)
        console.say("error", "account_failed", f"{result.account}: {result.status}: {message}", **fields)


def as_json(summary: FleetSummary) -> dict[str, Any]:
    """Return the summary in machine-readable form."""
    results = summary.accounts
    return {
        "command": "fleet",
        "exit_code": summary.exit_code,
        "complete": sum(result.exit_code == 0 for result in results),
        "incomplete": sum(result.status == "incomplete" for result in results),
        "failed": sum(result.status == "failed" for result in results),
        "segments": sum(result.segments for result in results),
        "seconds": summary.seconds,
        "accounts": [_entry(result) for result in results],
    }


def _entry(result: AccountResult) -> dict[str, Any]:
    """Return an account's entry; empty fields are omitted, except those that every entry has."""
    always = ("account", "status", "exit_code", "segments", "windows", "complete_before", "seconds")
    entry: dict[str, Any] = {name: getattr(result, name) for name in always}
    return entry | msgspec.to_builtins(result)  # type: ignore[no-any-return]


def as_text(summary: FleetSummary, columns: int) -> str:
    """Return the summary as text."""
    results = summary.accounts
    complete = sum(result.exit_code == 0 for result in results)
    segments = sum(result.segments for result in results)
    accounts, rows = plural(len(results), "account"), plural(segments, "segment")
    lines = [f"{complete:,} of {accounts} complete: {rows} in {lasting(summary.seconds)}."]
    interrupted = [result for result in results if (result.error or {}).get("code") == InterruptedRunError.code]
    failed = [result for result in summary.failed if result not in interrupted]
    for result in failed[:_LISTED]:
        message = printable(shown((result.error or {}).get("message", "")), _LONGEST)
        lines.append(f"  {result.account}  {result.status} (exit code {result.exit_code}): {message}")
    if len(failed) > _LISTED:
        lines.append(f"  and {len(failed) - _LISTED:,} more (--json lists all)")
    if interrupted:
        lines.append(f"  {plural(len(interrupted), 'account')} interrupted")
    return "\n".join(wrapped(line, columns, hang="    ") for line in [*lines, *_advice(summary.failed)])


def _advice(failed: Sequence[AccountResult]) -> list[str]:
    """Return advice for accounts that are not complete, each with its accounts."""
    by_advice: dict[str, list[str]] = {}
    for result in failed:
        by_advice.setdefault((result.error or {}).get("advice", ""), []).append(result.account)
    if len(by_advice) == 1:
        return list(by_advice)
    return [f"{_named(accounts)}: {advice}" for advice, accounts in by_advice.items()]


def _named(accounts: Sequence[str]) -> str:
    more = len(accounts) - _NAMED
    return ", ".join(accounts[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")
