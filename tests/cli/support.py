"""Helpers for tests of the command line: run it in this process, as a process, and on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from segment_fetch.simulator import Dataset

SECRETS = {
    "LIVEPERSON_APP_KEY": "k3y-of-the-application",
    "LIVEPERSON_APP_SECRET": "s3cret/of+the=application",
    "LIVEPERSON_ACCESS_TOKEN": 't0ken"with\\quotes',
    "LIVEPERSON_ACCESS_TOKEN_SECRET": "s3cret-of-the-token",
}
ACCOUNT = "111111"
NO_DELAYS = ("--retry-delays", "0,0,0", "--network-retry-delays", "0,0,0", "--later-retry-delays", "none")
AT_ONCE = ("--rate", "none", *NO_DELAYS, "--patience", "0s")
"""Options of a run that waits for nothing."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_PATIENCE_S = 30


class Result(NamedTuple):
    """The results of a run: its exit code, standard output and standard error (on a terminal: both)."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return orjson.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard error as JSON lines."""
        return [orjson.loads(line) for line in self.err.splitlines()]

    @property
    def words(self) -> str:
        """Everything, with single spaces: independent of where lines break."""
        return " ".join(f"{self.out} {self.err}".split())


def settled(segments: int, *, days: float = 3.0, ago: float = 3.0, **options: Any) -> Dataset:
    """Segments of a few days that ended long enough ago that nothing more will come."""
    return Dataset.recent(segments, now=time.time() - ago * 86_400, days=days, **options)


def spanning(dataset: Dataset) -> list[str]:
    """The options for the whole range of a dataset."""
    return ["--from", _instant(dataset.start), "--to", _instant(dataset.end)]


def _instant(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))


def environ(**more: str) -> dict[str, str]:
    """An environment without credentials but those given."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("LIVEPERSON_")}
    return {**own, **more}


def command(*argv: str) -> list[str]:
    """The program as a process runs it."""
    return [sys.executable, "-m", "segment_fetch", *argv]


def process(*argv: str, env: Mapping[str, str], **options: Any) -> Result:
    """Runs the program in a process of its own, with pipes."""
    done = subprocess.run(
        command(*argv), env=env, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, **options
    )
    return Result(done.returncode, done.stdout, done.stderr)


def started(*argv: str, env: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """Starts the program in a process of its own."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command(*argv), env=env, text=True, **pipes)


def until(true: Callable[[], object]) -> None:
    """Waits until something is true; fails if it never is."""
    end = time.monotonic() + _PATIENCE_S
    while not true():
        assert time.monotonic() < end, "what was waited for never came"
        time.sleep(0.01)


def on_terminal(
    argv: Sequence[str], env: Mapping[str, str], *, columns: int = 60, folder: Path | None = None
) -> Result:
    """Runs a command on a terminal of some columns; `out` is all that was sent to it."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    running = subprocess.Popen(
        list(argv),
        env={**kept, "TERM": "xterm-256color"},
        cwd=folder,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        sent = _all_of(controller)
        return Result(running.wait(_PATIENCE_S), sent.decode(), "")
    finally:
        os.close(controller)


def _all_of(handle: int) -> bytes:
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(handle, 65_536)
        except OSError:  # how a terminal says that nobody holds its other end any more
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def shown(sent: str) -> list[str]:
    """The lines that a terminal was sent, without its control sequences."""
    return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", sent)) if line.strip()]


def lines_in(folder: Path) -> list[bytes]:
    """The lines of all JSON Lines files in a folder, in order."""
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def assert_no_secret(result: Result) -> None:
    """No secret was written, as it is or as JSON spells it."""
    for value in SECRETS.values():
        for spelled in (value, orjson.dumps(value).decode()[1:-1]):
            assert spelled not in result.out
            assert spelled not in result.err
