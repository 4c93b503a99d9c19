"""`sync` and `verify` as scripts run them."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.sinks.files.disk import release, take_lock
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import AT_ONCE, assert_no_secret, command, lines_in, process

DAY_S = 86_400


@pytest.fixture
def recent(segment_simulator: SimulatorFactory) -> Simulator:
    """Segments of the last six days, behind the key."""
    return segment_simulator(Dataset.recent(1_200, now=time.time(), days=6), auth=KEY)


def test_a_folder_is_kept_up_to_date_and_verified(run: Run, recent: Simulator, tmp_path: Path) -> None:
    where = ("--out", str(tmp_path / "days"), "--base-url", recent.base_url, *AT_ONCE)
    first = run("sync", "--from", "now-5d", *where)
    assert first.code == 0
    assert "provisional" in first.words
    before = len(lines_in(tmp_path / "days"))
    recent.insert(int((time.time() - DAY_S) * 1000) // 1000 * 1000)
    second = run("sync", *where)
    assert second.code == 0
    assert "1 segment added, 0 removed" in second.words
    assert len(lines_in(tmp_path / "days")) == before + 1
    sound = run("verify", "--out", str(tmp_path / "days"))
    assert sound.code == 0
    assert "is sound" in " ".join(sound.out.split())
    assert_no_secret(second)


def test_json_names_what_sync_did(run: Run, recent: Simulator, tmp_path: Path) -> None:
    where = ("--out", str(tmp_path / "days"), "--base-url", recent.base_url, *AT_ONCE)
    report = run("sync", "--from", "now-3d", "--json", *where).json
    assert report["command"] == "sync"
    assert report["exit_code"] == 0
    assert (report["settled"], report["added"], report["removed"], report["lost"]) == (0, 0, 0, [])


def test_the_settle_margin_is_an_option(run: Run, recent: Simulator, tmp_path: Path) -> None:
    where = ("--from", "now-4d", "--out", str(tmp_path / "days"), "--base-url", recent.base_url, *AT_ONCE)
    report = run("sync", "--settle-after", "0", "--json", *where).json
    statuses = [window["status"] for window in report["windows"]]
    assert statuses[:-1] == ["complete"] * 4, "only the last may end behind the server's clock, in whole seconds"
    longer = run("extract", "--settle-after", "3d", "--to", "now-2d", "--json", *where).json
    assert longer["provisional"] >= 1, "read again, and not settled by the longer margin"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--out", "days", "--settle-after", "32d"), "--settle-after: must be from 0 to 31 days"),
        (("--out", "-", "--from", "now-1d"), "name a folder"),
        (("--out", "days"), "the time to start from"),
        (("--out", "days", "--from", "now-60d"), "only the last month"),
        (("--out", "days", "--from", "now-1d", "--timezone", "Nowhere"), "IANA"),
        (("--from", "now-1d"), "--out is missing"),
    ],
)
def test_wrong_input_is_named(
    run: Run, recent: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("sync", *argv, "--base-url", recent.base_url, *AT_ONCE)
    assert found.code == 2
    assert message in found.words
    assert recent.stats.requests == 0


def test_verify_finds_damage_and_says_what_to_do(run: Run, recent: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    run("sync", "--from", "now-5d", "--out", str(folder), "--base-url", recent.base_url, *AT_ONCE)
    files = sorted(folder.glob("segments-*"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-10])
    found = run("verify", "--out", str(folder))
    assert found.code == 3
    for words in ("MISSING FILE", files[0].name, "WRONG SIZE", files[1].name, "run the extraction again", "NOT sound"):
        assert words in found.words
    listed = run("verify", "--out", str(folder), "--json").json
    assert {finding["kind"] for finding in listed["findings"]} >= {"missing file", "wrong size"}
    assert listed["exit_code"] == 3


def test_verify_against_the_api(run: Run, recent: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    where = ("--out", str(folder), "--base-url", recent.base_url, *AT_ONCE)
    run("sync", "--from", "now-5d", *where)
    same = run("verify", "--against-api", *where)
    assert same.code == 0
    assert "compared with the API" in same.words
    recent.insert(int((time.time() - 2 * DAY_S) * 1000))
    other = run("verify", "--against-api", *where)
    assert other.code == 3
    assert "DIFFERS" in other.words
    wrong = run("verify", "--against-api", "--account", "222222", *where)
    assert wrong.code == 2
    assert "holds account 111111, not 222222" in wrong.words


def test_verify_without_a_folder_or_a_manifest(tmp_path: Path, run: Run) -> None:
    nowhere = run("verify", "--out", str(tmp_path / "nowhere"))
    assert nowhere.code == 2
    assert "there is no folder" in nowhere.words
    empty = run("verify", "--out", str(tmp_path))
    assert empty.code == 3
    assert "NO MANIFEST" in empty.words


def test_verify_needs_no_credentials(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("LIVEPERSON_")}
    found = process("verify", "--out", str(tmp_path), env=own)
    assert found.code == 3
    assert "LIVEPERSON" not in found.words


def test_a_quiet_verify_speaks_only_of_damage(run: Run, recent: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    run("sync", "--from", "now-5d", "--out", str(folder), "--base-url", recent.base_url, *AT_ONCE)
    assert run("verify", "--quiet", "--out", str(folder)).words.strip() == ""
    min(folder.glob("segments-*")).unlink()
    assert "MISSING FILE" in run("verify", "--quiet", "--out", str(folder)).out


def test_another_time_zone_is_noticed(run: Run, recent: Simulator, tmp_path: Path) -> None:
    where = ("--out", str(tmp_path / "days"), "--base-url", recent.base_url, *AT_ONCE)
    assert "another time zone" not in run("sync", "--from", "now-5d", "--timezone", "Asia/Tokyo", *where).words
    assert "another time zone" not in run("sync", "--timezone", "Asia/Tokyo", *where).words
    assert "if earlier runs used another time zone, use that one" in run("sync", *where).words


def test_a_folder_in_which_nothing_is_committed_yet(run: Run, tmp_path: Path) -> None:
    assert "nothing has been committed here yet" in run("verify", "--out", str(tmp_path)).words


def test_a_checksum_taken_out_of_the_manifest_is_named(run: Run, recent: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    run("sync", "--from", "now-2d", "--out", str(folder), "--base-url", recent.base_url, *AT_ONCE)
    manifest = orjson.loads((folder / "manifest.json").read_bytes())
    del manifest["windows"][0]["sha256"]
    (folder / "manifest.json").write_bytes(orjson.dumps(manifest))
    assert "checksum is missing in the manifest" in run("verify", "--out", str(folder)).words


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_stream_that_is_closed_from_the_start_is_no_error_of_the_program(
    recent: Simulator, env: dict[str, str], tmp_path: Path, closed: str
) -> None:
    options = ("--from", "now-1d", "--out", str(tmp_path / "out"), "--base-url", recent.base_url, *AT_ONCE)
    line = f"{shlex.join(command('extract', *options))} {closed}"
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == (3 if closed == ">&-" else 0)
    assert "error in this program" not in done.stderr
    assert (tmp_path / "out" / "manifest.json").exists()


def test_a_sync_that_cannot_begin_leaves_no_folder(run: Run, recent: Simulator, tmp_path: Path) -> None:
    found = run("sync", "--out", str(tmp_path / "days"), "--base-url", recent.base_url, *AT_ONCE)
    assert found.code == 2
    assert "give the time to start from" in found.words
    assert "`start`" not in found.words
    assert not (tmp_path / "days").exists()


def test_verify_beside_a_run_looks_only_at_what_is_committed(run: Run, recent: Simulator, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    run("sync", "--from", "now-5d", "--out", str(folder), "--base-url", recent.base_url, *AT_ONCE)
    name = min(folder.glob("segments-*")).name
    (folder / f".{name}.partial").write_bytes(b"half")
    alone = run("verify", "--out", str(folder))
    assert (alone.code, "LEFT OVER" in alone.out) == (3, True)
    handle = take_lock(folder / ".lock", folder)
    assert handle is not None
    try:
        beside = run("verify", "--out", str(folder))
        assert (beside.code, "LEFT OVER" in beside.out) == (0, False)
        assert "A run is writing there now" in beside.words
        assert run("verify", "--json", "--out", str(folder)).json["running"] is True
        (folder / name).unlink()
        assert "MISSING FILE" in run("verify", "--out", str(folder)).out
    finally:
        release(handle)
