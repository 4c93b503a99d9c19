"""What every destination promises, as one suite: subclass `SinkConformance` and give it a `Medium`.

A window is complete or absent; writing it again replaces it; the manifest comes last and names only what is there;
every value comes back as it was read; errors of the medium are `DestinationError`s.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from segment_fetch import DestinationBusyError, DestinationError, Segment, Window
from segment_fetch.extract import committing
from segment_fetch.ledger import Ledger
from segment_fetch.manifest import WindowEntry, parse_manifest
from segment_fetch.models import ExtendedSegment
from segment_fetch.reading import WindowRead
from segment_fetch.sinks import Sink
from tests.support_sinks import QUERY, hours, window_read

Record = dict[str, Any]
ONE, TWO, THREE = hours(0, 1), hours(1, 2), hours(2, 3)


class Medium(ABC):
    """Where one sink stores things: how to open it again, read it back and break it."""

    @abstractmethod
    def sink(self) -> Sink[Any]:
        """A new sink on the same destination."""

    @abstractmethod
    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        """The records of these windows, read back without the library."""

    @abstractmethod
    def record(self, segment: Segment) -> Record:
        """What is expected to be stored of a segment."""

    @abstractmethod
    def broken(self) -> Sink[Any]:
        """A sink whose medium fails while a window is written, after a part of it."""

    @abstractmethod
    def harm(self, entry: WindowEntry) -> None:
        """Changes what is stored of a window, but not its size."""

    @abstractmethod
    def litter(self) -> list[str]:
        """What is there that the manifest does not name."""


def segments(*texts: str) -> list[Segment]:
    """Segments whose texts are these."""
    return [Segment(segmentId=f"{n}:{text}", endTimeL=ONE.start + n, employeeId=text) for n, text in enumerate(texts)]


VALUES: dict[str, list[Segment]] = {
    "plain": segments("a", "b"),
    "unicode": segments("Zoë", "李雷", "🎧", "e\u0301", "\u202eright to left", "\ufeff"),
    "quotes": segments('"', '""', "'", 'a"b', "\\", '\\"', "a,b", ";", "a\tb"),
    "newlines": segments("a\nb", "a\r\nb", "\r", "\n", "\u2028", "\x85", "\x0b", "\x0c"),
    "control characters": segments("\0", "a\0b", "\x01", "\x1f", "\x7f"),
    "escapes as text": segments(r"\ud800", r"\u0000", r"\n", "%00", "&amp;"),
    "blanks": segments("", " ", " a ", "\t"),
    "formulas": segments("=1+1", "+1", "-1", "@a", "=cmd|' /C calc'!A0"),
    "absent": [Segment(segmentId="a", endTimeL=1)],
    "null": [Segment(segmentId="a", endTimeL=1, conversationId=None, agentId=None, employeeId=None, startTime=None)],
    "numbers": [Segment(segmentId="a", endTimeL=2**53 + 1, agentId=-(2**62), skillId=0, totalHandleTimeMillis=2**80)],
    "unknown fields": [
        Segment(segmentId="a", endTimeL=1, agentId=None),
        ExtendedSegment(segmentId="b", endTimeL=1, skillId=5, extras={"new": {"deep": [1, None, "x", 0.5]}}),
        ExtendedSegment(segmentId="c", endTimeL=1, extras={"extras": True, "neu\n": "=1"}),
    ],
}


class SinkConformance:
    """Each test opens the destination afresh; `medium` is the subclass's fixture."""

    @pytest.fixture
    def medium(self) -> Medium:
        raise NotImplementedError

    @pytest.mark.parametrize("kind", VALUES)
    def test_every_value_comes_back(self, medium: Medium, kind: str) -> None:
        rows = VALUES[kind]
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, rows))
        assert medium.stored(published(medium)) == [medium.record(row) for row in rows]

    @pytest.mark.parametrize("kind", VALUES)
    def test_keys_come_back(self, medium: Medium, kind: str) -> None:
        with run(medium) as ledger:
            entry = ledger.commit(read(medium, ONE, VALUES[kind]))
        assert list(medium.sink().keys(entry.written)) == [(row.endTimeL, row.segmentId) for row in VALUES[kind]]

    def test_what_was_harmed_is_not_intact(self, medium: Medium) -> None:
        with run(medium) as ledger:
            one, two = [ledger.commit(read(medium, window, segments("a"))) for window in (ONE, TWO)]
            assert ledger.intact([ONE, TWO]) == [ONE, TWO]
            medium.harm(one)
            assert ledger.intact([ONE, TWO]) == [TWO]
            assert medium.sink().holds(two.written)

    def test_parts_are_stored_in_order(self, medium: Medium) -> None:
        rows = segments(*(f"row {number}" for number in range(2000)))
        parts = [medium.sink().encode(rows[at : at + 300]) for at in range(0, len(rows), 300)]
        with run(medium) as ledger:
            ledger.commit(window_read(ONE, parts))
        assert medium.stored(published(medium)) == [medium.record(row) for row in rows]

    def test_empty_window(self, medium: Medium) -> None:
        with run(medium) as ledger:
            entry = ledger.commit(window_read(ONE, segments=0, count=0))
        assert published(medium) == [entry]
        assert medium.stored([entry]) == []

    def test_windows_in_any_order(self, medium: Medium) -> None:
        with run(medium) as ledger:
            for window in (TWO, THREE, ONE):
                ledger.commit(read(medium, window, segments(str(window))))
        entries = published(medium)
        assert [entry.window for entry in entries] == [ONE, TWO, THREE]
        assert medium.stored(entries) == [medium.record(*segments(str(window))) for window in (ONE, TWO, THREE)]

    def test_second_commit_replaces_the_first(self, medium: Medium) -> None:
        for rows in (segments("old", "older"), segments("new")):
            with run(medium) as ledger:
                ledger.commit(read(medium, ONE, rows, "provisional"))
        assert medium.stored(published(medium)) == [medium.record(row) for row in segments("new")]
        assert medium.litter() == []

    def test_parts_replace_a_window(self, medium: Medium) -> None:
        with run(medium) as ledger:
            ledger.commit(read(medium, hours(0, 2), segments("old"), "provisional"))
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, segments("a")))
            ledger.commit(read(medium, TWO, segments("b")))
        assert medium.stored(published(medium)) == [medium.record(*segments("a")), medium.record(*segments("b"))]
        assert medium.litter() == []

    def test_unproven_window_leaves_nothing(self, medium: Medium) -> None:
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, segments("a"), "unproven"))
        assert [(entry.status, entry.file) for entry in published(medium)] == [("unproven", None)]
        assert medium.litter() == []

    def test_what_is_stored_holds(self, medium: Medium) -> None:
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, segments("a")))
        with run(medium) as ledger:
            assert ledger.resume(ONE.start, TWO.end, ONE.start) == ([TWO], 1)

    def test_failure_in_the_middle_leaves_what_was_there(self, medium: Medium) -> None:
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, segments("old"), "provisional"))
        with run(medium) as ledger, pytest.raises(RuntimeError, match="in the middle"):
            ledger.commit(window_read(ONE, failing_parts(medium)))
        assert medium.stored(published(medium)) == [medium.record(*segments("old"))]
        assert medium.litter() == []

    def test_broken_medium_is_a_destination_error(self, medium: Medium) -> None:
        with run(medium) as ledger:
            ledger.commit(read(medium, ONE, segments("old")))
        with run(medium, medium.broken()) as ledger, pytest.raises(DestinationError, match="run again"):
            ledger.commit(read(medium, TWO, segments("new")))
        assert medium.stored(published(medium)) == [medium.record(*segments("old"))]

    def test_second_run_at_once_is_refused(self, medium: Medium) -> None:
        with run(medium), pytest.raises(DestinationBusyError), run(medium):
            pass
        with run(medium):
            pass

    async def test_cancelled_write_ends_first(self, medium: Medium) -> None:
        sink, entered, go_on = medium.sink(), threading.Event(), threading.Event()

        def slow() -> Iterator[Any]:
            entered.set()
            assert go_on.wait(20)
            yield sink.encode(segments("a"))

        async def commit() -> None:
            async with committing(sink, QUERY) as committer:
                await committer.commit(window_read(ONE, slow()))

        task = asyncio.create_task(commit())
        await asyncio.to_thread(entered.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert medium.stored(published(medium)) == [medium.record(*segments("a"))]
        assert medium.litter() == []


class run:  # noqa: N801 - read as `with run(medium) as ledger`
    """A run over the medium: its ledger, the destination given back at the end."""

    def __init__(self, medium: Medium, sink: Sink[Any] | None = None) -> None:
        self._sink = sink or medium.sink()

    def __enter__(self) -> Ledger:
        return Ledger(self._sink, QUERY, self._sink.open())

    def __exit__(self, *_: object) -> None:
        self._sink.close()


def read(medium: Medium, window: Window, rows: list[Segment], status: Any = "complete") -> WindowRead[Any]:
    """A window with these segments, encoded by the medium's sink."""
    return window_read(window, [medium.sink().encode(rows)] if rows else [], status)


def failing_parts(medium: Medium) -> Iterator[Any]:
    yield medium.sink().encode(segments("new"))
    raise RuntimeError("in the middle")


def published(medium: Medium) -> list[WindowEntry]:
    """The windows in the manifest."""
    sink = medium.sink()
    stored = sink.open()
    sink.close()
    return list(parse_manifest(stored).windows) if stored else []


def as_json(segment: Segment) -> Record:
    """A segment as the wire has it."""
    row: Record = msgspec.json.decode(msgspec.json.encode(segment))
    return row | row.pop("extras", {}) if isinstance(segment, ExtendedSegment) else row
