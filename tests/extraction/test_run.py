"""Whole runs against the simulator, over sockets, into real folders."""

from __future__ import annotations

import asyncio
import errno
import io
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import (
    BearerToken,
    ClientCredentials,
    CredentialsError,
    DestinationBusyError,
    DestinationError,
    Filters,
    InputError,
    ManifestError,
    OAuth1Key,
    RequestRefusedError,
)
from segment_fetch.api.auth import Auth
from segment_fetch.events import Event, WindowDone
from segment_fetch.extraction.report import Report
from segment_fetch.extraction.run import OldestFirst
from segment_fetch.query import Window
from segment_fetch.simulator import Bearer as BearerCheck
from segment_fetch.simulator import ClientCredentials as ClientCheck
from segment_fetch.simulator import Dataset, Drift, Fault, OAuth1, Simulator
from segment_fetch.sinks import CsvSink, JsonlSink, Sink, StreamSink
from segment_fetch.timerange import CLAMP_MARGIN_MS
from tests.support_runs import (
    AT_ONCE,
    DAY_MS,
    END,
    HOUR_MS,
    NOW,
    NOW_MS,
    START,
    client,
    contents,
    data,
    manifest,
    names,
    rows,
    served,
    settled,
    without_count,
)
from tests.support_sinks import DeathError, DyingDisk, FailingDisk, LoggedDisk, hours, window_read

DAY = timedelta(days=1)
MIDDLE = (START + END) // 2


async def extract(simulator: Simulator, sink: Sink[Any], start: int = START, end: int = END, **options: Any) -> Report:
    """One run."""
    async with client(simulator, **options) as opened:
        return await opened.extract(start, end, sink)


def wire(dataset: Dataset, start: int = START, end: int = END) -> list[dict[str, Any]]:
    """The API's segments, in the documented order."""
    return sorted(dataset.rows(start, end), key=lambda row: (row["endTimeL"], row["segmentId"]))


async def test_extraction_holds_each_segment_as_the_wire_has_it(tmp_path: Path) -> None:
    async with served(settled(1200, null_share=0.2, unknown_reasons=0.1)) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    assert rows(tmp_path) == wire(simulator.dataset)
    assert (report.complete, report.skipped, report.segments, report.duplicates) == (True, 0, 1200, 0)
    assert (report.requests, report.retries, report.throttled) == (simulator.stats.requests, 0, 0)
    assert [entry.status for entry in report.windows] == ["complete"] * 6
    assert report.unproven == ()
    assert report.seconds > 0


async def test_new_fields_are_kept_and_named(tmp_path: Path) -> None:
    async with served(settled(new_field_from=40)) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    assert rows(tmp_path) == wire(simulator.dataset)
    assert report.unknown_fields == ("newField",)
    assert [entry["unknown_fields"] for entry in manifest(tmp_path)["windows"]] == [
        *[[]] * 4,
        ["newField"],
        ["newField"],
    ]


async def test_empty_range_is_a_complete_empty_file(tmp_path: Path) -> None:
    async with served(settled(0)) as simulator:
        report = await extract(simulator, CsvSink(tmp_path), window=3 * DAY)
    assert (report.complete, report.segments) == (True, 0)
    assert [line.count(b"\r\n") for line in data(tmp_path).split(b"\r\nsegmentId")] == [0, 1]


AUTHS: dict[str, tuple[Auth, Any, list[str]]] = {
    "bearer": (BearerToken("s3cret-bearer"), BearerCheck("s3cret-bearer"), ["s3cret"]),
    "oauth 1": (
        OAuth1Key("key", "s3cret-1", "token", "s3cret-2"),
        OAuth1(
            app_key="key", app_secret="s3cret-1", access_token="token", access_token_secret="s3cret-2", window_s=1e12
        ),
        ["s3cret"],
    ),
    "oauth 2": (
        ClientCredentials("s3cret-id", "s3cret-value"),
        ClientCheck(client_id="s3cret-id", client_secret="s3cret-value"),
        ["s3cret", "eyJ"],
    ),
}


@pytest.mark.parametrize("kind", AUTHS)
async def test_no_secret_is_in_the_destination_or_the_report(tmp_path: Path, kind: str) -> None:
    auth, check, secrets = AUTHS[kind]
    told: list[object] = []
    async with served(settled(), auth=check) as simulator:
        simulator.fail_next(Fault.ERROR_500)
        report = await extract(simulator, JsonlSink(tmp_path), auth=auth, on_event=told.append)
    everything = repr(report) + repr(told) + "".join(map(repr, contents(tmp_path).values()))
    assert report.complete
    assert not [secret for secret in secrets if secret in everything]


