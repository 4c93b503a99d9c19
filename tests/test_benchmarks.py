"""The benchmarks in small, so that they keep running. No figure is judged here."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.extract import check
from benchmarks.harness import closed

_FOLDER = Path(__file__).parents[1]


def _run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, check=False, cwd=_FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_contenders_extract_the_same_segments() -> None:
    lines = _run("extract", "--smoke").splitlines()
    assert lines[0].startswith("2000 segments")
    assert len(lines) == 3 + len(CONTENDERS)


def test_memory_compares_few_segments_with_many() -> None:
    lines = _run("memory", "--smoke").splitlines()
    assert [line.split()[0] for line in lines] == ["1000", "4000", "difference:"]


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
