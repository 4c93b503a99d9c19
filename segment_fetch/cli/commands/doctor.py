"""`doctor`: each step on the way to the first segment, and how to correct the one that fails."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from segment_fetch.api.endpoints import CLOCK_OFF_S, SegmentApi
from segment_fetch.api.responses import PERMISSION
from segment_fetch.api.transport import Transport, checked_base
from segment_fetch.cli import arguments, exit_codes, failures, signals
from segment_fetch.cli.console import Console
from segment_fetch.cli.credentials import Credentials
from segment_fetch.cli.formatting import plural, width, wrapped
from segment_fetch.errors import (
    CredentialsError,
    InputError,
    RequestRefusedError,
    SegmentFetchError,
    lasting,
)
from segment_fetch.events import Event, Warned
from segment_fetch.extraction.event_log import EventLog
from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.query import Query, Window
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.windows.counting import Counting

USAGE = "[options]"
DESCRIPTION = """\
Check step by step whether the account can be read: settings, domain, clock, credentials, permission, and one small \
query. Stops at the first step that fails, and says how to correct it."""
EXAMPLES = """\
  segment-fetch doctor --account 111111
  segment-fetch doctor --credentials ~/liveperson.env"""

_CLOCK_GOOD_S = 30.0
_LOOKED_AT_MS = 24 * 3_600_000
_LABEL = 21


class Check(Struct, frozen=True, omit_defaults=True):
    """The result of a check. A failure has its exit code, and its error in machine-readable form."""

    name: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    mend: str = ""
    code: int = exit_codes.OK
    error: dict[str, str] | None = None


class Doctor:
    """Runs the checks of one account and shows each when it is done."""

    def __init__(self, args: Namespace, console: Console) -> None:
        self._args = args
        self._console = console
        self.checks: list[Check] = []

    @property
    def code(self) -> int:
        """The exit code: that of the first failure."""
        return next((check.code for check in self.checks if check.status == "failed"), exit_codes.OK)

    def tell(self, check: Check) -> None:
        """Keep a check, and show it immediately unless the output is JSON."""
        self.checks.append(check)
        if not self._args.json and not (self._console.quiet and check.status == "ok"):
            self._console.out(as_text(check, width()))

    def failed(self, name: str, error: SegmentFetchError, mend: str = "") -> None:
        """Keep and show a failed check."""
        code = exit_codes.exit_code(error, progressed=False)
        self.tell(Check(name, "failed", error.message, mend, code, failures.as_json(error)))

    async def examine(self, credentials: Credentials) -> None:
        """Make the checks that need the network, with one small query, until one fails."""
        args = self._args
        now_ms = int(time.time() * 1000)
        counting = Counting([Window(now_ms - _LOOKED_AT_MS, now_ms)])
        transport = Transport(timeouts=arguments.timeouts(args))
        retry, limiter = arguments.retry_policy(args), Limiter(None)
        base = None if args.base_url is None else checked_base(args.base_url)
        query = Query(credentials.account, args.source)
        api = SegmentApi(query, credentials.auth, transport, limiter, login_pause=retry.login_pause, base_url=base)
        pool = WorkerPool(api, limiter, counting, connections=1, retry=retry, tell=self._log(query.account))
        try:
            await pool.run()
        except SegmentFetchError as error:
            if self._domain(api, error):
                off_s = self._clock(api, refused=isinstance(error, CredentialsError))
                self._refused(error, credentials, reached=api.server_ms is not None, off_s=off_s)
        else:
            self._domain(api)
            self._clock(api, refused=False)
            self._allowed(credentials)
            (count,) = counting.counts.values()
            self.tell(Check("query", "ok", f"{plural(count, 'segment')} closed in the last 24 hours"))
        finally:
            await transport.close()

    @staticmethod
    def _log(account: str) -> Callable[[Event], None]:
        """Return a function that logs events, except warnings: the only one is about the clock, which has a check."""
        log = EventLog(account)
        return lambda event: None if isinstance(event, Warned) else log.take(event)

    def _domain(self, api: SegmentApi, error: SegmentFetchError | None = None) -> bool:
        """Report the service's address, or if `error` prevented that, the failure; return True if it was found."""
        if api.known_base is not None:
            how = "given by --base-url" if self._args.base_url else "found by the Domain API"
            self.tell(Check("domain", "ok", f"{api.known_base}, {how}"))
        elif error is not None:
            self.failed("domain", error, "" if isinstance(error, CredentialsError) else _way(error))
        return api.known_base is not None

    def _clock(self, api: SegmentApi, *, refused: bool) -> float:
        """Check the clock; return the seconds by which it is ahead of the server's, 0 if the server was not reached."""
        off_s = api.clock_ahead_s()
        if off_s is None:
            return 0.0
        detail = f"{lasting(abs(off_s))} {'ahead of' if off_s > 0 else 'behind'} the server's"
        mend = "set this machine's clock (NTP): OAuth 1.0 requests are refused if it is wrong by several minutes"
        if abs(off_s) <= _CLOCK_GOOD_S:
            self.tell(Check("clock", "ok", detail))
        elif refused and abs(off_s) > CLOCK_OFF_S:
            error = failures.as_json(failures.ClockError(f"the clock is {detail}"))
            self.tell(Check("clock", "failed", detail, mend, exit_codes.CREDENTIALS, error))
        else:
            self.tell(Check("clock", "warning", detail, mend))
        return off_s

    def _allowed(self, credentials: Credentials) -> None:
        self.tell(Check("credentials", "ok", f"the {credentials.kind} from {credentials.place} is accepted"))
        self.tell(Check("permission", "ok", PERMISSION))

    def _refused(self, error: SegmentFetchError, credentials: Credentials, *, reached: bool, off_s: float) -> None:
        grant = f"let an administrator give the API key the permission {PERMISSION}"
        if isinstance(error, RequestRefusedError) and error.status == 404:
            self.failed("query", error)
        elif isinstance(error, RequestRefusedError):
            self._allowed(credentials)
            self.failed("query", error, "correct what the API names; check --source")
        elif not isinstance(error, CredentialsError):
            self.failed("query", error, _way(error))
        elif error.status == 403 or (reached and credentials.kind == "OAuth 2.0 client"):
            self.tell(Check("credentials", "ok", f"the {credentials.kind} from {credentials.place} is known"))
            self.failed("permission", error, grant)
        elif abs(off_s) > CLOCK_OFF_S:
            self.failed("credentials", error, "set the clock first, then run this again")
        else:
            check = f"compare the values in {credentials.place} with LivePerson's console"
            self.failed("credentials", error, f"{check}; if they are right, {grant}" if reached else check)


