"""File systems that lack something: folders that cannot be synced, locks that are missing or do not hold, macOS."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from io import FileIO
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from segment_fetch import DestinationBusyError, DestinationError, Segment, Window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.sinks import JsonLines, JsonlSink
from segment_fetch.sinks.files import disk as files_disk
from segment_fetch.sinks.files.disk import Disk, is_locked, make_folders, release, take_lock
from tests.support_runs import contents, names
from tests.support_sinks import QUERY, LoggedDisk, hours, window_read

ONE, TWO = hours(0, 1), hours(1, 2)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refused(_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refused)
    Disk().sync_folder(tmp_path)
    with (tmp_path / "a").open("wb") as file, pytest.raises(OSError, match=os.strerror(error)):
        Disk().sync(file)


def test_folder_whose_sync_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match="Input/output error"):
        Disk().sync_folder(tmp_path)


@pytest.mark.parametrize("known", [True, False], ids=["APFS", "a network"])
def test_macos_is_asked_for_a_full_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, known: bool) -> None:
    calls: list[object] = []

    def control(_: int, command: int) -> int:
        calls.append(command)
        if not known:
            raise OSError(errno.ENOTSUP, "not here")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    with (tmp_path / "a").open("wb") as file:
        Disk().sync(file)
    assert calls == ([51] if known else [51, "fsync"])


def test_parents_of_a_new_folder_are_synced_from_the_top(tmp_path: Path) -> None:
    class Noting(LoggedDisk):
        def make_folder(self, folder: Path) -> None:
            super().make_folder(folder)
            self.calls[-1] += f" {folder.relative_to(tmp_path)}"

        def sync_folder(self, folder: Path) -> None:
            super().sync_folder(folder)
            self.calls[-1] += f" {folder.relative_to(tmp_path)}"

    disk = Noting()
    make_folders(disk, tmp_path / "a" / "b")
    made = ["make_folder a", "sync_folder .", "make_folder a/b", "sync_folder a"]
    assert disk.calls == made
    disk.calls.clear()
    JsonlSink(tmp_path / "a" / "b", disk=disk).open()
    assert disk.calls == ["make_folder a/b", "sync_folder a"], "an earlier run may have been killed before the sync"


def no_locks(monkeypatch: pytest.MonkeyPatch, error: int | None) -> None:
    """A file system that refuses locks with an error, or grants every one of them."""

    def flock(_: int, __: int) -> None:
        if error is not None:
            raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)


NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, None]


@pytest.mark.parametrize("error", NO_LOCKS)
def test_without_locks_it_warns_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int | None
) -> None:
    no_locks(monkeypatch, error)
    handles = len(list(Path("/proc/self/fd").iterdir()))
    with caplog.at_level(logging.WARNING):
        assert take_lock(tmp_path / ".lock", tmp_path) is None
    assert f"the file system of {tmp_path} does not lock files" in caplog.text
    assert not is_locked(tmp_path / ".lock")
    assert len(list(Path("/proc/self/fd").iterdir())) == handles


def test_error_of_a_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_locks(monkeypatch, errno.EIO)
    with pytest.raises(DestinationError, match="Input/output error"):
        JsonlSink(tmp_path).open()


def test_closing_a_lock_that_fails_is_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = JsonlSink(tmp_path)
    sink.open()
    close = os.close

    def failing(handle: int) -> None:
        close(handle)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", failing)
        sink.close()
    assert "closing the lock file failed: Input/output error" in caplog.text
    assert not is_locked(tmp_path / ".lock")


def test_closing_the_log_of_commits_that_fails_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each commit has been synced by then; the lock is released all the same."""

    class Failing(FileIO):
        def close(self) -> None:
            was_open = not self.closed
            super().close()
            if was_open:
                raise OSError(errno.EIO, "Input/output error")

    class FailingDisk(Disk):
        def create(self, path: Path) -> BinaryIO:
            if path.suffix != ".log":
                return super().create(path)
            return cast("BinaryIO", Failing(path, "xb"))

    sink = JsonlSink(tmp_path, disk=FailingDisk())
    log = log_of(sink)
    for window in (ONE, TWO):
        log.commit(window_read(window, line(window)))
    sink.close()
    assert "manifest.log failed: Input/output error" in caplog.text
    assert not sink.in_use
    assert audit(tmp_path).windows == 2


