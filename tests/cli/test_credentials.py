"""Credentials: where they come from, what is said when something is missing, and that they stay hidden."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segment_fetch.api.auth import Auth, BearerToken, ClientCredentials, OAuth1Key
from segment_fetch.cli import credentials
from segment_fetch.errors import CredentialsError
from tests.cli.conftest import Run
from tests.cli.support import SECRETS, assert_no_secret, environ

PLAN = ("plan", "--from", "now-1d", "--base-url", "http://127.0.0.1:1", "--network-retry-delays", "none")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets.env"
    path.touch(mode=0o600)
    return path


def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "LIVEPERSON_ACCOUNT"):
        monkeypatch.delenv(name)


def test_none_says_how_to_set_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _unset(monkeypatch)
    result = run(*PLAN)
    assert result.code == 4
    for name in (*SECRETS, "LIVEPERSON_CLIENT_ID", "LIVEPERSON_BEARER", "--credentials FILE", "--account ID"):
        assert name in result.err


def test_a_part_of_a_set_names_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVEPERSON_APP_SECRET")
    monkeypatch.setenv("LIVEPERSON_ACCESS_TOKEN", "")
    result = run(*PLAN)
    assert result.code == 4
    assert "LIVEPERSON_APP_SECRET, LIVEPERSON_ACCESS_TOKEN are missing or empty" in result.err
    assert_no_secret(result)


def test_two_sets_at_once_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPERSON_BEARER", "hush-hush")
    result = run(*PLAN)
    assert result.code == 4
    assert "more than one set of credentials" in result.err
    assert "LIVEPERSON_BEARER" in result.err
    assert "hush" not in result.err
    assert_no_secret(result)


def test_an_odd_value_is_named_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPERSON_APP_SECRET", "hush\thush")
    result = run(*PLAN)
    assert result.code == 4
    assert "app_secret is empty, or contains spaces" in result.err
    assert "hush" not in result.err


def test_the_account_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIVEPERSON_ACCOUNT")
    result = run(*PLAN)
    assert result.code == 2
    assert "give --account ID, or set LIVEPERSON_ACCOUNT" in result.err


def test_a_file_stands_in_for_the_environment(file: Path) -> None:
    file.write_text(
        "\ufeff# the key of the nightly job\n\nexport LIVEPERSON_ACCOUNT = 77\n"
        "LIVEPERSON_CLIENT_ID='an id'\nLIVEPERSON_CLIENT_SECRET=\"a=b\"\n"
    )
    found = credentials.given(str(file), {"LIVEPERSON_BEARER": "from the environment"})
    assert found.values == {
        "LIVEPERSON_ACCOUNT": "77",
        "LIVEPERSON_CLIENT_ID": "an id",
        "LIVEPERSON_CLIENT_SECRET": "a=b",
    }
    assert found.warning is None


def test_the_option_overrides_the_account(file: Path) -> None:
    file.write_text("LIVEPERSON_ACCOUNT=77\nLIVEPERSON_BEARER=token\n")
    found = credentials.given(str(file), {})
    assert credentials.load("88", found).account == "88"
    assert credentials.load(None, found).account == "77"


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (credentials.OAUTH1, OAuth1Key),
        (credentials.CLIENT, ClientCredentials),
        (credentials.BEARER, BearerToken),
    ],
)
def test_each_set_makes_its_kind(names: tuple[str, ...], kind: type[Auth]) -> None:
    found = credentials.given(None, dict.fromkeys(names, "hush-hush"))
    loaded = credentials.load("1", found)
    assert isinstance(loaded.auth, kind)
    assert "hush" not in repr(loaded)


def test_a_file_that_others_can_read_is_warned_of(run: Run, file: Path) -> None:
    file.write_text("LIVEPERSON_BEARER=hush-hush\n")
    file.chmod(0o640)
    result = run(*PLAN, "--credentials", str(file))
    assert "warning: other users of this machine may read" in result.err
    assert f"chmod 600 {file}" in result.err
    assert result.code == 5
    assert "hush" not in result.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("LIVEPERSON_BEARER=x\nhush-hush\n", "line 2: is not NAME=VALUE"),
        ("hush+hush==\n", "line 1: is not NAME=VALUE"),
        ("hushhush==\n", "holds no credentials"),
        ("LIVEPERSON_BEARER='hush-hush\n", "line 1: the value has an opening quote but no closing one"),
        ("LIVEPERSON_APP_SECRT=hush-hush\n", "line 1: the name is not one of"),
        ("# nothing\n", "holds no credentials"),
    ],
)
def test_a_wrong_file_names_the_line_and_repeats_nothing(content: str, said: str, file: Path, run: Run) -> None:
    file.write_text(content)
    result = run(*PLAN, "--credentials", str(file), "--log-level", "debug")
    assert result.code == 4
    assert said in result.err
    assert "hush" not in result.err


def test_files_that_cannot_be_read(file: Path, run: Run) -> None:
    missing = run(*PLAN, "--credentials", str(file.parent / "none.env"))
    assert missing.code == 4
    assert "cannot be read: No such file" in missing.err
    file.write_bytes(b"\xff\xfe\x00")
    binary = run(*PLAN, "--credentials", str(file))
    assert binary.code == 4
    assert "is not UTF-8 text" in binary.err


def test_missing_part_of_a_file() -> None:
    found = credentials.Given({"LIVEPERSON_CLIENT_ID": "x"}, "secrets.env")
    with pytest.raises(CredentialsError, match="add a line LIVEPERSON_CLIENT_SECRET="):
        credentials.chosen(found)


def test_the_environment_of_processes_has_none() -> None:
    assert not [name for name in environ() if name.startswith("LIVEPERSON_")]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("a=b", "a=b"),
        ("'a b'", "a b"),
        ('"a#b"  # of the nightly job', "a#b"),
        ("a#b", "a#b"),
        ("ab   # of the nightly job", "ab"),
        ("# nothing", None),
        ("", None),
        ("''", None),
    ],
)
def test_quotes_and_comments_mean_the_same_in_a_file_and_in_the_environment(
    written: str, value: str | None, file: Path
) -> None:
    file.write_text(f"PATH=/bin\nSOMETHING_ELSE='open\nLIVEPERSON_BEARER={written}\n")
    for found in (credentials.given(str(file), {}), credentials.given(None, {"LIVEPERSON_BEARER": written})):
        assert found.values.get("LIVEPERSON_BEARER") == value


def test_account_of_the_environment_may_be_quoted_beside_a_file(file: Path) -> None:
    file.write_text("LIVEPERSON_BEARER=hush-hush\n")
    found = credentials.given(str(file), {"LIVEPERSON_ACCOUNT": '"111111"  # of the brand'})
    assert credentials.load(None, found).account == "111111"


def test_a_quote_that_is_not_closed_is_refused_in_the_environment_too() -> None:
    with pytest.raises(CredentialsError, match="LIVEPERSON_BEARER: the value has an opening quote") as caught:
        credentials.given(None, {"LIVEPERSON_BEARER": "'hush-hush"})
    assert "hush" not in str(caught.value)


def test_a_fifo_is_refused_at_once(file: Path, run: Run) -> None:
    fifo = file.parent / "fifo"
    os.mkfifo(fifo)
    result = run(*PLAN, "--credentials", str(fifo))
    assert result.code == 4
    assert "not a regular file" in result.err


def test_the_home_folder(file: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("LIVEPERSON_BEARER=hush-hush\n")
    monkeypatch.setenv("HOME", str(file.parent))
    assert run(*PLAN, "--credentials=~/secrets.env").code == 5
    unknown = run(*PLAN, "--credentials=~nobody-of-this-name/secrets.env")
    assert unknown.code == 2
    assert "the home folder is not known; set HOME" in unknown.err