# Ways of reading that must not show in the bytes: options of the simulator, options of the client.
SAME_WINDOWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one at a time": ({}, {"connections": 1}),
    "small pages": ({}, {"limit": 7}),
    "pages in any order": ({"latency_ms": (0, 15)}, {"limit": 20}),
    "ties in any order": ({"drift": Drift(shuffle_ties=True)}, {"limit": 20}),
    "to is exclusive": ({"to_inclusive": False}, {}),
    "no gzip on the wire": ({"gzip": False}, {}),
}


@pytest.mark.parametrize("case", SAME_WINDOWS)
@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
async def test_same_data_same_bytes(tmp_path: Path, case: str, compress: str) -> None:
    dataset = settled(300, ties=0.4, burst=9)
    options, asked = SAME_WINDOWS[case]
    async with served(dataset) as simulator:
        await extract(simulator, JsonlSink(tmp_path / "plain", compress), window=DAY)
    async with served(dataset, **options) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path / "other", compress), window=DAY, **asked)
    assert report.complete
    plain, other = contents(tmp_path / "plain"), contents(tmp_path / "other")
    del plain["manifest.json"], other["manifest.json"]
    assert other == plain


@pytest.mark.parametrize(
    "options", [{"window": DAY}, {"window": timedelta(hours=7)}, {"split_above": 100, "limit": 50}]
)
@pytest.mark.parametrize("sink", [JsonlSink, CsvSink])
async def test_windows_cut_differently_hold_the_same(
    tmp_path: Path, options: Any, sink: Callable[..., Sink[Any]]
) -> None:
    async with served(settled(500, ties=0.3), drift=Drift(shuffle_ties=True)) as simulator:
        await extract(simulator, sink(tmp_path / "one"))
        report = await extract(simulator, sink(tmp_path / "many"), **options)
    assert len(report.windows) > 4
    header = data(tmp_path / "one").split(b"\r\n")[0] + b"\r\n" if sink is CsvSink else b"\0"
    assert data(tmp_path / "many").replace(header, b"") == data(tmp_path / "one").replace(header, b"")


async def test_stream_holds_the_same_as_a_folder(tmp_path: Path) -> None:
    stream = io.BytesIO()
    async with served(settled(500, ties=0.3), latency_ms=(0, 20)) as simulator:
        await extract(simulator, JsonlSink(tmp_path))
        report = await extract(simulator, StreamSink(stream), window=timedelta(hours=9), limit=10)
    assert report.complete
    assert stream.getvalue() == data(tmp_path)


@pytest.mark.parametrize("to_inclusive", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
async def test_segments_on_a_shared_instant_are_written_once(tmp_path: Path, to_inclusive: bool, shuffle: bool) -> None:
    dataset = settled(100, burst=40, burst_at=MIDDLE)
    async with served(dataset, to_inclusive=to_inclusive, drift=Drift(shuffle_ties=shuffle)) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), window=3 * DAY, limit=15)
    assert rows(tmp_path) == wire(dataset)
    earlier, later = report.windows
    assert earlier.segments + later.segments == 100
    assert later.segments >= 40, "the later window owns the instant"
    assert earlier.count - earlier.segments == (40 if to_inclusive else 0)


@pytest.mark.parametrize("shuffle", [True, False])
async def test_two_thousand_segments_on_one_millisecond(tmp_path: Path, shuffle: bool) -> None:
    dataset = settled(2100, burst=2000)
    async with served(dataset, drift=Drift(shuffle_ties=shuffle)) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), split_above=500)
    assert report.complete
    assert rows(tmp_path) == wire(dataset)


@pytest.mark.parametrize("to_inclusive", [True, False])
async def test_range_is_half_open(tmp_path: Path, to_inclusive: bool) -> None:
    async with served(settled(0), to_inclusive=to_inclusive) as simulator:
        ids = [simulator.insert(close) for close in (MIDDLE - 1, MIDDLE, MIDDLE + 9, MIDDLE + 10)]
        await extract(simulator, JsonlSink(tmp_path), MIDDLE, MIDDLE + 10)
    assert [row["segmentId"] for row in rows(tmp_path)] == ids[1:3]


