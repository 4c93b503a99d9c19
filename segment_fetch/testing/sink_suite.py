"""The promises of a destination, each with a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from segment_fetch.errors import DestinationBusyError, DestinationError
from segment_fetch.events import Status
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.committer import committing
from segment_fetch.manifest.format import WindowEntry
from segment_fetch.manifest.reader import read_committed
from segment_fetch.query import Filters, Query, Window
from segment_fetch.sinks.base import Sink, encoded_lines
from segment_fetch.sinks.files.formats import JsonLines
from segment_fetch.testing.medium import Medium
from segment_fetch.testing.values import BOTH, ONE, THREE, TWO, VALUES, rows_of
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Segment

_QUERY = Query("111111", "conformance", Filters(skill_id="7"))
_PATIENCE_S = 20
_MANY, _PAGE = 2000, 300


class SinkConformance:
    """The conformance tests. The fixture `medium` of the subclass returns a new, empty destination for each test.

    A window is complete or absent; writing it again replaces it; the manifest is written last and names only existing
    data; every value is read back unchanged, or is refused; an error of the medium is a `DestinationError`.
    """

    @pytest.fixture
    def medium(self) -> Medium:
        raise NotImplementedError("override the fixture `medium` so that it returns the storage of the sink")

    @pytest.mark.parametrize("kind", VALUES)
    def test_every_value_comes_back_or_is_refused(self, medium: Medium, kind: str) -> None:
        """A value is stored exactly as it was read, or refused with an error; it is never changed."""
        rows: Sequence[Segment] = VALUES[kind]
        with run(medium) as log:
            log.commit(read(medium, TWO, rows_of(TWO, "before")))
            if kind in medium.refuses:
                rows = []
                with pytest.raises(DestinationError):
                    log.commit(read(medium, ONE, VALUES[kind]))
            else:
                log.commit(read(medium, ONE, rows))
        assert told(medium) == [medium.record(row) for row in [*rows, *rows_of(TWO, "before")]]
        assert read_back(medium) == keys([*rows, *rows_of(TWO, "before")])
        assert medium.litter() == []

    def test_parts_are_stored_in_order(self, medium: Medium) -> None:
        """The parts of a window with many pages stay in order."""
        rows = rows_of(ONE, *(f"row {number}" for number in range(_MANY)))
        with run(medium) as log:
            log.commit(window_read(ONE, encoded(medium, rows)))
        assert told(medium) == [medium.record(row) for row in rows]
        assert read_back(medium) == keys(rows)

    def test_lines_are_stored_as_their_segments_are(self, medium: Medium) -> None:
        """Rows that arrive as JSON Lines are stored like decoded segments."""
        rows = rows_of(ONE, *(f"row {number}" for number in range(_PAGE)))
        lines = JsonLines().encode(rows)
        with run(medium) as log:
            log.commit(window_read(ONE, [encoded_lines(medium.sink(), lines)]))
        assert told(medium) == [medium.record(row) for row in rows]

    def test_windows_side_by_side(self, medium: Medium) -> None:
        """Several windows are written part by part, interleaved, while they are read."""
        rows = {window: rows_of(window, *(f"{window} {n}" for n in range(_MANY // 2))) for window in (ONE, TWO)}
        with run(medium) as log:
            for parts in zip(*(encoded(medium, rows[window]) for window in (ONE, TWO)), strict=True):
                log.add(ONE, parts[:1])
                log.add(TWO, parts[1:])
            log.commit(window_read(TWO))
            log.commit(window_read(ONE))
        assert told(medium) == [medium.record(row) for window in (ONE, TWO) for row in rows[window]]
        assert medium.litter() == []

    def test_empty_window(self, medium: Medium) -> None:
        """A window without segments is stored as well."""
        with run(medium) as log:
            entry = log.commit(window_read(ONE, segments=0))
        assert published(medium) == [entry]
        assert (told(medium), read_back(medium)) == ([], [])

    def test_windows_in_any_order(self, medium: Medium) -> None:
        """Windows are committed in the order in which they are proven."""
        with run(medium) as log:
            for window in (TWO, THREE, ONE):
                log.commit(read(medium, window, rows_of(window, str(window))))
        assert [entry.window for entry in published(medium)] == [ONE, TWO, THREE]
        assert told(medium) == [medium.record(*rows_of(window, str(window))) for window in (ONE, TWO, THREE)]

    def test_second_commit_replaces_the_first(self, medium: Medium) -> None:
        """Nothing of the first reading is left, and nothing is duplicated."""
        for rows in (rows_of(ONE, "same", "old"), rows_of(ONE, "same", "new", "newer"), rows_of(ONE, "same")):
            with run(medium) as log:
                log.commit(read(medium, ONE, rows, "provisional"))
            assert told(medium) == [medium.record(row) for row in rows]
            assert medium.litter() == []

    def test_both_halves_replace_a_window(self, medium: Medium) -> None:
        """A window is replaced by smaller ones once they cover all of it, not before."""
        old, new = rows_of(BOTH, "old", "same"), [*rows_of(ONE, "a", "same"), *rows_of(TWO, "b")]
        with run(medium) as log:
            log.commit(read(medium, BOTH, old, "provisional"))
        with run(medium) as log:
            log.commit(read(medium, ONE, new[:2]))
            log.abandon()
        assert told(medium) == [medium.record(row) for row in old]
        assert medium.litter() == []
        with run(medium) as log:
            log.commit(read(medium, ONE, new[:2]))
            log.commit(read(medium, TWO, new[2:]))
        assert told(medium) == [medium.record(row) for row in new]
        assert medium.litter() == []

    def test_one_window_replaces_two(self, medium: Medium) -> None:
        """A wider window replaces those within it."""
        rows = [*rows_of(ONE, "a"), *rows_of(TWO, "b")]
        with run(medium) as log:
            for window, row in zip((ONE, TWO), rows, strict=True):
                log.commit(read(medium, window, [row], "provisional"))
        with run(medium) as log:
            log.commit(read(medium, BOTH, rows))
        assert told(medium) == [medium.record(row) for row in rows]
        assert medium.litter() == []

    def test_segment_of_another_window(self, medium: Medium) -> None:
        """The API may change a close time: an id that an older window holds does not keep a newer one out."""
        with run(medium) as log:
            log.commit(read(medium, ONE, [Segment(segmentId="moved", endTimeL=ONE.start)]))
            log.commit(read(medium, TWO, [Segment(segmentId="moved", endTimeL=TWO.start)]))
        assert medium.stored([published(medium)[-1]]) == [medium.record(Segment(segmentId="moved", endTimeL=TWO.start))]

    def test_unproven_window_leaves_nothing(self, medium: Medium) -> None:
        """An unproven window appears only in the manifest; parts written before it failed are removed."""
        with run(medium) as log:
            log.add(ONE, encoded(medium, rows_of(ONE, "a")))
            log.withdraw([ONE])
            log.commit(window_read(ONE, status="unproven", segments=0, reason="it changed"))
        assert [(entry.status, entry.file) for entry in published(medium)] == [("unproven", None)]
        assert medium.litter() == []

    def test_withdrawn_window_leaves_what_was_there(self, medium: Medium) -> None:
        """A window that is written again and then cannot be proven leaves its older version in place."""
        with run(medium) as log:
            log.commit(read(medium, ONE, rows_of(ONE, "old"), "provisional"))
        with run(medium) as log:
            log.add(ONE, encoded(medium, rows_of(ONE, "new", "newer")))
        assert told(medium) == [medium.record(*rows_of(ONE, "old"))]
        assert medium.litter() == []

    def test_failure_in_the_middle_leaves_what_was_there(self, medium: Medium) -> None:
        """An error while parts are written leaves the older version in place."""
        with run(medium) as log:
            log.commit(read(medium, ONE, rows_of(ONE, "old"), "provisional"))
        with run(medium) as log, pytest.raises(RuntimeError, match="in the middle"):
            log.commit(window_read(ONE, failing_parts(medium)))
        assert told(medium) == [medium.record(*rows_of(ONE, "old"))]
        assert medium.litter() == []

    @pytest.mark.parametrize("begun", [False, True], ids=["at once", "part by part"])
    def test_broken_medium_is_a_destination_error(self, medium: Medium, begun: bool) -> None:
        """A failing medium raises a message that says what to do, and what is committed stays."""
        with run(medium) as log:
            log.commit(read(medium, ONE, rows_of(ONE, "old")))
        with run(medium, medium.broken()) as log:
            parts = encoded(medium, rows_of(TWO, *map(str, range(_MANY))))
            if begun:
                log.add(TWO, parts)
            with pytest.raises(DestinationError, match="run again"):
                log.commit(window_read(TWO, [] if begun else parts))
        assert told(medium) == [medium.record(*rows_of(ONE, "old"))]

    def test_of_two_runs_at_once_one_is_refused(self, medium: Medium) -> None:
        """The second run is refused when it opens the destination or when it publishes; the first is not harmed."""
        first = {window: rows_of(window, "first") for window in (ONE, THREE)}
        with run(medium) as log:
            with pytest.raises(DestinationBusyError):
                meanwhile(medium, lambda: log.commit(read(medium, ONE, first[ONE])))
            log.commit(read(medium, THREE, first[THREE]))
        assert told(medium)[-1] == medium.record(*first[THREE])
        assert medium.record(*rows_of(ONE, "second")) not in told(medium)
        assert medium.litter() == []
        with run(medium) as log:
            log.commit(read(medium, TWO, rows_of(TWO, "later")))

    @pytest.mark.filterwarnings("ignore::ResourceWarning")  # a killed process closes nothing
    @pytest.mark.parametrize("window", [ONE, TWO], ids=["replaced", "new"])
    @pytest.mark.parametrize("whole", [False, True], ids=["half written", "written"])
    def test_next_run_goes_on_after_a_crash(self, medium: Medium, window: Window, whole: bool) -> None:
        """A process that is killed before a window is in the manifest does not hinder the next run."""
        with run(medium) as log:
            log.commit(read(medium, ONE, rows_of(ONE, "old"), "provisional"))
        crash(medium, window, whole)
        with run(medium) as log:
            assert [entry.window for entry in log.entries] == [ONE]
            assert log.resume(ONE.start, TWO.end, ONE.start) == ([BOTH], 0)
        assert medium.litter() == []
        with run(medium) as log:
            for again in (ONE, TWO):
                log.commit(read(medium, again, rows_of(again, f"again {again}")))
        assert told(medium) == [medium.record(*rows_of(again, f"again {again}")) for again in (ONE, TWO)]
        assert medium.litter() == []

    def test_what_is_stored_is_not_read_again(self, medium: Medium) -> None:
        """A complete window that is still stored is not read again."""
        with run(medium) as log:
            log.commit(read(medium, ONE, rows_of(ONE, "a")))
        with run(medium) as log:
            assert log.resume(ONE.start, TWO.end, ONE.start) == ([TWO], 1)

    def test_what_was_harmed_is_not_intact(self, medium: Medium) -> None:
        """Changed data is not intact, as `verify` and `sync` detect."""
        with run(medium) as log:
            for window in (ONE, TWO):
                log.commit(read(medium, window, rows_of(window, f"a {window}")))
            assert log.intact([ONE, TWO]) == [ONE, TWO]
        medium.harm(published(medium)[0])
        with run(medium) as log:
            assert log.intact([ONE, TWO]) == [TWO]
            harmed = log.entries[0].written
        sink = medium.sink()
        sink.look()
        try:
            with suppress(ValueError, DestinationError):  # some damage shows only in the checksum
                list(sink.keys(harmed))
        finally:
            sink.close()

    def test_cancelled_write_ends_first(self, medium: Medium) -> None:
        """A cancelled write is completed first: the window is stored, and nothing else."""
        asyncio.run(cancelled_write(medium, medium.sink()))
        assert told(medium) == [medium.record(*rows_of(ONE, "a"))]
        assert medium.litter() == []


async def cancelled_write(medium: Medium, sink: Sink[Any]) -> None:
    """Cancel the commit of a window while it is being written."""
    entered, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[Any]:
        entered.set()
        assert go_on.wait(_PATIENCE_S)
        yield from encoded(medium, rows_of(ONE, "a"))

    async def commit() -> None:
        async with committing(sink, _QUERY) as committer:
            await committer.commit(window_read(ONE, slow()))

    task = asyncio.create_task(commit())
    await asyncio.to_thread(entered.wait, _PATIENCE_S)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@contextmanager
def run(medium: Medium, sink: Sink[Any] | None = None) -> Iterator[CommitLog]:
    """Open the destination for a run and yield its commit log; the destination is closed at the end."""
    opened = sink or medium.sink()
    log = CommitLog(opened, _QUERY, opened.open())
    try:
        yield log
    finally:
        try:
            log.close()
        finally:
            opened.close()


def meanwhile(medium: Medium, commit: Callable[[], object]) -> None:
    """Open the destination in a second run, which tries to commit after the first one has."""
    with run(medium) as log:
        commit()
        log.commit(read(medium, ONE, rows_of(ONE, "second")))


def crash(medium: Medium, window: Window, whole: bool) -> None:
    """End a run while it writes a window, or before it publishes the manifest."""
    sink = medium.sink()
    sink.open()
    draft = sink.begin(window)
    for part in encoded(medium, rows_of(window, *map(str, range(_MANY)))):
        draft.add(part)
    if whole:
        draft.finish()
    medium.kill(sink)


def window_read(
    window: Window, parts: Iterable[Any] = (), status: Status = "complete", segments: int = 1, reason: str | None = None
) -> WindowRead[Any]:
    """Return the result of reading a window. The parts may be an iterator."""
    held: Any = parts
    return WindowRead(
        window=window,
        status=status,
        parts=held,
        count=segments,
        segments=segments,
        duplicates=0,
        pages=1,
        requests=2,
        read_at=ONE.start,
        unknown_fields=(),
        reason=reason,
    )


def encoded(medium: Medium, rows: Sequence[Segment]) -> list[Any]:
    """Return the segments encoded by the sink, one page per part."""
    sink = medium.sink()
    return [sink.encode(rows[at : at + _PAGE]) for at in range(0, len(rows), _PAGE)]


def read(medium: Medium, window: Window, rows: Sequence[Segment], status: Status = "complete") -> WindowRead[Any]:
    """Return a window with these segments."""
    return window_read(window, encoded(medium, rows), status, len(rows))


def failing_parts(medium: Medium) -> Iterator[Any]:
    """Yield parts, and then raise."""
    yield from encoded(medium, rows_of(ONE, "new"))
    raise RuntimeError("in the middle")


def keys(rows: Iterable[Segment]) -> list[tuple[int, str]]:
    """Return the result that `Sink.keys` should return for these segments."""
    return [(row.endTimeL, row.segmentId) for row in rows]


def read_back(medium: Medium) -> list[tuple[int, str]]:
    """Return the keys that the sink reads back from the windows of the manifest, in written order."""
    sink = medium.sink()
    with run(medium, sink) as log:
        return [key for entry in log.entries for key in sink.keys(entry.written)]


def published(medium: Medium) -> list[WindowEntry]:
    """Return the windows in the manifest."""
    sink = medium.sink()
    stored = sink.open()
    found = read_committed(stored, sink.appended()).entries if stored else ()
    sink.close()
    return list(found)


def told(medium: Medium) -> list[dict[str, Any]]:
    """Return all records of the windows in the manifest."""
    return medium.stored(published(medium))
