"""The reason for which a row is not of the form that the fast path takes, in words for people. No I/O."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, get_args

from segment_fetch.wire.models import SEGMENT_FIELDS, Segment

LONGEST_SHOWN = 16_384
"""Number of bytes from the beginning of a row that are examined."""

_REQUIRED = ("segmentId", "endTimeL")
_NUMBERS = {name for name, kind in Segment.__annotations__.items() if kind is int or int in get_args(kind)}
_MOST_DIGITS = 18
_decoder = json.JSONDecoder(object_pairs_hook=list)


def why_not_plain(text: bytes) -> str:
    """Return why the row at the beginning of `text` is not compact JSON of the known fields in the usual order."""
    try:
        pairs, end = _decoder.raw_decode(text.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return "white space between rows" if text[:1].isspace() else "a row that is not JSON, or a very long one"
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return "a row that is not an object"
    row = text.decode("utf-8", "replace")[:end]
    return _of_names([name for name, _ in pairs]) or _of_values(pairs) or _of_spelling(row, dict(pairs))


def _of_names(names: list[str]) -> str | None:
    if unknown := [name for name in names if name not in SEGMENT_FIELDS]:
        return f"the field {unknown[0]!r}, which this version does not know"
    if missing := [name for name in _REQUIRED if name not in names]:
        return f"a row without {missing[0]}"
    places = [SEGMENT_FIELDS.index(name) for name in names]
    if any(one >= other for one, other in pairwise(places)):
        return "fields in another order than the documented one, or twice"
    return None


def _of_values(pairs: list[tuple[str, Any]]) -> str | None:
    for name, value in pairs:
        if value is None and name not in _REQUIRED:
            continue
        if type(value) is not (int if name in _NUMBERS else str):
            return f"a value of {name} that is not of the documented type"
        if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
            return f"a value of {name} with more than {_MOST_DIGITS} digits"
    return None


def _of_spelling(row: str, values: dict[str, Any]) -> str:
    if "\\" in row:
        return "a text with an escape sequence"
    if row != json.dumps(values, ensure_ascii=False, separators=(",", ":")):
        return "white space between the values of a row"
    return "rows that are not sorted by close time, or too many of them"
