"""The pace kept between runs: advice that is used, or ignored, and never the reason of a failure."""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import Window
from segment_fetch.events import Event, PaceChanged
from segment_fetch.simulator import Simulator
from segment_fetch.throttle.pace_store import OLDEST_S, PaceStore
from segment_fetch.throttle.pacer import Learned
from tests.support import without_waiting
from tests.support_runs import NOW, START, client, served, settled

FOUND = Learned(19.4, limited=True, cap=5, at=NOW)
SERVICE = "https://one.example"


@pytest.fixture
def store(tmp_path: Path) -> PaceStore:
    return PaceStore(tmp_path / "state" / "pace")


def only_file(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "state" / "pace").iterdir()
    return path


def test_what_was_kept_is_found_again(store: PaceStore) -> None:
    assert store.load("1", SERVICE, NOW) is None
    store.save("1", SERVICE, FOUND)
    assert store.load("1", SERVICE, NOW) == FOUND
    store.save("1", SERVICE, Learned(7.0, limited=False, cap=None, at=NOW + 1))
    assert store.load("1", SERVICE, NOW) == Learned(7.0, limited=False, cap=None, at=NOW + 1)


@pytest.mark.parametrize(("account", "service"), [("2", SERVICE), ("1", ""), ("1", "http://127.0.0.1:8080")])
def test_each_account_and_service_has_its_own(store: PaceStore, account: str, service: str) -> None:
    store.save("1", SERVICE, FOUND)
    assert store.load(account, service, NOW) is None


def test_each_source_has_its_own_and_else_what_an_earlier_version_kept_for_the_account(store: PaceStore) -> None:
    store.save("1", SERVICE, FOUND)
    own = Learned(3.0, limited=True, cap=None, at=NOW)
    assert store.load("1", SERVICE, NOW, "nightly") == FOUND
    store.save("1", SERVICE, own, "nightly")
    assert store.load("1", SERVICE, NOW, "nightly") == own
    assert store.load("1", SERVICE, NOW, "hourly") == FOUND


