"""Files for spreadsheets, opened by one: LibreOffice, headless, turns them into plain CSV."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from segment_fetch.analysis import HandleTime, handle_time, write_table
from segment_fetch.sinks import open_sink
from tests.support_runs import END, START, client, served, settled

OFFICE = next(filter(None, map(shutil.which, ("soffice", "libreoffice"))), None)
GERMAN = "59,34,76,1,,1031,false,true"
"""The filter that reads CSV: semicolons, quotes, UTF-8, from line 1, German, numbers and dates recognized."""
PLAIN = "44,34,76,1,,0,false,false,false"
"""The filter that writes CSV: commas, the values of the cells and not what is shown of them."""

pytestmark = pytest.mark.skipif(
    OFFICE is None, reason="LibreOffice is not installed, so no spreadsheet opens the files"
)


def converted(source: Path, folder: Path, *reading: str) -> Iterator[dict[str, str]]:
    """The rows of a file after LibreOffice has read it and written it as CSV."""
    assert OFFICE is not None
    command = [OFFICE, f"-env:UserInstallation=file://{folder / 'profile'}", "--headless", "--norestore", *reading]
    command += [
        "--convert-to",
        f"csv:Text - txt - csv (StarCalc):{PLAIN}",
        "--outdir",
        str(folder / "made"),
        str(source),
    ]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=os.environ | {"HOME": str(folder)}
    )
    assert done.returncode == 0, done.stderr
    with (folder / "made" / f"{source.stem}.csv").open(encoding="utf-8-sig", newline="") as text:
        yield from csv.DictReader(text)


@pytest.fixture
async def result(tmp_path: Path) -> HandleTime:
    async with served(settled(2_000)) as simulator, client(simulator) as api:
        await api.extract(START, END, open_sink(tmp_path / "out"))
    return handle_time(tmp_path / "out", by=["skill", "end-reason"], every="1d", timezone="Europe/Berlin")


def test_a_workbook_is_read_with_its_types(result: HandleTime, tmp_path: Path) -> None:
    file = tmp_path / "week.xlsx"
    with file.open("wb") as target:
        write_table(result, "xlsx", target)
    check(result, list(converted(file, tmp_path)))


def test_german_csv_is_read_with_its_types(result: HandleTime, tmp_path: Path) -> None:
    file = tmp_path / "week.csv"
    with file.open("wb") as target:
        write_table(result, "csv", target, excel="de")
    check(result, list(converted(file, tmp_path, f"--infilter=CSV:{GERMAN}")))


def check(result: HandleTime, rows: list[dict[str, str]]) -> None:
    expected = result.table.to_pylist()
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row["skill_id"].strip() == str(wanted["skill_id"] or "")
        assert int(row["segments"]) == wanted["segments"]
        assert float(row["handle_time_minutes"]) == pytest.approx(wanted["handle_time_ms"] / 60_000, abs=0.001)


async def test_segments_as_german_csv(tmp_path: Path) -> None:
    async with served(settled(500)) as simulator, client(simulator) as api:
        await api.extract(START, END, open_sink(tmp_path / "plain", format="csv"))
        sink = open_sink(tmp_path / "out", format="csv", excel="de", local_times="Europe/Berlin")
        await api.extract(START, END, sink)
    (file,), (plain,) = ((tmp_path / name).glob("*.csv") for name in ("out", "plain"))
    rows = list(converted(file, tmp_path, f"--infilter=CSV:{GERMAN}"))
    with plain.open(newline="") as text:
        expected = list(csv.DictReader(text))
    assert [row["segmentId"] for row in rows] == [row["segmentId"] for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        assert row["endTimeL"].strip() == wanted["endTimeL"]
        if wanted["totalHandleTimeMillis"]:
            minutes = int(wanted["totalHandleTimeMillis"]) / 60_000
            assert float(row["handleTimeMinutes"]) == pytest.approx(minutes, abs=0.001)
