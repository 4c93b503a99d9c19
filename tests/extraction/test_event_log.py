"""The log: what each event is told as, and how often."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from segment_fetch.cli.formatting import plural, wrapped
from segment_fetch.cli.log import logging_to
from segment_fetch.errors import lasting
from segment_fetch.events import (
    Event,
    PaceChanged,
    PageRead,
    Paused,
    Retrying,
    ServiceBack,
    ServiceDown,
    WindowReread,
    WindowSplit,
    per_second,
)
from segment_fetch.extraction.event_log import EventLog
from segment_fetch.query import Window

DAY = 86_400_000
WHOLE = Window(0, DAY)


def _told(*events: Event, level: str = "info") -> list[dict[str, Any]]:
    lines: list[str] = []
    log = EventLog("111111")
    with logging_to(lines.append, level=level, form="json", timed=False):
        for event in events:
            log.take(event, "a-run")
    return [orjson.loads(line) for line in lines]


def test_an_outage_is_told_once_until_it_ends() -> None:
    down = ServiceDown(3.0, 900.0, "the service failed with 503")
    first, back, again = _told(down, down, ServiceBack(75.0), down)
    assert (first["event"], first["level"]) == ("service_down", "warning")
    assert "no request has succeeded for 3.0 s: the service failed with 503" in first["message"]
    assert "for up to 15 min" in first["message"]
    assert back["message"] == "the service answers again, after 1 min 15 s"
    assert again["event"] == "service_down"


def test_the_first_retry_of_each_kind_is_told() -> None:
    def retrying(reason: str) -> Retrying:
        return Retrying(WHOLE, 0, 1, 5.0, reason)

    told = _told(retrying("byte 17 is odd"), retrying("byte 923 is odd"), retrying("it was dropped"), Paused(1.0))
    assert [line["event"] for line in told] == ["retrying", "retrying", "paused"]
    assert len(_told(*(retrying(f"reason {chr(97 + at)}") for at in range(20)))) == 8


def test_what_a_429_was_taken_for_is_told_once_of_each_kind() -> None:
    fast, crowded = PaceChanged(9.7, None, "too_fast"), PaceChanged(20.0, 5, "too_many_at_once")
    told = _told(PaceChanged(5.0, None, "started"), fast, crowded, fast, PaceChanged(11.0, 5, "no_refusals"))
    assert [line["message"] for line in told] == [
        "the 429 is attributed to too many requests a second: now 9.7 requests a second",
        "the 429 is attributed to too many concurrent requests: now 20 requests a second, 5 at once",
    ]
    assert (told[1]["event"], told[1]["rate"], told[1]["at_once"]) == ("pace_changed", 20.0, 5)


def test_windows_are_times_in_json() -> None:
    split, reread = _told(WindowSplit(WHOLE, (Window(0, 1),)), WindowReread(WHOLE, 1, "it moved"))
    assert split["window"] == {"from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z"}
    assert split["parts"] == [{"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:00:00.001Z"}]
    assert "is read again: it moved" in reread["message"]


def test_pages_are_told_at_debug_only() -> None:
    assert _told(PageRead(WHOLE, 0, 500)) == []
    (page,) = _told(PageRead(WHOLE, 0, 500), level="debug")
    assert (page["level"], page["rows"], page["fallback"]) == ("debug", 500, None)
    (slow,) = _told(PageRead(WHOLE, 0, 500, "a text with an escape sequence"), level="debug")
    assert slow["message"].endswith("500 segments, decoded by the fallback: a text with an escape sequence")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0.0 s"), (4.24, "4.2 s"), (42.4, "42 s"), (60, "1 min"), (200, "3 min 20 s"), (7_500, "2 h 5 min")],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert lasting(seconds) == words
    assert lasting(3_600) == "1 h"


@pytest.mark.parametrize(
    ("rate", "words"), [(0.0001, "0.0001"), (0.25, "0.25"), (9.66, "9.7"), (10.0, "10"), (120.4, "120")]
)
def test_rates(rate: float, words: str) -> None:
    assert per_second(rate) == words


def test_plurals_and_wrapping() -> None:
    assert (plural(1, "window"), plural(2_000, "window")) == ("1 window", "2,000 windows")
    command = "  segment-fetch extract " + "--option value " * 8 + "--last"
    assert wrapped(f"one two three four\n{command}", 10) == f"one two\n  three\n  four\n{command}"
