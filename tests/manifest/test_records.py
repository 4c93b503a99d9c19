"""Records beside the manifest: cut off, damaged, left behind, and read back by everybody in the same way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segment_fetch import DestinationError, ManifestError, Segment, Window
from segment_fetch.events import Status
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.reader import read_committed
from segment_fetch.manifest.verify import audit, manifest_of
from segment_fetch.sinks import JsonlSink, ParquetSink
from segment_fetch.sinks.files.commit_records import frame, unframe
from segment_fetch.sinks.files.folder import FolderSink
from tests.support_runs import names
from tests.support_sinks import QUERY, hours, window_read

ONE, TWO, THREE = hours(0, 1), hours(1, 2), hours(2, 3)


def killed(sink: FolderSink[bytes], *windows: Window, status: Status = "complete") -> None:
    """A run that commits these windows and ends without closing its commit log."""
    log = CommitLog(sink, QUERY, sink.open())
    for window in windows:
        rows = [Segment(segmentId=str(window), endTimeL=window.start)]
        log.commit(window_read(window, [sink.encode(rows)], status))
    sink.close()


def reopened(folder: Path) -> list[tuple[Window, str]]:
    """The windows that the next run finds; it leaves one whole manifest."""
    sink = JsonlSink(folder)
    log = CommitLog(sink, QUERY, sink.open())
    found: list[tuple[Window, str]] = [(entry.window, entry.status) for entry in log.entries]
    log.close()
    sink.close()
    assert "manifest.log" not in names(folder)
    assert [each["status"] for each in json.loads((folder / "manifest.json").read_bytes())["windows"]] == [
        status for _, status in found
    ]
    return found


def test_what_a_killed_run_committed_is_read_back_and_folded_in(tmp_path: Path) -> None:
    killed(JsonlSink(tmp_path), ONE, TWO)
    assert json.loads((tmp_path / "manifest.json").read_bytes())["windows"] == []
    assert [entry.window for entry in manifest_of(tmp_path).windows] == [ONE, TWO]
    assert (audit(tmp_path).sound, audit(tmp_path).segments) == (True, 2)
    assert reopened(tmp_path) == [(ONE, "complete"), (TWO, "complete")]
    assert audit(tmp_path).complete_before == "2026-11-01T02:00:00Z"


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_last_record_that_was_cut_off_is_dropped(tmp_path: Path, cut: int) -> None:
    killed(JsonlSink(tmp_path), ONE, TWO)
    log = tmp_path / "manifest.log"
    log.write_bytes(log.read_bytes()[:-cut])
    assert [entry.window for entry in manifest_of(tmp_path).windows] == [ONE]
    assert reopened(tmp_path) == [(ONE, "complete")]


def test_a_last_record_with_a_hole_in_it_is_dropped(tmp_path: Path) -> None:
    killed(JsonlSink(tmp_path), ONE, TWO)
    log = tmp_path / "manifest.log"
    data = log.read_bytes()
    log.write_bytes(data[:-50] + bytes(20) + data[-30:])
    assert reopened(tmp_path) == [(ONE, "complete")]


def test_a_log_of_which_nothing_is_whole_is_removed(tmp_path: Path) -> None:
    killed(JsonlSink(tmp_path), ONE)
    log = tmp_path / "manifest.log"
    log.write_bytes(log.read_bytes()[:30])
    assert reopened(tmp_path) == []


def test_a_damaged_record_in_the_middle_is_named(tmp_path: Path) -> None:
    killed(JsonlSink(tmp_path), ONE, TWO, THREE)
    log = tmp_path / "manifest.log"
    log.write_bytes(log.read_bytes().replace(b"2026-11-01T02", b"2026-11-01T03", 1))
    with pytest.raises(ManifestError, match=r"line 2 of manifest\.log does not match its checksum; restore"):
        JsonlSink(tmp_path).open()
    [finding] = audit(tmp_path).findings
    assert (finding.kind, finding.where) == ("bad manifest", "manifest.json")
    assert "line 2 of manifest.log" in finding.message


def test_a_missing_record_in_the_middle_is_named(tmp_path: Path) -> None:
    killed(JsonlSink(tmp_path), ONE, TWO, THREE)
    log = tmp_path / "manifest.log"
    first, _, third = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(first + third)
    sink = JsonlSink(tmp_path)
    with pytest.raises(ManifestError, match="commit 3 is missing from the appended records"):
        CommitLog(sink, QUERY, sink.open())
    sink.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("commit"),
        lambda record: record["windows"][0].update(status="done"),
        lambda record: record["windows"][0].update(to=record["windows"][0]["from"]),
        lambda record: record["windows"][0].update(segments=-1),
        lambda record: record["windows"][0].update(file="../../etc/passwd"),
    ],
)
def test_a_record_is_checked_as_the_manifest_is(tmp_path: Path, change: object) -> None:
    killed(JsonlSink(tmp_path), ONE)
    log = tmp_path / "manifest.log"
    [record] = unframe(log.read_bytes(), "manifest.log")
    value = json.loads(record)
    change(value)  # type: ignore[operator]
    log.write_bytes(frame(json.dumps(value).encode()))
    sink = JsonlSink(tmp_path)
    with pytest.raises(ManifestError, match="the manifest is damaged"):
        CommitLog(sink, QUERY, sink.open())
    sink.close()


def test_records_that_the_manifest_holds_already_are_passed_over(tmp_path: Path) -> None:
    """A run that is killed between its last manifest and the deletion of the log."""
    killed(JsonlSink(tmp_path), ONE, TWO)
    left = (tmp_path / "manifest.log").read_bytes()
    assert len(reopened(tmp_path)) == 2
    (tmp_path / "manifest.log").write_bytes(left)
    assert audit(tmp_path).sound
    killed(JsonlSink(tmp_path), THREE)
    assert len(unframe((tmp_path / "manifest.log").read_bytes(), "")) == 1
    assert len(reopened(tmp_path)) == 3


def test_a_manifest_that_is_replaced_while_it_is_read_is_whole(tmp_path: Path) -> None:
    """The log is read first, so a manifest that is stored meanwhile has at least what was in it."""
    killed(JsonlSink(tmp_path), ONE, TWO)
    records = unframe((tmp_path / "manifest.log").read_bytes(), "")
    reopened(tmp_path)
    assert len(read_committed((tmp_path / "manifest.json").read_bytes(), records).entries) == 2


def test_new_folders_of_parquet_hide_the_manifest_and_old_ones_keep_theirs(tmp_path: Path) -> None:
    killed(ParquetSink(tmp_path), ONE)
    assert [name for name in names(tmp_path) if "manifest" in name] == ["_manifest.json", "_manifest.log"]
    assert audit(tmp_path).sound
    for name in ("_manifest.json", "_manifest.log"):
        (tmp_path / name).rename(tmp_path / name[1:])
    killed(ParquetSink(tmp_path), TWO)
    assert [name for name in names(tmp_path) if "manifest" in name] == ["manifest.json"]
    assert [entry.window for entry in manifest_of(tmp_path).windows] == [ONE, TWO]


def test_two_manifests_are_refused(tmp_path: Path) -> None:
    killed(ParquetSink(tmp_path), ONE)
    (tmp_path / "manifest.json").write_bytes((tmp_path / "_manifest.json").read_bytes())
    with pytest.raises(DestinationError, match=r"has manifest\.json and _manifest\.json: move the one away"):
        ParquetSink(tmp_path).open()