async def test_second_run_sends_nothing(tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        first = await extract(simulator, JsonlSink(tmp_path), window=DAY)
        before, sent = contents(tmp_path), simulator.stats.requests
        second = await extract(simulator, JsonlSink(tmp_path), window=DAY)
        assert simulator.stats.requests == sent
    assert (second.complete, second.windows, second.skipped, second.requests) == (True, (), 6, 0)
    assert contents(tmp_path) == before
    assert len(first.windows) == 6


async def test_range_that_grows_reads_only_what_is_new(tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        await extract(simulator, JsonlSink(tmp_path), START + DAY_MS, START + 2 * DAY_MS)
        report = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    assert [(entry.window.start - START) // DAY_MS for entry in report.windows] == [0, 2, 3, 4, 5]
    assert report.skipped == 1
    assert rows(tmp_path) == wire(simulator.dataset)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"{}\n")], ids=["missing", "other size"])
async def test_harmed_file_is_read_again(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    async with served(settled()) as simulator:
        await extract(simulator, JsonlSink(tmp_path), window=DAY)
        before = contents(tmp_path)
        harm(tmp_path / names(tmp_path)[3])
        report = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    assert [entry.file for entry in report.windows] == [names(tmp_path)[3]]
    assert report.skipped == 5
    assert without_count(contents(tmp_path)) == without_count(before)


RECENT = NOW_MS - 12 * HOUR_MS


def recent(segments: int = 200, **options: Any) -> Dataset:
    """Segments of the last twelve hours: provisional at NOW, settled two days later."""
    return Dataset(segments=segments, start=RECENT, end=NOW_MS, **options)


class Clock:
    """The time, as the test sets it."""

    def __init__(self) -> None:
        self.now = NOW_MS / 1000

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("split", [{}, {"split_above": 50, "limit": 20}], ids=["whole", "split"])
async def test_provisional_window_is_read_again_and_replaced(tmp_path: Path, split: dict[str, Any]) -> None:
    clock = Clock()
    async with served(recent(), clock=clock) as simulator:
        first = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, clock=clock)
        simulator.insert(RECENT + HOUR_MS)
        simulator.remove(simulator.ids(RECENT, NOW_MS)[100])
        again = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, clock=clock)
        clock.now += 2 * DAY_MS / 1000
        last = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, clock=clock, **split)
        ids = simulator.ids(RECENT, NOW_MS)
        none = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, clock=clock)
    assert [{entry.status for entry in run.windows} for run in (first, again, last)] == [
        {"provisional"},
        {"provisional"},
        {"complete"},
    ]
    assert (none.requests, none.skipped) == (0, len(last.windows))
    assert [row["segmentId"] for row in rows(tmp_path)] == ids
    assert len(names(tmp_path)) == len(last.windows) + 1


@pytest.mark.parametrize(
    ("before_ms", "status"), [(24 * HOUR_MS + 14 * 60_000, "provisional"), (24 * HOUR_MS + 15 * 60_000, "complete")]
)
async def test_window_settles_24_hours_and_15_minutes_after_its_end(
    tmp_path: Path, before_ms: int, status: str
) -> None:
    end = NOW_MS - before_ms
    async with served(settled()) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), end - HOUR_MS, end)
    assert [entry.status for entry in report.windows] == [status]


async def test_segments_that_come_and_go_meanwhile_are_never_doubled_or_lost(tmp_path: Path) -> None:
    """The simulator's own clock runs, so that rows come and vanish between two pages."""
    clock = Clock()

    def ticking() -> float:
        clock.now += 0.01
        return clock.now

    drift = Drift(inserts_per_s=20, removals_per_s=5, shuffle_ties=True, recent_s=DAY_MS / 1000)
    async with served(recent(2000, ties=0.2), drift=drift, clock=ticking, latency_ms=(0, 3)) as simulator:
        since = simulator.mark()
        report = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, limit=100, window=timedelta(hours=4))
        throughout = simulator.ids_throughout(RECENT, NOW_MS, since=since)
    ids = [row["segmentId"] for row in rows(tmp_path)]
    assert report.complete
    assert len(set(ids)) == len(ids)
    assert throughout <= set(ids)
    assert rows(tmp_path) == sorted(rows(tmp_path), key=lambda row: (row["endTimeL"], row["segmentId"]))


def spoiled(**options: Any) -> Dataset:
    """The same segments as `settled`, some of which no window can be read with: their agent has the wrong type."""
    return settled(wrong_types=0.03, **options)


