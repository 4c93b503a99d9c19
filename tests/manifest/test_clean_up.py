"""A clean-up that fails after a run has failed is logged, and does not hide why the run failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from segment_fetch.errors import DestinationError, ServiceError
from segment_fetch.manifest.committer import committing
from segment_fetch.query import Query
from segment_fetch.sinks import JsonlSink


class _ClosesBadly(JsonlSink):
    def close(self) -> None:
        super().close()
        raise DestinationError("the disk went away")


async def test_what_failed_first_is_raised_and_what_failed_then_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServiceError, match="no answer"):
        async with committing(_ClosesBadly(tmp_path), Query("111111", "test")):
            raise ServiceError("no answer")
    assert [record.getMessage() for record in caplog.records] == [
        "the clean-up after the failure failed, too: the disk went away"
    ]


async def test_a_clean_up_that_fails_after_a_run_that_did_not_is_its_failure(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="the disk went away"):
        async with committing(_ClosesBadly(tmp_path), Query("111111", "test")):
            pass
