"""The benchmarks in small, so that they keep running. No figure is judged here, except for what an import loads."""

import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.extract import check
from benchmarks.fleet_simulation import accounts, night
from benchmarks.growth import over_linear, slope
from benchmarks.harness import closed
from benchmarks.peers.running import PROGRAMS, written
from benchmarks.plot import bars, lines
from benchmarks.report import replaced, table
from benchmarks.segments import pages
from benchmarks.sinks import fill, opened

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

_FOLDER = Path(__file__).parents[1]


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, check=False, cwd=_FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _rows(printed: str) -> list[str]:
    """The first cells of the rows of all tables."""
    cells = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")]
    return [cell for cell in cells if cell not in ("", "program", "segments", "way", "destination")]


def test_all_contenders_extract_the_same_segments() -> None:
    printed = _run("extract", "--smoke")
    assert printed.startswith("2,000 segments")
    assert len(_rows(printed)) == len(CONTENDERS)


def test_growth_measures_each_size() -> None:
    printed = _run("growth", "--smoke")
    assert _rows(printed) == ["1,000", "4,000"]
    assert "Slope of time" in printed


def test_a_fleet_is_measured_beside_its_slowest_account() -> None:
    assert _rows(_run("fleet", "--smoke")) == [
        "the slowest account, alone",
        "3 accounts at once",
        "5, up to date",
    ]


def test_a_night_of_a_fleet_is_simulated() -> None:
    printed = _run("fleet_simulation", "--smoke")
    assert _rows(printed) == ["workers", "4", "4", "8", "8", "16", "16", "64", "64"]
    assert printed == _run("fleet_simulation", "--smoke")


def test_a_dead_worker_costs_time_but_no_account() -> None:
    fleet = accounts(500, seed=1)
    usual, late = night(fleet, 4, dying=0.0, seed=1), night(fleet, 4, dying=1.0, seed=1)
    assert len(usual) == len(late) == 500
    assert sum(late) > sum(usual)


def test_commits_are_measured_in_each_destination() -> None:
    assert _rows(_run("commits", "--smoke")) == ["folder", "object store", "DuckDB", "PostgreSQL"] * 2


def test_a_verification_is_measured() -> None:
    assert _rows(_run("verify", "--smoke")) == ["1,000"]


def test_every_peer_that_is_installed_extracts_all_segments() -> None:
    here = [program.title for program in PROGRAMS if find_spec(program.needs)]
    assert len(here) >= 3  # this client, requests, dlt
    assert _rows(_run("peers", "--smoke", "--settings", "limited", "late")) == 2 * here


def test_ways_to_arrow_are_compared() -> None:
    assert _rows(_run("arrow", "--smoke"))[0] == "segment_fetch.arrow"


def test_destinations_are_compared_and_their_memory_is_told() -> None:
    assert _rows(_run("sinks", "jsonl", "parquet", "objects", "--smoke")) == ["jsonl", "parquet", "objects"]
    assert [line.split()[4] for line in _run("sinks", "parquet", "--peak", "--smoke").splitlines()] == ["2,000"] * 2


def test_databases_are_compared() -> None:
    assert _rows(_run("sinks", "duckdb", "postgres", "--smoke")) == ["duckdb", "postgres"]


def test_both_sides_of_the_contests_of_databases_store_the_same_rows(tmp_path: Path) -> None:
    rows = [list(page) for page in pages(1_000)]
    with opened("duckdb") as contest:
        fill(contest.sink(tmp_path / "ours"), rows)
        contest.plain(tmp_path, rows)
    found = []
    for name in ("ours.duckdb", "segments.duckdb"):
        with duckdb.connect(str(tmp_path / name)) as db:
            found.append(db.execute("SELECT * FROM agent_segments ORDER BY end_time, segment_id").fetchall())
    assert found[0] == found[1]
    assert len(found[0]) == 1_000


def test_both_sides_of_the_parquet_contest_store_the_same_rows(tmp_path: Path) -> None:
    rows = list(pages(1_234))
    (tmp_path / "plain").mkdir()
    with opened("parquet") as contest:
        fill(contest.sink(tmp_path / "ours"), rows)
        contest.plain(tmp_path / "plain", rows)
    ours, theirs = (pq.read_table(next((tmp_path / name).glob("*.parquet"))) for name in ("ours", "plain"))
    assert ours.num_rows == 1_234
    assert ours.to_pylist() == theirs.to_pylist()


def test_importing_the_library_loads_nothing_that_only_some_tasks_need() -> None:
    assert "loads none of pyarrow, duckdb, rich" in _run("startup", "--smoke")


