"""Drafts of many windows at once."""

from __future__ import annotations

from pathlib import Path

from segment_fetch import Segment
from segment_fetch.manifest.commit_log import MOST_DRAFTS, CommitLog
from segment_fetch.sinks import JsonlSink
from tests.support_runs import names
from tests.support_sinks import QUERY, hours, window_read


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_the_number_of_open_files_is_bounded_however_many_windows_are_being_written(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path)
    log = CommitLog(sink, QUERY, sink.open())
    windows = [hours(at, at + 1) for at in range(3 * MOST_DRAFTS)]
    before = open_files()
    for window in windows:
        log.add(window, [sink.encode([Segment(segmentId=str(window), endTimeL=window.start)])])
    assert open_files() == before + MOST_DRAFTS
    for window in reversed(windows):
        log.commit(window_read(window))
    assert open_files() == before + 1, "the log of commits"
    log.close()
    assert open_files() == before
    sink.close()
    files = [name for name in names(tmp_path) if name.endswith(".jsonl")]
    assert len(files) == len(windows)
    assert all((tmp_path / name).read_bytes().count(b"\n") == 1 for name in files)
