"""`handle-time`, as planners and scripts run it."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path
from typing import IO

import openpyxl
import pyarrow.parquet as pq
import pytest

from segment_fetch.simulator import Simulator
from tests.cli.conftest import Run
from tests.cli.support import AT_ONCE, spanning


@pytest.fixture
def held(run: Run, api: Simulator, tmp_path: Path) -> str:
    """A folder with the segments of the simulator."""
    out = str(tmp_path / "held")
    assert run("extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", out, *AT_ONCE).code == 0
    return out


def test_the_table_is_for_people(run: Run, held: str) -> None:
    result = run("handle-time", "--out", held)
    assert result.code == 0
    heading, row = result.out.splitlines()
    assert heading.split()[:3] == ["interval_start", "segments", "conversations"]
    assert row.split()[1] == "3,000"
    assert "the interval in which it closed" in result.words


def test_json_has_the_rows_and_what_is_not_final(run: Run, held: str) -> None:
    result = run("handle-time", "--out", held, "--by", "skill, end-reason", "--every", "1d", "--json", "--quiet")
    assert (result.code, result.err) == (0, "")
    found = result.json
    assert found["by"] == ["skill", "end-reason"]
    assert sum(row["segments"] for row in found["rows"]) == 3_000
    assert (found["provisional"], found["missing"]) == ([], [])
    assert found["complete_before"] == found["to"]


def test_what_is_missing_of_the_range_is_named_in_local_time(run: Run, held: str) -> None:
    result = run("handle-time", "--out", held, "--from", "now-400d", "--timezone", "Asia/Kolkata")
    assert result.code == 0
    assert "missing: " in result.words
    assert "+05:30 to " in result.words


def test_files_are_written_in_the_form_that_their_name_says(run: Run, held: str, tmp_path: Path) -> None:
    for name in ("one.csv", "one.json", "one.parquet", "one.xlsx"):
        assert run("handle-time", "--out", held, "--by", "skill", "--write", str(tmp_path / name)).code == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "one.csv").read_text(), newline="")))
    table = pq.read_table(tmp_path / "one.parquet")
    book = openpyxl.load_workbook(tmp_path / "one.xlsx")
    assert len(rows) == table.num_rows == book.worksheets[0].max_row - 1 > 1
    assert sum(int(row["segments"]) for row in rows) == 3_000


def test_a_spreadsheet_of_a_country(run: Run, held: str, tmp_path: Path) -> None:
    file = tmp_path / "agents.csv"
    assert run("handle-time", "--out", held, "--by", "agent", "--excel", "de", "--write", str(file)).code == 0
    assert file.read_bytes().startswith(b"\xef\xbb\xbfinterval_start;utc_offset;agent_id;")
    assert run("handle-time", "--out", held, "--excel").code == 0
    refused = run("handle-time", "--out", held, "--excel", "de", "--format", "xlsx")
    assert refused.code == 2
    assert "--excel writes CSV" in refused.words


def test_names_stand_beside_ids(run: Run, held: str, tmp_path: Path) -> None:
    asked = ("handle-time", "--out", held, "--by", "skill", "--json", "--quiet")
    skill = next(row["skill_id"] for row in run(*asked).json["rows"] if row["skill_id"] is not None)
    names = tmp_path / "skills.csv"
    names.write_text(f"\ufeffskill_id;name\n{skill};Billing, refunds\n", encoding="utf-8")
    rows = run(*asked, "--names", str(names)).json["rows"]
    assert {row["skill_name"] for row in rows if row["skill_id"] == skill} == {"Billing, refunds"}
    assert {row["skill_name"] for row in rows if row["skill_id"] != skill} == {None}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent_id,name\n1,A\n", "headed 'agent_id', but the result is grouped by skill_id, group_id"),
        ("skill_id\n1\n", "needs two columns"),
        ("skill_id,name\n1\n", "line 2 has no name"),
        ("", "needs two columns"),
        (f"skill_id,name\n1,{'x' * 200_000}\n", "is not valid CSV: field larger than field limit"),
    ],
)
def test_names_that_cannot_be_used_are_refused(run: Run, held: str, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.csv").write_text(text)
    result = run("handle-time", "--out", held, "--by", "skill,group", "--names", str(tmp_path / "names.csv"))
    assert (result.code, message in result.words) == (2, True)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--by", "queue"], "choose from skill, agent"),
        (["--timezone", "Berlin"], "IANA name"),
        (["--from", "2026-11-02", "--to", "2026-11-01"], "before it ends"),
        (["--json", "--format", "csv"], "exclude each other"),
        (["--write", "/nonexistent/folder/file.csv"], "cannot be written: No such file"),
        (["--names", "/nonexistent.csv"], "cannot be read: No such file"),
        (["--names", "/dev/zero"], "cannot be read: it is not a regular file"),
        (["--names", "~nobody-of-this-name/names.csv"], "the home folder is not known"),
        (["--write", "~nobody-of-this-name/file.csv"], "the home folder is not known"),
    ],
)
def test_what_cannot_be_asked_is_refused(run: Run, held: str, argv: list[str], message: str) -> None:
    result = run("handle-time", "--out", held, *argv)
    assert (result.code, message in result.words) == (2, True)


def test_a_destination_without_segments_is_named(run: Run, tmp_path: Path) -> None:
    result = run("handle-time", "--out", str(tmp_path / "none"))
    assert result.code in (2, 3)
    assert str(tmp_path / "none") in result.words.replace(" ", "")


def test_a_result_that_cannot_be_written_leaves_the_one_before(
    run: Run, held: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(result: object, form: str, target: IO[bytes], **options: object) -> None:
        target.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "week.csv"
    path.write_bytes(b"the week before")
    monkeypatch.setattr("segment_fetch.analysis.write_table", broken)
    result = run("handle-time", "--out", held, "--write", str(path))
    assert result.code == 2
    assert "cannot be written: No space left on device" in result.words
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["week.csv"]
    assert path.read_bytes() == b"the week before"
