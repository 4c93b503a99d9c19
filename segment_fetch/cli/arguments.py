"""The options that several commands share: declared, checked, and converted to the library's objects."""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ArgumentGroup
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segment_fetch.cli import zlib_backend
from segment_fetch.client import Rate, SegmentClient
from segment_fetch.errors import InputError
from segment_fetch.events import Event
from segment_fetch.query import Filters
from segment_fetch.sinks import FORMATS
from segment_fetch.throttle.defaults import CONNECTIONS
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.timerange import SETTLE_AFTER_MS, check_settle_after, parse_time
from segment_fetch.windows.splitting import SPLIT_ABOVE

if TYPE_CHECKING:
    import aiohttp

    from segment_fetch.api.timeouts import Timeouts
    from segment_fetch.cli.console import Console
    from segment_fetch.cli.credentials import Credentials
    from segment_fetch.throttle.pace_store import PaceStore

FILTERS = ("agent-id", "skill-id", "group-id", "employee-id", "conversation-id")
COUNTRIES = ("en", "de", "fr", "es", "it", "nl", "pt", "pl", "sv")  # countries for whose spreadsheets CSV is written
PLACES = "a folder, {s3,gs,az}://BUCKET/PREFIX, duckdb:///FILE, postgresql://USER@HOST/DATABASE"

SETTLE_AFTER = f"{SETTLE_AFTER_MS / 3_600_000:g}h"
"""The default of `--settle-after`, as text."""

