"""The arguments: every command's options, and errors that say what was meant."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from segment_fetch.cli import exit_codes, options, texts, values
from segment_fetch.cli.commands import simulate_options
from segment_fetch.cli.formatting import NAME, program

_PLACES = "a folder, {s3,gs,az}://BUCKET/PREFIX, duckdb:///FILE, postgresql://USER@HOST/DATABASE"
_SECRETIVE = ("key", "secret", "token", "bearer", "password", "client-id")


class Parser(argparse.ArgumentParser):
    """One that never abbreviates, and whose errors are short and name no value that could be a secret."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(
            exit_codes.USAGE, f"{self.prog}: error: {message}\nSee {self.prog.replace(NAME, program(), 1)} --help.\n"
        )

    def names(self) -> list[str]:
        """Every long option."""
        return [name for name in self._option_string_actions if name.startswith("--")]


class _Version(argparse.Action):
    """Looks the version up only when asked: it takes 35 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"segment-fetch {version('segment-fetch')}")  # noqa: T201
        parser.exit()


class _Command(NamedTuple):
    """A command: its line in the list, its usage, what `--help` says before and behind its options, and these."""

    line: str
    usage: str
    description: str
    epilog: str
    add: Callable[[Parser], None]


def build() -> tuple[Parser, dict[str, Parser]]:
    """The program's parser, and those of its commands."""
    program = Parser(
        prog="segment-fetch",
        usage="segment-fetch COMMAND [options]",
        description=_filled(texts.PROGRAM),
        epilog=texts.epilog("  segment-fetch demo\n  segment-fetch extract --help\n" + texts.EXTRACT_EXAMPLES),
    )
    program.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    group = program.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    parsers: dict[str, Parser] = {}
    for name, command in _commands().items():
        parsers[name] = group.add_parser(
            name,
            help=command.line,
            prog=f"segment-fetch {name}",
            usage=f"segment-fetch {name} {command.usage}",
            description=_filled(command.description),
            epilog=command.epilog,
        )
        command.add(parsers[name])
    return program, parsers


def _commands() -> dict[str, _Command]:
    return {
        "extract": _Command(
            "a range into a folder or to standard output",
            "--from TIME --out DIR [options]",
            texts.EXTRACT,
            texts.epilog(texts.EXTRACT_EXAMPLES),
            _extract,
        ),
        "sync": _Command(
            "from where the last run ended until now, day by day",
            "--out DIR [options]",
            texts.SYNC,
            texts.epilog(texts.SYNC_EXAMPLES),
            _sync,
        ),
        "verify": _Command(
            "is a folder what its manifest says?",
            "--out DIR [options]",
            texts.VERIFY,
            texts.epilog(texts.VERIFY_EXAMPLES),
            _verify,
        ),
        "plan": _Command(
            "windows, counts, pages and time; moves nothing",
            "--from TIME [options]",
            texts.PLAN,
            texts.epilog(texts.PLAN_EXAMPLES),
            _plan,
        ),
        **_rehearsals(),
    }


def _rehearsals() -> dict[str, _Command]:
    """The commands for before it is earnest."""
    note = "simulate ends with 0 when it is interrupted: that is how it ends."
    return {
        "doctor": _Command(
            "can the account be read? with the mend if not",
            "[options]",
            texts.DOCTOR,
            texts.epilog(texts.DOCTOR_EXAMPLES),
            _doctor,
        ),
        "simulate": _Command(
            "the API on this machine, with trouble to choose",
            "[options]",
            texts.SIMULATE,
            texts.epilog(texts.SIMULATE_EXAMPLES, note=note),
            simulate_options.add,
        ),
        "demo": _Command(
            "simulator and extraction together, no account needed",
            "[options]",
            texts.DEMO,
            texts.epilog(texts.DEMO_EXAMPLES, environment=False),
            _demo,
        ),
    }


def _filled(text: str) -> str:
    return textwrap.fill(text, 60)


def _extract(parser: Parser) -> None:
    _destination(parser, f"{_PLACES}, or - for standard output")
    options.add_range(parser)
    options.add_connection(parser)
    options.add_output(parser)


def _sync(parser: Parser) -> None:
    _destination(parser, _PLACES)
    options.add_days(parser)
    options.add_connection(parser)
    options.add_output(parser)


def _verify(parser: Parser) -> None:
    group = parser.add_argument_group("destination")
    group.add_argument("--out", metavar="DIR", help="the folder, object store or database to look into")
    group.add_argument(
        "--against-api", action="store_true", help="also ask the API how many segments each window has by now"
    )
    options.add_connection(parser)
    options.add_output(parser)


def _destination(parser: Parser, out: str) -> None:
    group = parser.add_argument_group("destination")
    group.add_argument("--out", metavar="DIR", help=out)
    group.add_argument("--format", choices=("jsonl", "csv", "parquet"), help="of files (default: jsonl)")
    group.add_argument(
        "--compress",
        choices=("none", "gzip", "zstd"),
        help="(default: none; zstd with parquet, which compresses each column for itself)",
    )
    group.add_argument(
        "--partition", choices=("none", "day"), default="none", help="a folder a day of UTC: date=2026-11-01/"
    )
    group.add_argument(
        "--csv-safe", action="store_true", help="with csv: keep spreadsheets from running a text as a formula"
    )


def _plan(parser: Parser) -> None:
    options.add_range(parser)
    options.add_connection(parser)
    options.add_output(parser)


def _doctor(parser: Parser) -> None:
    options.add_connection(parser)
    options.add_output(parser)


def _demo(parser: Parser) -> None:
    parser.add_argument(
        "--out", metavar="DIR", default="demo-out", help="a folder or duckdb:///FILE (default: demo-out)"
    )
    parser.add_argument(
        "--segments", type=values.whole, default=60_000, metavar="N", help="how many there are (default: 60000)"
    )
    options.add_output(parser)


_REQUIRED = {
    "extract": {"start": "--from", "out": "--out"},
    "plan": {"start": "--from"},
    "sync": {"out": "--out"},
    "verify": {"out": "--out"},
}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. Raises SystemExit: for `--help` and `--version` with 0, for what cannot be read with 2."""
    program, parsers = build()
    if argv and not argv[0].startswith("-") and argv[0] not in parsers:
        program.error(f"no command {argv[0]!r}{_suggestion(argv[0], list(parsers))}")
    args, unknown = program.parse_known_args(list(argv))
    if args.command is None:
        if unknown:
            program.error(_unknown(unknown, program.names()))
        program.error(f"which command? one of {', '.join(parsers)}")
    parser = parsers[args.command]
    if unknown:
        parser.error(_unknown(unknown, parser.names()))
    missing = [name for dest, name in _REQUIRED.get(args.command, {}).items() if getattr(args, dest) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return args


def _unknown(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Names the first option that is not known. Values are not repeated: one could be a secret."""
    names = [text.partition("=")[0] for text in unknown if text.startswith("--")]
    if not names:
        return "an argument too many, or an option in one letter; options are written --name VALUE"
    if any(word in names[0] for word in _SECRETIVE):
        return (
            f"there is no option {names[0]}: secrets are never options, because other users of the machine can read "
            "those; set them in the environment, or name a file with --credentials"
        )
    return f"no option {names[0]}{_suggestion(names[0], known)}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only where something was mistyped

    close = get_close_matches(name, known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
