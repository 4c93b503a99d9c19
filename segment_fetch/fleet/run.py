"""Run a fleet: many accounts concurrently in one event loop, none of which affects another."""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec import Struct

from segment_fetch.cli import arguments
from segment_fetch.cli.exit_codes import CREDENTIALS, INCOMPLETE, INTERNAL, OK, SERVICE, USAGE, exit_code
from segment_fetch.cli.failures import InterruptedRunError, as_json, known
from segment_fetch.cli.summary import error_of
from segment_fetch.errors import InputError
from segment_fetch.events import Event, PageRead
from segment_fetch.fleet.accounts_file import AccountJob, sink_of
from segment_fetch.fleet.credentials import resolve

if TYPE_CHECKING:
    import aiohttp

    from segment_fetch.api.auth import Auth
    from segment_fetch.extraction.report import Report

Status: TypeAlias = Literal["complete", "incomplete", "failed"]
"""complete: every window is proven. incomplete: some window is not, or the run was cut short. failed: nothing read."""


_ON_TIME_S = 0.01
_LATEST_S = 0.03  # between the beginnings of two accounts


class FleetLimits(Struct, frozen=True):
    """Limits for all accounts together: concurrent accounts, requests in flight, and rows held in memory."""

    accounts: int = 200
    connections: int = 256
    rows: int = 500_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name}: must be a whole number of at least 1")


class AccountResult(Struct, frozen=True, omit_defaults=True):
    """The outcome of one account. `exit_code` is that of the command for this account alone.

    `windows` counts the windows read, by status; `skipped` counts those complete before. Everything before
    `complete_before` (RFC 3339) is stored and final; `error` has `code`, `kind`, `message` and `advice` of the error
    that ended the account's run.
    """

    account: str
    status: Status
    exit_code: int
    segments: int = 0
    windows: Mapping[str, int] = {}
    skipped: int = 0
    requests: int = 0
    throttled: int = 0
    added: int = 0
    removed: int = 0
    lost: tuple[str, ...] = ()
    complete_before: str | None = None
    seconds: float = 0.0
    error: Mapping[str, str] | None = None


class FleetSummary(Struct, frozen=True):
    """All results, in the order of the accounts, and the exit code of the fleet."""

    exit_code: int
    accounts: tuple[AccountResult, ...]
    seconds: float

    @property
    def failed(self) -> tuple[AccountResult, ...]:
        """The accounts that are not complete."""
        return tuple(result for result in self.accounts if result.exit_code != OK)


OnEvent: TypeAlias = Callable[[str, Event], None]
OnSecrets: TypeAlias = "Callable[[Auth], None]"


class _Fleet:
    """The state that all accounts of a run share."""

    def __init__(
        self,
        limits: FleetLimits,
        *,
        session: aiohttp.ClientSession,
        environ: Mapping[str, str],
        on_event: OnEvent | None,
        on_secrets: OnSecrets | None,
        on_warning: Callable[[str, str], None] | None,
    ) -> None:
        self.places = asyncio.Semaphore(limits.accounts)
        self.session = session
        self.environ = environ
        self.on_event = on_event
        self.on_secrets = on_secrets
        self.on_warning = on_warning

    async def run(self, job: AccountJob) -> AccountResult:
        """Run one account. An error ends only this account."""
        async with self.places:
            started, pages = time.monotonic(), 0

            def watch(event: Event) -> None:
                nonlocal pages
                pages += isinstance(event, PageRead)
                if self.on_event is not None:
                    self.on_event(job.account, event)

            try:
                report = await self._report(job, watch)
            except Exception as error:  # noqa: BLE001 - one account must not affect another
                return failed_result(job.account, error, progressed=pages > 0, seconds=time.monotonic() - started)
            return _ended(job.account, report, progressed=pages > 0)

    async def _report(self, job: AccountJob, watch: Callable[[Event], None]) -> Report:
        credentials, warning = await resolve(job.account, job.credentials, self.environ)
        if self.on_secrets is not None:
            self.on_secrets(credentials.auth)
        if warning is not None and self.on_warning is not None:
            self.on_warning(job.account, warning)
        args = Namespace(**job.options)
        client = arguments.client_of(args, credentials, self.environ, on_event=watch, session=self.session)
        sink = sink_of(args, job.account if job.account_id else None)
        async with client:
            if job.command == "extract":
                return await client.extract(args.start, args.end, sink, clamp=args.clamp)
            return await client.sync(sink, args.start, timezone=args.timezone, clamp=args.clamp)


