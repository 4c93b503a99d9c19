"""A folder on disk: the order of its calls, what it refuses, what it removes, and what a crash leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segment_fetch import DestinationBusyError, DestinationError, InputError, ManifestError, Segment, Window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.sinks import CsvSink, JsonlSink
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.sinks.files.file_names import stamp
from tests.support_runs import contents, names, without_count
from tests.support_sinks import QUERY, DeathError, DyingDisk, FailingDisk, LoggedDisk, hours, window_read

ONE, TWO, THREE = hours(0, 1), hours(1, 2), hours(2, 3)
FILE_ONE = "segments-20261101T000000000Z-20261101T010000000Z.jsonl"
FILE_TWO = "segments-20261101T010000000Z-20261101T020000000Z.jsonl"


def commit(sink: JsonlSink, *windows: Window, status: str = "complete") -> None:
    """A run that reads what is missing between the first and the last of these windows, cut as they are."""
    log = None
    try:
        log = CommitLog(sink, QUERY, sink.open())
        due, _ = log.resume(windows[0].start, windows[-1].end, windows[0].start)
        for window in windows:
            if any(part.start <= window.start and window.end <= part.end for part in due):
                rows = [Segment(segmentId=str(window), endTimeL=window.start)]
                log.commit(window_read(window, [sink.encode(rows)], status))  # type: ignore[arg-type]
        log.abandon()
    finally:
        try:
            if log is not None:
                log.close()
        finally:
            sink.close()


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1_793_491_200_000, "20261101T000000000Z"),
        (1_793_491_200_007, "20261101T000000007Z"),
        (0, "19700101T000000000Z"),
    ],
)
def test_stamp(ms: int, text: str) -> None:
    assert stamp(ms) == text


@pytest.mark.parametrize(("compress", "suffix"), [("none", ""), ("gzip", ".gz"), ("zstd", ".zst")])
def test_files_are_named_by_window_and_format(tmp_path: Path, compress: str, suffix: str) -> None:
    assert JsonlSink(tmp_path, compress).name(ONE) == FILE_ONE + suffix
    assert CsvSink(tmp_path, compress).name(ONE) == FILE_ONE.replace("jsonl", "csv") + suffix


def test_unknown_compression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'bzip2' is unknown: choose one of none, gzip, zstd"):
        JsonlSink(tmp_path, "bzip2")


def test_calls_to_the_disk_stand_in_the_safe_order(tmp_path: Path) -> None:
    disk = LoggedDisk()
    commit(JsonlSink(tmp_path, disk=disk), ONE, status="provisional")
    commit(JsonlSink(tmp_path, disk=disk), hours(0, 0.5), hours(0.5, 1))
    manifest = ["create .manifest.json.partial", "write", "sync", "replace manifest.json", "sync_folder"]

    def file(name: str) -> list[str]:
        return [f"create .{name}.partial", "write", "sync", f"replace {name}", "sync_folder"]

    log = ["create manifest.log", "write", "sync"]
    first, second = (FILE_ONE.replace("T010", "T003"), FILE_ONE.replace("T000000000Z-", "T003000000Z-"))
    assert disk.calls == [
        *["make_folder", "sync_folder", *manifest, *file(FILE_ONE), *log, "sync_folder"],
        *[*manifest, "remove manifest.log"],
        *["make_folder", *file(first), *file(second), *log, "sync_folder", f"remove {FILE_ONE}"],
        *[*manifest, "remove manifest.log"],
    ]


def test_disk_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink().name)))
    disk = Disk()
    disk.make_folder(tmp_path / "a")
    disk.make_folder(tmp_path / "a" / "b")
    disk.make_folder(tmp_path / "a" / "b")
    with disk.create(tmp_path / "a" / "old") as file:
        disk.write(file, b"abc")
        assert (tmp_path / "a" / "old").read_bytes() == b"abc", "written, not kept in a buffer"
        disk.sync(file)
    disk.replace(tmp_path / "a" / "old", tmp_path / "a" / "new")
    disk.sync_folder(tmp_path / "a")
    disk.remove(tmp_path / "a" / "new")
    disk.remove(tmp_path / "a" / "new")
    assert synced == ["old", "a"]
    assert names(tmp_path / "a") == ["b"]


def test_short_writes_are_completed(tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.taken = b""

        def write(self, data: memoryview) -> int:
            self.taken += data[:2]
            return min(2, len(data))

    file = Slow()
    Disk().write(file, b"abcde")  # type: ignore[arg-type]
    assert file.taken == b"abcde"


def test_the_disk_begins_with_a_file_while_it_is_written(tmp_path: Path) -> None:
    disk, mib = LoggedDisk(), 2**20
    draft = JsonlSink(tmp_path, disk=disk).begin(ONE)
    for size in (3, 2, 1, 9, 3):
        draft.add(bytes(size * mib))
    draft.finish()
    writes = ["write", "write", f"write_back {5 * mib} from 0", "write", "write"]
    assert disk.calls[1:-3] == [*writes, f"write_back {10 * mib} from {5 * mib}", "write"]


@pytest.mark.parametrize("offered", [True, False])
def test_a_system_that_cannot_begin_early_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, offered: bool
) -> None:
    advised: list[tuple[int, ...]] = []
    if offered:
        monkeypatch.setattr(os, "posix_fadvise", lambda _, *advice: advised.append(advice), raising=False)
        monkeypatch.setattr(os, "POSIX_FADV_DONTNEED", 4, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with (tmp_path / "a").open("wb") as file:
        Disk().write_back(file, 3, 7)
    assert advised == ([(3, 7, 4)] if offered else [])


def test_a_system_that_refuses_to_begin_early_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    with (tmp_path / "a").open("wb") as file:
        Disk().write_back(file, 0, 1)


def test_second_run_in_this_process_is_refused(tmp_path: Path) -> None:
    first, second = JsonlSink(tmp_path), JsonlSink(tmp_path)
    first.open()
    with pytest.raises(DestinationBusyError, match="another run is writing"):
        second.open()
    with pytest.raises(DestinationBusyError):
        first.open()
    with pytest.raises(DestinationBusyError):
        second.open()
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(DestinationBusyError):
            second.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == handles
    first.close()
    second.open()
    second.close()


@pytest.mark.parametrize(
    ("harm", "holds"),
    [
        (lambda path: path, True),
        (lambda path: path.write_bytes(b"[]"), True),
        (lambda path: path.write_bytes(b"[]\n"), False),
        (lambda path: path.write_bytes(b""), False),
        (Path.unlink, False),
    ],
)
def test_file_holds_while_it_has_its_size(tmp_path: Path, harm: Callable[[Path], object], holds: bool) -> None:
    sink = JsonlSink(tmp_path)
    written = sink.write(ONE, [b"{}"])
    harm(tmp_path / FILE_ONE)
    assert sink.holds(written) is holds


HOLDER = """
import sys
from segment_fetch.sinks import JsonlSink
sink = JsonlSink(sys.argv[1])
sink.open()
print("open", flush=True)
sys.stdin.read()
"""


def test_second_run_in_another_process_is_refused_until_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(DestinationBusyError):
            JsonlSink(tmp_path).open()
        other.kill()
        other.wait(20)
    commit(JsonlSink(tmp_path), ONE)


FOREIGN = [
    "notes.txt",
    ".hidden.partial",
    ".rsync.segments.partial",
    "segments.jsonl",
    "manifest.json.bak",
    FILE_ONE + ".bak",
    FILE_ONE + ".gz",
    FILE_ONE.replace(".jsonl", ".csv"),
    FILE_ONE.replace(".jsonl", ".copy.jsonl"),
    "segments-99999999T999999999Z-99999999T999999999Z.jsonl",
    "segments-20261101T010000000Z-20261101T000000000Z.jsonl",
    "segments-20261101T000000000Z-20261101T010000000Z-x.jsonl",
    "segments-٢0261101T000000000Z-20261101T010000000Z.jsonl",
]
LEFTOVERS = [
    f".{FILE_ONE}.partial",
    f".{FILE_ONE}.gz.partial",
    ".manifest.json.partial",
    "segments-20261101T003000000Z-20261101T013000000Z.jsonl",
    "segments-20261101T010000000Z-20261101T013000000Z.jsonl",
]


def test_leftovers_go_and_foreign_files_stay(tmp_path: Path) -> None:
    commit(JsonlSink(tmp_path), ONE)
    for name in FOREIGN + LEFTOVERS:
        (tmp_path / name).write_text("mine")
    (tmp_path / "segments-dir").mkdir()
    commit(JsonlSink(tmp_path), ONE, TWO)
    assert names(tmp_path) == sorted([*FOREIGN, FILE_ONE, FILE_TWO, "manifest.json", "segments-dir"])
    assert all((tmp_path / name).read_text() == "mine" for name in FOREIGN)


def test_leftover_among_complete_windows_goes(tmp_path: Path) -> None:
    commit(JsonlSink(tmp_path), ONE, TWO)
    before = contents(tmp_path)
    (tmp_path / LEFTOVERS[-1]).write_text("of a window that was replaced")
    commit(JsonlSink(tmp_path), ONE, TWO)
    assert contents(tmp_path) == before


def test_segments_outside_of_the_range_stay(tmp_path: Path) -> None:
    commit(JsonlSink(tmp_path), ONE)
    later = JsonlSink(tmp_path).name(THREE)
    (tmp_path / later).write_text("of a run over another range")
    commit(JsonlSink(tmp_path), ONE, TWO)
    assert later in names(tmp_path)


@pytest.mark.parametrize("name", [FILE_ONE, FILE_ONE + ".gz", FILE_ONE.replace("jsonl", "csv")])
def test_segments_without_a_manifest_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("whose?")
    with pytest.raises(DestinationError, match=r"holds segments-.* but no manifest\.json: restore"):
        JsonlSink(tmp_path).open()
    assert contents(tmp_path) == {name: b"whose?"}
    (tmp_path / name).unlink()
    commit(JsonlSink(tmp_path), ONE)


@pytest.mark.parametrize("climb", ["../victim", "/victim", "./victim", "sub/../../victim"])
def test_manifest_cannot_reach_out_of_the_folder(tmp_path: Path, climb: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"x")
    folder = tmp_path / "out"
    commit(JsonlSink(folder), ONE, status="provisional")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["windows"][0] |= {"file": str(tmp_path) + climb if climb.startswith("/") else climb, "bytes": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = contents(folder)
    with pytest.raises(ManifestError, match="the file of window"):
        commit(JsonlSink(folder), ONE)
    assert victim.read_bytes() == b"x"
    assert contents(folder) == before


def not_a_folder(path: Path) -> None:
    path.write_text("a file")


def below_a_file(path: Path) -> None:
    path.parent.joinpath("file").write_text("a file")


def manifest_is_a_folder(path: Path) -> None:
    (path / "manifest.json").mkdir(parents=True)


@pytest.mark.parametrize(
    ("prepare", "at", "says"),
    [
        (not_a_folder, "out", "out is not a folder: choose another"),
        (below_a_file, "file/out", "out is not a folder: choose another"),
        (manifest_is_a_folder, "out", "cannot write .*manifest.json"),
    ],
)
def test_place_that_cannot_be_used_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None], at: str, says: str
) -> None:
    prepare(tmp_path / "out")
    for _ in range(2):  # the lock, if taken, is given back
        with pytest.raises(DestinationError, match=says):
            JsonlSink(tmp_path / at).open()


ADVICE = {
    errno.ENOSPC: "no space left for .*: free some and run again",
    errno.EDQUOT: "no space left for .*: free some and run again",
    errno.EIO: "cannot write .*: Input/output error; fix that, or choose another folder, and run again",
    errno.EACCES: "no permission to write .*: grant it, or choose another folder",
    errno.EROFS: "cannot be written, as its file system is read-only: choose another folder",
}


@pytest.mark.parametrize("error", ADVICE)
def test_failing_disk_is_told_with_advice(tmp_path: Path, error: int) -> None:
    with pytest.raises(DestinationError, match=ADVICE[error]) as caught:
        commit(JsonlSink(tmp_path, disk=FailingDisk(9, error)), ONE)
    assert isinstance(caught.value.__cause__, OSError)


def nightly(folder: Path, disk: Disk) -> None:
    """Three windows, the last two of them provisional."""
    commit(JsonlSink(folder, "gzip", disk=disk), ONE)
    commit(JsonlSink(folder, "gzip", disk=disk), ONE, TWO, THREE, status="provisional")


def following(folder: Path, disk: Disk) -> None:
    """Provisional windows are replaced: one window by two, the other by itself."""
    commit(JsonlSink(folder, "gzip", disk=disk), ONE, hours(1, 1.5), hours(1.5, 2), THREE)


ERRORS: dict[str, Callable[[int], FailingDisk | DyingDisk]] = {
    "no space": lambda at: FailingDisk(at, errno.ENOSPC),
    "input/output error": lambda at: FailingDisk(at, errno.EIO),
    "killed": DyingDisk,
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("first", [True, False], ids=["first run", "replacing"])
def test_interrupted_at_any_call_and_run_again(tmp_path: Path, kind: str, first: bool) -> None:
    run, prepared, end = nightly if first else following, tmp_path / "prepared", tmp_path / "end"
    prepared.mkdir()
    if not first:
        nightly(prepared, LoggedDisk())
    shutil.copytree(prepared, end)
    run(end, LoggedDisk())
    at, failed = 0, True
    while failed:
        folder = tmp_path / str(at)
        shutil.copytree(prepared, folder)
        disk = ERRORS[kind](at)
        try:
            run(folder, disk)
        except (DestinationError, DeathError):
            assert disk.failed
            assert kind == "killed" or not [name for name in names(folder) if name.endswith(".partial")]
        run(folder, LoggedDisk())
        assert without_count(contents(folder)) == without_count(contents(end)), (
            f"interrupted at {disk.calls[at:][:1]}, number {at}"
        )
        at, failed = at + 1, disk.failed
    assert at > 25