_STATE_FOLDER = "segment_fetch"
_DURATION = re.compile(r"(\d{1,7}(?:\.\d{1,3})?)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


# Declaring the options. -------------------------------------------------------------------------------------------


def add_connection(parser: ArgumentParser) -> None:
    """Add the account, its credentials, and how fast and how persistently requests are sent."""
    group = parser.add_argument_group("connection")
    group.add_argument("--account", metavar="ID", help="LivePerson account (default: LIVEPERSON_ACCOUNT)")
    group.add_argument(
        "--credentials",
        type=path,
        metavar="FILE",
        help="read NAME=VALUE lines from this file instead of the environment",
    )
    group.add_argument(
        "--source",
        metavar="NAME",
        default="segment_fetch",
        help="the name of this job, sent to the API: 1 to 20 letters, digits, underscores (default: %(default)s)",
    )
    group.add_argument(
        "--base-url", metavar="URL", help="send requests to this address; http only for this machine (default: the "
        "account's domain)",
    )  # fmt: skip
    group.add_argument(
        "--rate",
        type=rate,
        default="auto",
        metavar="auto|N|none",
        help="auto: learn the API's limit from its answers; N: the same, but at most N requests a second; none: no "
        "limit (default: auto)",
    )
    group.add_argument(
        "--connections",
        type=positive,
        default=CONNECTIONS,
        metavar="N",
        help=f"concurrent requests (default: {CONNECTIONS})",
    )
    group.add_argument(
        "--state",
        type=path,
        metavar="DIR",
        help="keep the learned limit in this folder for the next run; none: do not keep it (default: the user's state "
        "folder)",
    )
    group.add_argument(
        "--no-telemetry", action="store_true", help="send nothing to OpenTelemetry, where that is installed"
    )
    _add_retries(parser)


def _add_retries(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("retries and timeouts")
    policy = RetryPolicy()
    delays_of = {
        "--retry-delays": (policy.server, "seconds before each retry after a 5xx answer"),
        "--network-retry-delays": (policy.network, "seconds before each retry after a network error"),
        "--later-retry-delays": (policy.parked, "seconds before each further round of retries"),
    }
    for name, (default, text) in delays_of.items():
        listed = ",".join(f"{delay:g}" for delay in default)
        described = f"{text}, or none (default: {listed})"
        group.add_argument(name, type=delays, default=default, metavar="S,S,...", help=described)
    group.add_argument(
        "--patience",
        type=duration,
        default="15m",
        metavar="DURATION",
        help="how long to keep trying while no request succeeds; 0: do not (default: 15m)",
    )
    timeouts_of = {
        "--connect-timeout": (10.0, "seconds to connect"),
        "--read-timeout": (30.0, "seconds without a byte"),
        "--timeout": (120.0, "seconds for one attempt"),
    }
    for name, (limit, text) in timeouts_of.items():
        group.add_argument(name, type=seconds, default=limit, metavar="S", help=f"{text} (default: {limit:g})")


def add_range(parser: ArgumentParser) -> None:
    """Add the range of close times, the size of its windows, and the filters."""
    group = parser.add_argument_group("range")
    group.add_argument(
        "--from",
        dest="start",
        type=moment,
        metavar="TIME",
        help="first close time: RFC 3339, a date, now, or now-7d (units s, m, h, d, w); UTC unless an offset is "
        "given; within the last month",
    )
    group.add_argument(
        "--to",
        dest="end",
        type=moment,
        default="now",
        metavar="TIME",
        help="exclusive end (default: now)",
    )
    group.add_argument(
        "--window", type=duration, default="7d", metavar="DURATION", help="widest window, at most 7d (default: 7d)"
    )
    _add_selection(parser, group)


def add_days(parser: ArgumentParser) -> None:
    """Add the start and the time zone of a destination that grows day by day, and the filters."""
    group = parser.add_argument_group("range")
    group.add_argument(
        "--from",
        dest="start",
        type=moment,
        metavar="TIME",
        help="start of an empty destination: RFC 3339, a date, now-7d; required the first time",
    )
    group.add_argument(
        "--timezone", metavar="ZONE", default="UTC", help="time zone whose days are used: an IANA name (default: UTC)"
    )
    parser.set_defaults(window=timedelta(days=7))
    _add_selection(parser, group)


def _add_selection(parser: ArgumentParser, group: _ArgumentGroup) -> None:
    group.add_argument(
        "--clamp", action="store_true", help="if --from is too old, begin at the oldest time that the API still serves"
    )
    group.add_argument(
        "--split-above",
        type=positive,
        default=SPLIT_ABOVE,
        metavar="N",
        help=f"split windows with more segments than this (default: {SPLIT_ABOVE})",
    )
    filters = parser.add_argument_group("filters")
    for name in FILTERS:
        filters.add_argument(f"--{name}", metavar="ID", help=f"only segments of this {name[:-3]}")


def add_destination(parser: ArgumentParser, places: str = PLACES) -> None:
    """Add the destination and the form of its files."""
    group = parser.add_argument_group("destination")
    group.add_argument("--out", type=path, metavar="DIR", help=places)
    group.add_argument("--format", choices=FORMATS, help="file format (default: jsonl)")
    group.add_argument(
        "--compress",
        choices=("none", "gzip", "zstd"),
        help="file compression; for parquet, that of its columns (default: none; parquet: zstd)",
    )
    group.add_argument(
        "--partition", choices=("none", "day"), default="none", help="day: one folder per UTC day: date=2026-11-01/"
    )
    group.add_argument(
        "--csv-safe", action="store_true", help="csv: keep spreadsheets from evaluating text as a formula"
    )
    group.add_argument(
        "--excel",
        nargs="?",
        const="en",
        choices=COUNTRIES,
        metavar="COUNTRY",
        help=f"csv: files that open correctly in a country's spreadsheet: {', '.join(COUNTRIES)} (default: en)",
    )
    group.add_argument(
        "--local-times",
        metavar="ZONE",
        help="csv, parquet: add columns with local times in this zone: an IANA name such as Europe/Berlin",
    )
    group.add_argument(
        "--settle-after",
        type=settle_margin,
        default=SETTLE_AFTER,
        metavar="DURATION",
        help="time after its end in which a window can change and is provisional; at most 31d (default: %(default)s)",
    )


def add_output(parser: ArgumentParser) -> None:
    """Add the form of the report and of the log."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the report, or the error, as one JSON object")
    group.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least severe level logged on standard error (default: info)",
    )
    group.add_argument("--log-format", choices=("text", "json"), default="text", help="log format (default: text)")


# Checking their values: each function parses text, or raises an error that says what to write. -------------------


def moment(text: str) -> str:
    """Check a time and return it as text, because `now` is resolved when the run begins."""
    try:
        parse_time(text, int(time.time() * 1000))
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def path(text: str) -> str:
    """Expand a leading `~`, which the shell does not do in `--out=~/segments`."""
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        raise ArgumentTypeError(
            f"{text!r}: the home folder is not known; set HOME, or write the path in full"
        ) from None


def duration(text: str) -> timedelta:
    """Parse 7d, 12h, 30m, or 0, which needs no unit."""
    match = _DURATION.fullmatch(text.strip() if text.strip() != "0" else "0s")
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a duration: write a number and one of s, m, h, d, w (7d, 12h)")
    amount, unit = match.groups()
    return timedelta(**{_UNITS[unit]: float(amount)})


def settle_margin(text: str) -> timedelta:
    """Parse a settle margin: a duration of at most 31 days."""
    margin = duration(text)
    try:
        check_settle_after(margin)
    except InputError as error:
        raise ArgumentTypeError(error.message.removeprefix("settle_after: ")) from None
    return margin


def rate(text: str) -> float | Literal["auto", "none"]:
    """Parse requests a second, `auto` or `none`."""
    if text in ("auto", "none"):
        return "auto" if text == "auto" else "none"
    value = _number(text)
    if value is None or not 0 < value <= 100_000:
        raise ArgumentTypeError(f"{text!r} is not a rate: write requests a second (10), auto, or none")
    return value


def delays(text: str) -> tuple[float, ...]:
    """Parse the seconds before each retry: 5,10,15; `none` for no retry."""
    if text == "none":
        return ()
    values = [_number(part) for part in text.split(",")]
    if any(value is None or not 0 <= value <= 86_400 for value in values):
        raise ArgumentTypeError(f"{text!r} is not a list of delays: write seconds with commas (5,10,15), or none")
    return tuple(value for value in values if value is not None)


def seconds(text: str) -> float:
    """Parse seconds, more than zero and at most a day."""
    value = _number(text)
    if value is None or not 0 < value <= 86_400:
        raise ArgumentTypeError(f"{text!r} is not a timeout: write seconds, more than zero (30)")
    return value


def positive(text: str) -> int:
    """Parse a whole number, at least 1."""
    value = 0 if text.startswith("-") and text[1:].isdigit() else whole(text)
    if value < 1:
        raise ArgumentTypeError("must be at least 1")
    return value


def whole(text: str) -> int:
    """Parse a whole number, at least 0; commas and underscores may group its digits."""
    digits = text.replace(",", "").replace("_", "")
    if digits.isascii() and digits.startswith("-") and digits[1:].isdigit():
        raise ArgumentTypeError(f"{text!r}: must be at least 0")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 15:
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(digits)


def number(text: str) -> float:
    """Parse a number, at least 0."""
    value = _number(text)
    if value is None or value < 0:
        raise ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value


def share(text: str) -> float:
    """Parse a share, 0 to 1."""
    value = _number(text)
    if value is None or not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text!r} is not a share from 0 to 1 (0.05)")
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None


# Converting them to the library's objects. --------------------------------------------------------------------------


def client(args: Namespace, credentials: Credentials, console: Console) -> SegmentClient:
    """Return the client that the options describe; it reports its events to the console."""
    zlib_backend.use_fast_gzip()
    return client_of(args, credentials, console.environ, on_event=console.watch)


def client_of(
    args: Namespace,
    credentials: Credentials,
    environ: Mapping[str, str],
    *,
    on_event: Callable[[Event], None],
    session: aiohttp.ClientSession | None = None,
) -> SegmentClient:
    """Return the client that the options describe. `environ` determines where the learned limit is stored."""
    return SegmentClient(
        credentials.account,
        auth=credentials.auth,
        source=args.source,
        filters=filters_of(args),
        base_url=args.base_url,
        rate=requests_per_second(args),
        connections=args.connections,
        pace=pace_store(args.state, environ),
        window=getattr(args, "window", timedelta(days=7)),
        split_above=getattr(args, "split_above", SPLIT_ABOVE),
        settle_after=getattr(args, "settle_after", timedelta(milliseconds=SETTLE_AFTER_MS)),
        retry=retry_policy(args),
        timeouts=timeouts(args),
        on_event=on_event,
        telemetry=not args.no_telemetry,
        session=session,
    )


def filters_of(args: Namespace) -> Filters:
    """Return the filters that the options describe."""
    return Filters(**{name: getattr(args, name, None) for name in Filters.__struct_fields__})


def requests_per_second(args: Namespace) -> Rate:
    """Return the maximum requests a second, "auto", or None for no limit."""
    return None if args.rate == "none" else args.rate


def retry_policy(args: Namespace) -> RetryPolicy:
    """Return the retry policy that the options describe."""
    return RetryPolicy(
        server=args.retry_delays,
        network=args.network_retry_delays,
        parked=args.later_retry_delays,
        patience=args.patience.total_seconds(),
    )


def timeouts(args: Namespace) -> Timeouts:
    """Return the timeouts that the options describe."""
    from segment_fetch.api.timeouts import Timeouts  # noqa: PLC0415 - not needed for `--help`

    return Timeouts(connect=args.connect_timeout, read=args.read_timeout, total=args.timeout)


def pace_store(named: str | None, environ: Mapping[str, str], platform: str = sys.platform) -> PaceStore | None:
    """Return the store for the learned limit: in `named`, else in the user's state folder.

    None for "none", or if no home folder is known.
    """
    from segment_fetch.throttle.pace_store import PaceStore  # noqa: PLC0415

    if named == "none":
        return None
    folder = Path(named) if named else _user_state_folder(environ, platform)
    return None if folder is None else PaceStore(folder / "pace")


def _user_state_folder(environ: Mapping[str, str], platform: str) -> Path | None:
    """Return the state folder by the XDG Base Directory Specification, which ignores relative paths, or macOS's."""
    xdg, home = Path(environ.get("XDG_STATE_HOME", "")), Path(environ.get("HOME", ""))
    if xdg.is_absolute():
        return xdg / _STATE_FOLDER
    if not home.is_absolute():
        return None
    below = ("Library", "Application Support") if platform == "darwin" else (".local", "state")
    return home.joinpath(*below, _STATE_FOLDER)
