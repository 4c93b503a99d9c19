"""The rows that a table's windows keep in memory are bounded, and none is lost of those that go elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from segment_fetch import Segment, Window
from segment_fetch.sinks.tables.drafts import TableDraft
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from segment_fetch.timerange import format_time
from tests.support_sinks import hours
from tests.support_tables import rows

WINDOWS = [hours(at, at + 1) for at in range(6)]


def segments(window: Window, count: int) -> list[Segment]:
    return rows(window, *(f"{window.start}-{at:02}" for at in range(count)))


def checksums(path: Path, held: int, counts: Sequence[int]) -> tuple[list[str | None], list[tuple[object, ...]], int]:
    """Begins one window for each of these, two segments at a time by turns, then finishes and publishes all of them:
    the checksums, the rows in the table, and the most that were in memory.
    """
    sink = DuckDbSink(path)
    sink.held, peak = held, 0
    sink.open()
    try:
        wanted = [segments(window, count) for window, count in zip(WINDOWS, counts, strict=True)]
        drafts: list[TableDraft] = [sink.begin(window) for window in WINDOWS]
        for at in range(0, max(counts), 2):
            for draft, mine in zip(drafts, wanted, strict=True):
                if mine[at : at + 2]:
                    draft.add(sink.encode(mine[at : at + 2]))
                peak = max(peak, sum(each.rows for each in drafts))
        written = [draft.finish() for draft in drafts]
        entries = ",".join(
            f'{{"from":"{format_time(window.start)}","to":"{format_time(window.end)}","status":"complete",'
            f'"segments":{count},"file":"{one.file}","sha256":"{one.sha256}"}}'
            for window, one, count in zip(WINDOWS, written, counts, strict=True)
        )
        keys = [[key[1] for key in sink.keys(one)] for one in written[:2]]
        assert keys == [[segment.segmentId for segment in mine] for mine in wanted[:2]]
        sink.publish(f'{{"windows":[{entries}]}}'.encode(), [])
        assert all(sink.intact(one) for one in written)
        stored = list(sink.ask("SELECT segment_id FROM agent_segments ORDER BY 1"))
        assert [draft.rows for draft in drafts] == [0] * len(drafts)
        return [one.sha256 for one in written], stored, peak
    finally:
        sink.close()


@pytest.mark.parametrize("held", [0, 1, 5, 20])
def test_the_rows_in_memory_of_all_windows_are_bounded(tmp_path: Path, held: int) -> None:
    counts = [10, 3, 7, 1, 12, 10]
    few = checksums(tmp_path / "few.duckdb", held, counts)
    all_in_memory = checksums(tmp_path / "all.duckdb", 1000, counts)
    assert few[:2] == all_in_memory[:2]
    assert len(few[1]) == sum(counts)
    assert few[2] <= held
    assert all_in_memory[2] == sum(counts)


def test_windows_that_wait_to_be_published_make_room(tmp_path: Path) -> None:
    sink = DuckDbSink(tmp_path / "waiting.duckdb")
    sink.held = 10
    sink.open()
    try:
        drafts = []
        for window in WINDOWS:
            sink.write(window, [sink.encode(segments(window, 4))])
            drafts.append(sink._drafts[sink.name(window)])
            assert sum(each.rows for each in drafts) <= 10
        assert [draft.finished for draft in drafts] == [True] * len(drafts)
        assert [draft.rows for draft in drafts].count(0) == 4
    finally:
        sink.close()
