"""Parquet files: what readers find in them, days as Hive has them, and what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from segment_fetch import DestinationError, InputError, ManifestError, Segment
from segment_fetch.arrow import record_batch, schema
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.sinks import CsvSink, JsonlSink, ParquetSink
from segment_fetch.sinks.files import parquet as parquet_module
from tests.support_runs import END, START, client, served, settled
from tests.support_sinks import QUERY, hours, window_read

FIRST = hours(0, 1).start
ROWS = [Segment(segmentId=f"s{n}", endTimeL=FIRST + n, agentId=n % 7, endReason="other") for n in range(900)]


def written(sink: ParquetSink, rows: list[Segment] = ROWS) -> Path:
    """The file of the first hour of the first of November, a page of 100 rows after the other."""
    parts = [sink.encode(rows[at : at + 100]) for at in range(0, len(rows), 100)]
    stored = sink.open()
    entry = CommitLog(sink, QUERY, stored).commit(window_read(hours(0, 1), parts, segments=len(rows)))
    sink.close()
    return sink.folder / str(entry.file)


@pytest.mark.parametrize(("compress", "codec"), [("none", "UNCOMPRESSED"), ("gzip", "GZIP"), ("zstd", "ZSTD")])
def test_a_file_says_what_readers_can_make_use_of(
    compress: str, codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 250)
    stored = pq.ParquetFile(written(ParquetSink(tmp_path, compress)))
    assert stored.schema_arrow.equals(schema(), check_metadata=True)
    groups = [stored.metadata.row_group(number) for number in range(stored.num_row_groups)]
    assert [group.num_rows for group in groups] == [250, 250, 250, 150]
    for number, group in enumerate(groups):
        close, name = (group.column(schema().get_field_index(column)) for column in ("end_time", "segment_id"))
        assert close.compression == codec
        assert close.statistics.has_min_max
        assert close.statistics.min.timestamp() * 1000 == ROWS[number * 250].endTimeL
        assert [column.column_index for column in group.sorting_columns] == [2, 0]
        assert not name.has_dictionary_page


def test_an_empty_window_is_a_file_with_columns(tmp_path: Path) -> None:
    path = written(ParquetSink(tmp_path), [])
    assert pq.read_table(path).num_rows == 0
    assert pq.read_schema(path).equals(schema(), check_metadata=True)


def test_a_row_group_is_all_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 1_000)
    packer, batch, most = parquet_module.ParquetPacker("zstd", schema()), record_batch(ROWS[:100]), 0
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    for _ in range(1_000):
        packer.compress(batch)
        most = max(most, pa.total_allocated_bytes() - before)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    packer.flush()
    assert most < 2_000_000, "of 100,000 rows"
    assert held < 2_000_000


def asked(query: str, files: str) -> list[Any]:
    """Return DuckDB's answer."""
    with duckdb.connect() as db:
        return db.execute(query, [files]).fetchall()


async def extracted(folder: Path, rows: int = 500, **options: Any) -> list[str]:
    """A simulator's six days, in a Parquet folder; their ids."""
    async with served(settled(rows)) as simulator, client(simulator) as opened:
        assert (await opened.extract(START, END, ParquetSink(folder, **options))).complete
        return list(simulator.dataset.ids())


async def test_pyarrow_duckdb_and_polars_read_a_folder(tmp_path: Path) -> None:
    ids = await extracted(tmp_path / "out")
    files = f"{tmp_path}/out/*.parquet"
    assert (
        ds.dataset(tmp_path / "out", format="parquet", exclude_invalid_files=True).to_table()["segment_id"].to_pylist()
        == ids
    )
    found = asked("SELECT segment_id, end_reason, typeof(end_time) FROM read_parquet(?) ORDER BY end_time", files)
    assert [row[0] for row in found] == ids
    assert {row[2] for row in found} == {"TIMESTAMP WITH TIME ZONE"}
    frame = pl.read_parquet(files)
    assert frame["segment_id"].to_list() == ids
    assert frame["end_time"].dtype == pl.Datetime("ms", "UTC")


async def test_days_are_read_as_hive_has_them(tmp_path: Path) -> None:
    ids = await extracted(tmp_path / "out", partition="day")
    days = sorted(path.name for path in (tmp_path / "out").glob("date=*"))
    assert len(days) == 7, "six days, of which the first and the last are parts"
    assert not [*(tmp_path / "out").glob("*.parquet")]
    files = f"{tmp_path}/out/*/*.parquet"
    query = "SELECT segment_id, 'date=' || date FROM read_parquet(?, hive_partitioning = true) ORDER BY end_time"
    found = asked(query, files)
    assert [row[0] for row in found] == ids
    assert sorted({row[1] for row in found}) == days
    assert sorted(pl.read_parquet(files, hive_partitioning=True)["segment_id"]) == sorted(ids)
    table = ds.dataset(tmp_path / "out", partitioning="hive", exclude_invalid_files=True).to_table()
    assert sorted(table["segment_id"].to_pylist()) == sorted(ids)
    day = "date_diff('day', DATE '1970-01-01', date)"
    wrong = (
        f"SELECT count(*) FROM read_parquet(?, hive_partitioning = true) WHERE epoch_ms(end_time) // 86400000 <> {day}"
    )
    assert asked(wrong, files) == [(0,)]
    assert audit(tmp_path / "out").sound


