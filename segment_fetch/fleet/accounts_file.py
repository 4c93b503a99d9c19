"""The accounts file: TOML with defaults and a table for each account, checked completely before anything is sent.

Every option of `sync` is a key with the same name, with `_` for `-`; an account with a `to` runs like `extract`, and
takes its options. The command's parser checks the values, so a new option is automatically a new key. Two keys exist
only in the file: `credentials`, and `account_id`, which says if the rows contain their account.
"""

from __future__ import annotations

import os
import re
import time
import tomllib
from argparse import Action, Namespace
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from segment_fetch.api.transport import checked_base
from segment_fetch.cli.arguments import delays, filters_of
from segment_fetch.cli.failures import UsageError
from segment_fetch.cli.parser import build
from segment_fetch.errors import InputError, MissingExtraError
from segment_fetch.fleet.credentials import CredentialSource, FromCommand, FromEnvironment, FromFile
from segment_fetch.fleet.toml_lines import line_numbers, line_of
from segment_fetch.local.regular_files import read_named
from segment_fetch.query import Query
from segment_fetch.sinks.registry import kind_of, open_sink, takes
from segment_fetch.timerange import check_range, zone_of

if TYPE_CHECKING:
    from segment_fetch.sinks.base import Sink

_LARGEST = 64 * 2**20  # bytes
_NOT_KEYS = frozenset(
    {
        "account",
        "credentials",
        "help",
        "json",
        "quiet",
        "log_level",
        "log_format",
    }  # options of the whole fleet, or set elsewhere
)
_OWN_KEYS = frozenset({"credentials", "account_id"})
_SECRETIVE = re.compile(r"secret|password|passwd|bearer|token|app_?key|api_?key|client_?id", re.IGNORECASE)
_CREDENTIALS = 'credentials = { env = "BRAND_A_" }, { file = "brand-a.env" } or { command = ["program", "argument"] }'
_FILE_KEYS = ("format", "compress", "partition", "csv_safe", "excel", "local_times", "account_id")


class AccountJob(Struct, frozen=True):
    """The job of one account: `options` are the parsed options of `command` ("sync" or "extract").

    With `account_id`, each row has the account in a column, so that accounts can share the destination. The job holds
    no secrets: `credentials` says where to find them on the machine that runs it.
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


def load_accounts(
    file: str | Path, *, only: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> list[AccountJob]:
    """Return the jobs of an accounts file, in its order; if `only` is not empty, only those of its accounts.

    `environ` has defaults that the file overrides: SEGMENT_FETCH_RATE for `rate`, as for the command.

    Raises InputError that lists every fault, with its line.
    """
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - Path raises RuntimeError for an unknown home folder
    try:
        text = read_named(path, _LARGEST).decode("utf-8-sig")
        document = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        number = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {number}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(_not_toml(path, text, str(error))) from None
    reader = _Reader(str(path), text, _Options(environ or {}))
    jobs = reader.jobs(document)
    if only:
        unknown = sorted(set(only) - {job.account for job in jobs})
        if unknown and not reader.faults:
            reader.faults.append(f"{path}: there is no account {', '.join(unknown)}")
        jobs = [job for job in jobs if job.account in only]
    if reader.faults:
        listed = "\n  ".join(reader.faults)
        raise InputError(reader.faults[0] if len(reader.faults) == 1 else f"{len(reader.faults)} faults:\n  {listed}")
    return jobs


def _not_toml(path: Path, text: str, said: str) -> str:
    """Return the message for a file that cannot be parsed, based on the parser's message."""
    what, _, where = said.removesuffix(")").rpartition(" (at ")
    line = re.match(r"line (\d+)", where)
    number = int(line[1]) if line else len(text.splitlines())
    twice = re.fullmatch(r"Cannot declare \('accounts', '([^']*)'\) twice", what)
    fault = f"account {twice[1]} is defined twice" if twice else f"is not TOML: {what or said}"
    return f"{path}, line {number}: {fault}"