def _way(error: SegmentFetchError) -> str:
    """Return what to do if the service cannot be reached; empty if the message says it."""
    if isinstance(error, InputError) or "SSL_CERT_FILE" in error.message:
        return ""
    return "check --base-url, the network, the name service and HTTPS_PROXY; if they are right, try again later"


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    arguments.add_connection(parser)
    arguments.add_output(parser)


def run(args: Namespace, console: Console) -> int:
    """Check, report, and return the exit code."""
    doctor = Doctor(args, console)
    try:
        credentials = console.credentials()
        Query(credentials.account, args.source)
        if args.base_url is not None:
            checked_base(args.base_url)
    except SegmentFetchError as error:
        doctor.failed("settings", error)
    else:
        detail = f"account {credentials.account}, {credentials.kind} from {credentials.place}"
        doctor.tell(Check("settings", "ok", detail))
        signals.run(doctor.examine(credentials), console.on_signal)
    if args.json:
        console.report("", as_json(doctor))
    return doctor.code


def as_json(doctor: Doctor) -> dict[str, Any]:
    """Return the checks in machine-readable form."""
    checks = [
        {"name": check.name, "status": check.status, "detail": check.detail, "mend": check.mend or None}
        for check in doctor.checks
    ]
    failed = next((check.error for check in doctor.checks if check.status == "failed"), None)
    ok = failed is None
    value = {"command": "doctor", "ok": ok, "exit_code": doctor.code, "checks": checks}
    return value if ok else {**value, "error": failed}


def as_text(check: Check, columns: int) -> str:
    """Return a check as a line, and how to correct it as another."""
    hang = " " * _LABEL
    text = wrapped(f"{check.status:<8} {check.name:<12}{check.detail}", columns, hang=hang)
    if check.mend:
        text += "\n" + wrapped(f"{'':<9}{'fix:':<12}{check.mend}", columns, hang=hang)
    return text
