"""The parser of the command line: commands, defaults from the environment, and errors that name the argument."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from segment_fetch.cli.commands import COMMANDS
from segment_fetch.cli.exit_codes import MEANINGS
from segment_fetch.cli.failures import UsageError
from segment_fetch.cli.formatting import NAME
from segment_fetch.errors import MissingExtraError

_COLUMNS = 60
_PREFIX = "SEGMENT_FETCH_"
_WITHOUT_ENVIRONMENT = ("simulate", "demo")
_NOT_FROM_ENVIRONMENT = ("--help", "--account")  # the account already has a variable, with its credentials
_OF_RESULTS = {"handle-time": ("--format", "--excel")}  # elsewhere these are about the destination
_BUILD_VARIABLES = ("SEGMENT_FETCH_SCANNER",)  # read when the package is built
_NAMES = """accounts-at-once address against-api agent-id balance base-url by clamp compress connect-timeout connections
conversation-id credentials csv-safe employee-id engine every excel failed-from fill format from group-id html
json later-retry-delays local-times log-format log-level network-retry-delays no-telemetry only out partition
patience quiet rate read-timeout retry-delays rows run-log settle-after shard shards shared-storage skill-id
source split-above state timeout timezone to window write"""
_WITH_VARIABLE = frozenset(_NAMES.split())
"""The options, without their dashes, that can come from the environment; a test compares them with the commands."""

_PATHS = ("out", "credentials", "state", "write", "html", "accounts")
_SECRET_WORDS = ("key", "secret", "token", "bearer", "password", "client-id")
_SWITCH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}

_DESCRIPTION = """\
Extract LivePerson agent segments (Actual Handle Time API) completely, provably, restartably and fast."""

_EXAMPLES = """\
  segment-fetch demo
  segment-fetch extract --help
  segment-fetch extract --from now-7d --out segments"""

_ENVIRONMENT = """\
  LIVEPERSON_ACCOUNT        the account, unless --account
  and one set of credentials:
  LIVEPERSON_APP_KEY, LIVEPERSON_APP_SECRET,
  LIVEPERSON_ACCESS_TOKEN, LIVEPERSON_ACCESS_TOKEN_SECRET
                            OAuth 1.0
  LIVEPERSON_CLIENT_ID, LIVEPERSON_CLIENT_SECRET
                            OAuth 2.0 client credentials
  LIVEPERSON_BEARER         a token
  SEGMENT_FETCH_<OPTION>    default of an option:
                            SEGMENT_FETCH_BASE_URL
  SSL_CERT_FILE             additional certificates
  HTTPS_PROXY, NO_PROXY     the proxy, and hosts without it
Secrets are never options: other users of the machine can
read those."""


class Parser(argparse.ArgumentParser):
    """A parser that never abbreviates options and raises UsageError; its messages repeat no value that may be secret.

    `required` are the options without which the command cannot run.
    """

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)  # type: ignore[arg-type]
        self.required: tuple[str, ...] = ()

    def error(self, message: str) -> NoReturn:
        raise UsageError(self.prog, message)

    def actions(self) -> list[argparse.Action]:
        """Return every option's action."""
        return list(self._actions)

    def names(self) -> list[str]:
        """Return every long option."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def take_defaults(self, environ: Mapping[str, str], without: Sequence[str] = ()) -> None:
        """Use the variables SEGMENT_FETCH_<OPTION> as defaults. Raises UsageError that names an invalid one.

        Options that may be repeated, and those in `without`, have no variable.
        """
        for name in self.names():
            variable = variable_of(name)
            action = self._option_string_actions[name]
            if (
                variable not in environ
                or name in (*_NOT_FROM_ENVIRONMENT, *without)
                or isinstance(action.default, list)
            ):
                continue
            self.set_defaults(**{action.dest: self._value(action, variable, environ[variable])})

    def _value(self, action: argparse.Action, variable: str, text: str) -> object:
        if action.nargs == 0:
            if text.lower() not in _SWITCH:
                self.error(f"{variable}: write 1 or 0")
            return _SWITCH[text.lower()]
        try:
            return self._get_values(action, [text])
        except argparse.ArgumentError as error:
            self.error(f"{variable}: {error.message}")

    def missing(self, args: argparse.Namespace) -> list[str]:
        """Return the required options that were not given."""
        return [name for name in self.required if getattr(args, self._option_string_actions[name].dest) is None]


def variable_of(option: str) -> str:
    """Return the environment variable of an option: SEGMENT_FETCH_BASE_URL for --base-url."""
    return _PREFIX + option.removeprefix("--").replace("-", "_").upper()


class _Version(argparse.Action):
    """Prints the versions, which are looked up only on demand, because that is slow."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from segment_fetch.cli.version import described  # noqa: PLC0415

        print(described())  # noqa: T201
        parser.exit()