class _Options:
    """The options of `sync` and `extract`, as keys: their parsers, with defaults from the environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        _, self._parsers = build(["sync", "extract"])
        for parser in self._parsers.values():
            parser.take_defaults(environ)
        self._keys = {
            command: frozenset(name[2:].replace("-", "_") for name in self._parsers[command].names()) - _NOT_KEYS
            for command in ("sync", "extract")
        }

    @property
    def known(self) -> frozenset[str]:
        """The keys of both commands."""
        return self._keys["sync"] | self._keys["extract"]

    def of(self, command: str) -> frozenset[str]:
        """Return the keys of a command."""
        return self._keys[command]

    def action(self, command: str, key: str) -> Action:
        """Return the option of a key."""
        return self._parsers[command]._option_string_actions[_option(key)]  # noqa: SLF001 - argparse has no public way

    def parsed(self, command: str, argv: Sequence[str]) -> Namespace:
        """Return the values of arguments and defaults. Raises UsageError."""
        return self._parsers[command].parse_args(argv)


class _Reader:
    """Checks a document and collects its errors, each once."""

    def __init__(self, file: str, text: str, options: _Options) -> None:
        self.faults: list[str] = []
        self._file = file
        self._lines = line_numbers(text)
        self._options = options
        self._own: Mapping[str, Any] = {}  # the keys of the account that is being read, without the defaults
        self._account = ""

    def _fault(self, message: str, *path: str) -> None:
        line = line_of(path, self._lines)
        fault = f"{self._file}, line {line}: {message}" if line else f"{self._file}: {message}"
        if fault not in self.faults:
            self.faults.append(fault)

    def _fault_of(self, key: str, message: str) -> None:
        """Record an error in a key of the current account, which may come from the defaults."""
        known = key in self._own or ("defaults", key) not in self._lines
        self._fault(message, *(("accounts", self._account) if known else ("defaults",)), key)

    def jobs(self, document: Mapping[str, Any]) -> list[AccountJob]:
        for name in document:
            if _SECRETIVE.search(name):
                self._fault(_no_secrets(name), name)
            elif name not in ("defaults", "accounts"):
                self._fault(f"{name} is unknown here: write [defaults] and [accounts.ID]", name)
        defaults, accounts = document.get("defaults", {}), document.get("accounts", {})
        if not isinstance(defaults, dict):
            self._fault("[defaults] is not a table", "defaults")
            defaults = {}
        if not isinstance(accounts, dict) or not accounts:
            self._fault("holds no account: write [accounts.ID]", "accounts")
            accounts = {}
        self._check_names(defaults, "defaults")
        jobs, places = [], dict[str, str]()
        for account, given in accounts.items():
            if not isinstance(given, dict):
                self._fault(f"accounts.{account} is not a table: write [accounts.{account}]", "accounts", account)
                continue
            self._account, self._own = account, given
            self._check_names(given, "accounts", account)
            if (job := self._job({**defaults, **given})) is not None:
                jobs.append(job)
                self._check_shared(job, places)
        return jobs

    def _check_names(self, given: Mapping[str, Any], *table: str) -> None:
        known = self._options.known | _OWN_KEYS
        for key in given:
            if key in known:
                continue
            if _SECRETIVE.search(key):
                self._fault(_no_secrets(key), *table, key)
            else:
                close = get_close_matches(key.replace("-", "_"), self._options.known, n=1, cutoff=0.7)
                meant = f": did you mean {close[0]}?" if close else ", which is not an option of sync"
                self._fault(f"unknown key {key}{meant}", *table, key)

    def _check_shared(self, job: AccountJob, places: dict[str, str]) -> None:
        """Record an error if another account writes to the same destination, unless rows contain their account."""
        place = str(Path(job.out)) if kind_of(job.out) == "folder" else job.out
        other = places.setdefault(place, job.account)
        if other == job.account or job.account_id:
            return
        mend = "put {account} into out"
        if kind_of(job.out) == "table" or takes(job.options["format"], "account_id"):
            mend += ", or remove account_id = false"
        else:
            mend += ', or write format = "parquet", whose rows can contain their account'
        self._fault(f"writes to {job.out}, as account {other} does: {mend}", "accounts", job.account, "out")

    def _job(self, given: Mapping[str, Any]) -> AccountJob | None:
        """Return the job of the current account; None if it has an error."""
        before = len(self.faults)
        command = "extract" if "to" in given else "sync"
        argv = self._arguments(given, command)
        source = self._credentials(given.get("credentials"))
        options = self._parsed(command, argv)
        if options is not None and not options.out:
            self._fault_of(
                "out", "out is missing: set the destination, with {account} in it if several accounts use it"
            )
        if options is None or source is None or len(self.faults) > before:
            return None
        account_id = self._account_id(given, options)
        self._check(options, command, account_id=account_id)
        values = {name: value for name, value in vars(options).items() if name not in _NOT_KEYS and name != "command"}
        job = AccountJob(self._account, command, values, source, account_id)
        return job if len(self.faults) == before else None

    def _arguments(self, given: Mapping[str, Any], command: str) -> list[str]:
        """Return the arguments for the keys. A default that only the other command has is ignored."""
        argv: list[str] = []
        for key, value in given.items():
            if key in self._options.of(command):
                argv += self._option(key, value, command)
            elif key in self._options.known and key in self._own:
                other = "sync" if command == "extract" else "extract"
                self._fault_of(key, f"{key} goes with {other}, not with {command}")
        return argv

    def _option(self, key: str, value: Any, command: str) -> list[str]:
        """Return the arguments for a key."""
        option, action = _option(key), self._options.action(command, key)
        if action.nargs == 0:
            if isinstance(value, bool):
                return [option] if value else []
            self._fault_of(key, f"{key}: write true or false")
            return []
        if isinstance(value, list) and action.type is delays:
            value = ",".join(str(each) for each in value) or "none"
        if isinstance(value, bool) or not isinstance(value, str if key == "out" else (str, int, float)):
            self._fault_of(key, f"{key}: write a text in quotes{'' if key == 'out' else ', or a number'}")
            return []
        text = str(value).replace("{account}", self._account) if key == "out" else str(value)
        if key == "out" and (unknown := re.search(r"\{\w*\}", text)):
            self._fault_of(key, f"out: {unknown[0]} is unknown; only {{account}} is replaced")
        return [f"{option}={text}"]

    def _parsed(self, command: str, argv: Sequence[str]) -> Namespace | None:
        try:
            return self._options.parsed(command, argv)
        except UsageError as error:
            message = str(error.message)
            named = re.search(r"--([a-z-]+)", message)
            key = named[1].replace("-", "_") if named else ""
            self._fault_of(key, re.sub(r"argument --[a-z-]+", key, message))
            return None

    def _credentials(self, given: Any) -> CredentialSource | None:
        match given:
            case {"env": str(prefix), **rest} if not rest:
                return FromEnvironment(prefix)
            case {"file": str(path), **rest} if not rest and path:
                return FromFile(path)
            case {"command": [str(), *_] as argv, **rest} if not rest and all(isinstance(each, str) for each in argv):
                return FromCommand(tuple(argv))
            case None:
                self._fault_of("credentials", f"credentials are missing: write {_CREDENTIALS}")
            case dict() if secret := next(filter(_SECRETIVE.search, given), None):
                self._fault_of("credentials", _no_secrets(secret))
            case _:
                self._fault_of("credentials", f"write {_CREDENTIALS}")
        return None

    def _account_id(self, given: Mapping[str, Any], options: Namespace) -> bool:
        """Return True if the rows contain their account: by default if accounts can share the destination."""
        try:
            can = takes(options.format, "account_id") or kind_of(options.out) == "table"
        except InputError:
            return False  # the check of the destination reports it
        chosen = given.get("account_id")
        if chosen is None:
            return can and "{account}" not in given.get("out", "") and "account_id=" not in options.out
        if not isinstance(chosen, bool):
            self._fault_of("account_id", "account_id: write true or false")
        elif chosen and not can:
            self._fault_of(
                "account_id",
                'account_id goes with tables and Parquet files: write format = "parquet", or remove it',
            )
        return chosen is True

    def _check(self, options: Namespace, command: str, *, account_id: bool) -> None:
        """Check what the parser cannot: everything that the client, the API and the sink registry refuse."""
        checks: dict[str, Callable[[], object]] = {
            "": lambda: Query(self._account, "any"),
            "source": lambda: Query("1", options.source, filters_of(options)),
            "timezone": lambda: zone_of(getattr(options, "timezone", "UTC")),
            "local_times": lambda: options.local_times is None or zone_of(options.local_times),
            "base_url": lambda: options.base_url is None or checked_base(options.base_url),
            "out": lambda: _check_place(options.out),
        }
        if command == "extract":
            checks["from"] = lambda: _check_range(options)
        before = len(self.faults)
        for key, check in checks.items():
            try:
                check()
            except InputError as error:
                self._fault_of(key, error.message)
        if len(self.faults) > before:
            return
        try:
            _check_sink(options, self._account if account_id else None)
        except (InputError, MissingExtraError) as error:
            named = next((key for key in _FILE_KEYS if error.message.startswith((key, f"{key}:"))), "out")
            self._fault_of(named, error.message)


def _no_secrets(key: str) -> str:
    return f"{key}: secrets are never in this file; write {_CREDENTIALS}"


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _check_place(out: str) -> None:
    if out == "-":
        raise InputError("out: a fleet cannot write to standard output; name a folder or a URL")
    if kind_of(out) == "table" and out.lower().startswith("postgres"):
        from segment_fetch.sinks.tables.dsn import Dsn  # noqa: PLC0415 - only needed for a database

        if Dsn(out).secrets:
            raise InputError("out: secrets are never in this file; remove the password, and set PGPASSWORD")


def _check_sink(options: Namespace, account_id: str | None) -> None:
    """Raise InputError for an invalid destination. No object store is created, as that takes 20 ms per account."""
    if kind_of(options.out) == "objects":
        from segment_fetch.sinks.objects.stores import place_of  # noqa: PLC0415 - not needed for a folder

        place_of(options.out)
        options = Namespace(**{**vars(options), "out": "a folder"})
    sink_of(options, account_id)


def _check_range(options: Namespace) -> None:
    if options.start is None:
        raise InputError("from is missing: an account with `to` needs both ends of its range")
    check_range(options.start, options.end, now_ms=int(time.time() * 1000), clamp=options.clamp)


def sink_of(options: Namespace, account_id: str | None) -> Sink[Any]:
    """Return the destination of an account. Raises InputError and MissingExtraError; nothing is opened yet."""
    return open_sink(
        options.out,
        format=options.format,
        compress=options.compress,
        partition=options.partition,
        csv_safe=options.csv_safe,
        excel=options.excel,
        local_times=options.local_times,
        account_id=account_id,
    )
