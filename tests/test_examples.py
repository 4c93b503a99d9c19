"""The examples, run: the programs against a simulator, what schedules them against the checkers of its format."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import shlex
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import nbformat
import pytest
import uvicorn
import yaml  # type: ignore[import-untyped]
from nbclient import NotebookClient

from segment_fetch.cli import parser
from segment_fetch.simulator import Dataset, Fault, Simulator
from tests.support_runs import until

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("APP_KEY", "APP_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET", "BEARER", "BEARER_111111", "BEARER_222222")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A month of segments, its address and credentials in the environment, and an empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    with Simulator(Dataset.recent(20_000, now=time.time(), days=30)).in_thread() as simulator:
        monkeypatch.setenv("LIVEPERSON_ACCOUNT", simulator.account)
        monkeypatch.setenv("SEGMENTS_OUT", str(tmp_path / "out"))
        for name in NAMES:
            monkeypatch.setenv(f"LIVEPERSON_{name}", f"the-{name}")
        for suffix in ("", "_111111", "_222222"):
            monkeypatch.setenv(f"SEGMENT_FETCH_BASE_URL{suffix}", simulator.base_url)
        yield simulator


def test_the_script_brings_a_folder_up_to_date(served: Simulator, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(EXAMPLES / "script.py"), run_name="__main__")
    assert done.value.code == 0
    assert (tmp_path / "segments" / "manifest.json").exists()


def test_two_accounts_share_a_session(served: Simulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Simulator(Dataset.recent(500, now=time.time(), days=30, account="222222")).in_thread() as other:
        os.environ["SEGMENT_FETCH_BASE_URL_222222"] = other.base_url
        runpy.run_path(str(EXAMPLES / "two_accounts_aiohttp.py"), run_name="__main__")
    assert capsys.readouterr().out.count("complete") == 2
    assert {path.parent.name for path in tmp_path.glob("segments/*/manifest.json")} == {"111111", "222222"}


@pytest.mark.filterwarnings("ignore")  # of the notebook's machinery, not of ours
def test_the_notebook_runs(served: Simulator) -> None:
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=60).execute()
    planned, read = (cell.outputs[0]["data"]["text/plain"] for cell in notebook.cells if cell.cell_type == "code")
    assert int(planned) >= int(read) > 1_000


@asynccontextmanager
async def service() -> AsyncIterator[tuple[aiohttp.ClientSession, dict[str, Any]]]:
    """The FastAPI service on a socket, and what its module holds; leaving the block shuts it down."""
    module = runpy.run_path(str(EXAMPLES / "service_fastapi.py"))
    server = uvicorn.Server(uvicorn.Config(module["app"], port=0, log_level="error"))
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session, module
    finally:
        server.should_exit = True
        await running


async def test_the_service_runs_tells_and_streams(served: Simulator, tmp_path: Path) -> None:
    async with service() as (http, _):
        async with http.get("/runs/progress") as none:
            assert none.status == 404
        async with http.post("/runs", params={"start": "now-7d"}) as begun:
            assert begun.status == 202
        async with http.get("/runs/progress") as progress:
            told = (await progress.text()).split("\n\n")
        assert told[-2].startswith("event: done")
        assert any("event: WindowCommitted" in event for event in told)
        async with http.get("/segments", params={"start": "now-7d"}) as streamed:
            lines = [json.loads(line) async for line in streamed.content]
    assert len({line["segmentId"] for line in lines}) == len(lines) > 1_000
    assert (tmp_path / "out" / "manifest.json").exists()


async def test_a_slow_reader_slows_the_reading_down(served: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service() as (http, module):
        stream, given = module["state"].client.stream, 0

        async def counted(start: str, end: str) -> AsyncIterator[Any]:
            nonlocal given
            async with aclosing(stream(start, end)) as batches:
                async for batch in batches:
                    given += 1
                    yield batch

        monkeypatch.setattr(module["state"].client, "stream", counted)
        async with http.get("/segments", params={"start": "now-29d"}) as streamed:
            await streamed.content.readline()
            slow = -1
            while slow != given:
                slow = given
                await asyncio.sleep(0.3)
            lines = [line async for line in streamed.content]
    assert slow < given - 5  # what the sockets between them hold, and no more
    assert len(lines) > 15_000


async def test_a_reader_that_leaves_ends_the_reading(served: Simulator) -> None:
    async with service() as (http, _):
        async with http.get("/segments", params={"start": "now-29d"}) as streamed:
            await streamed.content.readline()
            streamed.close()
        asked = -1
        while asked != served.stats.requests:  # what was on its way when the reader left may still arrive
            asked = served.stats.requests
            await asyncio.sleep(0.3)
    assert asked < 40, "all 20,000 segments take more"


async def test_shutdown_ends_a_run_in_order(served: Simulator) -> None:
    served.fail_next(Fault.STALL, 100)
    async with service() as (http, module):
        async with http.post("/runs", params={"start": "now-29d"}) as begun:
            assert begun.status == 202
        async with http.post("/runs") as second:
            assert second.status == 409
    assert module["state"].job.task.cancelled()
    await until(lambda: served.stats.in_flight == 0)


def test_schedules_call_the_command_as_it_is() -> None:
    unit = (EXAMPLES / "segment-fetch.service").read_text()
    cron = (EXAMPLES / "crontab").read_text().splitlines()[-1]
    job = yaml.safe_load((EXAMPLES / "cronjob.yaml").read_text())["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (docker,) = [line for line in (EXAMPLES / "Dockerfile").read_text().splitlines() if line.startswith("CMD")]
    (started,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    calls = [shlex.split(started)[1:], shlex.split(cron)[6:], job["containers"][0]["args"], json.loads(docker[4:])]
    for argv in calls:
        assert parser.parse(argv).command == "sync"


def test_the_dockerfile_is_linted_and_its_last_layer_has_no_compiler_and_no_root() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, EXAMPLES / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    last = (EXAMPLES / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert last.startswith("python:3.13-slim\n")
    assert "\nUSER 10001\n" in last
    assert "apt-get" not in last


@pytest.mark.filterwarnings("ignore")  # of the checker, which reads its own files in a way that is deprecated
def test_the_cronjob_is_one() -> None:
    import kubernetes_validate

    job = yaml.safe_load((EXAMPLES / "cronjob.yaml").read_text())
    kubernetes_validate.validate(job, "1.30", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job | {"spec": {}}, "1.30", strict=True)