class _Completion(argparse.Action):
    """Prints a completion script for a shell, made by shtab from the options of every command."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, *_: object
    ) -> NoReturn:
        try:
            import shtab  # noqa: PLC0415 - an optional extra
        except ImportError:
            raise MissingExtraError(
                "the completion needs the extra `completion`: pip install 'segment-fetch[completion]'"
            ) from None
        program, parsers = build()
        for action in (action for each in parsers.values() for action in each.actions()):
            if action.dest in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(program, str(values)))  # noqa: T201
        parser.exit()


def whole() -> Parser:
    """Return the program's parser with the options of every command, for the manual page."""
    return build()[0]


def build(names: Iterable[str] = COMMANDS) -> tuple[Parser, dict[str, Parser]]:
    """Return the program's parser, and those of its commands. Only the named commands get their options.

    Each command declares its own options in its module, which is imported for that.
    """
    program = Parser(
        prog=NAME,
        usage=f"{NAME} COMMAND [options]",
        description=_filled(_DESCRIPTION),
        epilog=_epilog(_EXAMPLES),
    )
    program.add_argument("--version", action=_Version, nargs=0, help="show the versions and the extras, and exit")
    program.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "fish"),
        help="print a completion script for a shell, and exit",
    )
    group = program.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    named = set(names)
    parsers = {}
    for name, line in COMMANDS.items():
        parsers[name] = group.add_parser(name, help=line, prog=f"{NAME} {name}")
        if name in named:
            _declare(parsers[name], import_module(f"segment_fetch.cli.commands.{name.replace('-', '_')}"))
    return program, parsers


def _declare(parser: Parser, command: ModuleType) -> None:
    parser.usage = f"{parser.prog} {command.USAGE}"
    parser.description = _filled(command.DESCRIPTION)
    parser.epilog = _epilog(command.EXAMPLES, getattr(command, "NOTE", ""))
    parser.required = getattr(command, "REQUIRED", ())
    command.add_options(parser)


def _epilog(examples: str, note: str = "") -> str:
    """Return the part of the help below the options."""
    codes = "\n".join(
        textwrap.fill(meaning, _COLUMNS, initial_indent=f"  {code:<5}", subsequent_indent=" " * 7)
        for code, meaning in MEANINGS
    )
    parts = [f"examples:\n{examples}", f"environment:\n{_ENVIRONMENT}", f"exit codes:\n{codes}"]
    return "\n\n".join([*parts, _filled(note)] if note else parts)


def _filled(text: str) -> str:
    return textwrap.fill(text, _COLUMNS)


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> argparse.Namespace:
    """Return the arguments. Raises UsageError, and SystemExit(0) after `--help` and `--version`."""
    given = list(argv)
    name = next(iter(given), "")
    program, parsers = build([name] if name in COMMANDS else [])
    if name and not name.startswith("-") and name not in parsers:
        program.error(f"there is no command {name!r}{_suggestion(name, list(parsers))}")
    if name in COMMANDS and name not in _WITHOUT_ENVIRONMENT:
        parsers[name].take_defaults(environ, _OF_RESULTS.get(name, ()))
    args, unknown = program.parse_known_args(given)
    parser = parsers.get(args.command, program)
    if unknown:
        parser.error(_not_understood(unknown[0], given, parser.names()))
    if parser is program:
        program.error(f"a command is missing: write one of {', '.join(parsers)}")
    if missing := parser.missing(args):
        parser.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return args


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return each SEGMENT_FETCH_ variable that no option of any command has, with a hint at what may be meant."""
    known = {variable_of(name) for name in _WITH_VARIABLE} | set(_BUILD_VARIABLES)
    unknown = sorted(name for name in environ if name.startswith(_PREFIX) and name not in known)
    return {name: _suggestion(name, sorted(known)) for name in unknown}


def _not_understood(argument: str, argv: Sequence[str], known: Sequence[str]) -> str:
    """Return a message that names the invalid argument, without its value, which may be a secret."""
    name = argument.partition("=")[0]
    if any(word in name for word in _SECRET_WORDS) and name.startswith("--"):
        return (
            f"there is no option {name}: secrets are never options, because other users of the machine can read "
            "those; set them in the environment, or name a file with --credentials"
        )
    if name.startswith("--"):
        return f"there is no option {name}{_suggestion(name, known)}"
    if len(name) > 1 and name.startswith("-"):
        alike = [long for long in known if long.startswith(f"--{name[1]}")]
        meant = f"; did you mean {' or '.join(alike)}?" if 0 < len(alike) <= 3 else ""
        return f"there is no option {name[:2]}: options are written in full, as --name VALUE{meant}"
    at = argv.index(argument)
    before = [text.partition("=")[0] for text in argv[:at] if text.startswith("--")]
    where = f"after {before[-1]}" if before else "after the command"
    shown = f" ({argument})" if argument in COMMANDS else ""
    return f"argument {at + 1}{shown}, {where}, was not understood: it belongs to no option; write --name VALUE"


def _suggestion(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only where something was mistyped

    close = get_close_matches(name, known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
