"""Handle time as a table for a terminal, CSV (RFC 4180), JSON, Parquet, CSV for a spreadsheet, or an Excel workbook."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa

from segment_fetch.analysis.handle_time_sums import GROUPS, HandleTime
from segment_fetch.errors import InputError, MissingExtraError
from segment_fetch.sinks.files.spreadsheets import BYTE_ORDER_MARK, Dialect, dialect_of, text_cell
from segment_fetch.timerange import format_time

FORMATS = ("table", "csv", "json", "parquet", "xlsx")

SHEET_ROWS = 1_048_576
"""Maximum number of rows of a worksheet, including the headings (Excel's limit)."""

_IDS = frozenset(GROUPS.values())
_TIMES = ("handle_time_ms", "aht_segment_ms", "aht_conversation_ms", "median_ms", "p90_ms", "longest_ms")


def write_table(result: HandleTime, form: str, target: IO[bytes], *, excel: str | None = None) -> None:
    """Write the result in one of `FORMATS`, or as CSV for a country's spreadsheet (`excel`, such as "de").

    Raises InputError for an unknown name, and MissingExtraError if a library is not installed.
    """
    if excel is not None:
        _write_spreadsheet_csv(result, excel, target)
    elif form == "csv":
        _write_csv(target, result.table.column_names, _rows(result.table))
    elif form == "json":
        target.write(orjson.dumps(as_json(result), option=orjson.OPT_APPEND_NEWLINE))
    elif form == "parquet":
        import pyarrow.parquet as pq  # noqa: PLC0415 - only this format needs it

        pq.write_table(result.table, target, compression="zstd")
    elif form == "xlsx":
        write_excel(result, target)
    elif form == "table":
        target.write(as_text(result).encode())
    else:
        raise InputError(f"format {form!r}: choose one of {', '.join(FORMATS)}")


def as_json(result: HandleTime) -> dict[str, Any]:
    """Return the result as JSON values: the range, the parts that are not final, and the rows."""
    final = result.complete_before
    return {
        "from": format_time(result.start),
        "to": format_time(result.end),
        "timezone": result.zone,
        "every": result.every,
        "by": list(result.by),
        "complete_before": None if final is None else format_time(final),
        "provisional": [{"from": format_time(each.start), "to": format_time(each.end)} for each in result.provisional],
        "missing": [{"from": format_time(each.start), "to": format_time(each.end)} for each in result.missing],
        "rows": result.table.to_pylist(),
    }


def as_text(result: HandleTime) -> str:
    """Return the result as a text table, with durations in hours, minutes and seconds."""
    names = [name for name in result.table.column_names if name != "without_time"]
    columns = []
    for name in names:
        values = result.table.column(name).to_pylist()
        heading = name.removesuffix("_ms")
        columns.append([heading, *(_shown(name, value) for value in values)])
    widths = [max(map(len, column)) for column in columns]
    left = {"interval_start", "employee_id", "end_reason"}
    lines = []
    for cells in zip(*columns, strict=True):
        aligned = (
            cell.ljust(width) if name in left or cell.endswith("name") else cell.rjust(width)
            for name, cell, width in zip(names, cells, widths, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines) + "\n"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in _TIMES:
        seconds = round(abs(value) / 1000)
        return f"{'-' if value < 0 else ''}{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name not in _IDS:
        return f"{value:,}"
    return "".join(sign if sign.isprintable() else "?" for sign in str(value))


def _rows(table: pa.Table) -> Iterator[Sequence[Any]]:
    """Yield the rows, with booleans as true or false, and missing values as empty cells."""
    for batch in table.to_batches():
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield [str(value).lower() if isinstance(value, bool) else value for value in row]


def _write_csv(target: IO[bytes], names: Sequence[str], rows: Iterator[Sequence[Any]], separator: str = ",") -> None:
    text = io.TextIOWrapper(target, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text, delimiter=separator, lineterminator="\r\n")
        writer.writerow(names)
        writer.writerows(rows)
        text.flush()
    finally:
        text.detach()


def _write_spreadsheet_csv(result: HandleTime, country: str, target: IO[bytes]) -> None:
    """Write CSV that a country's spreadsheet opens correctly: with a byte order mark, its separator and decimal mark,
    local times as date cells, and ids as text. No text is evaluated as a formula.
    """
    dialect = dialect_of(country)
    rows = ([_cell(value, dialect) for value in row] for row in _spreadsheet_rows(result))
    target.write(BYTE_ORDER_MARK)
    _write_csv(target, _spreadsheet_names(result), rows, dialect.separator)


def _cell(value: Any, dialect: Dialect) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, float):
        return dialect.number(value)
    return text_cell(value) if isinstance(value, str) else value


def _spreadsheet_names(result: HandleTime) -> list[str]:
    names = []
    for name in result.table.column_names:
        names.append(name.removesuffix("_ms") + "_minutes" if name in _TIMES else name)
        if name == "interval_start":
            names.append("utc_offset")
    return names


def _spreadsheet_rows(result: HandleTime) -> Iterator[list[Any]]:
    """Yield the rows for a spreadsheet: local times and their offset in separate columns, ids as text, and durations in
    minutes.
    """
    names = result.table.column_names
    for row in _rows(result.table):
        cells: list[Any] = []
        for name, value in zip(names, row, strict=True):
            if name == "interval_start":
                moment = datetime.fromisoformat(value)
                cells += [moment.replace(tzinfo=None), f"UTC{value[19:]}"]
            elif name in _TIMES:
                cells.append(None if value is None else value / 60_000)
            elif name in _IDS:
                cells.append(None if value is None else str(value))
            else:
                cells.append(value)
        yield cells


def write_excel(result: HandleTime, target: IO[bytes] | str | Path) -> None:
    """Write the result as a workbook with typed cells, in constant memory; rows that exceed a worksheet continue in the
    next one. Needs the extra `excel`.
    """
    try:
        import xlsxwriter  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("workbooks need an extra: pip install 'segment-fetch[excel]'") from None
    options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(target, options) as book:
        moment = book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        minutes = book.add_format({"num_format": "0.0"})
        bold = book.add_format({"bold": True})
        names = _spreadsheet_names(result)
        sheet, at = _new_sheet(book, names, bold), 1
        for cells in _spreadsheet_rows(result):
            if at >= SHEET_ROWS:
                sheet, at = _new_sheet(book, names, bold), 1
            for column, value in enumerate(cells):
                if isinstance(value, datetime):
                    sheet.write_datetime(at, column, value, moment)
                elif isinstance(value, float):
                    sheet.write_number(at, column, value, minutes)
                elif isinstance(value, str):
                    sheet.write_string(at, column, value)
                elif value is not None:
                    sheet.write_number(at, column, value)
            at += 1


def _new_sheet(book: Any, names: Sequence[str], bold: Any) -> Any:
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, 0, 17)
    sheet.set_column(1, len(names), 14)
    for column, name in enumerate(names):
        sheet.write_string(0, column, name, bold)
    return sheet
