"""Cells of CSV that a spreadsheet opens right by a double click: how each country separates them and writes numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from segment_fetch.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Without it Excel reads UTF-8 as the country's own encoding."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of texts that a spreadsheet would run as a formula."""

_LIKE_A_NUMBER = re.compile(r"[\d.][\d.,:/\-\seE+]*")


class Dialect(Struct, frozen=True):
    """The CSV that a country's spreadsheet reads."""

    separator: str
    decimal: str

    def number(self, value: float) -> str:
        """Return a number with at most three decimals."""
        return f"{value:.3f}".rstrip("0").rstrip(".").replace(".", self.decimal)


DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {"en": Dialect(",", ".")} | dict.fromkeys(("de", "fr", "es", "it", "nl", "pt", "pl", "sv"), Dialect(";", ","))
)


def dialect_of(country: str) -> Dialect:
    """Return the dialect of a country, or raise InputError that lists those there are."""
    if country not in DIALECTS:
        raise InputError(f"excel {country!r}: choose one of {', '.join(DIALECTS)}")
    return DIALECTS[country]


def safe_text(value: str) -> str:
    """Return a text with an apostrophe before what a spreadsheet would run."""
    return "'" + value if value.startswith(FORMULA_STARTS) else value


def text_cell(value: str) -> str:
    """Return a text that stays one: a tab stands before what a spreadsheet would make a number or a date of."""
    return "\t" + value if _LIKE_A_NUMBER.fullmatch(value) else safe_text(value)


def plain_text(cell: str) -> str:
    """Return the text that `text_cell` was given."""
    if cell.startswith("\t") or (cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS)):
        return cell[1:]
    return cell