def _lines(ids: list[str]) -> str:
    return "".join(f'{{"segmentId":"{segment_id}","endTimeL":1}}\n' for segment_id in ids)


def test_the_check_accepts_each_segment_once(tmp_path: Path) -> None:
    served = closed(20, days=1, days_ago=2)
    ids = list(served.dataset.ids())
    (tmp_path / "a.jsonl").write_text(_lines(ids[:7]))
    (tmp_path / "b.jsonl").write_text(_lines(ids[7:]))
    check("this", tmp_path, served)


@pytest.mark.parametrize("change", [lambda ids: ids[1:], lambda ids: [*ids, ids[0]], lambda ids: [*ids[1:], "other"]])
def test_the_check_refuses_missing_doubled_and_foreign_segments(
    tmp_path: Path, change: Callable[[list[str]], list[str]]
) -> None:
    served = closed(20, days=1, days_ago=2)
    (tmp_path / "a.jsonl").write_text(_lines(change(list(served.dataset.ids()))))
    with pytest.raises(SystemExit):
        check("this", tmp_path, served)


def test_what_peers_write_is_read_as_rows_and_as_singer_messages(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(_lines(["a", "b"]))
    (tmp_path / "messages.jsonl").write_text(
        '{"type":"SCHEMA","stream":"s","schema":{"properties":{"segmentId":{}}}}\n'
        '{"type":"RECORD","stream":"s","record":{"segmentId":"c"}}\n'
    )
    assert sorted(written(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_slope_is_the_exponent_of_the_growth(power: float) -> None:
    sizes = [10, 100, 1000]
    costs = [3 * size**power for size in sizes]
    assert slope(sizes, costs) == pytest.approx(power)
    ratios = over_linear(sizes, costs)
    assert math.prod(ratios) == pytest.approx(1.0)
    assert ratios[-1] / ratios[0] == pytest.approx(100 ** (power - 1))


def test_the_sums_of_handle_time_are_measured() -> None:
    assert _rows(_run("handle_time", "--smoke")) == [
        "task",
        "by skill and quarter, Parquet",
        "by skill and quarter, JSON Lines",
        "the report's page, Parquet",
    ]


@pytest.mark.parametrize("path", sorted((_FOLDER / "docs/figures").glob("*.svg")), ids=lambda path: path.name)
def test_every_figure_stands_alone_with_text_in_light_and_dark(path: Path) -> None:
    drawn = path.read_text()
    root = ET.fromstring(drawn)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert next(title.text for title in root.iter("{http://www.w3.org/2000/svg}title"))
    assert [text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.text]
    assert "prefers-color-scheme: dark" in drawn
    assert "href" not in drawn


def test_plots_are_svg_that_says_each_figure() -> None:
    drawn = bars("Time", {"no limit": [("this", 1.0), ("other & more", 3.25), ("third", math.inf)]})
    texts = [element.text for element in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["Time", "no limit", "this", "1.00 x", "other & more", "3.25 x", "third", "failed"]
    drawn = lines("Growth", "segments", [10, 1000], {"time": [1.0, 1.5], "CPU": [1.0, 1.0]})
    root = ET.fromstring(drawn)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
    assert "prefers-color-scheme: dark" in drawn


def test_a_table_is_markdown() -> None:
    assert table(["a", "bb"], [["long", "1"]]) == "| a    | bb |\n|------|---:|\n| long |  1 |"


def test_figures_replace_only_their_own_place_in_a_page() -> None:
    page = "x\n<!-- one -->\nold\n<!-- /one -->\ny\n<!-- two -->\nkept\n<!-- /two -->\n"
    new = "x\n<!-- one -->\nnew\n<!-- /one -->\ny\n<!-- two -->\nkept\n<!-- /two -->\n"
    assert replaced(page, "one", "new") == new
    with pytest.raises(SystemExit, match="no place for three"):
        replaced(page, "three", "new")


def test_slots_are_counted_for_each_way_to_find_a_limit() -> None:
    lines = _run("slots", "--smoke", "--rounds", "1", "--limit", "20/s:20").splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[3:6]] == ["--rate 20", "auto", "auto, again"]
    assert len(lines[2].split("|")) == 7


def test_a_service_is_pinged_while_it_extracts_in_each_way() -> None:
    printed = _run("guest", "--smoke", "--ranges", "settled")
    assert [row.split(",")[0] for row in _rows(printed)[1:]] == ["jsonl", "parquet", "stream", "stream_arrow"]
