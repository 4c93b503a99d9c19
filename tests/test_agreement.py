"""Lists that are kept in two places, in two languages or for two reasons, agree."""

import re
import typing
from pathlib import Path

from segment_fetch import arrow
from segment_fetch.query import MAX_PAGE_SIZE
from segment_fetch.simulator.query import MAX_PAGE_SIZE as SIMULATED_LIMIT
from segment_fetch.wire import models

SCANNER = Path(__file__).parent.parent.joinpath("segment_fetch/wire/_scanner.c").read_text()


def test_the_scanner_knows_the_fields_of_a_segment() -> None:
    """In their order, with their kinds: with one forgotten, every page would take the fallback."""
    kinds = {"TEXT": str, "NUMBER": int}
    found = re.findall(r'FIELD\("(\w+)", (TEXT|NUMBER), ([01])\)', SCANNER)
    types = typing.get_type_hints(models.Segment)
    expected = [
        (
            name,
            next(kind for kind in (str, int) if kind is types[name] or kind in typing.get_args(types[name])),
            required,
        )
        for name, required in zip(
            models.SEGMENT_FIELDS,
            ("0" if type(None) in typing.get_args(hint) else "1" for hint in types.values()),
            strict=True,
        )
    ]
    assert [(name, kinds[kind], required) for name, kind, required in found] == expected


def test_a_page_of_the_largest_size_fits_the_scanner() -> None:
    [rows] = re.findall(r"#define MOST_ROWS (\d+)", SCANNER)
    assert SIMULATED_LIMIT == MAX_PAGE_SIZE <= int(rows)


def test_every_field_has_a_column() -> None:
    assert [*arrow.COLUMNS, "endTime", "startTime"] == list(models.SEGMENT_FIELDS)
