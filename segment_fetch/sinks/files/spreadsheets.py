"""CSV cells that spreadsheets open correctly: each country's separator and number format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from segment_fetch.errors import InputError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Without it, Excel reads UTF-8 in the country's legacy encoding."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""Prefixes of texts that a spreadsheet would evaluate as a formula."""

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
    """Return the dialect of a country, or raise InputError with the known ones."""
    if country not in DIALECTS:
        raise InputError(f"excel {country!r}: choose one of {', '.join(DIALECTS)}")
    return DIALECTS[country]


def safe_text(value: str) -> str:
    """Return a text, with an apostrophe before it if a spreadsheet would evaluate it as a formula."""
    return "'" + value if value.startswith(FORMULA_STARTS) else value


def text_cell(value: str) -> str:
    """Return a text, with a tab before it if a spreadsheet would turn it into a number or a date."""
    return "\t" + value if _LIKE_A_NUMBER.fullmatch(value) else safe_text(value)


def plain_text(cell: str) -> str:
    """Return the text that was passed to `text_cell`."""
    if cell.startswith("\t") or (cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS)):
        return cell[1:]
    return cell
