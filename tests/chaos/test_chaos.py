"""Short versions of the chaos commands, so that they cannot rot; the commands run them at length."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from msgspec import structs

from segment_fetch import DestinationError
from segment_fetch.errors import TransientError
from segment_fetch.simulator import Faults
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.wire.models import SegmentPage
from segment_fetch.wire.raw_rows import COMPILED
from tests.chaos import drift, faults, fuzz, kills, power
from tests.chaos.odd_worlds import rules_as_before

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes


@pytest.mark.parametrize("kind", drift.KINDS, ids=lambda kind: kind.name)
async def test_nothing_is_missed_or_doubled_while_rows_move(kind: drift.Kind) -> None:
    seen = await drift.run_kind(kind, runs=10, segments=6_000)
    assert (seen.missed, seen.doubled, seen.unproven, seen.unordered) == (0, 0, 0, 0)
    assert seen.runs == 10
    if not kind.burst:  # of so small a window, two thousand on one millisecond are a third
        assert seen.ratio <= kind.bound


@pytest.mark.parametrize("kind", drift.ODD_KINDS, ids=lambda kind: kind.name)
async def test_nothing_is_missed_where_answers_do_not_agree(kind: drift.Kind) -> None:
    assert drift.holds(structs.replace(kind, wrong=max(kind.wrong, 0.5 * (kind.wrong > 0))), seen := await odd(kind))
    assert seen.runs == 4


async def odd(kind: drift.Kind, runs: int = 4) -> drift.Outcome:
    return await drift.run_kind(kind, runs, segments=3_000)


async def test_the_rules_as_they_were_before_are_found_out() -> None:
    with rules_as_before():
        seen = {kind.name: await odd(kind) for kind in drift.ODD_KINDS if kind.odd and (kind.odd.cap or kind.odd.late)}
    assert [outcome.wrong for outcome in seen.values()] == [4, 4], seen


@pytest.mark.parametrize(("name", "given"), faults.mixes().items())
async def test_nothing_is_lost_when_a_fifth_of_the_answers_is_broken(name: str, given: Faults) -> None:
    seen = await faults.run_kind(given, runs=2, segments=4_000)
    assert (seen.lost, seen.doubled, seen.unproven) == (0, 0, 0)
    assert seen.requests >= seen.pages


@pytest.mark.parametrize("name", power.SINKS)
async def test_power_lost_at_any_call_to_the_disk_changes_nothing_in_the_end(name: str) -> None:
    seen = await power.run_kind(power.SINKS[name], again=20 if name == "jsonl" else 4)
    assert (seen.different, seen.lost) == (0, 0)
    assert seen.points > 40


def without_sync(self: power.FrailDisk, file: BinaryIO) -> None:
    self._tick()


def in_place(self: power.FrailDisk, source: Path, target: Path) -> None:
    Disk.remove(self, target)
    with self.create(target) as file:
        self.write(file, source.read_bytes())
    Disk.remove(self, source)


def only(*names: str) -> Callable[[power.FrailDisk, Path], None]:
    """Syncs of the folders of these names alone."""
    sync_folder = power.FrailDisk.sync_folder

    def synced(self: power.FrailDisk, folder: Path) -> None:
        if folder.name in names or (folder.name.isdigit() and "root" in names):
            sync_folder(self, folder)
        else:
            self._tick()

    return synced


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        ("sync", without_sync),
        ("replace", in_place),
        ("sync_folder", only("root", "new")),
        ("sync_folder", only("root", "out")),
        ("sync_folder", only("new", "out")),
    ],
    ids=["files not synced", "written in place", "folder not synced", "its parent not synced", "nor the parent's"],
)
async def test_a_sink_that_does_not_sync_is_found_out(
    monkeypatch: pytest.MonkeyPatch, call: str, instead: Callable[..., None]
) -> None:
    """The test of the test: what is left out here does not survive."""
    monkeypatch.setattr(power.FrailDisk, call, instead)
    found = 1
    with suppress(DestinationError):  # a torn manifest is found by the next run itself
        seen = await power.run_kind(power.SINKS["jsonl"], again=0)
        found = seen.different + seen.lost
    assert found > 0


def test_killed_processes_leave_nothing_wrong() -> None:
    seen = kills.run(20)
    assert seen.kills == 20
    assert (seen.different, seen.repeated, seen.failed) == (0, 0, 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_within_two_seconds_and_leaves_no_temporary_file(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with kills.simulator().in_thread() as served:
        job = kills.Job(served, tmp_path / "out")
        process = job.start()
        while served.stats.requests < 15:
            time.sleep(0.01)
        process.send_signal(number)
        sent = time.monotonic()
        _, errors = process.communicate(timeout=10)
        assert time.monotonic() - sent < 2
        assert process.returncode == code
        assert "run" in errors.decode()
        assert "Traceback" not in errors.decode()
        assert not list(job.folder.glob(".segments-*"))
        assert job.finish()[0] == 0
        assert sorted(job.ids()) == sorted(served.ids(served.dataset.start, served.dataset.end))


def test_no_changed_answer_is_taken_for_a_page_or_ends_in_a_foreign_error() -> None:
    seen, wrong = fuzz.run(100_000, seed=1, keep=lambda _: None)
    assert wrong == []
    assert seen["accepted"] > 1_000
    assert seen["quick"] > 400 or not COMPILED


def test_a_lenient_decoder_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(body: bytes) -> SegmentPage:
        try:
            return msgspec.json.decode(body, type=SegmentPage, strict=False)
        except msgspec.DecodeError as error:
            raise TransientError(str(error)) from None

    monkeypatch.setattr(fuzz, "read_page", lenient)
    _, wrong = fuzz.run(20_000, seed=1, keep=lambda _: None)
    assert wrong