def test_somebody_who_only_looks_does_not_keep_a_run_out(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    handle = take_lock(path, tmp_path)
    assert handle is not None
    fcntl.flock(handle, fcntl.LOCK_SH)  # as `is_locked` does for an instant
    timer = threading.Timer(0.002, release, [handle])
    timer.start()
    second = take_lock(path, tmp_path)
    timer.join()
    assert second is not None
    release(second)


def log_of(sink: JsonlSink) -> CommitLog:
    return CommitLog(sink, QUERY, sink.open())


def test_of_two_runs_without_locks_the_second_to_commit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has the same window, with other contents. What the first one committed is whole, and named rightly."""
    no_locks(monkeypatch, errno.ENOLCK)
    first, second = JsonlSink(tmp_path), JsonlSink(tmp_path)
    logs = [log_of(first), log_of(second)]
    rows = [[Segment(segmentId=name, endTimeL=ONE.start)] for name in ("first", "second")]
    logs[1].add(ONE, [second.encode(rows[1])])  # stores a manifest without windows
    with pytest.raises(DestinationBusyError, match="does not lock files"):
        logs[0].commit(window_read(ONE, [first.encode(rows[0])]))
    logs[1].commit(window_read(ONE))
    logs[0].withdraw()
    [entry] = json.loads((tmp_path / "manifest.json").read_bytes())["windows"]
    assert b"second" in (tmp_path / entry["file"]).read_bytes()
    second.close()
    reader = JsonlSink(tmp_path)
    log = log_of(reader)
    assert log.intact([ONE]) == [ONE]
    log.resume(ONE.start, TWO.end, ONE.start)
    assert [name for name in names(tmp_path) if "segments" in name] == [entry["file"]]


def line(window: Window) -> list[bytes]:
    """The parts of a window with one segment."""
    return [JsonLines().encode([Segment(segmentId=str(window), endTimeL=window.start)])]


@pytest.fixture
def locks_of_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs believe to hold the lock, and give a window's file the same name."""
    monkeypatch.setattr(files_disk, "_lock", lambda _: True)
    monkeypatch.setattr(files_disk, "_is_refused_twice", lambda _: True)


def settled(folder: Path) -> None:
    """A destination with a manifest and without a log."""
    sink = JsonlSink(folder)
    log = log_of(sink)
    log.commit(window_read(ONE, line(ONE)))
    log.close()
    sink.close()


@pytest.mark.usefixtures("locks_of_two_machines")
@pytest.mark.parametrize("begun", [0, 1, 2], ids=["at the same time", "after the first commit", "after a later one"])
def test_lock_that_another_machine_does_not_see(tmp_path: Path, begun: int) -> None:
    """Whichever of them commits first, the other is refused, and harms nothing of what is committed."""
    settled(tmp_path)
    windows = [hours(at, at + 1) for at in range(1, 5)]
    first, second = JsonlSink(tmp_path), JsonlSink(tmp_path)
    log = log_of(first)
    for window in windows[:begun]:
        log.commit(window_read(window, line(window)))
    other = log_of(second)
    other.commit(window_read(windows[2], line(windows[2])))
    before = contents(tmp_path)
    with pytest.raises(DestinationBusyError, match="another run has written"):
        log.commit(window_read(windows[3], line(windows[3])))
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before
    first.close()
    second.close()
    found = audit(tmp_path)
    assert found.windows == 2 + begun
    assert {finding.kind for finding in found.findings} <= {"extra file", "gap"}


def test_what_another_run_left_is_deleted_after_a_day_where_no_lock_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_locks(monkeypatch, None)
    log = log_of(JsonlSink(tmp_path))
    log.commit(window_read(ONE, [b"{}\n"]))
    young, old = tmp_path / f"{JsonlSink(tmp_path).name(TWO)}", tmp_path / f".{JsonlSink(tmp_path).name(TWO)}.partial"
    for path in (young, old):
        path.write_bytes(b"")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    log_of(JsonlSink(tmp_path)).resume(ONE.start, TWO.end, ONE.start)
    assert (young.exists(), old.exists()) == (True, False)
