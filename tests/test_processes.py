"""Several processes over one range: the same files as one writes, and nothing left of them however a run ends."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import aiohttp
import pytest

from segment_fetch import (
    BearerToken,
    CredentialsError,
    DestinationBusyError,
    DestinationError,
    Event,
    IncompleteError,
    InputError,
    RequestRefusedError,
    SchemaError,
    SegmentClient,
    SegmentFetchError,
)
from segment_fetch.cli.app import main
from segment_fetch.events import NewFields, PageRead, RangePlanned, WindowDone
from segment_fetch.extract import Report
from segment_fetch.processes import Dividing
from segment_fetch.query import Window, format_time
from segment_fetch.simulator import Bearer, Dataset, Fault, Simulator
from segment_fetch.simulator.pytest_plugin import SimulatorFactory
from segment_fetch.sinks import CsvSink, JsonlSink, ParquetSink, Sink, StreamSink
from segment_fetch.verify import audit
from tests.support import page
from tests.support_runs import END, NOW, START, client, manifest, names, now, rows, settled, until

DAY = timedelta(days=1)
SECRET = "s3cret-bearer"
CLOCK = partial(float, NOW)
"""A clock that goes to another process without bringing the tests along."""


async def extract(simulator: Simulator, sink: Sink[Any], processes: int = 2, **options: Any) -> Report:
    """One run."""
    async with client(simulator, processes=processes, **({"clock": CLOCK} | options)) as opened:
        return await opened.extract(START, END, sink)


def children(of: int) -> list[int]:
    """The processes that a run has started, and that are still there; other tests have some of their own."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            own = b"segment_fetch.worker" in stat.with_name("cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        if own and int(parent) == of and state != "Z":
            found.append(int(stat.parent.name))
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The windows' files, with their bytes."""
    return {path.name: path.read_bytes() for path in folder.glob("segments-*")}


@pytest.fixture
def slow(segment_simulator: SimulatorFactory) -> Simulator:
    """Windows whose pages take their time, so that something can happen in between."""
    return segment_simulator(settled(1_200), clock=now, latency_ms=60, auth=Bearer(SECRET))


LIMITED: dict[str, Any] = {"window": DAY, "limit": 100, "connections": 2, "auth": BearerToken(SECRET)}


SINKS: dict[str, Callable[[Path], Sink[Any]]] = {
    "jsonl by day": lambda folder: JsonlSink(folder, "gzip", partition="day"),
    "csv": lambda folder: CsvSink(folder, safe=True),
    "parquet": ParquetSink,
}


@pytest.mark.parametrize("kind", SINKS)
async def test_files_are_those_of_one_process(segment_simulator: SimulatorFactory, tmp_path: Path, kind: str) -> None:
    simulator = segment_simulator(settled(1_500, new_field_from=700), clock=now)
    options: dict[str, Any] = {"limit": 50, "split_above": 200}
    one, two = tmp_path / "one", tmp_path / "two"
    alone = await extract(simulator, SINKS[kind](one), processes=1, **options)
    before, told = simulator.stats.requests, list[Event]()
    report = await extract(simulator, SINKS[kind](two), on_event=told.append, **options)
    found = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("segments-*")} for folder in (one, two)
    ]
    assert found[0] == found[1] != {}
    assert (report.complete, report.segments, report.unknown_fields) == (True, 1_500, alone.unknown_fields)
    assert report.requests == simulator.stats.requests - before
    assert [entry.written for entry in report.windows] == [entry.written for entry in alone.windows]
    assert audit(two).sound
    assert not [*two.rglob("*.partial")]
    assert [event for event in told if isinstance(event, RangePlanned)] == [RangePlanned(len(report.windows), 0)]
    assert sum(event.segments for event in told if isinstance(event, WindowDone)) == 1_500
    assert sum(isinstance(event, PageRead) for event in told) == sum(entry.pages for entry in report.windows)
    assert [event.names for event in told if isinstance(event, NewFields)] == [("newField",)]


