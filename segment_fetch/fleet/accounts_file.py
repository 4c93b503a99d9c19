"""The accounts file: TOML with defaults and a table for each account, checked as a whole before anything is sent.

Every option of `sync` is a key under its own name, with `_` for `-`; an account with a `to` runs as `extract` does, and
takes its options. The command's own parser checks the values, so that a new option is a new key at once. Two keys are
the file's own: `credentials`, and `account_id`, which says if the rows carry their account.
"""

from __future__ import annotations

import re
import tomllib
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from segment_fetch.cli.failures import UsageError
from segment_fetch.cli.parser import Parser, build
from segment_fetch.errors import InputError
from segment_fetch.fleet.credentials import CredentialSource, FromCommand, FromEnvironment, FromFile
from segment_fetch.local.regular_files import read_named
from segment_fetch.query import Query
from segment_fetch.sinks.registry import kind_of
from segment_fetch.timerange import zone_of

_LARGEST = 64 * 2**20  # bytes
_NOT_KEYS = frozenset(
    {"account", "credentials", "help", "json", "quiet", "log_level", "log_format"}  # of the whole fleet, or elsewhere
)
_OWN_KEYS = frozenset({"credentials", "account_id"})
_SECRETIVE = re.compile(r"secret|password|passwd|bearer|token|app_?key|api_?key|client_?id", re.IGNORECASE)
_HEADER = re.compile(r"\s*\[\s*(?P<name>[^\[\]]+?)\s*\]\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?P<key>[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*=")
_CREDENTIALS = 'credentials = { env = "BRAND_A_" }, { file = "brand-a.env" } or { command = ["program", "argument"] }'


class AccountJob(Struct, frozen=True):
    """The job of one account: `options` are the parsed options of `command` ("sync" or "extract").

    With `account_id`, each row has the account in a column, so that accounts can share the destination. The job holds
    no secret: `credentials` says where they come from, on the machine that runs it.
    """

    account: str
    command: str
    options: dict[str, Any]
    credentials: CredentialSource
    account_id: bool = False

    @property
    def out(self) -> str:
        """The destination."""
        return str(self.options["out"])


def load_accounts(file: str | Path, *, only: Sequence[str] = ()) -> list[AccountJob]:
    """Return the jobs of an accounts file, in its order; of `only` these accounts where any are named.

    Raises InputError that lists every fault, with its line.
    """
    path = Path(file).expanduser()
    try:
        text = read_named(path, _LARGEST).decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    reader = _Reader(str(path), text)
    jobs = reader.jobs(document)
    if only:
        unknown = sorted(set(only) - {job.account for job in jobs})
        if unknown:
            reader.faults.append(f"{path}: there is no account {', '.join(unknown)}")
        jobs = [job for job in jobs if job.account in only]
    if reader.faults:
        listed = "\n  ".join(reader.faults)
        raise InputError(reader.faults[0] if len(reader.faults) == 1 else f"{len(reader.faults)} faults:\n  {listed}")
    return jobs


