"""`simulate`: the API on loopback, until it is interrupted."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import threading
import time
from argparse import Namespace
from typing import NamedTuple

from segment_fetch.cli import credentials as given
from segment_fetch.cli import exit_codes, signals
from segment_fetch.cli.commands.simulate_options import Limit
from segment_fetch.cli.console import Console
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

_SETS = {"oauth1": given.OAUTH1, "client-credentials": given.CLIENT, "bearer": given.BEARER}
_DAY_MS = 86_400_000


class _Access(NamedTuple):
    """Who is let in: the variables and their values, and whether they were made up here."""

    auth: OAuth1 | ClientCredentials | Bearer | None
    variables: dict[str, str]
    made_up: bool


def run(args: Namespace, console: Console) -> int:
    """The command. It ends when interrupted, with 0."""
    access = _access(args, console)
    simulator = _simulator(args, console, access)

    async def work() -> None:
        if args.until_stdin_closes:
            _watch_stdin(asyncio.current_task())
        await serve(simulator, lambda ready: _announce(args, console, ready, access))

    try:
        signals.run(work(), lambda _: None)
    except (exit_codes.InterruptedRunError, asyncio.CancelledError):
        return exit_codes.OK
    except OSError as error:
        raise InputError(f"port {args.port}: {error.strerror or error}; choose another, or 0 for a free one") from None
    return exit_codes.OK


def _watch_stdin(task: asyncio.Task[None] | None) -> None:
    """Cancels the task when standard input ends, so that the simulator never outlives the program that started it."""
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
            port=args.port,
        )
    except ValueError as error:
        raise InputError(f"simulate: {error}") from None


def _dataset(args: Namespace, console: Console) -> Dataset:
    now_ms = int(time.time() * 1000)
    end = parse_time(args.end, now_ms)
    start = end - int(args.days * _DAY_MS) if args.start is None else parse_time(args.start, now_ms)
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
            raise InputError(f"--fault {kind}: is none of {', '.join(known)}")
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
        lines.append("  export LIVEPERSON_BEARER=any  # it asks for none")
    lines += [f"  {program()} extract --base-url {ready.base_url} \\", f"    --from {start} \\"]
    return "\n".join([*lines, f"    --to {end} --out sim-out"])
