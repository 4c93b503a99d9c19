"""The account and one set of credentials, from the environment or a file; never from an option."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
from segment_fetch.errors import CredentialsError, InputError
from segment_fetch.local.regular_files import read_named

ACCOUNT = "LIVEPERSON_ACCOUNT"
OAUTH1 = (
    "LIVEPERSON_APP_KEY",
    "LIVEPERSON_APP_SECRET",
    "LIVEPERSON_ACCESS_TOKEN",
    "LIVEPERSON_ACCESS_TOKEN_SECRET",
)
CLIENT = ("LIVEPERSON_CLIENT_ID", "LIVEPERSON_CLIENT_SECRET")
BEARER = ("LIVEPERSON_BEARER",)

KINDS = {OAUTH1: "OAuth 1.0 key", CLIENT: "OAuth 2.0 client", BEARER: "bearer token"}
_PREFIX = "LIVEPERSON_"
_NAMES = (ACCOUNT, *OAUTH1, *CLIENT, *BEARER)
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_LARGEST = 2**20  # bytes


class Given(NamedTuple):
    """The values found, and a description of their place; `prefix` is that of the names there."""

    values: Mapping[str, str]
    place: str
    warning: str | None = None
    prefix: str = "LIVEPERSON_"

    def name(self, name: str) -> str:
        """Return the name of a value in this place."""
        return self.prefix + name.removeprefix(_PREFIX)


class Credentials(NamedTuple):
    """An account and its credentials. `kind` and `place` describe them without showing a secret."""

    account: str
    auth: Auth
    kind: str
    place: str

    def __repr__(self) -> str:
        return f"Credentials({self.account!r}, {self.kind}, from {self.place})"


def given(file: str | None, environ: Mapping[str, str]) -> Given:
    """Return the values in the file if there is one, else in the environment; empty ones count as not set.

    The account is not a secret: the environment's is used if the file has none. Raises CredentialsError that names the
    variable or the line that is invalid.
    """
    account = {ACCOUNT: value} if (value := cleaned(environ.get(ACCOUNT, ""), ACCOUNT)) else {}
    if file is None:
        values = {name: cleaned(environ[name], name) for name in _NAMES if name in environ}
        return Given({name: value for name, value in values.items() if value}, "the environment")
    path = Path(file)
    try:
        text = read_named(path, _LARGEST).decode()
        loose = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise CredentialsError(f"the credentials in {file} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise CredentialsError(f"the credentials in {file} cannot be read: it is not UTF-8 text") from None
    warning = f"other users of this machine may read {file}: chmod 600 {file}" if loose else None
    return Given({**account, **_parsed(text, file)}, file, warning)


def _parsed(text: str, file: str) -> dict[str, str]:
    """Return the values of NAME=VALUE lines; other names are ignored, except those that look mistyped.

    An invalid line is not shown in the error: it could be a secret without its name.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise CredentialsError(f"{file}, line {number}: is not NAME=VALUE, a comment (#) or empty")
        name, value = match.groups()
        if name.startswith(_PREFIX) and name not in _NAMES:
            raise CredentialsError(f"{file}, line {number}: the name is not one of {', '.join(_NAMES)}")
        if name in _NAMES and (value := cleaned(value, f"{file}, line {number}")):
            found[name] = value
    return found


def cleaned(text: str, where: str) -> str:
    """Return a value without its quotes and trailing comment, which `docker --env-file` does not remove.

    Raises CredentialsError, which begins with `where`, if a quote is not closed.
    """
    text = text.strip()
    if text[:1] in ("'", '"'):
        match = re.fullmatch(rf"{text[0]}([^{text[0]}]*){text[0]}(?:\s+#.*)?", text, re.DOTALL)
        if match is None:
            raise CredentialsError(
                f"{where}: the value has an opening quote but no closing one; add it, or remove the first"
            )
        return match[1]
    return re.sub(r"(?:^|\s+)#.*", "", text, count=1, flags=re.DOTALL)


def chosen(found: Given) -> tuple[str, ...] | None:
    """Return the names of the one complete set of credentials, or None if there is none at all.

    Raises CredentialsError if a set is incomplete, or if there are several.
    """
    begun = [names for names in KINDS if any(name in found.values for name in names)]
    if not begun:
        return None
    if len(begun) > 1:
        sets = " and ".join(
            f"{KINDS[names]} ({', '.join(found.name(name) for name in names if name in found.values)})"
            for names in begun
        )
        raise CredentialsError(
            f"{found.place} holds more than one set of credentials: {sets}; keep one, unset the rest"
        )
    missing = [name for name in begun[0] if name not in found.values]
    if missing:
        raise CredentialsError(
            f"the {KINDS[begun[0]]} in {found.place} is incomplete: {', '.join(map(found.name, missing))} "
            f"{'is' if len(missing) == 1 else 'are'} missing or empty; {_how(missing, found)}"
        )
    return begun[0]


def load(account: str | None, found: Given) -> Credentials:
    """Return the account and its credentials. Raises CredentialsError or InputError that says what to set."""
    names = chosen(found)
    account = account or found.values.get(ACCOUNT)
    if names is None:
        also = "" if account else f" The account is missing as well: give --account ID, or set {ACCOUNT}."
        raise CredentialsError(_none(found) + also)
    auth = _auth(names, found)
    if not account:
        raise InputError(f"the account is missing: give --account ID, or set {ACCOUNT} in {found.place}")
    return Credentials(account, auth, KINDS[names], found.place)


def _auth(names: tuple[str, ...], found: Given) -> Auth:
    secrets = [found.values[name] for name in names]
    try:
        if names == OAUTH1:
            return OAuth1Key(*secrets)
        return ClientCredentials(*secrets) if names == CLIENT else BearerToken(*secrets)
    except InputError as error:
        raise CredentialsError(
            f"{error.message}; copy {', '.join(map(found.name, names))} into {found.place} again"
        ) from None


def _none(found: Given) -> str:
    sets = "; or ".join(f"{', '.join(map(found.name, names))} ({kind})" for names, kind in KINDS.items())
    if found.place == "the environment":
        sets += "; or name a file with such lines: --credentials FILE"
    return f"{found.place} holds no credentials: set {sets}."


def _how(missing: list[str], found: Given) -> str:
    if found.place.startswith("the environment"):
        return f"set it: export {found.name(missing[0])}=..."
    return f"add a line {missing[0]}=..."


def environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ
