"""`simulate`: the API on this machine, until it is interrupted."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shlex
import threading
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import NamedTuple

from segment_fetch.cli import arguments, exit_codes, signals
from segment_fetch.cli import credentials as given
from segment_fetch.cli.console import Console
from segment_fetch.cli.failures import InterruptedRunError
from segment_fetch.cli.formatting import plural, program, width, wrapped
from segment_fetch.errors import InputError
from segment_fetch.simulator import (
    AtOnce,
    Bearer,
    ClientCredentials,
    Dataset,
    Drift,
    Fault,
    Faults,
    OAuth1,
    RateLimit,
    Simulator,
    SlidingWindow,
    serve,
)
from segment_fetch.timerange import format_time, parse_time

USAGE = "[options]"
DESCRIPTION = """\
Serve the agent-segments API on this machine (127.0.0.1), with generated segments and chosen faults, until Ctrl-C. \
Credentials are taken from the environment; if there are none, they are generated and shown."""
EXAMPLES = """\
  segment-fetch simulate --segments 20000 --days 7
  segment-fetch simulate --auth oauth1 --latency 30-120 \\
      --limit 40/s --limit 5-at-once --fault error_500=0.02
  segment-fetch simulate --json --until-stdin-closes"""
NOTE = "simulate ends with exit code 0 when it is interrupted, its only way to end."

_SETS = {"oauth1": given.OAUTH1, "client-credentials": given.CLIENT, "bearer": given.BEARER}
_DAY_MS = 86_400_000
_RATE = re.compile(r"(\d+(?:\.\d+)?)/s(?::(\d+))?")
_SLIDING = re.compile(r"(\d+)/(\d+(?:\.\d+)?)s")
_AT_ONCE = re.compile(r"(\d+)-at-once")
_AHEAD = re.compile(r"now\+(\d{1,6}[smhdw])")
_LATENCY = re.compile(r"(\d+(?:\.\d+)?)(?:-(\d+(?:\.\d+)?))?")

Limit = tuple[str, float, float]
"""A parsed limit: ("rate", a second, burst), ("sliding", requests, seconds) or ("at-once", requests, 0)."""


def limit(text: str) -> Limit:
    """Parse 40/s, 40/s:10, 100/10s or 5-at-once."""
    if match := _RATE.fullmatch(text):
        return "rate", float(match[1]), float(match[2] or 1)
    if match := _SLIDING.fullmatch(text):
        return "sliding", float(match[1]), float(match[2])
    if match := _AT_ONCE.fullmatch(text):
        return "at-once", float(match[1]), 0.0
    raise ArgumentTypeError(f"{text!r} is not a limit: write 40/s, 40/s:10 (10 at once), 100/10s, or 5-at-once")


def latency(text: str) -> tuple[float, float]:
    """Parse milliseconds: 50, or minimum and maximum, 30-120."""
    match = _LATENCY.fullmatch(text)
    least, most = (float(match[1]), float(match[2] or match[1])) if match else (1.0, 0.0)
    if least > most:
        raise ArgumentTypeError(f"{text!r}: write milliseconds (50), or minimum and maximum (30-120)")
    return least, most


def fault(text: str) -> tuple[str, float]:
    """Parse KIND=SHARE."""
    kind, equals, part = text.partition("=")
    if not equals:
        raise ArgumentTypeError(f"{text!r}: write KIND=SHARE (error_500=0.02)")
    return kind.replace("-", "_"), arguments.share(part)


def port(text: str) -> int:
    """Parse a TCP port; 0 means a free one."""
    value = arguments.whole(text)
    if value > 65_535:
        raise ArgumentTypeError("must be at most 65535")
    return value


def moment(text: str) -> str:
    """Check a time, which may be in the future (now+5d), and return it as text."""
    return text if _AHEAD.fullmatch(text) else arguments.moment(text)


def _epoch_ms(text: str, now_ms: int) -> int:
    """Return a time checked by `moment`, in epoch milliseconds."""
    ahead = _AHEAD.fullmatch(text)
    return 2 * now_ms - parse_time(f"now-{ahead[1]}", now_ms) if ahead else parse_time(text, now_ms)


def add_options(parser: ArgumentParser) -> None:
    """Declare the options of the command."""
    _add_service(parser)
    _add_data(parser)
    _add_trouble(parser)
    arguments.add_output(parser)


def _add_service(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("service")
    group.add_argument("--port", type=port, default=0, metavar="N", help="0: any free port (default: 0)")
    group.add_argument("--account", metavar="ID", help="(else LIVEPERSON_ACCOUNT, else 111111)")
    group.add_argument(
        "--auth",
        choices=("oauth1", "client-credentials", "bearer", "none"),
        default="oauth1",
        help="credentials required (default: oauth1)",
    )
    group.add_argument(
        "--credentials",
        type=arguments.path,
        metavar="FILE",
        help="read them from NAME=VALUE lines, not the environment",
    )
    group.add_argument(
        "--no-permission", action="store_true", help="refuse valid credentials, as if permission was missing"
    )
    group.add_argument(
        "--latency", type=latency, default=(0.0, 0.0), metavar="MS", help="of each answer: 50, or 30-120 (default: 0)"
    )
    group.add_argument(
        "--limit",
        type=limit,
        action="append",
        default=[],
        metavar="LIMIT",
        help="answer 429 beyond it: 40/s (a token bucket; 40/s:10 lets 10 at once pass), 100/10s (any 10 seconds), "
        "5-at-once; may be repeated",
    )
    group.add_argument("--no-retry-after", action="store_true", help="omit Retry-After from 429 answers")
    group.add_argument("--to-exclusive", action="store_true", help="omit segments closed exactly at `to`")
    group.add_argument("--no-gzip", action="store_true", help="never compress answers")
    group.add_argument(
        "--until-stdin-closes", action="store_true", help="end when standard input does; for programs that start this"
    )


def _add_data(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("segments")
    group.add_argument(
        "--segments", type=arguments.whole, default=10_000, metavar="N", help="number of segments (default: 10000)"
    )
    group.add_argument("--days", type=arguments.number, default=7.0, metavar="N", help="before --to (default: 7)")
    group.add_argument("--from", dest="start", type=moment, metavar="TIME", help="first close time, instead of --days")
    group.add_argument(
        "--to",
        dest="end",
        type=moment,
        default="now",
        metavar="TIME",
        help="exclusive end (default: now); future segments (now+5d) appear when they close",
    )
    group.add_argument(
        "--clock", type=moment, metavar="TIME", help="where the simulator's own clock starts (default: now)"
    )
    group.add_argument(
        "--speed",
        type=arguments.number,
        default=1.0,
        metavar="N",
        help="speed of its clock: with 1440 a day passes in a minute (default: 1)",
    )
    group.add_argument("--seed", type=arguments.whole, default=1, metavar="N", help="random seed (default: 1)")
    group.add_argument("--daily-load", action="store_true", help="busy during the day, quiet at night and on weekends")
    _add_numbers(
        group.add_argument,
        arguments.share,
        "SHARE",
        {
            "concentrate": "closed in the hour in the middle",
            "ties": "closed in the same millisecond as the one before",
            "null-share": "has null fields (default: 0.01)",
            "unknown-reasons": "has an end reason that is not documented",
            "wrong-types": "has a field of the wrong type",
        },
    )
    group.add_argument("--burst", type=arguments.whole, default=0, metavar="N", help="close in one millisecond")
    group.add_argument(
        "--new-field-from",
        type=arguments.whole,
        metavar="N",
        help="give segments from the Nth on an undocumented field",
    )


def _add_trouble(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("trouble")
    group.add_argument(
        "--fault",
        type=fault,
        action="append",
        default=[],
        metavar="KIND=SHARE",
        help=f"spoil this share of answers; may be repeated. KIND: {', '.join(Fault)}",
    )
    group.add_argument("--late", type=arguments.share, default=0.0, metavar="SHARE", help="appears late")
    group.add_argument(
        "--late-delay", type=arguments.duration, default="24h", metavar="SPAN", help="maximum delay (default: 24h)"
    )
    _add_numbers(
        group.add_argument,
        arguments.number,
        "N",
        {
            "inserts": "segments that appear, a second",
            "vanish": "segments that vanish, a second",
            "swaps": "segments that vanish as another appears, a second",
        },
    )
    group.add_argument("--shuffle-ties", action="store_true", help="return ties in a different order each time")


def _add_numbers(
    add_argument: Callable[..., object], kind: Callable[[str], float], metavar: str, helps: dict[str, str]
) -> None:
    for name, text in helps.items():
        default = 0.01 if name == "null-share" else 0.0
        add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=text)


class _Access(NamedTuple):
    """The credentials that the simulator accepts, as variables and values. `made_up`: generated here."""

    auth: OAuth1 | ClientCredentials | Bearer | None
    variables: dict[str, str]
    made_up: bool


def run(args: Namespace, console: Console) -> int:
    """Serve until interrupted, and return 0."""
    access = _access(args, console)
    simulator = _simulator(args, console, access)

    async def work() -> None:
        if args.until_stdin_closes:
            _watch_stdin(asyncio.current_task())
        await serve(simulator, lambda ready: _announce(args, console, ready, access))

    try:
        signals.run(work(), lambda _: None)
    except (InterruptedRunError, asyncio.CancelledError):
        return exit_codes.OK
    except OSError as error:
        raise InputError(f"port {args.port}: {error.strerror or error}; choose another, or 0 for a free one") from None
    return exit_codes.OK


def _watch_stdin(task: asyncio.Task[None] | None) -> None:
    """Cancel the task when standard input ends, so that the simulator ends with the program that started it."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 4096):
            pass
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    threading.Thread(target=wait, daemon=True).start()


def _access(args: Namespace, console: Console) -> _Access:
    if args.auth == "none":
        return _Access(None, {}, made_up=False)
    names = _SETS[args.auth]
    found = given.given(args.credentials, console.environ).values
    there = [name for name in names if name in found]
    if there and len(there) < len(names):
        missing = ", ".join(name for name in names if name not in found)
        raise InputError(f"--auth {args.auth}: {missing} not set; set all of {', '.join(names)}, or none of them")
    variables = {name: found[name] if there else secrets.token_hex(8) for name in names}
    if there:
        console.hide(list(variables.values()))
    return _Access(_auth(args.auth, list(variables.values())), variables, made_up=not there)


def _auth(kind: str, values: list[str]) -> OAuth1 | ClientCredentials | Bearer:
    if kind == "oauth1":
        key, secret, token, token_secret = values
        return OAuth1(app_key=key, app_secret=secret, access_token=token, access_token_secret=token_secret)
    if kind == "bearer":
        return Bearer(values[0])
    return ClientCredentials(client_id=values[0], client_secret=values[1])


def _simulator(args: Namespace, console: Console, access: _Access) -> Simulator:
    try:
        return Simulator(
            _dataset(args, console),
            auth=access.auth,
            permitted=not args.no_permission,
            latency_ms=args.latency,
            limit=[_limit(limit, silent=args.no_retry_after) for limit in args.limit],
            faults=_faults(args),
            drift=_drift(args),
            to_inclusive=not args.to_exclusive,
            gzip=not args.no_gzip,
            clock=_clock(args),
            port=args.port,
        )
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None


