"""The settings of the tap, from the `--config` file; credentials can also be in the environment."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
from segment_fetch.cli import arguments
from segment_fetch.cli.credentials import ACCOUNT, KINDS, cleaned
from segment_fetch.client import Rate
from segment_fetch.errors import CredentialsError, InputError
from segment_fetch.query import Filters

_PREFIX = "LIVEPERSON_"
SETS = {tuple(name.removeprefix(_PREFIX).lower() for name in names): kind for names, kind in KINDS.items()}
"""The settings of each kind of credentials."""
SECRETS = tuple(name for names in SETS for name in names)
_SECRET = {"secret": True, "writeOnly": True}
_ELSE = "else from the environment, as LIVEPERSON_..."


def _says(words: str, **more: Any) -> Meta:
    return Meta(description=words, extra_json_schema=more)


class TapConfig(Struct, kw_only=True, forbid_unknown_fields=True):
    """The settings. `--about` shows their JSON schema."""

    account: Annotated[str | int | None, _says(f"The account, as LivePerson shows it; {_ELSE}")] = None
    app_key: Annotated[str | None, _says(f"OAuth 1.0: app key; {_ELSE}", **_SECRET)] = None
    app_secret: Annotated[str | None, _says("OAuth 1.0: app secret", **_SECRET)] = None
    access_token: Annotated[str | None, _says("OAuth 1.0: access token", **_SECRET)] = None
    access_token_secret: Annotated[str | None, _says("OAuth 1.0: access token secret", **_SECRET)] = None
    client_id: Annotated[str | None, _says("OAuth 2.0: client id, instead of OAuth 1.0", **_SECRET)] = None
    client_secret: Annotated[str | None, _says("OAuth 2.0: client secret", **_SECRET)] = None
    bearer: Annotated[str | None, _says("A bearer token, instead of either", **_SECRET)] = None
    start_date: Annotated[str | int, _says("Where to begin without a state: 2026-11-01T00:00:00Z, 2026-11-01, now-7d")]
    clamp: Annotated[bool, _says("Begin at the oldest moment that the API serves if start_date is older")] = False
    source: Annotated[str, _says("Names this job to the API: 1 to 20 letters, digits, underscores")] = "segment_fetch"
    agent_id: Annotated[str | int | None, _says("Only segments of this agent")] = None
    skill_id: Annotated[str | int | None, _says("Only segments of this skill")] = None
    group_id: Annotated[str | int | None, _says("Only segments of this group")] = None
    employee_id: Annotated[str | int | None, _says("Only segments of this employee")] = None
    conversation_id: Annotated[str | int | None, _says("Only segments of this conversation")] = None
    rate: Annotated[
        str | float, _says("Maximum requests a second; auto (the default) finds the API's limit, none means no limit")
    ] = "auto"
    base_url: Annotated[
        str | None, _says("Send requests to this address, not to the account's domain; http only to this machine")
    ] = None

    settle_after: Annotated[
        str, _says("How long after its close a segment can still appear; newer ones are emitted again")
    ] = arguments.SETTLE_AFTER

    def __repr__(self) -> str:
        return "TapConfig(...)"

    @property
    def filters(self) -> Filters:
        """Return the filters."""
        chosen = {name: getattr(self, name) for name in Filters.__struct_fields__}
        return Filters(**{name: None if value is None else str(value) for name, value in chosen.items()})

    def settle_margin(self) -> timedelta:
        """Return `settle_after` as the client takes it. Raises InputError."""
        try:
            return arguments.settle_margin(self.settle_after)
        except ArgumentTypeError as error:
            raise InputError(f"settle_after: {error}") from None

    def requests_a_second(self) -> Rate:
        """Return `rate` as the client takes it. Raises InputError."""
        try:
            rate = arguments.rate(str(self.rate))
        except ArgumentTypeError as error:
            raise InputError(f"rate: {error}") from None
        return None if rate == "none" else rate


def settings(config: bytes, where: str) -> TapConfig:
    """Return the settings of a config file; null and empty count as not set. Raises InputError without values."""
    try:
        found = msgspec.json.decode(config, type=dict[str, Any])
        given = {name: value for name, value in found.items() if value is not None and value != ""}
        return msgspec.convert(given, TapConfig, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: {error}; `--about` lists the settings") from None


class Who(Struct, frozen=True):
    """The account and how it is authorised."""

    account: str
    auth: Auth

    def __repr__(self) -> str:
        return f"Who({self.account!r}, ...)"


def secrets(settings: TapConfig, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the credentials by setting name: those of the config, or if it has none, the environment's."""
    own = {name: value for name in SECRETS if (value := getattr(settings, name))}
    if own:
        return own
    variables = {name: _PREFIX + name.upper() for name in SECRETS}
    found = {name: cleaned(environ.get(variable, ""), variable) for name, variable in variables.items()}
    return {name: value for name, value in found.items() if value}


def who(settings: TapConfig, environ: Mapping[str, str], where: str) -> Who:
    """Return the account and its credentials. Raises CredentialsError or InputError that says what to set."""
    account = settings.account or cleaned(environ.get(ACCOUNT, ""), ACCOUNT)
    if not account:
        raise InputError(f"{where}: account is missing; set it, or {ACCOUNT} in the environment")
    found = secrets(settings, environ)
    names = _one_set(found, where)
    kind = {4: OAuth1Key, 2: ClientCredentials, 1: BearerToken}[len(names)]
    try:
        return Who(str(account), kind(*(found[name] for name in names)))
    except InputError as error:
        raise CredentialsError(f"{where}: {error.message}; copy {', '.join(names)} again") from None


def _one_set(found: Mapping[str, str], where: str) -> tuple[str, ...]:
    begun = [names for names in SETS if any(name in found for name in names)]
    if not begun:
        sets = "; or ".join(f"{', '.join(names)} ({kind})" for names, kind in SETS.items())
        raise CredentialsError(
            f"{where}: there are no credentials: set {sets}; or the same in capitals, prefixed with {_PREFIX}, in the "
            "environment"
        )
    if len(begun) > 1:
        sets = " and ".join(SETS[names] for names in begun)
        raise CredentialsError(f"{where}: there is more than one set of credentials: {sets}; keep one")
    if missing := [name for name in begun[0] if name not in found]:
        raise CredentialsError(f"{where}: the {SETS[begun[0]]} is incomplete: set {', '.join(missing)}, too")
    return begun[0]
