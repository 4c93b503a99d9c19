"""Numbers, plurals, paths and commands as readable text."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path

from segment_fetch.events import PaceChanged, per_second

NAME = "segment-fetch"


def program() -> str:
    """Return the program as typed in a shell: its name, or its path if the name is not on PATH."""
    called = sys.argv[0] if sys.argv else ""
    by_path = "/" in called and Path(called).name == NAME
    return shlex.quote(called) if by_path and not _is_on_path(called) else NAME


def _is_on_path(called: str) -> bool:
    from shutil import which  # noqa: PLC0415 - `--version` does without

    found = which(NAME)
    return found is not None and Path(found).resolve() == Path(called).resolve()


def harmless(text: str) -> str:
    """Return text without control characters: everything that is neither printable nor a line break becomes `?`."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


def harmless_json(json: str) -> str:
    """Return the same JSON, with terminal control characters written as escapes."""
    return "".join(sign if sign.isprintable() or sign == "\n" else _escape(sign) for sign in json)


def _escape(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: 1 window, 2,000 windows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def pace(changed: PaceChanged, *, brief: bool = False) -> str:
    """Return a pace as "9.7 requests a second, 5 at once", or if brief as "9.7/s, 5 at once"."""
    at_once = "" if changed.at_once is None else f", {changed.at_once} at once"
    return f"{per_second(changed.rate)}{'/s' if brief else ' requests a second'}{at_once}"


def shown(path: str) -> str:
    """Return a path as valid text, whatever bytes it contains."""
    return os.fsencode(path).decode("utf-8", "replace")


def width() -> int:
    """Return the number of columns for text: the terminal's, at most 100."""
    return max(30, min(100, shutil.get_terminal_size((80, 24)).columns))


def wrapped(text: str, columns: int, *, hang: str = "  ") -> str:
    """Wrap a text to `columns`. Commands and longer words are not broken, so that they can be copied."""
    commands = tuple(f"  {name} " for name in (NAME, program()))
    return "\n".join(
        line
        if line.startswith(commands)
        else textwrap.fill(
            line, columns, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
        )
        for line in text.splitlines()
    )