async def test_unproven_windows_are_named_and_the_rest_stands(tmp_path: Path) -> None:
    async with served(spoiled()) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    statuses = [entry.status for entry in report.windows]
    assert set(statuses) == {"complete", "unproven"}
    assert not report.complete
    assert [entry.window for entry in report.unproven] == [
        entry.window for entry in report.windows if entry.status == "unproven"
    ]
    assert all("agentId" in (entry.reason or "") for entry in report.unproven)
    assert {entry.pages for entry in report.unproven} == {0}, "none of them could be used"
    assert all((entry.read_at is None) == (entry.pages == 0) for entry in report.windows)
    assert [entry["status"] for entry in manifest(tmp_path)["windows"]] == statuses
    async with served(settled()) as simulator:
        mended = await extract(simulator, JsonlSink(tmp_path), window=DAY)
    assert (len(mended.windows), mended.skipped) == (statuses.count("unproven"), statuses.count("complete"))
    assert rows(tmp_path) == wire(settled())


async def test_unproven_windows_are_left_out_of_a_stream() -> None:
    stream = io.BytesIO()
    async with served(spoiled()) as simulator:
        report = await extract(simulator, StreamSink(stream), window=DAY)
    proven = [entry.window for entry in report.windows if entry.status == "complete"]
    ids = [row for window in proven for row in settled().ids(window.start, window.end)]
    assert 0 < len(ids) < 60
    assert [json.loads(line)["segmentId"] for line in stream.getvalue().splitlines()] == ids


async def test_provisional_window_stays_while_a_part_of_its_replacement_is_unproven(tmp_path: Path) -> None:
    clock = Clock()
    async with served(recent(), clock=clock) as simulator:
        await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, clock=clock)
    before = contents(tmp_path)
    clock.now += 2 * DAY_MS / 1000
    cut: dict[str, Any] = {"clock": clock, "window": timedelta(hours=1)}
    async with served(recent(wrong_types=0.01), clock=clock) as simulator:
        report = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, **cut)
    assert not report.complete
    assert {entry.status for entry in report.windows} == {"unproven"}
    assert report.segments == 0
    assert contents(tmp_path) == before
    async with served(recent(), clock=clock) as simulator:
        mended = await extract(simulator, JsonlSink(tmp_path), RECENT, NOW_MS, **cut)
    assert mended.complete
    assert rows(tmp_path) == wire(simulator.dataset, RECENT, NOW_MS)


async def test_other_query_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        await extract(simulator, JsonlSink(tmp_path))
        before, sent = contents(tmp_path), simulator.stats.requests
        others: list[tuple[Sink[Any], dict[str, Any], str]] = [
            (JsonlSink(tmp_path), {"filters": Filters(agent_id="1")}, "filters was {} and is now {'AgentId': '1'}"),
            (JsonlSink(tmp_path, "gzip"), {}, "compress was 'none' and is now 'gzip'"),
            (CsvSink(tmp_path), {}, "format was 'jsonl' and is now 'csv'"),
        ]
        for sink, options, says in others:
            with pytest.raises(ManifestError, match=says):
                await extract(simulator, sink, **options)
        assert simulator.stats.requests == sent
        assert contents(tmp_path) == before
        assert (await extract(simulator, JsonlSink(tmp_path), source="other")).skipped > 0, "the job may be renamed"


async def test_two_runs_at_once_the_second_is_refused(tmp_path: Path) -> None:
    async with served(settled(), latency_ms=20) as simulator:
        results = await asyncio.gather(
            *(extract(simulator, JsonlSink(tmp_path), window=DAY) for _ in range(2)), return_exceptions=True
        )
    assert {type(result) for result in results} == {DestinationBusyError, Report}
    assert rows(tmp_path) == wire(simulator.dataset)


async def test_refused_credentials_leave_the_destination_free_for_another_query(tmp_path: Path) -> None:
    async with served(settled(), auth=BearerCheck("right")) as simulator:
        with pytest.raises(CredentialsError, match="401"):
            await extract(simulator, JsonlSink(tmp_path), source="a")
        assert names(tmp_path) == []
        report = await extract(simulator, JsonlSink(tmp_path), source="b", auth=BearerToken("right"))
    assert report.complete


