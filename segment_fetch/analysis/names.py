"""Names for ids, from a CSV file of the user: one column with the id, one with its name."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pyarrow as pa
from msgspec import structs

from segment_fetch.analysis.handle_time_sums import GROUPS, HandleTime
from segment_fetch.errors import InputError
from segment_fetch.local.regular_files import read_named

_LARGEST = 2**26  # bytes


def with_names(result: HandleTime, file: str | os.PathLike[str]) -> HandleTime:
    """Return the result with a column of names after the column of ids in the file.

    The file is CSV in UTF-8, separated by commas or semicolons. The heading of its first column is a column of the
    result, such as `skill_id`, or anything if the result has only one group; the second column holds the names. An id
    that is not in the file gets null. Raises InputError if the file is invalid.
    """
    path = Path(os.path.expanduser(file))  # noqa: PTH111 - Path raises RuntimeError for an unknown home folder
    heading, names = _read(path)
    columns = [GROUPS[group] for group in result.by]
    if heading not in columns and len(columns) == 1:
        heading = columns[0]
    if heading not in columns:
        listed = ", ".join(columns) or "nothing"
        raise InputError(f"names {path}: its first column is headed {heading!r}, but the result is grouped by {listed}")
    ids = result.table[heading].to_pylist()
    found = pa.array([None if one is None else names.get(str(one)) for one in ids], pa.string())
    name = heading.removesuffix("_id") + "_name"
    table = result.table.add_column(result.table.column_names.index(heading) + 1, name, found)
    return structs.replace(result, table=table)


def _read(path: Path) -> tuple[str, dict[str, str]]:
    try:
        text = read_named(path, _LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"names {path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"names {path}: is not UTF-8 text; save it as CSV UTF-8") from None
    first = text.partition("\n")[0]
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=";" if first.count(";") > first.count(",") else ","))
    except csv.Error as error:
        raise InputError(f"names {path}: is not valid CSV: {error}") from None
    if not rows or len(rows[0]) < 2:
        raise InputError(f"names {path}: needs two columns, the id and its name, with a heading (skill_id,name)")
    names = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        if len(row) < 2:
            raise InputError(f"names {path}: line {number} has no name")
        names[row[0].strip()] = row[1].strip()
    return rows[0][0].strip(), names