@pytest.mark.parametrize("sink", [JsonlSink, CsvSink, ParquetSink])
async def test_any_format_goes_into_days(sink: Any, tmp_path: Path) -> None:
    async with served(settled(200)) as simulator:
        for _ in range(2):
            async with client(simulator) as opened:
                report = await opened.extract(START, END, sink(tmp_path / "out", partition="day"))
        assert (report.segments, report.skipped) == (0, 7)
    found = audit(tmp_path / "out")
    assert (found.sound, found.segments) == (True, 200)


async def test_days_of_another_zone_are_refused(tmp_path: Path) -> None:
    async with served(settled()) as simulator, client(simulator) as opened:
        with pytest.raises(InputError, match="stores UTC days, not days of Europe/Berlin"):
            await opened.sync(ParquetSink(tmp_path, partition="day"), START, timezone="Europe/Berlin")
        assert (await opened.sync(ParquetSink(tmp_path, partition="day"), START)).complete
        assert simulator.stats.requests > 0


def test_a_stranger_among_the_days_is_found(tmp_path: Path) -> None:
    path = written(ParquetSink(tmp_path, partition="day"))
    path.with_name(path.name.replace("T000", "T002")).write_bytes(b"")
    assert [(finding.kind, finding.where[:16]) for finding in audit(tmp_path).findings] == [
        ("extra file", "date=2026-11-01/")
    ]
    (tmp_path / "_manifest.json").unlink()
    assert "restore it" in audit(tmp_path).findings[0].message
    with pytest.raises(DestinationError, match=r"holds date=2026-11-01/segments-.* but no _manifest"):
        ParquetSink(tmp_path, partition="day").open()


def test_a_window_over_midnight_has_no_day(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="more than one day"):
        ParquetSink(tmp_path, partition="day").begin(hours(23, 25))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"compress": "none"}, "compress was 'zstd' and is now 'none'"),
        ({"partition": "day"}, "partition was None and is now 'day'"),
    ],
)
def test_a_folder_made_otherwise_is_refused(changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    written(ParquetSink(tmp_path))
    with pytest.raises(ManifestError, match=named):
        written(ParquetSink(tmp_path, **changed))


def test_a_folder_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    written(ParquetSink(tmp_path))
    path = tmp_path / "_manifest.json"
    told = json.loads(path.read_bytes())
    told["query"]["schema_version"] = "0"
    path.write_text(json.dumps(told))
    before = {each: each.read_bytes() for each in tmp_path.glob("*.*")}
    with pytest.raises(ManifestError, match="schema_version was '0' and is now '1'; use another destination"):
        written(ParquetSink(tmp_path))
    [finding] = audit(tmp_path).findings
    assert "schema version 0; this release reads 1" in finding.message
    assert {each: each.read_bytes() for each in tmp_path.glob("*.*")} == before


@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-100], lambda data: data[:90] + data[200:]])
def test_a_damaged_file_is_found(harm: Any, tmp_path: Path) -> None:
    path = written(ParquetSink(tmp_path))
    path.write_bytes(harm(path.read_bytes()))
    kinds = {finding.kind for finding in audit(tmp_path).findings}
    assert kinds == {"wrong size", "unreadable"}


def test_parquet_of_somebody_else_is_unreadable(tmp_path: Path) -> None:
    path = written(ParquetSink(tmp_path))
    pq.write_table(pa.table({"other": [1]}), path)
    assert "unreadable" in {finding.kind for finding in audit(tmp_path).findings}


def test_a_value_without_room_stops_the_run_before_anything_is_stored(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="segment 'big': agentId 9223372036854775808 does not fit"):
        ParquetSink(tmp_path).encode([Segment(segmentId="big", endTimeL=1, agentId=2**63)])


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'snappy' is unknown: choose one of none, gzip, zstd"):
        ParquetSink(tmp_path, "snappy")
    with pytest.raises(InputError, match="partition 'hour'"):
        ParquetSink(tmp_path, partition="hour")


def test_a_day_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "date=2026-11-01").write_bytes(b"")
    with pytest.raises(DestinationError, match="is not a folder") as caught:
        written(ParquetSink(tmp_path, partition="day"))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EEXIST


def test_without_the_extra_the_error_says_what_to_install() -> None:
    script = "import sys; sys.modules['pyarrow'] = None\nimport segment_fetch.sinks.files.parquet"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("Parquet needs an extra: pip install 'segment-fetch[parquet]'")
