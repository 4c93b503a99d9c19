"""The manifest's contents, its checks, and the work left for a further run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_fetch import Filters, ManifestError, Window
from segment_fetch.events import Status
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.format import WindowEntry, parse_manifest
from segment_fetch.manifest.reader import read_committed
from segment_fetch.query import Query
from segment_fetch.windows.planning import missing
from tests.support_sinks import EPOCH, QUERY, MemorySink, hours, window_read

Edit = Callable[[dict[str, Any]], object]


def opened(sink: MemorySink, query: Query = QUERY) -> CommitLog:
    return CommitLog(sink, query, sink.open())


def filled(*committed: tuple[Window, Status]) -> MemorySink:
    """A sink with these windows, each committed by itself."""
    sink = MemorySink()
    log = opened(sink)
    for window, status in committed:
        log.commit(window_read(window, ["first"], status))
    return sink


def statuses(sink: MemorySink) -> dict[Window, str]:
    return {entry.window: entry.status for entry in read_committed(sink.manifest or b"", sink.records).entries}


def test_manifest_has_the_documented_fields() -> None:
    sink = MemorySink()
    log = opened(sink)
    log.commit(window_read(hours(0, 1), ["abc"], count=4, segments=3, duplicates=1, unknown_fields=("new",)))
    log.commit(window_read(hours(1, 2), status="unproven"))
    assert json.loads(sink.manifest or b"") == {
        "format_version": 2,
        "complete_before": "2026-11-01T01:00:00Z",
        "commits": 3,
        "settle_after_ms": 87_300_000,
        "query": {"account": "111111", "source": "tests", "filters": {"SkillId": "7"}, "format": "memory"},
        "windows": [
            {
                "from": "2026-11-01T00:00:00Z",
                "to": "2026-11-01T01:00:00Z",
                "status": "complete",
                "count": 4,
                "segments": 3,
                "duplicates": 1,
                "pages": 1,
                "requests": 2,
                "read_at": "2026-11-01T00:00:00Z",
                "unknown_fields": ["new"],
                "file": f"{EPOCH}-{EPOCH + 3_600_000}",
                "bytes": 3,
                "sha256": "",
            },
            {
                "from": "2026-11-01T01:00:00Z",
                "to": "2026-11-01T02:00:00Z",
                "status": "unproven",
                "count": 1,
                "segments": 0,
                "duplicates": 0,
                "pages": 1,
                "requests": 2,
                "read_at": "2026-11-01T00:00:00Z",
                "unknown_fields": [],
                "reason": "it changed",
            },
        ],
    }


def test_first_manifest_stands_before_the_first_file() -> None:
    assert [step.split()[0] for step in filled((hours(0, 1), "complete")).log] == ["publish", "write", "publish"]


def test_run_that_commits_nothing_leaves_no_manifest() -> None:
    sink = MemorySink()
    log = opened(sink)
    log.resume(EPOCH, EPOCH + 1, EPOCH)
    log.abandon()
    assert sink.log == []


def window_0(**values: Any) -> Edit:
    return lambda manifest: manifest["windows"][0].update(values)


NUMBERS = ("count", "segments", "duplicates", "pages", "requests", "bytes")
DAMAGES: dict[str, tuple[Edit, str]] = {
    "no version": (lambda m: m.pop("format_version"), "format_version"),
    "version as text": (lambda m: m.update(format_version="1"), "format_version"),
    "version as a flag": (lambda m: m.update(format_version=True), "format_version"),
    "a later version": (lambda m: m.update(format_version=3), "version 3; this release reads 2 and older ones"),
    "commits as text": (lambda m: m.update(commits="1"), "commits"),
    "a margin below zero": (lambda m: m.update(settle_after_ms=-1), "settle_after_ms"),
    "no query": (lambda m: m.pop("query"), "query"),
    "query as a list": (lambda m: m.update(query=[]), "query"),
    "windows as an object": (lambda m: m.update(windows={}), "windows"),
    "window as text": (lambda m: m["windows"].append("w"), r"windows\[2\]|windows\[...\]"),
    "window without status": (lambda m: m["windows"][0].pop("status"), "status"),
    "unknown status": (window_0(status="done"), "done"),
    "status in capitals": (window_0(status="Complete"), "Complete"),
    "from as a number": (window_0(**{"from": 5}), "from"),
    "from that moves": (window_0(**{"from": "now-7d"}), "'now-7d' is not a time"),
    "from as a date": (window_0(**{"from": "2026-11-01"}), "'2026-11-01' is not a time"),
    "from with an offset": (window_0(**{"from": "2026-11-01T00:00:00+00:00"}), "is not a time"),
    "from that is no date": (window_0(**{"from": "2026-13-01T00:00:00Z"}), "2026-13-01"),
    "from in other digits": (window_0(**{"from": "٢026-11-01T00:00:00Z"}), "is not a time"),
    "to is from": (window_0(to="2026-11-01T00:00:00Z"), "does not end after it starts"),
    "to before from": (window_0(to="2026-10-31T00:00:00Z"), "does not end after it starts"),
    "to in the next window": (window_0(to="2026-11-01T01:30:00Z"), "overlap"),
    "the same window twice": (lambda m: m["windows"].append(m["windows"][0]), "overlap"),
    "read_at in words": (window_0(read_at="yesterday"), "'yesterday' is not a time"),
    "never read, but proven": (window_0(read_at=None), "is proven, but was never read"),
    "fields as text": (window_0(unknown_fields="abc"), "unknown_fields"),
    "unproven with a file": (window_0(status="unproven"), "is unproven, but has a file"),
    "no file": (lambda m: m["windows"][0].pop("file"), "the file of window"),
    "a file elsewhere": (window_0(file="../../etc/passwd"), "etc/passwd"),
    "an absolute file": (window_0(file="/etc/passwd"), "etc/passwd"),
    "a file of another window": (lambda m: m["windows"][0].update(file=m["windows"][1]["file"]), "the file of window"),
    "the manifest itself": (window_0(file="manifest.json"), "manifest.json"),
    **{f"negative {name}": (window_0(**{name: -1}), "negative number") for name in NUMBERS},
    **{f"{name} as text": (window_0(**{name: "1"}), name) for name in NUMBERS},
    **{f"{name} as a fraction": (window_0(**{name: 1.5}), name) for name in NUMBERS},
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_manifest_is_refused_with_its_place(case: str) -> None:
    edit, says = DAMAGES[case]
    sink = filled((hours(0, 1), "complete"), (hours(1, 2), "provisional"))
    value = json.loads(sink.manifest or b"")
    edit(value)
    sink.manifest = edited = json.dumps(value).encode()
    with pytest.raises(ManifestError, match=says) as caught:
        opened(sink)
    assert "another destination" in str(caught.value) or "restore it from a copy" in str(caught.value)
    assert sink.manifest == edited


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"format_version": 1',
        b"segments",
        b'{"format_version":1,"query":"\\ud800"}',
        b'{"format_version":1,"windows":[],"query":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
    ids=repr,
)
def test_manifest_that_is_not_json_is_refused(stored: bytes) -> None:
    with pytest.raises(ManifestError, match="restore it from a copy"):
        parse_manifest(stored)


OTHER_QUERIES: dict[str, tuple[Query, str]] = {
    "account": (Query("222222", "tests", QUERY.filters), "account was '111111' and is now '222222'"),
    "filter": (
        Query("111111", "tests", Filters(skill_id="8")),
        "filters was {'SkillId': '7'} and is now {'SkillId': '8'}",
    ),
    "no filter": (Query("111111", "tests"), "filters was {'SkillId': '7'} and is now {}"),
}


@pytest.mark.parametrize("case", OTHER_QUERIES)
def test_other_query_is_refused_by_its_difference(case: str) -> None:
    query, says = OTHER_QUERIES[case]
    with pytest.raises(ManifestError, match=re.escape(says)):
        opened(filled((hours(0, 1), "complete")), query)


def test_source_is_no_part_of_what_a_destination_is() -> None:
    """It names the job to the API, and jobs are renamed. The manifest has that of the last run that stored it."""
    sink = filled((hours(0, 1), "complete"))
    log = opened(sink, Query("111111", "renamed", QUERY.filters))
    assert log.complete(EPOCH, EPOCH + 1)
    log.commit(window_read(hours(1, 2), [""]))
    assert sink.manifest is not None
    assert parse_manifest(sink.manifest).query["source"] == "renamed"


def test_page_size_may_change_between_runs() -> None:
    sink = filled((hours(0, 1), "complete"))
    assert opened(sink, Query("111111", "tests", QUERY.filters, limit=10)).complete(EPOCH, EPOCH + 1)


C: Status = "complete"
P: Status = "provisional"
U: Status = "unproven"
# what is there; the range asked, in hours; the oldest hour served; the hours to be read
TO_READ: list[tuple[list[tuple[int, int, Status]], tuple[int, int], int, list[tuple[int, int]]]] = [
    ([], (0, 9), 0, [(0, 9)]),
    ([(0, 9, C)], (0, 9), 0, []),
    ([(0, 9, C)], (3, 5), 0, []),
    ([(2, 4, C)], (0, 9), 0, [(0, 2), (4, 9)]),
    ([(2, 4, C), (4, 6, P)], (0, 9), 0, [(0, 2), (4, 9)]),
    ([(2, 4, P)], (3, 9), 0, [(2, 9)]),
    ([(2, 4, P)], (0, 3), 0, [(0, 4)]),
    ([(2, 9, P)], (3, 4), 0, [(2, 9)]),
    ([(2, 4, U)], (3, 9), 0, [(2, 9)]),
    ([(2, 4, P)], (3, 9), 3, [(4, 9)]),
    ([(2, 4, U)], (3, 9), 3, [(3, 9)]),
    ([(2, 4, P)], (4, 9), 0, [(4, 9)]),
    ([(2, 4, P)], (0, 2), 0, [(0, 2)]),
]


@pytest.mark.parametrize(("there", "asked", "oldest", "due"), TO_READ)
def test_what_is_still_to_be_read(
    there: list[tuple[int, int, Status]], asked: tuple[int, int], oldest: int, due: list[tuple[int, int]]
) -> None:
    sink = filled(*((hours(start, end), status) for start, end, status in there))
    whole = hours(*asked)
    assert opened(sink).to_read(whole.start, whole.end, hours(oldest, 99).start) == [hours(*one) for one in due]


@pytest.mark.parametrize("status", [C, P])
@pytest.mark.parametrize("lost", ["", "another length"])
def test_window_whose_file_is_lost_is_read_again(status: Status, lost: str) -> None:
    sink = filled((hours(2, 4), status))
    sink.files = dict.fromkeys(sink.files, lost)
    log = opened(sink)
    assert log.resume(hours(3, 9).start, hours(3, 9).end, EPOCH) == ([hours(2, 9)], 0)


def test_what_is_lost_and_cannot_be_had_again_is_noted() -> None:
    sink = filled((hours(2, 4), "complete"))
    sink.files.clear()
    log = opened(sink)
    (window,), _ = log.resume(hours(3, 9).start, hours(3, 9).end, hours(3, 9).start)
    log.commit(window_read(window, ["second"]))
    assert statuses(sink) == {hours(2, 3): "unproven", hours(3, 9): "complete"}


def test_unproven_rest_stays_noted_while_its_parts_are_proven() -> None:
    sink = filled((hours(0, 6), "unproven"))
    log = opened(sink)
    log.commit(window_read(hours(2, 4), ["part"]))
    assert statuses(sink) == {hours(0, 2): "unproven", hours(2, 4): "complete", hours(4, 6): "unproven"}


def test_unproven_window_changes_nothing_of_what_is_there() -> None:
    sink = filled((hours(0, 4), "provisional"))
    before = sink.manifest, dict(sink.files)
    entry = opened(sink).commit(window_read(hours(0, 4), status="unproven"))
    assert (entry.status, entry.file, entry.reason) == ("unproven", None, "it changed")
    assert (sink.manifest, sink.files) == before


def test_window_is_replaced_by_its_parts_as_a_whole() -> None:
    sink = filled((hours(0, 6), "provisional"))
    log = opened(sink)
    for part in (hours(4, 6), hours(0, 2)):
        log.commit(window_read(part, ["second"]))
        assert statuses(sink) == {hours(0, 6): "provisional"}
    log.commit(window_read(hours(2, 4), ["second"]))
    assert statuses(sink) == dict.fromkeys([hours(0, 2), hours(2, 4), hours(4, 6)], "complete")
    assert sorted(sink.files) == sorted(map(sink.name, statuses(sink)))
    assert log.abandon() == []


def test_window_stays_where_one_of_its_parts_is_unproven() -> None:
    sink = filled((hours(0, 6), "provisional"))
    log = opened(sink)
    log.commit(window_read(hours(0, 2), ["second"]))
    log.commit(window_read(hours(2, 4), status="unproven"))
    log.commit(window_read(hours(4, 6), ["second"]))
    left = log.abandon()
    assert [(entry.window, entry.status, entry.file) for entry in left] == [
        (hours(0, 2), "unproven", None),
        (hours(4, 6), "unproven", None),
    ]
    assert all("older window" in (entry.reason or "") for entry in left)
    assert statuses(sink) == {hours(0, 6): "provisional"}
    assert sink.files == {sink.name(hours(0, 6)): "first"}


def test_chain_of_windows_is_replaced_together() -> None:
    sink = filled((hours(0, 3), "provisional"), (hours(3, 6), "provisional"))
    log = opened(sink)
    log.commit(window_read(hours(0, 2), ["second"]))
    log.commit(window_read(hours(2, 5), ["second"]))
    assert statuses(sink) == {hours(0, 3): "provisional", hours(3, 6): "provisional"}
    log.commit(window_read(hours(5, 6), ["second"]))
    assert set(statuses(sink)) == {hours(0, 2), hours(2, 5), hours(5, 6)}


class History:
    """Runs over one sink, and what they must have left."""

    def __init__(self, *, appends: bool) -> None:
        self.sink = MemorySink(appends=appends)
        self.runs = 0
        self.complete: dict[int, str] = {}
        self.proven: set[int] = set()
        self.lost: set[str] = set()

    def run(self, asked: Window, oldest: int, draw: Callable[[Any], Any]) -> None:
        """One run over a range, its windows cut, ordered, proven and interrupted as drawn."""
        self.runs += 1
        log = opened(self.sink)
        ranges, _ = log.resume(asked.start, asked.end, oldest)
        windows = [window for whole in ranges for window in self._cut(whole, draw)]
        for window in draw(st.permutations(windows)):
            if draw(st.integers(0, 9)) == 0:
                return  # killed: what is staged and written stays behind
            status = draw(st.sampled_from([C, P, U]))
            log.commit(window_read(window, [f"run {self.runs:3}"], status))
            self.lost -= self.sink.files.keys()
            self.check()
        log.abandon()
        if draw(st.booleans()):  # else killed at the very end: its records stay beside the manifest
            log.close()
            assert self.sink.records == []
        named = {entry.file for entry in self.entries()}
        overlapping = {name for name in self.sink.files if self._within(name, asked)}
        assert overlapping <= named, "a leftover stays"

    def check(self) -> None:
        """The published windows do not overlap, and what was published stays."""
        entries = self.entries()
        assert not [one for one, other in pairwise(entries) if one.window.end > other.window.start]
        now: dict[int, tuple[str, str]] = {}
        for entry in entries:
            if entry.status != "unproven" and entry.file not in self.lost:
                assert self.sink.holds(entry.written), "the manifest names what is not there"
                text = self.sink.files[entry.file or ""]
                now |= dict.fromkeys(self._hours(entry.window), (entry.status, text))
        for hour, text in self.complete.items():
            assert now.get(hour) == ("complete", text), f"hour {hour} was complete"
        assert self.proven <= now.keys()
        self.complete = {hour: text for hour, (status, text) in now.items() if status == "complete"}
        self.proven = set(now)

    def lose(self, number: int) -> None:
        """A file vanishes; its hours are no longer promised."""
        entries = [entry for entry in self.entries() if entry.file in self.sink.files]
        if entries:
            entry = entries[number % len(entries)]
            self.lost.add(entry.file or "")
            del self.sink.files[entry.file or ""]
            for hour in self._hours(entry.window):
                self.complete.pop(hour, None)
                self.proven.discard(hour)

    def entries(self) -> list[WindowEntry]:
        return list(read_committed(self.sink.manifest, self.sink.records).entries) if self.sink.manifest else []

    def _cut(self, whole: Window, draw: Callable[[Any], Any]) -> list[Window]:
        inner = list(self._hours(whole))[1:]
        cuts = draw(st.lists(st.sampled_from(inner), unique=True, max_size=3)) if inner else []
        edges = [whole.start, *(hours(at, at + 1).start for at in sorted(cuts)), whole.end]
        return [Window(low, high) for low, high in pairwise(edges)]

    def _hours(self, window: Window) -> range:
        return range((window.start - EPOCH) // 3_600_000, (window.end - EPOCH) // 3_600_000)

    def _within(self, name: str, asked: Window) -> bool:
        start, end = map(int, name.split("-"))
        return start < asked.end and end > asked.start


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_any_history_of_runs_keeps_what_was_published(data: st.DataObject) -> None:
    history, oldest, holes = History(appends=data.draw(st.booleans())), 0, False
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(oldest, 10))
        asked = hours(start, data.draw(st.integers(start + 1, 12)))
        history.run(asked, hours(oldest, 99).start, data.draw)
        if data.draw(st.booleans()):
            oldest = data.draw(st.integers(oldest, min(10, oldest + 4)))
        if data.draw(st.integers(0, 4)) == 0:
            history.lose(data.draw(st.integers(0, 9)))
            holes = True
    log = opened(history.sink)
    asked = hours(oldest, 12)
    for window in log.resume(asked.start, asked.end, asked.start)[0]:
        log.commit(window_read(window, ["the last"]))
    assert log.abandon() == []
    kept = [entry.window for entry in history.entries() if entry.status != "unproven"]
    assert not missing(asked.start, asked.end, kept)
    assert holes or history.proven <= {hour for window in kept for hour in history._hours(window)}
