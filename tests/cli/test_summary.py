"""The advice of a report: it fits the reason why a window is unproven."""

from __future__ import annotations

import msgspec
import pytest

from segment_fetch.cli import summary
from segment_fetch.extraction.report import Report
from segment_fetch.manifest.format import WindowEntry

AGAIN = "Next: run the same command again; only what is missing is read"
REPORT_IT = "Report it with the message"
LOST = "It cannot be recovered"


def report(*codes: str | None) -> Report:
    """A run whose windows are all unproven, with these codes."""
    entry = {"status": "unproven", "count": 1, "segments": 0, "duplicates": 0, "pages": 0, "requests": 1}
    entry |= {"read_at": None, "unknown_fields": [], "reason": "for a reason"}
    days = [{"from": f"2026-11-0{day}T00:00:00Z", "to": f"2026-11-0{day + 1}T00:00:00Z"} for day in range(1, 9)]
    windows = [entry | day | ({"code": code} if code else {}) for day, code in zip(days, codes, strict=False)]
    totals = dict.fromkeys(("skipped", "segments", "duplicates", "requests", "retries", "throttled"), 0)
    return msgspec.convert(
        {"complete": False, "windows": windows, **totals, "seconds": 1.0, "unknown_fields": []}, Report
    )


@pytest.mark.parametrize(
    ("codes", "says", "never"),
    [
        ((None,), [AGAIN], [REPORT_IT]),
        (("SF-SERVICE",), [AGAIN], [REPORT_IT]),
        (("SF-OF-A-LATER-RELEASE",), [AGAIN], [REPORT_IT]),
        (("SF-SCHEMA", "SF-SCHEMA"), [f"Next: {REPORT_IT}"], ["same command"]),
        (("SF-REFUSED", "SF-LOST"), ["Next: Change what the API names", LOST], ["same command"]),
        (("SF-SCHEMA", "SF-SERVICE"), [AGAIN, f"For the others: {REPORT_IT}"], []),
    ],
)
def test_the_advice_fits_the_cause(codes: tuple[str | None, ...], says: list[str], never: list[str]) -> None:
    run = summary.Run("segments", "segment-fetch extract --out segments")
    text = " ".join(summary.as_text(report(*codes), run, 80).split())
    assert [words for words in says if words not in text] == []
    assert [words for words in never if words in text] == []
    assert text.count(REPORT_IT) <= 1
    advice = summary.as_json(report(*codes), run, 3)["error"]["advice"]
    assert ("Run the same command again" in advice) == (AGAIN in text)


def test_an_entry_of_an_older_manifest_has_no_code() -> None:
    entry = report(None).windows[0]
    assert entry.code is None
    assert b"code" not in msgspec.json.encode(entry)
    assert msgspec.json.decode(msgspec.json.encode(entry), type=WindowEntry) == entry