@pytest.mark.parametrize(
    ("later", "used"), [(0.0, True), (OLDEST_S, True), (OLDEST_S + 1, False), (-3600.0, True), (-2 * 86_400.0, False)]
)
def test_it_counts_for_thirty_days(store: PaceStore, later: float, used: bool) -> None:
    store.save("1", SERVICE, FOUND)
    assert (store.load("1", SERVICE, NOW + later) == FOUND) is used


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"[" * 4000,
        b'{"rate":19.4,"limited":true,"cap":5,"at":' + b"9" * 5000 + b"}",
        b'{"rate":19.4}',
        b'{"rate":0,"limited":true,"cap":5,"at":1794000000.0}',
        b'{"rate":1e-9,"limited":true,"cap":null,"at":1794000000.0}',
        b'{"rate":0.099,"limited":true,"cap":null,"at":1794000000.0}',
        b'{"rate":-1,"limited":true,"cap":5,"at":1794000000.0}',
        b'{"rate":1e300,"limited":true,"cap":5,"at":1794000000.0}',
        b'{"rate":NaN,"limited":true,"cap":5,"at":1794000000.0}',
        b'{"rate":"fast","limited":true,"cap":5,"at":1794000000.0}',
        b'{"rate":9,"limited":true,"cap":0,"at":1794000000.0}',
        b'{"rate":9,"limited":true,"cap":5,"at":1e999}',
        b'{"rate":9,"limited":true,"cap":5,"at":"today"}',
    ],
)
def test_what_makes_no_sense_is_ignored_and_replaced(
    store: PaceStore, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.save("1", SERVICE, FOUND)
    only_file(tmp_path).write_bytes(content)
    with caplog.at_level(logging.DEBUG):
        assert store.load("1", SERVICE, NOW) is None
    assert {record.levelname for record in caplog.records} <= {"DEBUG"}
    store.save("1", SERVICE, FOUND)
    assert store.load("1", SERVICE, NOW) == FOUND


def test_a_folder_that_cannot_be_used_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    store = PaceStore(tmp_path / "file" / "pace")
    with caplog.at_level(logging.DEBUG):
        store.save("1", SERVICE, FOUND)
        assert store.load("1", SERVICE, NOW) is None
    assert {record.levelname for record in caplog.records} == {"INFO", "DEBUG"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; a file in the way is tested for all")
def test_a_folder_that_is_read_only_is_no_failure(store: PaceStore, tmp_path: Path) -> None:
    store.save("1", SERVICE, FOUND)
    only_file(tmp_path).parent.chmod(0o500)
    store.save("1", SERVICE, Learned(7.0, limited=False, cap=None, at=NOW))
    assert store.load("1", SERVICE, NOW) == FOUND


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(store: PaceStore, tmp_path: Path) -> None:
    store.save("1", SERVICE, FOUND)
    path = only_file(tmp_path)
    path.unlink()
    path.mkdir()
    store.save("1", SERVICE, FOUND)
    assert store.load("1", SERVICE, NOW) is None
    assert only_file(tmp_path) == path


def test_a_pipe_in_its_place_keeps_nobody_waiting(store: PaceStore, tmp_path: Path) -> None:
    store.save("1", SERVICE, FOUND)
    path = only_file(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert store.load("1", SERVICE, NOW) is None
    held = os.open(path, os.O_RDWR)
    try:
        assert store.load("1", SERVICE, NOW) is None, "somebody could write, and does not"
    finally:
        os.close(held)
    store.save("1", SERVICE, FOUND)
    assert store.load("1", SERVICE, NOW) == FOUND


def test_many_at_once_never_see_half_a_file(store: PaceStore, tmp_path: Path) -> None:
    def work(number: int) -> bool:
        store.save("1", SERVICE, Learned(float(number + 1), limited=True, cap=None, at=NOW))
        found = store.load("1", SERVICE, NOW)
        return found is not None and 1 <= found.rate <= 200

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(200)))
    assert only_file(tmp_path).suffix == ".json"


def test_what_nobody_uses_any_more_is_deleted(store: PaceStore, tmp_path: Path) -> None:
    store.save("1", SERVICE, FOUND)
    old = only_file(tmp_path)
    os.utime(old, (NOW - OLDEST_S - 1, NOW - OLDEST_S - 1))
    other = old.with_name("somebody-elses.json")
    other.write_text("{}")
    os.utime(other, (0, 0))
    store.save("2", SERVICE, FOUND)
    assert not old.exists()
    assert other.exists()


def test_only_the_user_may_look_and_no_credential_is_there(store: PaceStore, tmp_path: Path) -> None:
    store.save("1", SERVICE, FOUND)
    path = only_file(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text() == '{"rate":19.4,"limited":true,"cap":5,"at":1794000000.0}\n'
    assert SERVICE not in path.name


async def _run(simulator: Simulator, store: PaceStore, **options: Any) -> list[PaceChanged]:
    """Counts 25 minutes, and tells how the pace went."""
    told: list[Event] = []
    minutes = [Window(START + at * 60_000, START + (at + 1) * 60_000) for at in range(25)]
    async with client(simulator, **{"rate": "auto", "pace": store, "on_event": told.append} | options) as opened:
        await opened.counts(minutes)
    return [event for event in told if isinstance(event, PaceChanged)]


@without_waiting
async def test_a_client_begins_with_what_the_last_one_found(store: PaceStore) -> None:
    async with served(settled(), latency_ms=20) as simulator:
        first, second = await _run(simulator, store), await _run(simulator, store)
        elsewhere = await _run(simulator, store, base_url=simulator.base_url.replace("127.0.0.1", "localhost"))
    assert [changes[0].reason for changes in (first, second, elsewhere)] == ["started", "remembered", "started"]
    assert second[0].rate > first[0].rate


@without_waiting
async def test_a_ceiling_holds_for_what_was_found_too(store: PaceStore) -> None:
    async with served(settled()) as simulator:
        store.save(simulator.account, simulator.base_url, Learned(500.0, limited=True, cap=None, at=NOW), "tests")
        changes = await _run(simulator, store, rate=7.0)
        kept = store.load(simulator.account, simulator.base_url, NOW, "tests")
    assert [(change.at_once, change.reason) for change in changes] == [(None, "started")]
    assert changes[0].rate == pytest.approx(0.98 * 7)
    assert kept is not None
    assert kept.rate == 500.0


@without_waiting
async def test_a_run_that_fails_has_learned_too(store: PaceStore) -> None:
    async def failing(simulator: Simulator) -> None:
        async with client(simulator, rate="auto", pace=store) as opened:
            await opened.counts([Window(START + at, START + at + 1) for at in range(30)])
            raise ZeroDivisionError

    async with served(settled(), latency_ms=20) as simulator:
        with pytest.raises(ZeroDivisionError):
            await failing(simulator)
        assert store.load(simulator.account, simulator.base_url, NOW, "tests") is not None


@without_waiting
async def test_without_a_pace_or_without_answers_nothing_is_kept(store: PaceStore) -> None:
    async with served(settled()) as simulator:
        await _run(simulator, store, rate=None)
        async with client(simulator, rate="auto", pace=store):
            pass
        await _run(simulator, store, pace=None)
    assert not store.folder.exists()


@without_waiting
async def test_two_clients_at_once_share_a_store(store: PaceStore) -> None:
    async with served(settled(), latency_ms=20) as simulator:
        both = await asyncio.gather(_run(simulator, store), _run(simulator, store))
        assert [changes[0].reason for changes in both] == ["started", "started"]
        assert store.load(simulator.account, simulator.base_url, NOW, "tests") is not None
