"""CSV that spreadsheets open right, and local times in CSV and Parquet."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from segment_fetch import InputError
from segment_fetch.analysis import handle_time
from segment_fetch.cli import arguments
from segment_fetch.manifest import verify
from segment_fetch.sinks import open_sink
from segment_fetch.sinks.files.formats import Csv
from segment_fetch.sinks.files.parquet import Parquet
from segment_fetch.sinks.files.spreadsheets import DIALECTS, plain_text, text_cell
from segment_fetch.wire.models import Segment
from tests.support_runs import END, START, client, served, settled

SUMMER_2 = 1_792_886_400_123  # 2026-10-25T02:00:00.123+02:00, an hour before the clock shows two again
WINTER_2 = SUMMER_2 + 3_600_000
ROW = Segment(
    segmentId="=1+1",
    startTimeL=SUMMER_2,
    endTimeL=WINTER_2,
    agentId=1_796_400_000_000_000_001,
    employeeId="0042",
    skillId=146002926,
    endReason="agent;Transfer",
    totalHandleTimeMillis=90_500,
)


def cells(data: bytes, separator: str) -> dict[str, str]:
    assert data.startswith(b"\xef\xbb\xbf")
    (row,) = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=separator, strict=True)
    return row


def test_the_command_takes_every_country() -> None:
    assert tuple(DIALECTS) == arguments.COUNTRIES


@pytest.mark.parametrize(("country", "separator", "minutes"), [("de", ";", "1,508"), ("en", ",", "1.508")])
def test_cells_are_those_of_the_country(country: str, separator: str, minutes: str) -> None:
    form = Csv(excel=country, local_times="Europe/Berlin")
    found = cells(form.header + form.encode([ROW]), separator)
    assert found["handleTimeMinutes"] == minutes
    assert (found["segmentId"], found["endReason"]) == ("'=1+1", "agent;Transfer")
    assert (found["agentId"], found["employeeId"]) == ("\t1796400000000000001", "\t0042")
    assert (found["startTimeLocal"], found["startTimeOffset"]) == ("2026-10-25 02:00:00", "UTC+02:00")
    assert (found["endTimeLocal"], found["endTimeOffset"]) == ("2026-10-25 02:00:00", "UTC+01:00")
    assert (found["endTimeL"], found["totalHandleTimeMillis"]) == (f"\t{WINTER_2}", "90500")
    assert list(form.keys(io.BytesIO(form.header + form.encode([ROW])))) == [(WINTER_2, "=1+1")]


def test_local_times_in_plain_csv_have_their_offset() -> None:
    form = Csv(local_times="Europe/Berlin")
    data = form.header + form.encode([ROW])
    (row,) = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
    assert row["startTimeLocal"] == "2026-10-25T02:00:00.123+02:00"
    assert row["endTimeLocal"] == "2026-10-25T02:00:00.123+01:00"
    assert list(form.keys(io.BytesIO(data))) == [(WINTER_2, "=1+1")]


def test_local_times_in_parquet() -> None:
    form = Parquet(local_times="Australia/Lord_Howe", account_id="111111")
    packer = form.packer("none")
    data = packer.compress(form.encode([ROW, Segment(segmentId="b", endTimeL=2**62)])) + packer.flush()
    columns = ["start_time_local", "start_offset_minutes", "end_time_local", "end_offset_minutes", "account_id"]
    first, second = pq.read_table(io.BytesIO(data), columns=columns).to_pylist()
    assert first["start_time_local"] == datetime.fromisoformat("2026-10-25T11:00:00.123000")
    assert (first["start_offset_minutes"], first["account_id"]) == (660, "111111")
    assert (second["end_time_local"], second["end_offset_minutes"]) == (None, None)


@pytest.mark.parametrize("text", ["=1", "0042", "1e5", "1/2", "'=1", "", "a", "12 Main", "\t1", "2026-10-25"])
def test_text_is_found_again_in_its_cell(text: str) -> None:
    if text != "'=1":  # looks like a text that was made safe, and cannot be told from one
        assert plain_text(text_cell(text)) == text
    assert text_cell(text)[:1] in ("", "\t", "'", "a", "1")


def test_a_record_beyond_the_limit_of_the_csv_module_is_read() -> None:
    form = Csv(excel="de")
    long = Segment(segmentId="a", endTimeL=1, employeeId='x;"' * 100_000)
    assert list(form.keys(io.BytesIO(form.header + form.encode([long, ROW])))) == [(1, "a"), (WINTER_2, "=1+1")]


@pytest.mark.parametrize(
    "options",
    [
        {"format": "csv", "excel": "de", "compress": "gzip"},
        {"format": "csv", "excel": "en", "local_times": "America/Santiago", "partition": "day"},
        {"format": "csv", "local_times": "America/Santiago"},
        {"format": "parquet", "local_times": "America/Santiago"},
    ],
)
async def test_what_was_written_is_verified_and_summed(options: dict[str, str], tmp_path: Path) -> None:
    async with served(settled(300)) as simulator, client(simulator) as api:
        await api.extract(START, END, open_sink(tmp_path / "plain"))
        await api.extract(START, END, open_sink(tmp_path / "out", **options))  # type: ignore[arg-type]
        again = await api.extract(START, END, open_sink(tmp_path / "out", **options))  # type: ignore[arg-type]
    assert again.skipped
    assert verify.audit(tmp_path / "out").sound
    expected, found = (handle_time(tmp_path / name, by=["skill", "employee"]).table for name in ("plain", "out"))
    assert found.equals(expected)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"excel": "de"}, "excel goes with the format csv"),
        ({"format": "csv", "excel": "xx"}, "choose one of en, de"),
        ({"local_times": "UTC"}, "local_times goes with the formats csv and parquet"),
        ({"format": "csv", "local_times": "Mars/Base"}, "time zone 'Mars/Base'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_sink("out", **options)  # type: ignore[arg-type]
