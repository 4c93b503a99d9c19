"""Credentials of a fleet: from variables with a prefix, a file, a command without a shell; never in an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from segment_fetch import BearerToken, ClientCredentials, CredentialsError, OAuth1Key
from segment_fetch.fleet.credentials import CredentialSource, FromCommand, FromEnvironment, FromFile, resolve

SECRET = "hunter2hunter2"
KEY = {"APP_KEY": "k", "APP_SECRET": SECRET, "ACCESS_TOKEN": "t", "ACCESS_TOKEN_SECRET": SECRET}


def printing(text: str, code: int = 0) -> FromCommand:
    script = f"import sys; print({text!r}); print({SECRET!r}, file=sys.stderr); sys.exit({code})"
    return FromCommand((sys.executable, "-c", script))


async def test_variables_with_a_prefix() -> None:
    environ = {f"BRAND_A_{name}": value for name, value in KEY.items()} | {"LIVEPERSON_BEARER": "another"}
    found, warning = await resolve("1", FromEnvironment("BRAND_A_"), environ)
    assert isinstance(found.auth, OAuth1Key)
    assert (found.account, warning) == ("1", None)
    assert SECRET not in repr(found)
    found, _ = await resolve("1", FromEnvironment("B_"), {"B_CLIENT_ID": "i", "B_CLIENT_SECRET": SECRET})
    assert isinstance(found.auth, ClientCredentials)


async def test_a_missing_variable_is_named_as_it_is_written() -> None:
    with pytest.raises(CredentialsError, match="B_CLIENT_SECRET is missing or empty; set it: export B_CLIENT_SECRET="):
        await resolve("1", FromEnvironment("B_"), {"B_CLIENT_ID": "i"})
    found, _ = await resolve("1", FromEnvironment("B_"), {"B_BEARER": f"'{SECRET}'  # of the nightly job"})
    assert SECRET in found.auth.secrets()


async def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text(f"LIVEPERSON_BEARER={SECRET}\n")
    file.chmod(0o644)
    found, warning = await resolve("1", FromFile(str(file)), {})
    assert isinstance(found.auth, BearerToken)
    assert warning is not None
    assert "chmod 600" in warning
    file.chmod(0o600)
    assert (await resolve("1", FromFile(str(file)), {}))[1] is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(
            {"data": {"data": {name.lower(): value for name, value in KEY.items()} | {"note": 1}, "metadata": {}}}
        ),
        "".join(f"export LIVEPERSON_{name}='{value}'\n" for name, value in KEY.items()),
        "\ufeff" + "".join(f'{name}="{value}"  # of the vault\r\n' for name, value in KEY.items()),
        "\ufeff" + json.dumps(KEY),
    ],
    ids=["json", "lines", "comments", "marked json"],
)
async def test_a_command_prints_them(text: str) -> None:
    found, _ = await resolve("1", printing(text), {})
    assert isinstance(found.auth, OAuth1Key)
    assert sorted(found.auth.secrets()) == sorted(KEY.values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (printing(SECRET, 3), "exit code 3"),
        (printing(f'{{"app_secret": "{SECRET}"}}'), "is incomplete: LIVEPERSON_APP_KEY"),
        (printing(SECRET), "holds no credentials"),
        (printing(f"BEARER='{SECRET}"), "LIVEPERSON_BEARER: the value has an opening quote but no closing one"),
        (FromCommand(("/nonexistent/program", SECRET)), "/nonexistent/program cannot be run: No such file"),
        (FromCommand((sys.executable, "-c", "print('x' * 2_000_000)")), "more than 1 MiB"),
        (
            FromEnvironment("NONE_"),
            "the environment (NONE_…) holds no credentials: set NONE_APP_KEY, NONE_APP_SECRET, ",
        ),
        (FromFile("/nonexistent.env"), "the credentials in /nonexistent.env cannot be read"),
    ],
)
async def test_what_gives_none_is_named_without_a_secret(source: CredentialSource, message: str) -> None:
    with pytest.raises(CredentialsError) as raised:
        await resolve("1", source, {})
    assert message in str(raised.value)
    assert SECRET not in str(raised.value)


async def test_a_command_that_hangs_is_ended() -> None:
    hanging = FromCommand((sys.executable, "-c", "import time; time.sleep(60)"))
    with pytest.raises(CredentialsError, match=r"within 0\.2 s"):
        await resolve("1", hanging, {}, timeout_s=0.2)


async def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    with pytest.raises(CredentialsError):
        await resolve("1", FromCommand(("echo", f"x; touch {marked}", f"$(touch {marked})")), {})
    assert not marked.exists()
