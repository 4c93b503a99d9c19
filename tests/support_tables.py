"""Helpers for tests of destinations in tables: windows with rows of their own, committed by a commit log."""

from __future__ import annotations

from segment_fetch import Segment, Window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks.tables.base import TableSink
from tests.support_sinks import QUERY, hours, window_read

ONE, TWO = hours(0, 1), hours(1, 2)


def rows(window: Window, *texts: str) -> list[Segment]:
    """Segments of a window, whose ids are these texts."""
    return [Segment(segmentId=text, endTimeL=window.start + at, agentId=at) for at, text in enumerate(texts)]


def commit(sink: TableSink, window: Window, segments: list[Segment], status: str = "complete") -> WindowEntry:
    """A run that stores one window."""
    try:
        log = CommitLog(sink, QUERY, sink.open())
        return put(log, sink, window, segments, status)
    finally:
        sink.close()


def put(
    log: CommitLog, sink: TableSink, window: Window, segments: list[Segment], status: str = "complete"
) -> WindowEntry:
    """A window, within a run."""
    counts = {"count": len(segments), "segments": len(segments)}
    return log.commit(window_read(window, [sink.encode(segments)], status, **counts))  # type: ignore[arg-type]


def to_read(sink: TableSink, window: Window) -> list[Window]:
    """Return the parts of a range that a run would still have to read."""
    log = CommitLog(sink, QUERY, sink.open())
    try:
        return log.resume(window.start, window.end, window.start)[0]
    finally:
        sink.close()


def keys(sink: TableSink) -> list[str]:
    """The ids in the windows of the manifest, in order."""
    log = CommitLog(sink, QUERY, sink.look())
    try:
        return [key[1] for entry in log.entries for key in sink.keys(entry.written)]
    finally:
        sink.close()