async def test_a_further_run_reads_what_is_missing_and_compares(
    segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    """Provisional windows are replaced, and what came and went is told, although another process writes them."""
    moment = [END / 1000 + 1]
    simulator, sink = segment_simulator(settled(300), clock=lambda: moment[0]), JsonlSink(tmp_path)
    first = await extract(simulator, sink, window=DAY, clock=partial(float, moment[0]))
    assert [entry.status for entry in first.windows] == ["complete"] * 4 + ["provisional"] * 2
    due, moment[0] = files(tmp_path), NOW
    newest = tmp_path / max(due)
    newest.write_bytes(newest.read_bytes().replace(b'"segmentId":"', b'"segmentId":"x', 1).replace(b"}", b"", 1))
    second = await extract(simulator, sink, window=DAY)
    assert (second.complete, second.skipped, len(second.windows)) == (True, 4, 2)
    assert files(tmp_path) == due
    third = await extract(simulator, sink, window=DAY)
    assert (third.complete, third.skipped, third.requests) == (True, 6, 0)


async def test_sync_runs_in_several_processes(segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    simulator = segment_simulator(settled(300), clock=now)
    async with client(simulator, processes=2, clock=CLOCK) as opened:
        report = await opened.sync(JsonlSink(tmp_path), START)
    assert (report.complete, report.segments) == (True, 300)
    assert len(rows(tmp_path)) == 300


async def test_a_page_that_cannot_be_had_leaves_its_window_unproven(
    segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    """In finding the windows that is no reason to give up; in reading one it is that window's alone."""
    simulator = segment_simulator(settled(300), clock=now)
    simulator.fail_next(Fault.HUGE)
    assert (await extract(simulator, JsonlSink(tmp_path / "one"), window=2 * DAY)).complete
    simulator.fail_next(Fault.HUGE, 4)
    report = await extract(simulator, JsonlSink(tmp_path / "two"), window=2 * DAY)
    assert [entry.status for entry in report.windows].count("unproven") == 1
    assert len(files(tmp_path / "two")) == 2


async def test_refused_credentials_end_the_run(segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    simulator = segment_simulator(settled(300), clock=now, auth=Bearer("another"))
    with pytest.raises(CredentialsError) as caught:
        await extract(simulator, JsonlSink(tmp_path), auth=BearerToken(SECRET))
    assert SECRET not in str(caught.value)
    assert not children(os.getpid())


async def test_an_error_in_a_process_is_that_of_the_run(slow: Simulator, tmp_path: Path) -> None:
    """The credentials are withdrawn while windows are read: what is committed stays, the rest goes."""
    run = asyncio.create_task(extract(slow, JsonlSink(tmp_path), **LIMITED))
    await until(lambda: len(files(tmp_path)) >= 1)
    verifier, slow._service._verifier = slow._service._verifier, Bearer("another").verifier()
    with pytest.raises(CredentialsError) as caught:
        await run
    assert SECRET not in repr(caught.value)
    await proves_clean(tmp_path)
    slow._service._verifier = verifier
    assert (await extract(slow, JsonlSink(tmp_path), **LIMITED)).complete
    assert len(rows(tmp_path)) == 1_200


async def proves_clean(folder: Path) -> None:
    """No process and no temporary file is there, and every file is one that the manifest names."""
    assert not children(os.getpid())
    assert not [name for name in names(folder) if name.endswith(".partial")]
    assert set(files(folder)) == {entry["file"] for entry in manifest(folder)["windows"] if "file" in entry}


async def test_full_disk_of_a_process(slow: Simulator, tmp_path: Path) -> None:
    """A process finds out what the one that opened the folder could not know."""
    run = asyncio.create_task(extract(slow, JsonlSink(tmp_path / "out"), **LIMITED))
    await until(lambda: len(list(tmp_path.glob("out/segments-*"))) >= 1)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    with pytest.raises(DestinationError, match="cannot write"):
        await run
    assert not children(os.getpid())


async def test_a_process_that_is_killed_ends_the_run(slow: Simulator, tmp_path: Path) -> None:
    run = asyncio.create_task(extract(slow, JsonlSink(tmp_path), **LIMITED))
    await until(lambda: len(files(tmp_path)) >= 1)
    os.kill(children(os.getpid())[0], signal.SIGKILL)
    with pytest.raises(SegmentFetchError, match="one of the processes was ended by SIGKILL"):
        await run
    await proves_clean(tmp_path)
    report = await extract(slow, JsonlSink(tmp_path), **LIMITED)
    assert report.complete
    assert report.skipped >= 1
    assert len(rows(tmp_path)) == 1_200


async def test_cancelled(slow: Simulator, tmp_path: Path) -> None:
    run = asyncio.create_task(extract(slow, JsonlSink(tmp_path), **LIMITED))
    await until(lambda: len(files(tmp_path)) >= 1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await proves_clean(tmp_path)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelled_before_a_process_has_started(slow: Simulator, tmp_path: Path) -> None:
    for turns in (5, 20, 40, 80):
        run = asyncio.create_task(extract(slow, JsonlSink(tmp_path), **LIMITED))
        for _ in range(turns):
            await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert not children(os.getpid())
        assert asyncio.all_tasks() == {asyncio.current_task()}


@contextmanager
def command(simulator: Simulator, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, with its secret in the environment, when its processes have written a file."""
    span = simulator.dataset
    options = ["--base-url", simulator.base_url, "--account", simulator.account, "--out", str(folder)]
    options += [
        "--from",
        format_time(span.start),
        "--to",
        format_time(span.end),
        "--window",
        "1d",
        "--connections",
        "2",
    ]
    argv = [sys.executable, "-m", "segment_fetch", "extract", *options, "--rate", "none", "--processes", "2"]
    environ = {**os.environ, "LIVEPERSON_BEARER": SECRET}
    with subprocess.Popen(argv, env=environ, stdout=DEVNULL, stderr=PIPE, text=True) as running:
        try:
            limit = time.monotonic() + 20
            while not list(folder.glob("segments-*")):
                assert running.poll() is None, running.communicate()[1]
                assert time.monotonic() < limit
                time.sleep(0.01)
            yield running
        finally:
            running.kill()


@pytest.fixture
def recent(segment_simulator: SimulatorFactory) -> Simulator:
    """The same as `slow`, by the clock on the wall: a command has no other."""
    dataset = Dataset.recent(6_000, now=time.time() - 3 * 86_400, days=6)
    return segment_simulator(dataset, latency_ms=100, auth=Bearer(SECRET))


def ended(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_interrupted_command_leaves_nothing(recent: Simulator, tmp_path: Path) -> None:
    """Nor is its secret on a command line or in an environment while it runs."""
    with command(recent, tmp_path) as running:
        members = children(running.pid)
        shown = [Path(f"/proc/{pid}/{part}").read_bytes() for pid in members for part in ("cmdline", "environ")]
        sent = time.monotonic()
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=10)[1]
        assert time.monotonic() - sent < 2.0
    assert running.returncode == 130
    assert "Traceback" not in said
    assert len(members) == 2
    assert all(shown)
    assert not [text for text in shown if SECRET.encode() in text]
    assert ended(members)
    assert not [*tmp_path.glob(".*.partial")]


def test_a_killed_command_leaves_no_process(recent: Simulator, tmp_path: Path) -> None:
    """And while one of them is not gone yet, it keeps the folder: nobody else can write there."""
    with command(recent, tmp_path) as running:
        members = children(running.pid)
        os.kill(members[0], signal.SIGSTOP)
        running.kill()
        running.wait()
    try:
        with pytest.raises(DestinationBusyError):
            JsonlSink(tmp_path).open()
    finally:
        os.kill(members[0], signal.SIGCONT)
    limit = time.monotonic() + 5
    while not ended(members):
        assert time.monotonic() < limit, "a process outlives the command"
        time.sleep(0.01)
    before = set(files(tmp_path))
    with command(recent, tmp_path) as running:
        said = running.communicate(timeout=30)[1]
    assert running.returncode == 0, said
    assert before < set(files(tmp_path))
    assert audit(tmp_path).sound
    assert len(rows(tmp_path)) == 6_000


def test_settings_that_cannot_work() -> None:
    def settings(**options: Any) -> None:
        SegmentClient("111111", auth=BearerToken(SECRET), source="tests", **options)

    settings(processes=2, rate=None)
    with pytest.raises(InputError, match=r"processes: must be a whole number of at least 1"):
        settings(processes=0, rate=None)
    for rate in ("auto", 5.0):
        with pytest.raises(InputError, match=r"processes: several need rate None \(--rate none\)"):
            settings(processes=2, rate=rate)

    with pytest.raises(InputError, match="each needs a connection of its own, and there are 3"):
        settings(processes=4, rate=None, connections=3)


def test_a_command_with_settings_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(f"LIVEPERSON_ACCOUNT=111111\nLIVEPERSON_BEARER={SECRET}\n")
    credentials.chmod(0o600)
    argv = ["extract", "--from", "now-1d", "--credentials", str(credentials), "--processes", "2", "--out"]
    assert main([*argv, str(tmp_path / "out")]) == 2
    assert "several need rate None (--rate none)" in " ".join(capsys.readouterr().err.split())
    assert main([*argv, "-", "--rate", "none"]) == 2
    assert "only into a folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_window_that_cannot_be_divided_stays_as_it_is() -> None:
    window = Window(0, 1_000)
    dividing = Dividing([window], 2, 2)
    first = dividing.next()
    assert first is not None
    dividing.answered(first, page([900, 800], 6))
    cuts = [dividing.next(), dividing.next()]
    for _ in range(2):
        assert cuts[0] is not None
        dividing.failed(cuts[0], SchemaError("no number", "$"))
    assert cuts[1] is not None
    dividing.answered(cuts[1], page([300, 200], 6))
    assert dividing.finished()
    assert [planned.window for planned in dividing.planned()] == [window]


async def test_a_session_cannot_be_shared() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(InputError, match="processes: several cannot share the session"):
            SegmentClient("1", auth=BearerToken(SECRET), source="tests", rate=None, session=session, processes=2)


async def test_only_into_folders(segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    simulator = segment_simulator(settled(10), clock=now)
    with pytest.raises(InputError, match="processes: only into a folder"):
        await extract(simulator, StreamSink(io.BytesIO()))
    with pytest.raises(InputError, match="cannot be taken to another process"):
        await extract(simulator, JsonlSink(tmp_path), clock=lambda: NOW)
    assert not files(tmp_path)
    assert simulator.stats.requests == 0


class Elsewhere(JsonlSink):
    """A class that other processes do not find."""


async def test_what_other_processes_cannot_import(
    segment_simulator: SimulatorFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = segment_simulator(settled(10), clock=now)
    monkeypatch.setattr(Elsewhere, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Elsewhere", Elsewhere, raising=False)
    with pytest.raises(InputError, match="has to be in a module that can be imported"):
        await extract(simulator, Elsewhere(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        RequestRefusedError("refused", ["because"], status=400),
        SchemaError("no number", "$.segments[0].agentId", offset=5),
        DestinationBusyError("busy"),
        IncompleteError("some", ["window"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_through_a_pipe_as_they_are(error: SegmentFetchError) -> None:
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.__dict__) == (type(error), str(error), error.__dict__)
