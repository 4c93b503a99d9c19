"""Rows are encoded in their order, whether that is done where they are proven or has to wait for later turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from segment_fetch import Segment
from segment_fetch.extraction import opening
from segment_fetch.extraction.encoding import ROWS_AT_ONCE, PartEncoder, Unencoded
from segment_fetch.extraction.loop_turns import Turns
from segment_fetch.sinks import CsvSink, JsonlSink, ParquetSink, Sink
from tests.support_runs import END, START, client, contents, served, settled

SHORT, LONG = 0.0, 60.0


def rows(count: int) -> list[Segment]:
    return [Segment(segmentId=str(number), endTimeL=number) for number in range(count)]


def ids(segments: Sequence[Segment]) -> list[str]:
    return [segment.segmentId for segment in segments]


async def test_rows_are_encoded_at_once_while_the_turn_lasts_and_wait_once_it_is_over() -> None:
    turns = Turns(LONG)
    await turns.take()
    assert PartEncoder(ids, turns).now_or_later(rows(2)) == ["0", "1"]
    assert PartEncoder(ids, Turns(SHORT)).now_or_later(rows(2)) == Unencoded(rows(2))
    many = rows(ROWS_AT_ONCE + 1)
    assert PartEncoder(ids, turns).now_or_later(many) == Unencoded(many), "more than a page takes turns of its own"


async def test_every_part_that_waited_has_a_turn_of_its_own_and_its_place() -> None:
    encoder, turned = PartEncoder(ids, Turns(SHORT)), 0
    parts: list[list[str] | Unencoded] = [
        Unencoded(rows(3)),
        ["encoded before"],
        Unencoded(rows(2 * ROWS_AT_ONCE + 1)),
        Unencoded(rows(1)),
    ]

    async def count_turns() -> None:
        nonlocal turned
        while True:
            await asyncio.sleep(0)
            turned += 1

    counting = asyncio.create_task(count_turns())
    encoded = await encoder.encode_all(parts)
    counting.cancel()
    assert [len(part) for part in encoded] == [3, 1, ROWS_AT_ONCE, ROWS_AT_ONCE, 1, 1]
    assert turned >= 2


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink, ParquetSink])
async def test_files_are_the_same_however_long_a_turn_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], Sink[object]]
) -> None:
    async with served(settled(3_000, ties=0.3, burst=900)) as simulator:
        found = []
        for slice_s in (SHORT, LONG):
            turns = Turns(slice_s)
            monkeypatch.setattr(opening, "turns_of", lambda loop, turns=turns: turns)
            folder = tmp_path / str(slice_s)
            async with client(simulator) as opened:
                report = await opened.extract(START, END, kind(folder))
                batches = [batch async for batch in opened.stream(START, END)]
                arrow = [batch async for batch in opened.stream_arrow(START, END)]
            assert (report.complete, report.segments) == (True, 3_000)
            files = {name: data for name, data in contents(folder).items() if "manifest" not in name}
            found.append((files, [ids(batch) for batch in batches], [batch.to_pylist() for batch in arrow]))
    assert found[0] == found[1]
    assert found[0][0]
