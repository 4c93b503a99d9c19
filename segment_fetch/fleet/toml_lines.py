"""The line numbers of a TOML document's tables and keys, which `tomllib` does not report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

Path: TypeAlias = tuple[str, ...]

_NAME = r"(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')"
_DOTTED = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_HEADER = re.compile(rf"\s*\[\[?\s*(?P<names>{_DOTTED})\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(rf"\s*(?P<names>{_DOTTED})\s*=")
_LONG_QUOTES = ('"""', "'''")


def line_numbers(text: str) -> dict[Path, int]:
    """Return the line of each table and of each key, by its path: ("accounts", "111111", "out").

    A key inside an inline table is not included; its table is.
    """
    found: dict[Path, int] = {}
    table: Path = ()
    quote = ""  # the delimiter of a multi-line string, whose lines are not keys
    for number, line in enumerate(text.split("\n"), 1):
        if quote:
            quote = "" if line.count(quote) % 2 else quote
            continue
        if header := _HEADER.fullmatch(line):
            table = path = _names(header["names"])
        elif key := _KEY.match(line):
            path = table + _names(key["names"])
        else:
            path = ()
        for length in range(1, len(path) + 1):
            found.setdefault(path[:length], number)
        quote = next((quote for quote in _LONG_QUOTES if line.count(quote) % 2), "")
    return found


def line_of(path: Path, lines: Mapping[Path, int]) -> int | None:
    """Return the line of a path, else that of the innermost table around it; None if there is neither."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), None)


def _names(dotted: str) -> Path:
    return tuple(name if name[0] not in "'\"" else name[1:-1] for name in re.findall(_NAME, dotted))
