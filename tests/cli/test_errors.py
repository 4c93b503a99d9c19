"""Errors that users run into: each ends with the right code, a message that says what to do, and without a secret."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from segment_fetch import errors
from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.cli import failures
from segment_fetch.cli.exit_codes import exit_code
from segment_fetch.client import SegmentClient
from segment_fetch.simulator import Fault, Faults, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from tests.cli.conftest import KEY, Run
from tests.cli.support import (
    AT_ONCE,
    SECRETS,
    Result,
    assert_no_secret,
    command,
    lines_in,
    process,
    settled,
    spanning,
    started,
)

DEBUG = ("--log-level", "debug")


class _Echo(BaseHTTPRequestHandler):
    """Answers 401 and repeats all it was sent, as some servers do."""

    status = 401

    def do_GET(self) -> None:
        said = f"{self.path} {self.headers}"
        body = orjson.dumps({"message": said, "reason": said, "causes": [said]})
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(params=[400, 401, 403, 500])
def echo(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Echo", (_Echo,), {"status": request.param}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _always(fault: Fault) -> Faults:
    shares: dict[str, Any] = {fault.value: 1.0}
    return Faults(**shares)


def _extract(run: Run, base_url: str, out: object, *more: str) -> Result:
    argv = ["extract", "--base-url", base_url, "--from", "now-6d", "--to", "now-3d", "--out", str(out)]
    result = run(*argv, *AT_ONCE, *DEBUG, *more)
    assert_no_secret(result)
    return result


def test_wrong_credentials(run: Run, api: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEPERSON_APP_SECRET", "hush-hush")
    result = _extract(run, api.base_url, tmp_path)
    assert result.code == 4
    assert "did not accept the credentials (401): The signature is wrong" in result.err
    assert "hush" not in result.err


def test_a_key_without_the_permission(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    api = segment_simulator(settled(10), auth=KEY, permitted=False)
    result = _extract(run, api.base_url, tmp_path)
    assert result.code == 4
    assert "Data > Workforce Management > Agent Activity API" in result.err


def test_the_wrong_account(run: Run, api: Simulator, tmp_path: Path) -> None:
    assert _extract(run, api.base_url, tmp_path, "--account", "222222").code == 4


def test_no_server_secret_is_repeated(run: Run, echo: str, tmp_path: Path) -> None:
    result = _extract(run, echo, tmp_path)
    assert result.code in (2, 4, 5)
    plan = run("plan", "--base-url", echo, "--from", "now-1d", *AT_ONCE, *DEBUG)
    assert_no_secret(plan)
    doctor = run("doctor", "--base-url", echo, "--retry-delays", "none", "--json", *DEBUG)
    assert_no_secret(doctor)
    assert doctor.code in (2, 4, 5)


def test_a_dead_port(run: Run, tmp_path: Path) -> None:
    result = _extract(run, "http://127.0.0.1:1", tmp_path)
    assert result.code == 5
    assert "no connection to 127.0.0.1" in result.err
    assert "segment-fetch doctor" in result.err


@pytest.mark.parametrize("fault", [Fault.HTML, Fault.ERROR_BODY, Fault.ERROR_503, Fault.TRUNCATED])
def test_a_server_that_never_answers_right(
    fault: Fault, run: Run, segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    api = segment_simulator(settled(100), auth=KEY, faults=_always(fault))
    result = _extract(run, api.base_url, tmp_path)
    assert result.code == 5
    assert ", 4 times" in result.err


def test_a_server_whose_pages_are_never_whole_is_named(
    run: Run, segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    api = segment_simulator(settled(100), auth=KEY, faults=_always(Fault.BAD_JSON))
    result = _extract(run, api.base_url, tmp_path)
    assert result.code == 5
    assert "the answer is not JSON" in result.words
    assert api.stats.requests < 130, "at most 64 a fault"


def test_a_redirect_is_not_followed(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    api = segment_simulator(settled(100), auth=KEY, faults=Faults(redirect=1.0))
    result = _extract(run, api.base_url, tmp_path)
    assert result.code == 2
    assert "redirects (302), which is never followed" in result.err


def test_a_failure_after_something_was_read(
    run: Run, api: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_later(_: object, text: str) -> None:
        lines.append(text)
        if re.search(r"window .* holds \d", text):
            api.faults = Faults(error_503=1.0)

    lines: list[str] = []
    monkeypatch.setattr("segment_fetch.cli.console.Console._line", fail_later)
    result = _extract(run, api.base_url, tmp_path, "--connections", "1", "--window", "1d", "--patience", "0s")
    assert result.code == 3
    assert "the service failed with 503" in lines[-2]
    assert "the same command continues from there" in lines[-2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from", "2999-01-01", "--to", "2999-02-01"), "starts in the future"),
        (("--to", "now-7d"), "after it ends"),
        (("--to", "now-6d", "--from", "now-6d"), "the range is empty"),
        (("--source", "nightly wfm"), "1 to 20 letters, digits or underscores"),
        (("--account", "11/22"), "letters, digits"),
        (("--window", "8d"), "one week"),
        (("--agent-id", " "), "filter AgentId: is empty"),
        (("--base-url", "http://example.org"), "plain http would expose the credentials"),
        (("--base-url", "https://name:hush@localhost"), "must not hold a user name or password"),
        (("--base-url", "nonsense"), "write https://host"),
        (("--out", ""), "--out is empty"),
    ],
)
def test_input_that_cannot_work(options: tuple[str, ...], said: str, run: Run, tmp_path: Path) -> None:
    result = _extract(run, "http://127.0.0.1:1", tmp_path / "out", *options)
    assert result.code == 2
    assert said in result.err
    assert "hush" not in result.err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_file_in_place_of_the_folder(run: Run, api: Simulator, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    result = _extract(run, api.base_url, tmp_path / "out")
    assert result.code == 2
    assert "is not a folder: choose another one" in result.err
    assert api.stats.requests == 0


def test_a_folder_that_cannot_be_made(run: Run, api: Simulator) -> None:
    result = _extract(run, api.base_url, "/proc/segments")
    assert result.code == 2
    assert "cannot write /proc/segments" in result.err


def test_a_folder_in_use(run: Run, api: Simulator, tmp_path: Path) -> None:
    from segment_fetch.sinks import JsonlSink

    sink = JsonlSink(tmp_path)
    sink.open()
    try:
        result = _extract(run, api.base_url, tmp_path)
    finally:
        sink.close()
    assert result.code == 3
    assert "another run is writing" in result.err


def test_a_disk_that_is_full(run: Run, api: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("segment_fetch.sinks.files.disk.Disk.write", full)
        result = _extract(run, api.base_url, tmp_path)
    assert result.code == 3
    assert "no space left" in result.err
    assert "free some and run again" in result.err
    assert _extract(run, api.base_url, tmp_path).code == 0
    assert lines_in(tmp_path)


def test_a_limit_of_file_size(api: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from segment_fetch.cli.app import main; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(tmp_path), *AT_ONCE]
    program = command()[0]
    plain = {name: value for name, value in env.items() if not name.startswith("COVERAGE")}  # its file is limited, too
    result = process_of([program, "-c", limited, *argv], plain)
    assert result.code == 3
    assert "File too large" in result.err
    assert "Traceback" not in result.err
    assert not list(tmp_path.glob("segments-*"))


def process_of(argv: list[str], env: dict[str, str]) -> Result:
    """Any command, with pipes."""
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("name", ["extract", "plan"])
def test_standard_output_that_is_full(name: str, api: Simulator, env: dict[str, str]) -> None:
    where = ["--out", "-"] if name == "extract" else []
    argv = [name, "--base-url", api.base_url, *spanning(api.dataset), *where, *AT_ONCE]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(*argv), env=env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_goes_away(api: Simulator, env: dict[str, str]) -> None:
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", "-", *AT_ONCE]
    with started(*argv, env=env) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("{")
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 3
    assert "the reader of the output closed it before the end" in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said


def test_an_error_of_the_program_itself(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"cannot cope with {SECRETS['LIVEPERSON_APP_SECRET']}")

    monkeypatch.setattr(SegmentClient, "extract", broken)
    argv = ["extract", "--base-url", "http://127.0.0.1:1", "--from", "now-1d", "--out", str(tmp_path)]
    result = run(*argv)
    assert result.code == 70
    assert "an error in this program: RuntimeError: cannot cope with ***" in result.err
    assert "--log-level debug" in result.err
    assert "Traceback" not in result.err
    traced = run(*argv, *DEBUG)
    assert "Traceback (most recent call last)" in traced.err
    assert_no_secret(traced)
    logged = run(*argv, *DEBUG, "--log-format", "json")
    assert "RuntimeError" in logged.events[-1]["traceback"]
    assert_no_secret(logged)


def test_a_domain_that_cannot_be_asked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = SegmentApi.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "domain_url", "http://127.0.0.1:1")
    result = run("extract", "--from", "now-20d", "--out", str(tmp_path), *AT_ONCE)
    assert result.code == 5
    assert "no connection to 127.0.0.1" in result.words


def test_an_interrupt_before_anything_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("segment_fetch.cli.commands.plan.run", interrupted)
    result = run("plan", "--from", "now-1d")
    assert result.code == 130
    assert "warning: interrupted" in result.err
    assert "Traceback" not in result.err


def test_no_traceback_for_users(run: Run, tmp_path: Path) -> None:
    argv = ["extract", "--base-url", "http://127.0.0.1:1", "--from", "now-1d", "--out", str(tmp_path), *AT_ONCE]
    assert "Traceback" not in run(*argv).err


def test_a_missing_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    result = _extract(run, "http://127.0.0.1:1", tmp_path, "--compress", "zstd")
    assert result.code == 2
    assert "pip install 'segment-fetch[zstd]'" in result.err


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (errors.InputError("x"), 2, 3),
        (errors.RequestRefusedError("x"), 2, 3),
        (errors.ManifestError("x"), 2, 3),
        (errors.MissingExtraError("x"), 2, 3),
        (errors.CredentialsError("x"), 4, 4),
        (errors.ServiceError("x"), 5, 3),
        (errors.DestinationError("x"), 2, 3),
        (errors.SchemaError("x", "$"), 3, 3),
        (errors.IncompleteError("x", []), 3, 3),
        (failures.InterruptedRunError(2), 130, 130),
        (failures.InterruptedRunError(15), 143, 143),
        (failures.OutputError(BrokenPipeError()), 3, 3),
        (ValueError("x"), 70, 70),
    ],
)
def test_the_switch(error: Exception, before: int, after: int) -> None:
    assert exit_code(error, progressed=False) == before
    assert exit_code(error, progressed=True) == after


def test_secrets_of_a_process(env: dict[str, str], tmp_path: Path) -> None:
    result = process("extract", "--base-url", "http://127.0.0.1:1", "--from", "now-1d", "--out", str(tmp_path),
                     *AT_ONCE, *DEBUG, env=env)  # fmt: skip
    assert result.code == 5
    assert_no_secret(result)
