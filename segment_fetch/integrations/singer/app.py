"""The program `tap-liveperson-segments`: options, and the one switch from errors to exit codes."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

import msgspec

from segment_fetch.cli import exit_codes
from segment_fetch.cli.console import Console
from segment_fetch.cli.exit_codes import exit_code
from segment_fetch.errors import InputError
from segment_fetch.integrations.singer import catalog, config, tap
from segment_fetch.integrations.singer.state import State
from segment_fetch.local.regular_files import read_named

NAME = "tap-liveperson-segments"
CAPABILITIES = ("about", "catalog", "discover", "state")


def main(argv: Sequence[str] | None = None, **options: Any) -> int:
    """Run the tap and return the exit code. `options` are passed to the client, besides the settings."""
    try:
        args = _parser().parse_args(argv)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else exit_codes.USAGE
    console = Console(args, [], os.environ)
    with console.logging():
        try:
            return _run(args, console, options)
        except KeyboardInterrupt:
            console.say("warning", "interrupted", "interrupted; records after the last state will be emitted again")
            return 130
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for users
            return _failed(error, console)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(NAME, description="Singer tap: LivePerson agent segments (Actual Handle Time API)")
    parser.add_argument("--config", metavar="FILE", help="settings, a JSON object (`--about` lists them)")
    parser.add_argument("--catalog", "--properties", metavar="FILE", help="the selection (default: everything)")
    parser.add_argument("--state", metavar="FILE", help="state of the last run; omit it in the first run")
    parser.add_argument("--discover", action="store_true", help="print the catalog")
    parser.add_argument("--about", action="store_true", help="print what this tap is and its settings")
    parser.add_argument("--format", choices=("json", "text"), default="text", help="of --about (default: text)")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.set_defaults(quiet=False, log_format="text", out="-")
    return parser


def _run(args: Namespace, console: Console, options: dict[str, Any]) -> int:
    if args.version:
        console.out(f"{NAME} {_version()}")
    elif args.about:
        console.out(_about_json() if args.format == "json" else _about_text())
    elif args.discover:
        console.out(msgspec.json.format(msgspec.json.encode(catalog.discovered())).decode())
    else:
        return _sync(args, console, options)
    return exit_codes.OK


def _sync(args: Namespace, console: Console, options: dict[str, Any]) -> int:
    if args.config is None:
        raise InputError("--config FILE is missing: name a JSON file with the settings (`--about` lists them)")
    settings = config.settings(_content("--config", args.config), f"--config {args.config}")
    console.hide(list(config.secrets(settings, console.environ).values()))
    chosen = catalog.selection(
        None if args.catalog is None else _content("--catalog", args.catalog), f"--catalog {args.catalog}"
    )
    if chosen is None:
        console.say("warning", "unselected", f"the catalog does not select {catalog.STREAM}: there is nothing to do")
        return exit_codes.OK
    who = config.who(settings, console.environ, f"--config {args.config}")
    stored = None if args.state is None else _content("--state", args.state)
    state = State(who.account, settings.filters, stored, f"--state {args.state}")
    return tap.run(tap.Job(settings, who, chosen, state), console, tap.output(sys.stdout.fileno()), **options)


def _content(option: str, file: str) -> bytes:
    try:
        return read_named(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _failed(error: Exception, console: Console) -> int:
    code = exit_code(error, progressed=console.progress.pages > 0)
    text = f"an error in this program: {type(error).__name__}: {error}" if code == exit_codes.INTERNAL else str(error)
    console.say("error", "failed", text, error=type(error).__name__, exit_code=code)
    console.trace(error)
    return code


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - takes 35 ms, and only this needs it

    return version("segment-fetch")


def _about_json() -> str:
    _, parts = msgspec.json.schema_components([config.TapConfig])
    about = {
        "name": NAME,
        "description": "LivePerson agent segments (Actual Handle Time API)",
        "version": _version(),
        "capabilities": CAPABILITIES,
        "settings": parts["TapConfig"],
    }
    return msgspec.json.format(msgspec.json.encode(about)).decode()


def _about_text() -> str:
    fields: dict[str, Any] = msgspec.json.schema_components([config.TapConfig])[1]["TapConfig"]["properties"]
    lines = [f"  {name:<20} {words['description']}" for name, words in fields.items()]
    return "\n".join([f"{NAME} {_version()}: {', '.join(CAPABILITIES)}", "settings:", *lines])