class _Reader:
    """Checks a document and collects its faults."""

    def __init__(self, file: str, text: str) -> None:
        self.faults: list[str] = []
        self._file = file
        self._lines = _line_numbers(text)

    def _fault(self, message: str, table: str, key: str = "") -> None:
        line = self._lines.get((table, key)) or self._lines.get((table, ""))
        where = f"{self._file}, line {line}" if line else self._file
        self.faults.append(f"{where}: {message}")

    def jobs(self, document: Mapping[str, Any]) -> list[AccountJob]:
        for name in document:
            if name not in ("defaults", "accounts"):
                self._fault(f"[{name}] is unknown: write [defaults] and [accounts.ID]", name)
        defaults, accounts = document.get("defaults", {}), document.get("accounts", {})
        if not isinstance(defaults, dict):
            self._fault("[defaults] is not a table", "defaults")
            defaults = {}
        if not isinstance(accounts, dict) or not accounts:
            self._fault("holds no account: write [accounts.ID]", "")
            accounts = {}
        self._check_names(defaults, "defaults")
        jobs, places = [], dict[str, str]()
        for account, given in accounts.items():
            table = f"accounts.{account}"
            if not isinstance(given, dict):
                self._fault(f"accounts.{account} is not a table: write [accounts.{account}]", table)
            elif (job := self._job(account, {**defaults, **given}, defaults, table)) is not None:
                jobs.append(job)
                self._check_shared(job, places, table)
        return jobs

    def _check_shared(self, job: AccountJob, places: dict[str, str], table: str) -> None:
        """Refuse a destination that another account writes to, unless the rows say whose they are."""
        place = str(Path(job.out)) if kind_of(job.out) == "folder" else job.out
        other = places.setdefault(place, job.account)
        if other == job.account or job.account_id:
            return
        mend = "put {account} into out"
        if kind_of(job.out) == "table" or job.options["format"] == "parquet":
            mend += ", or leave out account_id = false"
        else:
            mend += ', or write format = "parquet", whose rows can carry their account'
        self._fault(f"writes to {job.out}, as account {other} does: {mend}", table, "out")

    def _check_names(self, given: Mapping[str, Any], table: str) -> bool:
        sound = True
        known = _keys("sync") | _keys("extract") | _OWN_KEYS
        for key in given:
            if key in known:
                continue
            sound = False
            if _SECRETIVE.search(key):
                self._fault(f"{key}: secrets are never in this file; write {_CREDENTIALS}", table, key)
            else:
                alike = key.replace("-", "_")
                meant = f": did you mean {alike}?" if alike in known else ", which is no option of sync"
                self._fault(f"unknown key {key}{meant}", table, key)
        return sound

    def _job(
        self, account: str, given: Mapping[str, Any], defaults: Mapping[str, Any], table: str
    ) -> AccountJob | None:
        before = len(self.faults)
        own = {key: value for key, value in given.items() if defaults.get(key) is not value}
        self._check_names(own, table)
        command = "extract" if "to" in given else "sync"
        argv: list[str] = []
        for key, value in given.items():
            if key in _OWN_KEYS:
                continue
            if key not in _keys(command):
                if key in _keys("sync") | _keys("extract"):
                    self._fault(
                        f"{key} goes with {'sync' if command == 'extract' else 'extract'}, not with {command}",
                        table,
                        key,
                    )
                continue
            argv += self._option(key, value, account, command, table)
        options = self._parsed(command, argv, table, given)
        source = self._credentials(given.get("credentials"), table)
        if options is None or source is None or len(self.faults) > before:
            return None
        self._check(account, options, table)
        values = {name: value for name, value in vars(options).items() if name not in _NOT_KEYS and name != "command"}
        if len(self.faults) > before:
            return None
        account_id = self._account_id(given, options, table)
        return AccountJob(account, command, values, source, account_id) if len(self.faults) == before else None

    def _account_id(self, given: Mapping[str, Any], options: Namespace, table: str) -> bool:
        """Return True if the rows carry their account: by default where accounts can share the destination."""
        can = options.format == "parquet" or kind_of(options.out) == "table"
        chosen = given.get("account_id")
        if chosen is None:
            return can and "{account}" not in given["out"] and "account_id=" not in options.out
        if not isinstance(chosen, bool):
            self._fault("account_id: write true or false", table, "account_id")
        elif chosen and not can:
            self._fault(
                'account_id goes with tables and Parquet files: write format = "parquet", or leave it out',
                table,
                "account_id",
            )
        return chosen is True

    def _option(self, key: str, value: Any, account: str, command: str, table: str) -> list[str]:
        """Return the arguments that stand for a key."""
        option = f"--{key.replace('_', '-')}"
        if _takes_no_value(command, option):
            if not isinstance(value, bool):
                self._fault(f"{key}: write true or false", table, key)
                return []
            return [option] if value else []
        if isinstance(value, bool) or not isinstance(value, (str, int, float, list)):
            self._fault(f"{key}: write a text or a number", table, key)
            return []
        if isinstance(value, list):
            return [f"{option}={','.join(str(each) for each in value)}"]
        text = str(value)
        return [f"{option}={text.replace('{account}', account) if key == 'out' else text}"]

    def _parsed(self, command: str, argv: Sequence[str], table: str, given: Mapping[str, Any]) -> Namespace | None:
        parser = _parser(command)
        try:
            args = parser.parse_args(argv)
        except UsageError as error:
            message = str(error.message)
            named = re.search(r"--([a-z-]+)", message)
            key = named[1].replace("-", "_") if named else ""
            self._fault(re.sub(r"argument --[a-z-]+", key, message), table, key)
            return None
        if not given.get("out"):
            self._fault("out is missing: the destination, with {account} in it where accounts share it", table)
            return None
        return args

    def _credentials(self, given: Any, table: str) -> CredentialSource | None:
        match given:
            case {"env": str(prefix), **rest} if not rest:
                return FromEnvironment(prefix)
            case {"file": str(path), **rest} if not rest and path:
                return FromFile(path)
            case {"command": [str(), *_] as argv, **rest} if not rest and all(isinstance(each, str) for each in argv):
                return FromCommand(tuple(argv))
            case None:
                self._fault(f"credentials are missing: write {_CREDENTIALS}", table)
            case _:
                self._fault(f"write {_CREDENTIALS}", table, "credentials")
        return None

    def _check(self, account: str, options: Namespace, table: str) -> None:
        """Check what the parser cannot: names that the API and the registry of destinations know."""
        for key, check in (
            ("", lambda: Query(account, options.source)),
            ("timezone", lambda: zone_of(getattr(options, "timezone", "UTC"))),
            ("out", lambda: _check_place(options.out)),
        ):
            try:
                check()
            except InputError as error:
                self._fault(error.message, table, key)


def _check_place(out: str) -> None:
    if out == "-":
        raise InputError("out: a fleet cannot write to standard output; name a folder or a URL")
    if kind_of(out) == "table" and out.lower().startswith("postgres"):
        from segment_fetch.sinks.tables.dsn import Dsn  # noqa: PLC0415 - only where a database is named

        if Dsn(out).secrets:
            raise InputError("out: secrets are never in this file; leave the password out, and set PGPASSWORD")


@cache
def _parser(command: str) -> Parser:
    _, parsers = build([command])
    return parsers[command]


def _takes_no_value(command: str, option: str) -> bool:
    return _parser(command)._option_string_actions[option].nargs == 0  # noqa: SLF001 - argparse has no other way


@cache
def _keys(command: str) -> frozenset[str]:
    """Return the keys of a command: its options, with `_` for `-`."""
    return frozenset(name[2:].replace("-", "_") for name in _parser(command).names()) - _NOT_KEYS


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """Return the line of each table and key. A key in an inline table is not found: its table's line serves."""
    found: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            parts = [_unquoted(part) for part in _parts(header["name"])]
            table = ".".join(parts)
            found.setdefault((parts[0], ""), number)
            found.setdefault((table, ""), number)
        elif key := _KEY.match(line):
            found.setdefault((table, _unquoted(key["key"])), number)
    return found


def _parts(name: str) -> Iterator[str]:
    yield from (part.strip() for part in re.findall(r'"[^"]*"|\'[^\']*\'|[^.\s]+', name))


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] in "'\"" and name[0] == name[-1] else name