async def run_fleet(
    jobs: Sequence[AccountJob],
    *,
    limits: FleetLimits | None = None,
    on_event: OnEvent | None = None,
    on_secrets: OnSecrets | None = None,
    on_warning: Callable[[str, str], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncGenerator[AccountResult, None]:
    """Run the accounts and yield each one's result as it ends.

    `on_event` is called in the event loop with the account and each of its events; `on_secrets` with each account's
    credentials before they are used, so that a log can redact them; `on_warning` with an account and a sentence. An
    account's error is in its result. Leaving the generator early stops everything cleanly; use `contextlib.aclosing` if
    you may do so.
    """
    from segment_fetch.api.transport import shared_session  # noqa: PLC0415 - loads aiohttp
    from segment_fetch.extraction.row_budget import row_budget  # noqa: PLC0415

    limits = limits or FleetLimits()
    results: asyncio.Queue[AccountResult] = asyncio.Queue()
    async with shared_session(limits.connections) as session, AsyncExitStack() as stack:
        stack.enter_context(row_budget(limits.rows))
        fleet = _Fleet(
            limits,
            session=session,
            environ=os.environ if environ is None else environ,
            on_event=on_event,
            on_secrets=on_secrets,
            on_warning=on_warning,
        )

        async def one(job: AccountJob) -> None:
            await results.put(await fleet.run(job))

        tasks: list[asyncio.Task[None]] = []

        async def begin() -> None:
            for job in jobs:
                tasks.append(asyncio.create_task(one(job), name=f"segment_fetch {job.account}"))
                await _until_on_time()

        beginning = asyncio.create_task(begin())
        try:
            for _ in jobs:
                yield await results.get()
        finally:
            for task in (beginning, *tasks):
                task.cancel()
            await asyncio.gather(beginning, *tasks, return_exceptions=True)


async def _until_on_time() -> None:
    """Return when a turn of the event loop is short again, soon in any case.

    Accounts that all begin at once would make each other late, and take their own lateness for the limit of the API.
    """
    clock = asyncio.get_running_loop().time
    began = last = clock()
    while last - began < _LATEST_S:
        await asyncio.sleep(0)
        now = clock()
        if now - last < _ON_TIME_S:
            return
        last = now


async def summarize(
    jobs: Sequence[AccountJob],
    results: AsyncGenerator[AccountResult, None],
    *,
    on_result: Callable[[AccountResult], Awaitable[None] | None] | None = None,
) -> FleetSummary:
    """Run a fleet to its end and return the summary. `on_result` is called with each result when it is known."""
    started, found = time.monotonic(), list[AccountResult]()
    async with aclosing(results):
        async for result in results:
            found.append(result)
            if on_result is not None and (waiting := on_result(result)) is not None:
                await waiting
    return summary_of(jobs, found, time.monotonic() - started)


def summary_of(jobs: Sequence[AccountJob], results: Sequence[AccountResult], seconds: float) -> FleetSummary:
    """Return the summary of results, in the order of the jobs."""
    found = {result.account: result for result in results}
    ordered = tuple(found[job.account] for job in jobs if job.account in found)
    return FleetSummary(fleet_exit_code(ordered), ordered, round(seconds, 3))


def fleet_exit_code(results: Sequence[AccountResult]) -> int:
    """Return 0 if all are complete, a signal's code if one ended the run, 70 for an error in this program, else 3.

    If nothing was read of any account: 4 if any was refused, else 5 if a service was down, else 2.
    """
    codes = {result.exit_code for result in results}
    if not codes or codes == {OK}:
        return OK
    if max(codes) > 128:
        return max(codes)
    if INTERNAL in codes:
        return INTERNAL
    if codes & {OK, INCOMPLETE}:
        return INCOMPLETE
    return next(code for code in (CREDENTIALS, SERVICE, USAGE) if code in codes)


def failed_in(report: bytes) -> list[str]:
    """Return the incomplete accounts in a fleet's JSON report. Raises InputError if it is not one."""
    try:
        found = msgspec.json.decode(report, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the report is not the JSON of a fleet: {error}") from None
    return [entry.account for entry in found.accounts if entry.exit_code != OK]


def weights_in(report: bytes) -> dict[str, float]:
    """Return the seconds that each account took, from a fleet's JSON report. Raises InputError if it is not one."""
    try:
        found = msgspec.json.decode(report, type=_Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the report is not the JSON of a fleet: {error}") from None
    return {entry.account: entry.seconds for entry in found.accounts if entry.seconds > 0}


class _Entry(Struct):
    account: str
    exit_code: int
    seconds: float = 0.0


class _Report(Struct):
    accounts: tuple[_Entry, ...]


def _ended(account: str, report: Report, *, progressed: bool) -> AccountResult:
    statuses = [entry.status for entry in report.windows]
    complete = report.complete
    code = OK if complete else INCOMPLETE if progressed or report.skipped else SERVICE
    reasons = [f"{entry.window}: {entry.reason}" for entry in report.unproven[:3]]
    lost = [f"{each} was never read, and the API no longer has it" for each in report.lost[:3]]
    return AccountResult(
        account=account,
        status="complete" if complete else "incomplete" if code == INCOMPLETE else "failed",
        exit_code=code,
        segments=report.segments,
        windows={name: statuses.count(name) for name in ("complete", "provisional", "unproven")},
        skipped=report.skipped,
        requests=report.requests,
        throttled=report.throttled,
        added=report.added,
        removed=report.removed,
        lost=report.lost,
        complete_before=report.complete_before,
        seconds=report.seconds,
        error=None if complete else error_of(report) | {"message": "; ".join(reasons + lost)},
    )


def interrupted_result(account: str, error: InterruptedRunError, segments: int | None) -> AccountResult:
    """Return the outcome of an account that a signal ended; `segments` are those committed, None if not started."""
    return AccountResult(
        account=account,
        status="failed" if segments is None else "incomplete",
        exit_code=exit_code(error, progressed=segments is not None),
        segments=segments or 0,
        error=as_json(error),
    )


def failed_result(account: str, error: Exception, *, progressed: bool, seconds: float) -> AccountResult:
    code = exit_code(error, progressed=progressed)
    return AccountResult(
        account=account,
        status="incomplete" if progressed else "failed",
        exit_code=code,
        seconds=round(seconds, 3),
        error=as_json(known(error)),
    )