def _dataset(args: Namespace, console: Console) -> Dataset:
    now_ms = int(time.time() * 1000)
    end = _epoch_ms(args.end, now_ms)
    start = end - int(args.days * _DAY_MS) if args.start is None else _epoch_ms(args.start, now_ms)
    if start >= end:
        raise InputError(f"simulate: start must be before end, not {format_time(start)} and {format_time(end)}")
    return Dataset(
        segments=args.segments,
        start=start,
        end=end,
        seed=args.seed,
        account=args.account or console.environ.get(given.ACCOUNT) or "111111",
        daily_load=args.daily_load,
        concentrate=args.concentrate,
        ties=args.ties,
        burst=args.burst,
        null_share=args.null_share,
        unknown_reasons=args.unknown_reasons,
        wrong_types=args.wrong_types,
        new_field_from=args.new_field_from,
    )


def _clock(args: Namespace) -> Callable[[], float]:
    """Return the clock that decides which segments exist, as set by --clock and --speed."""
    if args.clock is None and args.speed == 1:
        return time.time
    if args.auth == "oauth1":
        raise InputError("--clock and --speed: OAuth 1.0 signs the real time; add --auth bearer or another kind")
    began = time.time()
    first = began if args.clock is None else _epoch_ms(args.clock, int(began * 1000)) / 1000
    return lambda: first + (time.time() - began) * args.speed


def _limit(limit: Limit, *, silent: bool) -> RateLimit | SlidingWindow | AtOnce:
    kind, amount, more = limit
    if kind == "rate":
        return RateLimit(amount, int(more), "none" if silent else "seconds")
    if kind == "sliding":
        return SlidingWindow(int(amount), more, "none" if silent else "seconds")
    return AtOnce(int(amount), "none" if silent else "seconds")


def _faults(args: Namespace) -> Faults:
    known = [kind.value for kind in Fault]
    for kind, _ in args.fault:
        if kind not in known:
            raise InputError(f"--fault {kind}: is not one of {', '.join(known)}")
    return Faults(**dict(args.fault), seed=args.seed)


def _drift(args: Namespace) -> Drift:
    return Drift(
        late_share=args.late,
        late_delay_s=args.late_delay.total_seconds(),
        inserts_per_s=args.inserts,
        removals_per_s=args.vanish,
        swaps_per_s=args.swaps,
        shuffle_ties=args.shuffle_ties,
        seed=args.seed,
    )


def _announce(args: Namespace, console: Console, ready: Simulator, access: _Access) -> None:
    shown = access.variables if access.made_up else {}
    value = {
        "base_url": ready.base_url,
        "account": ready.account,
        "segments": ready.dataset.segments,
        "from": format_time(ready.dataset.start),
        "to": format_time(ready.dataset.end),
        "credentials": shown,
    }
    if args.quiet and not args.json:
        console.out(ready.base_url)
    console.report(_text(ready, access, shown), value)


def _text(ready: Simulator, access: _Access, shown: dict[str, str]) -> str:
    data = ready.dataset
    start, end = format_time(data.start), format_time(data.end)
    about = f"{plural(data.segments, 'segment')} of account {ready.account}, {start} to {end}. Ctrl-C ends it."
    lines = [
        f"The agent-segments API is at {ready.base_url}",
        wrapped(about, width(), hang=""),
        "In another terminal:",
        f"  export {given.ACCOUNT}={shlex.quote(ready.account)}",
        *(f"  export {name}={shlex.quote(value)}" for name, value in shown.items()),
    ]
    if access.auth is None:
        lines.append("  export LIVEPERSON_BEARER=any  # not checked")
    lines += [f"  {program()} extract --base-url {ready.base_url} \\", f"    --from {start} \\"]
    return "\n".join([*lines, f"    --to {end} --out sim-out"])
