"""How this program can be called again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

NAME = "segment-fetch"


def program() -> str:
    """The program as a shell takes it: its name, or the path by which it was called where the name finds no such."""
    called = sys.argv[0] if sys.argv else ""
    by_path = "/" in called and Path(called).name == NAME
    return shlex.quote(called) if by_path and not _is_on_path(called) else NAME


def _is_on_path(called: str) -> bool:
    from shutil import which  # noqa: PLC0415 - `--version` does without

    found = which(NAME)
    return found is not None and Path(found).resolve() == Path(called).resolve()
