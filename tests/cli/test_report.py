"""`report`, as people run it."""

from __future__ import annotations

import os
from pathlib import Path

from segment_fetch.simulator import Simulator
from tests.cli.conftest import Run
from tests.cli.support import AT_ONCE, spanning


def test_the_page_is_written_and_described(run: Run, api: Simulator, tmp_path: Path) -> None:
    out, page = str(tmp_path / "held"), tmp_path / "page.html"
    assert run("extract", "--base-url", api.base_url, *spanning(api.dataset), "--out", out, *AT_ONCE).code == 0
    result = run("report", "--out", out, "--html", str(page), "--timezone", "Europe/Berlin")
    assert (result.code, str(page) in result.out) == (0, True)
    assert "3,000 segments are held" in page.read_text(encoding="utf-8")
    found = run("report", "--out", out, "--html", str(page), "--json").json
    assert (found["exit_code"], found["bytes"]) == (0, page.stat().st_size)
    again = run("report", "--out", out, "--html", str(tmp_path / "no" / "page.html"))
    assert (again.code, "cannot be written: No such file" in again.words) == (2, True)
    log = run("report", "--out", out, "--html", str(page), "--run-log", str(tmp_path / "no.log"))
    assert (log.code, "cannot be read: No such file" in log.words) == (2, True)
    os.mkfifo(tmp_path / "pipe")
    for options, message in (
        (["--html", str(page), "--run-log", str(tmp_path / "pipe")], "cannot be read: it is not a regular file"),
        (["--html", str(page), "--run-log", "~nobody-of-this-name/run.log"], "the home folder is not known"),
        (["--html", "~nobody-of-this-name/page.html"], "the home folder is not known"),
    ):
        refused = run("report", "--out", out, *options)
        assert (refused.code, message in refused.words) == (2, True)
