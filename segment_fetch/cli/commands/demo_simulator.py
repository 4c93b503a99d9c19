"""The demo's simulator: a process of its own that ends with this one, whatever happens to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import orjson

from segment_fetch.errors import ServiceError

_ENDS_WITHIN_S = 2.0


@contextmanager
def simulator(options: Sequence[str], environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Runs `simulate` for the length of the block; gives what it announces.

    It ends when its standard input does, which the system closes should this process be killed. It has a session of
    its own, so that Ctrl-C in the terminal reaches it only by way of this process. Secrets go through `environ`.
    """
    command = [sys.executable, "-m", "segment_fetch", "simulate", "--json", "--until-stdin-closes", *options]
    process = subprocess.Popen(  # noqa: S603 - this very program
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        start_new_session=True,
    )
    try:
        yield _announced(process)
    finally:
        _end(process)


def _announced(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    line = process.stdout.readline()
    if not line:
        said = process.stderr.read().decode(errors="replace").strip()
        raise ServiceError(f"the simulator did not start: {said or 'it said nothing'}")
    announced: dict[str, Any] = orjson.loads(line)
    return announced


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
