"""An account's credentials, resolved on the machine that uses them: from the environment, a file or a command."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from msgspec import Struct

from segment_fetch.cli.credentials import ACCOUNT, BEARER, CLIENT, OAUTH1, Credentials, Given, cleaned, given, load
from segment_fetch.errors import CredentialsError

COMMAND_TIMEOUT_S = 30.0
"""Seconds in which a command must print credentials."""

_LARGEST = 2**20  # bytes of a command's output
_PREFIX = "LIVEPERSON_"
_NAMES = {name.removeprefix(_PREFIX): name for name in (*OAUTH1, *CLIENT, *BEARER)}


class FromEnvironment(Struct, frozen=True):
    """Variables that begin with a prefix: BRAND_A_APP_KEY for the prefix BRAND_A_."""

    prefix: str


class FromFile(Struct, frozen=True):
    """NAME=VALUE lines in a file, with the names of the environment variables."""

    path: str


class FromCommand(Struct, frozen=True):
    """A command that prints NAME=VALUE lines or JSON; it runs without a shell, and its output is never logged."""

    argv: tuple[str, ...]


CredentialSource: TypeAlias = FromEnvironment | FromFile | FromCommand


async def resolve(
    account: str, source: CredentialSource, environ: Mapping[str, str], *, timeout_s: float = COMMAND_TIMEOUT_S
) -> tuple[Credentials, str | None]:
    """Return an account's credentials, and a warning if others may read them. Raises CredentialsError without any."""
    match source:
        case FromEnvironment(prefix):
            values = {name: environ[prefix + short] for short, name in _NAMES.items() if prefix + short in environ}
            found = given(None, values)._replace(place=f"the environment ({prefix}…)", prefix=prefix)
        case FromFile(path):
            found = given(os.path.expanduser(path), {})  # noqa: ASYNC240, PTH111 - Path raises without a home
        case FromCommand(argv):
            found = Given(await _printed(argv, timeout_s), f"the output of {argv[0]}")
    values = {name: value for name, value in found.values.items() if name != ACCOUNT}
    return load(account, found._replace(values=values)), found.warning


async def _printed(argv: tuple[str, ...], timeout_s: float) -> dict[str, str]:
    """Return the values that a command prints. No error shows its output, which may contain secrets."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise CredentialsError(f"{argv[0]} cannot be run: {error.strerror or error}") from None
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        raise CredentialsError(f"{argv[0]} did not print credentials within {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise CredentialsError(f"{argv[0]} ended with exit code {process.returncode} instead of printing credentials")
    if len(output) > _LARGEST:
        raise CredentialsError(f"{argv[0]} printed more than 1 MiB; it must print only credentials")
    return dict(_values(output.decode(errors="replace"), f"the output of {argv[0]}"))


def _values(text: str, where: str) -> Iterator[tuple[str, str]]:
    """Yield the names and values in JSON, at any depth, or in NAME=VALUE lines; other names are skipped."""
    text = text.removeprefix("\ufeff")
    pairs: list[tuple[str, Any]] = []
    is_json = True
    try:
        pairs += _leaves(json.loads(text))
    except (ValueError, RecursionError):
        is_json = False
        for line in text.splitlines():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            if equals:
                pairs.append((name, value))
    for name, value in pairs:
        short = name.strip().upper().removeprefix(_PREFIX)
        if short in _NAMES and isinstance(value, str):
            value = value if is_json else cleaned(value, f"{where}, {_NAMES[short]}")  # noqa: PLW2901
            if value:
                yield _NAMES[short], value


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, (dict, list)):
                yield from _leaves(inner)
            else:
                yield str(name), inner
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
