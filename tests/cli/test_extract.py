"""`extract` and `plan` against the simulator: destinations, reports, summaries, and going on."""

from __future__ import annotations

import csv
import gzip
import io
import re
import time
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

from segment_fetch import PaceStore
from segment_fetch.simulator import Dataset, Fault, Simulator
from segment_fetch.testing.pytest_plugin import SimulatorFactory
from segment_fetch.throttle.pacer import Learned
from tests.cli.conftest import KEY, Run
from tests.cli.support import ACCOUNT, AT_ONCE, Result, lines_in, process, settled, spanning


def _extract(run: Run, api: Simulator, out: object, *more: str) -> Result:
    return run("extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(out), *AT_ONCE, *more)


def _ids(lines: list[bytes]) -> list[str]:
    return [orjson.loads(line)["segmentId"] for line in lines]


def test_everything_arrives_and_is_summed_up(run: Run, api: Simulator, tmp_path: Path) -> None:
    result = _extract(run, api, tmp_path / "out", "--window", "1d")
    assert result.code == 0
    assert _ids(lines_in(tmp_path / "out")) == list(api.dataset.ids())
    assert f"Extracted 3,000 segments into {tmp_path}/out" in result.words
    assert "proven 3 windows: every segment is there once, and no more will be added" in result.words
    assert "Next" not in result.out


def test_a_second_run_finds_nothing_to_do(run: Run, api: Simulator, tmp_path: Path) -> None:
    _extract(run, api, tmp_path)
    before = api.stats.requests
    result = _extract(run, api, tmp_path)
    assert result.code == 0
    assert "Nothing to do" in result.out
    assert "0 requests made" in result.words
    assert api.stats.requests == before


def test_a_longer_range_adds_what_is_missing(run: Run, api: Simulator, tmp_path: Path) -> None:
    half = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((api.dataset.start + api.dataset.end) // 2000))
    assert _extract(run, api, tmp_path, "--to", half).code == 0
    result = _extract(run, api, tmp_path)
    assert "windows 1 read; 1 more were already complete" in result.words
    assert _ids(lines_in(tmp_path)) == list(api.dataset.ids())


def test_the_report_as_json(run: Run, api: Simulator, tmp_path: Path) -> None:
    result = _extract(run, api, tmp_path, "--json", "--quiet")
    assert result.err == ""
    report = result.json
    assert report["command"] == "extract"
    assert report["exit_code"] == 0
    assert report["complete"] is True
    assert (report["proven"], report["provisional"], report["unproven"]) == (1, 0, 0)
    assert report["segments"] == 3_000
    assert report["destination"] == str(tmp_path)
    assert report["windows"][0]["from"] == spanning(api.dataset)[1]


def test_quiet_says_nothing(run: Run, api: Simulator, tmp_path: Path) -> None:
    assert _extract(run, api, tmp_path, "--quiet") == Result(0, "", "")


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_csv_and_compression(compress: str, run: Run, api: Simulator, tmp_path: Path) -> None:
    assert _extract(run, api, tmp_path, "--format", "csv", "--compress", compress, "--csv-safe").code == 0
    (path,) = tmp_path.glob("segments-*")
    data = path.read_bytes()
    if compress == "gzip":
        data = gzip.decompress(data)
    elif compress == "zstd":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert len(rows) == 3_000
    assert rows[0]["segmentId"] == next(api.dataset.ids())


def test_csv_safe_needs_csv(run: Run, api: Simulator, tmp_path: Path) -> None:
    result = _extract(run, api, tmp_path, "--csv-safe")
    assert result.code == 2
    assert "--csv-safe applies to --format csv only" in result.err


@pytest.mark.parametrize(("compress", "codec"), [((), "ZSTD"), (("--compress", "gzip"), "GZIP")])
def test_parquet(compress: tuple[str, ...], codec: str, run: Run, api: Simulator, tmp_path: Path) -> None:
    for _ in range(2):
        assert _extract(run, api, tmp_path / "out", "--format", "parquet", "--partition", "day", *compress).code == 0
    files = sorted((tmp_path / "out").glob("date=*/segments-*.parquet"))
    assert len(files) >= 3
    assert [name for file in files for name in pq.read_table(file)["segment_id"].to_pylist()] == list(api.dataset.ids())
    assert pq.ParquetFile(files[0]).metadata.row_group(0).column(0).compression == codec
    assert run("verify", "--out", str(tmp_path / "out")).code == 0


@pytest.mark.parametrize("more", [("--format", "parquet"), ("--partition", "day")])
def test_standard_output_takes_no_files(more: tuple[str, ...], run: Run, api: Simulator) -> None:
    result = _extract(run, api, "-", *more)
    assert result.code == 2
    assert "name a folder with --out" in " ".join(result.err.split())


def test_to_standard_output(run: Run, api: Simulator) -> None:
    result = _extract(run, api, "-", "--json", "--quiet", "--window", "1d")
    assert result.code == 0
    assert _ids(result.out.encode().splitlines()) == list(api.dataset.ids())
    report = orjson.loads(result.err)
    assert (report["destination"], report["segments"]) == ("standard output", 3_000)


def test_to_standard_output_with_a_summary(run: Run, api: Simulator) -> None:
    result = _extract(run, api, "-", "--format", "csv", "--compress", "none")
    assert len(result.out.splitlines()) == 3_001
    assert "Extracted 3,000 segments into standard output" in result.err


def test_a_json_log_stays_json_to_its_end(run: Run, api: Simulator) -> None:
    result = _extract(run, api, "-", "--log-format", "json")
    events = result.events
    assert [event["event"] for event in events[:-1]] == ["range_planned", "window_done"]
    assert events[1]["window"]["from"] == spanning(api.dataset)[1]
    assert events[-1]["segments"] == 3_000


def test_filters_reach_the_api(run: Run, api: Simulator, tmp_path: Path) -> None:
    agent = str(api.dataset.row(0)["agentId"])
    expected = [row["segmentId"] for row in api.dataset.rows() if str(row["agentId"]) == agent]
    assert _extract(run, api, tmp_path, "--agent-id", agent).code == 0
    assert _ids(lines_in(tmp_path)) == expected


def test_another_query_into_the_same_folder_is_refused(run: Run, api: Simulator, tmp_path: Path) -> None:
    _extract(run, api, tmp_path)
    result = _extract(run, api, tmp_path, "--agent-id", "1")
    assert result.code == 2
    assert "made by another query: filters was" in result.err


def test_a_manifest_edited_by_hand_is_refused(run: Run, api: Simulator, tmp_path: Path) -> None:
    _extract(run, api, tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"windows": [', '"windows": [,'))
    result = _extract(run, api, tmp_path)
    assert result.code == 2
    assert "the manifest is damaged" in result.err
    assert "restore it" in result.err


def test_an_account_without_segments(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    api = segment_simulator(settled(0), auth=KEY)
    result = _extract(run, api, tmp_path)
    assert result.code == 0
    assert "Extracted 0 segments" in result.out
    assert "The range holds none" in result.words


def test_one_millisecond(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    dataset = settled(1_500, burst=1_200)
    api = segment_simulator(dataset, auth=KEY)
    middle = (dataset.start + dataset.end) // 2
    first, last = (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(ms // 1000))}.{ms % 1000:03d}Z" for ms in (middle, middle + 1)
    )
    result = _extract(run, api, tmp_path, "--from", first, "--to", last)
    assert result.code == 0
    assert len(lines_in(tmp_path)) >= 1_200


def test_provisional_windows_say_when_to_come_back(
    run: Run, segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    api = segment_simulator(Dataset.recent(500, now=time.time(), days=1), auth=KEY)
    result = _extract(run, api, tmp_path)
    assert result.code == 0
    assert "provisional 1 window: every segment as of now" in result.words
    assert re.search(r"Next: after \S+Z extract the same range again .* --from \S+ --to \S+", result.words)


def test_an_unproven_window_is_left_out_and_named(
    run: Run, segment_simulator: SimulatorFactory, tmp_path: Path
) -> None:
    api = segment_simulator(settled(3_000, wrong_types=0.001), auth=KEY)
    result = _extract(run, api, tmp_path, "--window", "12h")
    assert result.code == 3
    assert "INCOMPLETE" in result.out
    assert "the API's format has changed" in result.words
    assert "Next: Report it with the message, which names the field" in result.words
    assert "run the same command again" not in result.words
    told = _extract(run, api, tmp_path, "--window", "12h", "--json").json
    assert {entry.get("code") for entry in told["windows"] if entry["status"] == "unproven"} == {"SF-SCHEMA"}
    assert told["error"]["advice"].startswith("Report it")
    assert b'"code": "SF-SCHEMA"' in (tmp_path / "manifest.json").read_bytes()


def test_new_fields_are_told_once(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    api = segment_simulator(settled(1_500, new_field_from=100), auth=KEY)
    kept = _extract(run, api, tmp_path / "jsonl")
    assert kept.err.count("fields that this version does not know: newField") == 1
    left_out = _extract(run, api, tmp_path / "csv", "--format", "csv")
    assert left_out.err.count("newField; CSV cannot hold them: use --format jsonl") == 1
    assert "new fields newField" in left_out.words


def test_retries_are_told_once_a_kind_and_counted(run: Run, api: Simulator, tmp_path: Path) -> None:
    for fault in (Fault.ERROR_500, Fault.ERROR_500, Fault.TRUNCATED):
        api.fail_next(fault)
    result = _extract(run, api, tmp_path)
    assert result.code == 0
    assert result.err.count("the service failed with 500 (internalCode 1017)") == 1
    assert result.err.count("the answer was cut off; retrying after 0.0 s") == 1
    assert re.search(r"requests \d+, 3 of them retries", result.words)


def test_every_retry_is_told_at_debug(run: Run, api: Simulator, tmp_path: Path) -> None:
    api.fail_next(Fault.ERROR_500, 3)
    result = _extract(run, api, tmp_path, "--log-level", "debug", "--log-format", "json", "--connections", "1")
    retrying = [event for event in result.events if event["event"] == "retrying"]
    assert [event["failures"] for event in retrying] == [1, 2, 3]
    _, start, _, end = spanning(api.dataset)
    assert retrying[0]["window"] == {"from": start, "to": end}


def test_a_pause_is_summed_up(run: Run, api: Simulator, tmp_path: Path) -> None:
    api.fail_next(Fault.TOO_MANY_SILENT)
    result = _extract(run, api, tmp_path, "--patience", "10s")
    assert result.err.count("the API answered 429 (too many): a pause of 1.0 s") == 1
    assert "1 answered 429 (too many)" in result.words


def test_clamping_is_warned_of(run: Run, api: Simulator, tmp_path: Path) -> None:
    refused = _extract(run, api, tmp_path, "--from", "now-60d")
    assert refused.code == 2
    assert "the API serves only the last month" in refused.err
    clamped = _extract(run, api, tmp_path, "--from", "now-60d", "--clamp")
    assert clamped.code == 0
    assert "warning: " in clamped.err
    assert "is no longer available" in clamped.err


def test_large_windows_are_split(run: Run, api: Simulator, tmp_path: Path) -> None:
    result = _extract(run, api, tmp_path, "--split-above", "1000")
    assert "is large and is read in 3 parts" in result.err
    assert _ids(lines_in(tmp_path)) == list(api.dataset.ids())


def test_plan_is_a_table_that_fits_sixty_columns(run: Run, api: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    argv = ["--base-url", api.base_url, "--from", "now-6d", "--to", "now-3d", "--window", "1d"]
    result = run("plan", *argv, "--rate", "40")
    assert result.code == 0
    head, *rows = result.out.splitlines()
    assert head.split() == ["from", "(UTC)", "to", "(UTC)", "count", "pages"]
    assert len([row for row in rows if row.startswith("20")]) == 3
    # The segments end at a full hour: of an hour that has only begun, none is missing.
    assert re.search(r"3 windows, (2,9\d\d|3,000) segments, \d pages; about", result.words)
    assert re.search(r"about 0\.\d s at 39\.2 requests a second\.", result.words)
    assert max(map(len, result.out.splitlines())) <= 60


def test_plan_as_json(run: Run, api: Simulator) -> None:
    result = run("plan", "--base-url", api.base_url, *spanning(api.dataset), "--window", "1d", *AT_ONCE, "--json")
    plan = result.json
    assert plan["totals"] == {"windows": 3, "segments": 3_000, "pages": sum(w["pages"] for w in plan["windows"])}
    assert plan["seconds"] is None
    assert plan["windows"][0]["from"] == spanning(api.dataset)[1]


def test_plan_without_a_rate_gives_no_estimate(run: Run, api: Simulator) -> None:
    result = run("plan", "--base-url", api.base_url, *spanning(api.dataset), *AT_ONCE)
    assert "with --rate none the time cannot be estimated" in result.words


def test_plan_says_which_rate_it_reckons_with(run: Run, api: Simulator, tmp_path: Path) -> None:
    argv = ["plan", "--base-url", api.base_url, *spanning(api.dataset), "--state", str(tmp_path)]
    guess = run(*argv)
    assert "at 10 requests a second, an assumption" in guess.words
    PaceStore(tmp_path / "pace").save(ACCOUNT, api.base_url, Learned(32.0, limited=True, cap=None, at=time.time()))
    assert "at 32 requests a second." in run(*argv).words
    told = run(*argv, "--json").json
    assert (told["rate"], told["assumed_rate"]) == ("auto", 32.0)


def test_other_credentials(run: Run, segment_simulator: SimulatorFactory, tmp_path: Path) -> None:
    from segment_fetch.simulator import ClientCredentials

    api = segment_simulator(settled(100), auth=ClientCredentials(client_id="an-id", client_secret="hush-hush"))
    file = tmp_path / "oauth2.env"
    file.touch(mode=0o600)
    file.write_text("LIVEPERSON_CLIENT_ID=an-id\nLIVEPERSON_CLIENT_SECRET=hush-hush\n")
    result = _extract(run, api, tmp_path / "out", "--credentials", str(file))
    assert result.code == 0
    assert len(lines_in(tmp_path / "out")) == 100


def test_as_a_module_in_a_process(api: Simulator, env: dict[str, str], tmp_path: Path) -> None:
    argv = ["extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", str(tmp_path), *AT_ONCE]
    result = process(*argv, env=env)
    assert result.code == 0
    assert "Extracted 3,000 segments" in result.out
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z 1 window to read\n", result.err)