async def test_refused_request_names_the_causes(tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        simulator.fail_next(Fault.REDIRECT)
        with pytest.raises(RequestRefusedError, match="302"):
            await extract(simulator, JsonlSink(tmp_path))
        assert (await extract(simulator, JsonlSink(tmp_path))).complete


async def test_client_that_is_not_open_touches_nothing(tmp_path: Path) -> None:
    async with served(settled()) as simulator:
        with pytest.raises(InputError, match="async with"):
            await client(simulator).extract(START, END, JsonlSink(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


WHOLE: dict[str, Any] = {"window": 2 * DAY, "connections": 1, "retry": AT_ONCE}


@pytest.mark.parametrize("kind", ["no space", "killed"])
async def test_run_interrupted_at_any_call_to_the_disk_goes_on(tmp_path: Path, kind: str) -> None:
    async with served(settled()) as simulator:
        await extract(simulator, JsonlSink(tmp_path / "end", disk=LoggedDisk()), **WHOLE)
        at, failed = 0, True
        while failed:
            folder = tmp_path / str(at)
            disk: FailingDisk | DyingDisk = DyingDisk(at) if kind == "killed" else FailingDisk(at, errno.ENOSPC)
            try:
                await extract(simulator, JsonlSink(folder, disk=disk), **WHOLE)
            except DestinationError as error:
                assert "no space left" in str(error)  # noqa: PT017 - not every call fails the run
            except DeathError:
                assert kind == "killed"
            report = await extract(simulator, JsonlSink(folder, disk=LoggedDisk()), **WHOLE)
            assert report.complete
            assert without_count(contents(folder)) == without_count(contents(tmp_path / "end")), (
                f"interrupted at call {at}"
            )
            at, failed = at + 1, disk.failed
    assert at > 20


async def test_error_that_ends_a_run_is_not_hidden_by_the_sink(tmp_path: Path) -> None:
    class Clumsy(JsonlSink):
        def close(self) -> None:
            super().close()
            raise DestinationError("cannot close")

    async with served(settled(), auth=BearerCheck("right")) as simulator:
        with pytest.raises(CredentialsError):
            await extract(simulator, Clumsy(tmp_path))
        with pytest.raises(DestinationError, match="cannot close"):
            await extract(simulator, Clumsy(tmp_path), auth=BearerToken("right"))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]])
def test_oldest_first(order: Sequence[int]) -> None:
    """Two ranges with a gap between them, in two windows each."""
    windows = [hours(0, 1), hours(1, 3), hours(5, 6), hours(6, 9)]
    queue = OldestFirst[Any]([hours(0, 3), hours(5, 9)])
    came: list[Window] = []
    for number, at in enumerate(order):
        came += [read.window for read in queue.after(window_read(windows[at]))]
        known = set(order[: number + 1])
        assert came == windows[: next((n for n in range(4) if n not in known), 4)], "as many as can be"
    assert came == windows


# ------------------------------------------------------------------------------------ the end of the API's month

MONTH_MS = 31 * DAY_MS
"""From NOW back to the same day of the month before."""


async def test_the_oldest_day_is_read_first_in_small_windows_before_the_month_has_moved_past_it(tmp_path: Path) -> None:
    """After the first window the server's clock is three minutes ahead: more than the margin of a clamped range."""
    clock = [NOW]

    def later(event: Event) -> None:
        if isinstance(event, WindowDone):
            clock[0] = NOW + 180

    dataset = Dataset(segments=4_000, start=NOW_MS - 35 * DAY_MS, end=NOW_MS)
    async with served(dataset, clock=lambda: clock[0]) as simulator:
        async with client(simulator, connections=1, on_event=later) as one:
            report = await one.extract(NOW_MS - 40 * DAY_MS, NOW_MS, JsonlSink(tmp_path), clamp=True)
        start = NOW_MS - MONTH_MS + CLAMP_MARGIN_MS
        assert [row["segmentId"] for row in rows(tmp_path)] == simulator.ids(start, NOW_MS)
    assert report.complete
    assert [entry.window.end - entry.window.start for entry in report.windows[:3]] == [
        3_600_000,
        2 * 3_600_000,
        4 * 3_600_000,
    ]


async def test_of_a_window_that_the_month_has_moved_past_the_rest_is_kept(tmp_path: Path) -> None:
    dataset = Dataset(segments=4_000, start=NOW_MS - 35 * DAY_MS, end=NOW_MS)
    async with served(dataset, clock=lambda: NOW + 180) as simulator, client(simulator) as one:
        report = await one.extract(NOW_MS - MONTH_MS + CLAMP_MARGIN_MS, NOW_MS, JsonlSink(tmp_path))
        start = NOW_MS + 180_000 - MONTH_MS + CLAMP_MARGIN_MS
        assert [row["segmentId"] for row in rows(tmp_path)] == simulator.ids(start, NOW_MS)
        again = await one.extract(start, NOW_MS, JsonlSink(tmp_path))
    lost = [entry for entry in report.windows if entry.status == "unproven"]
    assert [entry.window for entry in lost] == [Window(NOW_MS - MONTH_MS + CLAMP_MARGIN_MS, start)]
    assert "no longer serves this" in str(lost[0].reason)
    assert again.complete
