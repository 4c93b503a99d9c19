"""Handle time as text, CSV, JSON, Parquet, CSV for a spreadsheet, and a workbook that is read back."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import Any

import openpyxl
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segment_fetch import InputError, Window
from segment_fetch.analysis import HandleTime, export, write_table

ROWS: list[dict[str, Any]] = [
    {
        "interval_start": "2026-10-25T02:00:00+02:00",
        "skill_id": 146473456789,
        "employee_id": "=HYPERLINK(1)",
        "segments": 2,
        "conversations": 1,
        "handle_time_ms": 90_000,
        "aht_segment_ms": 45_000,
        "aht_conversation_ms": 90_000,
        "median_ms": 45_000,
        "p90_ms": 60_000,
        "longest_ms": 63_500,
        "provisional": True,
        "without_time": 0,
    },
    {
        "interval_start": "2026-10-25T02:00:00+01:00",
        "skill_id": None,
        "employee_id": "00123",
        "segments": 1,
        "conversations": 0,
        "handle_time_ms": 0,
        "aht_segment_ms": None,
        "aht_conversation_ms": None,
        "median_ms": None,
        "p90_ms": None,
        "longest_ms": None,
        "provisional": False,
        "without_time": 1,
    },
]


@pytest.fixture
def result() -> HandleTime:
    table = pa.Table.from_pylist(ROWS)
    missing = (Window(1_793_577_600_000, 1_793_581_200_000),)
    return HandleTime(
        table, 1_792_886_400_000, 1_792_893_600_000, "1h", ("skill", "employee"), "Europe/Berlin", (), missing, None
    )


def written(result: HandleTime, form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    write_table(result, form, target, **options)
    return target.getvalue()


def test_csv_is_rfc_4180(result: HandleTime) -> None:
    data = written(result, "csv")
    assert data.count(b"\r\n") == data.count(b"\n") == 3
    first, second = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert first["skill_id"] == "146473456789"
    assert first["provisional"] == "true"
    assert (second["skill_id"], second["aht_segment_ms"]) == ("", "")


def test_json_tells_what_is_not_final(result: HandleTime) -> None:
    found = orjson.loads(written(result, "json"))
    assert found["rows"] == ROWS
    assert found["missing"] == [{"from": "2026-11-02T00:00:00Z", "to": "2026-11-02T01:00:00Z"}]
    assert (found["timezone"], found["every"], found["complete_before"]) == ("Europe/Berlin", "1h", None)


def test_parquet_is_the_table(result: HandleTime) -> None:
    assert pq.read_table(io.BytesIO(written(result, "parquet"))).to_pylist() == ROWS


def test_text_has_times_for_people(result: HandleTime) -> None:
    heading, first, second = written(result, "table").decode().splitlines()
    assert "handle_time" in heading
    assert "0:01:30" in first
    assert second.split()[1] == "-"


def test_text_shows_no_control_characters(result: HandleTime) -> None:
    table = pa.Table.from_pylist([ROWS[0] | {"employee_id": "\x1b[31mred\n"}])
    changed = HandleTime(table, 0, 1, "1h", ("employee",), "UTC", (), (), None)
    assert b"\x1b" not in written(changed, "table")
    assert written(changed, "table").count(b"\n") == 2


@pytest.mark.parametrize(
    ("country", "separator", "minutes"), [("en", ",", "1.5"), ("de", ";", "1,5"), ("fr", ";", "1,5")]
)
def test_csv_for_a_spreadsheet_opens_by_double_click(
    result: HandleTime, country: str, separator: str, minutes: str
) -> None:
    data = written(result, "csv", excel=country)
    assert data.startswith(b"\xef\xbb\xbf")
    first, second = csv.DictReader(io.StringIO(data[3:].decode(), newline=""), delimiter=separator)
    assert (first["interval_start"], first["utc_offset"]) == ("2026-10-25 02:00:00", "UTC+02:00")
    assert (second["interval_start"], second["utc_offset"]) == ("2026-10-25 02:00:00", "UTC+01:00")
    assert first["handle_time_minutes"] == minutes
    assert first["skill_id"] == "\t146473456789"
    assert second["employee_id"] == "\t00123"
    assert first["employee_id"] == "'=HYPERLINK(1)"


def test_a_workbook_has_typed_cells(result: HandleTime) -> None:
    sheet = openpyxl.load_workbook(io.BytesIO(written(result, "xlsx"))).active
    assert sheet is not None
    names = [cell.value for cell in sheet[1]]
    first = dict(zip(names, sheet[2], strict=True))
    assert first["interval_start"].value == datetime(2026, 10, 25, 2)  # noqa: DTZ001 - a cell has no time zone
    assert first["interval_start"].is_date
    assert first["skill_id"].value == "146473456789"
    assert first["segments"].value == 2
    assert first["handle_time_minutes"].value == 1.5
    assert (first["employee_id"].value, first["employee_id"].data_type) == ("=HYPERLINK(1)", "s")
    assert dict(zip(names, sheet[3], strict=True))["median_minutes"].value is None


def test_more_rows_than_a_sheet_holds_go_on_in_the_next(result: HandleTime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "SHEET_ROWS", 2)
    book = openpyxl.load_workbook(io.BytesIO(written(result, "xlsx")))
    assert [sheet.max_row for sheet in book.worksheets] == [2, 2]
    assert {sheet["A1"].value for sheet in book.worksheets} == {"interval_start"}


def test_unknown_forms_are_refused(result: HandleTime) -> None:
    with pytest.raises(InputError, match="choose one of table, csv, json, parquet, xlsx"):
        written(result, "xml")
    with pytest.raises(InputError, match="choose one of en, de"):
        written(result, "csv", excel="klingon")
