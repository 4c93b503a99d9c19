"""The accounts file: every key of `sync`, checked as a whole, every fault with its line, and no secret in it."""

from __future__ import annotations

import os
import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from segment_fetch import InputError
from segment_fetch.cli.parser import build
from segment_fetch.fleet import AccountJob, load_accounts
from segment_fetch.fleet.credentials import FromCommand, FromEnvironment, FromFile

WHOLE = """
[defaults]
out = "s3://lake/segments/{account}"
from = "now-30d"
clamp = true

[accounts.111111]
credentials = { env = "BRAND_A_" }
[accounts.222222]
credentials = { file = "brand-b.env" }
timezone = "Europe/Berlin"
rate = 5
retry_delays = [5, 10]
settle_after = "48h"
[accounts.333333]
credentials = { command = ["vault", "kv", "get", "-format=json", "brand-c"] }
out = "brand-c"
to = "now-1d"
window = "1d"
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "accounts.toml"
    file.write_text(text)
    return file


def faults(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as raised:
        load_accounts(written(folder, text))
    return str(raised.value)


def test_defaults_and_keys_become_options(tmp_path: Path) -> None:
    one, two, three = load_accounts(written(tmp_path, WHOLE))
    assert (one.account, one.command, one.out) == ("111111", "sync", "s3://lake/segments/111111")
    assert (one.options["start"], one.options["clamp"], one.options["rate"]) == ("now-30d", True, "auto")
    assert one.credentials == FromEnvironment("BRAND_A_")
    assert (two.options["timezone"], two.options["rate"]) == ("Europe/Berlin", 5.0)
    assert two.options["settle_after"] == timedelta(hours=48)
    assert two.options["retry_delays"] == (5.0, 10.0)
    assert two.credentials == FromFile("brand-b.env")
    assert (three.command, three.out, three.options["window"]) == ("extract", "brand-c", timedelta(days=1))
    assert three.credentials == FromCommand(("vault", "kv", "get", "-format=json", "brand-c"))


def test_only_some_accounts_are_chosen(tmp_path: Path) -> None:
    file = written(tmp_path, WHOLE)
    assert [job.account for job in load_accounts(file, only=["333333", "111111"])] == ["111111", "333333"]
    with pytest.raises(InputError, match="there is no account 9"):
        load_accounts(file, only=["9"])


def test_every_option_of_sync_is_a_key(tmp_path: Path) -> None:
    elsewhere = {"--help", "--account", "--credentials", "--json", "--quiet", "--log-level", "--log-format"}
    _, parsers = build(["sync", "extract"])
    for command in ("sync", "extract"):
        for option in set(parsers[command].names()) - elsewhere:
            text = f"[accounts.1]\n{option[2:].replace('-', '_')} = 1\n"
            assert "unknown key" not in faults(tmp_path, text), option


def test_a_job_can_be_sent_to_another_machine(tmp_path: Path) -> None:
    jobs = load_accounts(written(tmp_path, WHOLE))
    again: list[AccountJob] = pickle.loads(pickle.dumps(jobs))
    assert again == jobs


GOOD = 'credentials = { env = "A_" }\nout = "x/{account}"\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[accounts.1]\n" + GOOD + "tmezone = 'UTC'\n", 4, "unknown key tmezone"),
        ("[accounts.1]\n" + GOOD + "csv-safe = true\n", 4, "unknown key csv-safe: did you mean csv_safe?"),
        ("[accounts.1]\n" + GOOD + "rate = 'fast'\n", 4, "is not a rate"),
        ("[accounts.1]\n" + GOOD + "clamp = 'yes'\n", 4, "clamp: write true or false"),
        ("[accounts.1]\n" + GOOD + "from = 2026-11-01\n", 4, "from: write a text"),
        ("[accounts.1]\n" + GOOD + "from = 'yesterday'\n", 4, "time 'yesterday'"),
        ("[accounts.1]\n" + GOOD + "timezone = 'Berlin'\n", 4, "IANA name"),
        ("[accounts.1]\n" + GOOD + "source = 'no spaces'\n", 4, "source 'no spaces'"),
        ("[accounts.1]\n" + GOOD + "window = '1d'\n", 4, "window goes with extract"),
        ("[accounts.1]\n" + GOOD + "app_secret = 'hunter2hunter2'\n", 4, "secrets are never in this file"),
        ("[accounts.1]\nout = 'x'\ncredentials = { bearer = 'hunter2hunter2' }\n", 3, "bearer: secrets are never"),
        ("[accounts.1]\nout = 'x'\ncredentials = 'A_'\n", 3, "write credentials = "),
        ("[accounts.1]\nout = 'x'\n", 1, "credentials are missing"),
        ("[accounts.1]\ncredentials = { env = 'A_' }\n", 1, "out is missing"),
        ("[accounts.1]\ncredentials = { env = 'A_' }\nout = '-'\n", 3, "cannot write to standard output"),
        ("[accounts.1]\ncredentials = { env = 'A_' }\nout = 'ftp://x'\n", 3, "ftp:// is not a known destination"),
        (
            "[accounts.1]\ncredentials = { env = 'A_' }\nout = 'postgresql://me:hunter2hunter2@h/d'\n",
            3,
            "remove the password",
        ),
        ("[acounts.1]\n", 1, "acounts is unknown here: write [defaults] and [accounts.ID]"),
        ("[accounts.'a b']\n" + GOOD, 1, "account 'a b'"),
        ("[defaults]\nprefix = 1\n[accounts.1]\n" + GOOD, 2, "unknown key prefix"),
        ("[defaults]\nrate = -1\n[accounts.1]\n" + GOOD, 2, "is not a rate"),
        ("bearer = 'hunter2hunter2'\n[accounts.1]\n" + GOOD, 1, "bearer: secrets are never in this file"),
        (
            "[accounts.1]\nout = 'x'\n[accounts.1.credentials]\ntoken = 'hunter2hunter2'\n",
            3,
            "token: secrets are never",
        ),
        (
            "[accounts.1]\n" + GOOD + "base_url = 'https://me:hunter2hunter2@x.example'\n",
            4,
            "must not hold a user name",
        ),
        ("[accounts.1]\ncredentials = { env = 'A_' }\nout = 's3://me:hunter2hunter2@lake/x'\n", 3, "must hold no key"),
        ("[accounts.1]\ncredentials = { env = 'A_' }\nout = 'x/{acount}'\n", 3, "{acount} is unknown"),
        ("[accounts.1]\ncredentials = { env = 'A_' }\nout = 5\n", 3, "out: write a text"),
        ("[accounts.1]\n" + GOOD + "timezone = ['UTC']\n", 4, "timezone: write a text"),
        ("[accounts.1]\n" + GOOD + "connections = -3\n", 4, "connections: must be at least 1"),
        ("[accounts.1]\n" + GOOD + "excel = 'de'\n", 4, "excel goes with the format csv"),
        ("[accounts.1]\n" + GOOD + "format = 'csv'\nlocal_times = 'Berlin'\n", 5, "IANA name"),
        ("[accounts.1]\n" + GOOD + "from = 'now-1d'\nto = 'now-2d'\n", 4, "after it ends"),
        ("[accounts.1]\n" + GOOD + "to = 'now-2d'\n", 1, "from is missing"),
        ("[accounts.1]\n" + GOOD + "frmo = 'now-2d'\n", 4, "did you mean from?"),
        ("[accounts]\n1.credentials = { env = 'A_' }\n1.out = 'x'\n1.rate = 'fast'\n", 4, "is not a rate"),
        ("accounts = { 1 = { credentials = { env = 'A_' }, out = 'x', rate = 'fast' } }\n", 1, "is not a rate"),
        ('[accounts.1]\nsource = """\nrate = 1\n"""\n' + GOOD + "rate = 'fast'\n", 7, "is not a rate"),
        ("[accounts.1]\n" + GOOD + "[accounts.'1']\n" + GOOD, 4, "account 1 is defined twice"),
        ("[accounts.1]\n" + GOOD + "out = 'y'\n", 4, "is not TOML"),
        ("[accounts.1]\nout = 'x\n", 2, "is not TOML"),
        ("[[accounts]]\n", 1, "holds no account"),
    ],
)
def test_a_fault_is_named_with_its_line_and_shows_no_secret(tmp_path: Path, text: str, line: int, message: str) -> None:
    found = faults(tmp_path, text)
    assert f"accounts.toml, line {line}: " in found
    assert message in found
    assert "hunter2" not in found


def test_a_default_of_the_other_command_has_no_effect(tmp_path: Path) -> None:
    text = "[defaults]\nfrom = 'now-9d'\ntimezone = 'Europe/Berlin'\nwindow = '1d'\n"
    text += f"[accounts.1]\n{GOOD}to = 'now-2d'\n[accounts.2]\n{GOOD}"
    one, two = load_accounts(written(tmp_path, text))
    assert (one.command, one.options["window"]) == ("extract", timedelta(days=1))
    assert (two.command, two.options["timezone"]) == ("sync", "Europe/Berlin")


def test_the_environment_gives_defaults_below_those_of_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, f"[defaults]\nrate = 5\n[accounts.1]\n{GOOD}")
    environ = {"SEGMENT_FETCH_RATE": "9", "SEGMENT_FETCH_NO_TELEMETRY": "1", "SEGMENT_FETCH_FORMAT": "csv"}
    (job,) = load_accounts(file, environ=environ)
    assert (job.options["rate"], job.options["no_telemetry"], job.options["format"]) == (5.0, True, "csv")
    with pytest.raises(InputError, match="SEGMENT_FETCH_RATE: 'fast' is not a rate"):
        load_accounts(file, environ={"SEGMENT_FETCH_RATE": "fast"})


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    found = faults(tmp_path, "[accounts.1]\nrate = 0\n[accounts.2]\nout = 'x'\nsecret = 1\n")
    assert found.startswith(("4 faults:\n", "5 faults:\n"))
    assert "line 2" in found
    assert "line 5" in found


@pytest.mark.parametrize(
    ("keys", "account_id"),
    [
        ("out = 'x'", False),
        ("out = 'x'\nformat = 'parquet'", True),
        ("out = 'x/{account}'\nformat = 'parquet'", False),
        ("out = 'x/{account}'\nformat = 'parquet'\naccount_id = true", True),
        ("out = 'x'\nformat = 'parquet'\naccount_id = false", False),
        ("out = 'duckdb:///x.duckdb'", True),
        ("out = 'duckdb:///{account}.duckdb'", False),
        ("out = 'duckdb:///x.duckdb?account_id={account}'", False),
        ("out = 'postgresql://h/d'", True),
    ],
)
def test_rows_carry_their_account_where_accounts_can_share(tmp_path: Path, keys: str, account_id: bool) -> None:
    text = f"[accounts.1]\ncredentials = {{ env = 'A_' }}\n{keys}\n"
    (job,) = load_accounts(written(tmp_path, text))
    assert job.account_id is account_id


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("out = 'x'\nformat = 'csv'", 'put {account} into out, or write format = "parquet"'),
        ("out = 'x'\naccount_id = true", "account_id goes with tables and Parquet files"),
        ("out = 'duckdb:///x'\naccount_id = 1", "account_id: write true or false"),
        ("out = 'duckdb:///x'\naccount_id = false", "or remove account_id = false"),
        ("out = './x/'", "writes to x, as account 1 does"),
    ],
)
def test_a_destination_that_cannot_be_shared_is_refused(tmp_path: Path, keys: str, message: str) -> None:
    account = f"credentials = {{ env = 'A_' }}\n{keys}\n"
    assert message in faults(tmp_path, f"[accounts.1]\n{account}[accounts.2]\n{account.replace('./x/', 'x')}")


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (job,) = load_accounts(written(tmp_path, "[accounts.1]\ncredentials = { env = 'A_' }\nout = '~/{account}'\n"))
    assert job.out == str(tmp_path / "1")


def test_two_accounts_in_one_folder_are_refused(tmp_path: Path) -> None:
    found = faults(
        tmp_path, "[accounts.1]\ncredentials = {env='A_'}\nout = 'x'\n[accounts.2]\n" + GOOD.replace("/{account}", "")
    )
    assert "line 6: writes to x, as account 1 does: put {account} into out" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [("[accounts.1\n", "is not TOML"), ("", "holds no account"), ("accounts = 1", "holds no account")],
)
def test_a_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    assert message in faults(tmp_path, text)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_accounts(tmp_path / "no.toml")
    (tmp_path / "accounts.toml").write_bytes(b"# \n\xff")
    with pytest.raises(InputError, match="line 2: is not UTF-8 text"):
        load_accounts(tmp_path / "accounts.toml")
    with pytest.raises(InputError, match="Is a directory"):
        load_accounts(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a regular file"):
        load_accounts(tmp_path / "fifo")


def test_a_mark_of_the_byte_order_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_bytes(b"\xef\xbb\xbf[accounts.1]\n" + GOOD.encode())
    assert len(load_accounts(tmp_path / "accounts.toml")) == 1
