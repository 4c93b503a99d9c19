"""Each kind of damage that a folder can suffer is found, and named where it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from segment_fetch import DestinationError
from segment_fetch.manifest.verify import Audit, audit
from segment_fetch.simulator import Simulator
from segment_fetch.sinks import CsvSink, FolderSink, JsonlSink
from tests.support_runs import END, START, client, now, settled

SINKS: dict[str, Callable[[Path], FolderSink[Any]]] = {
    "jsonl": JsonlSink,
    "jsonl.gz": lambda folder: JsonlSink(folder, "gzip"),
    "jsonl.zst": lambda folder: JsonlSink(folder, "zstd"),
    "csv": CsvSink,
    "csv.gz": lambda folder: CsvSink(folder, "gzip"),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two windows in each format, extracted once."""
    root = tmp_path_factory.mktemp("originals")

    async def extract() -> None:
        async with Simulator(settled(400), clock=now) as simulator:
            for name, sink in SINKS.items():
                async with client(simulator, window=timedelta(days=3)) as one:
                    await one.extract(START, END, sink(root / name))

    asyncio.run(extract())
    return root


class Folder:
    """A copy to damage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first, self.second = sorted(path.glob("segments-*"))

    def manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        path = self.path / "manifest.json"
        content = json.loads(path.read_bytes())
        change(content)
        path.write_text(json.dumps(content))

    def rewrite(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        """Changes the lines of the first file, and the manifest's size and checksum with them."""
        data = b"".join(change(self.first.read_bytes().splitlines(keepends=True)))
        self.first.write_bytes(data)

        def note(content: dict[str, Any]) -> None:
            content["windows"][0]["bytes"] = len(data)
            content["windows"][0]["sha256"] = hashlib.sha256(data).hexdigest()

        self.manifest(note)


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Callable[[str], Folder]:
    def copied(name: str = "jsonl") -> Folder:
        return Folder(Path(shutil.copytree(originals / name, tmp_path / name)))

    return copied


def kinds(found: Audit) -> set[str]:
    return {finding.kind for finding in found.findings}


@pytest.mark.parametrize("name", SINKS)
def test_a_folder_as_it_was_written_is_sound(folder: Callable[[str], Folder], name: str) -> None:
    found = audit(folder(name).path)
    assert found.findings == ()
    assert found.sound
    assert (found.windows, found.provisional, found.segments) == (2, 0, 400)


@pytest.mark.parametrize("name", SINKS)
def test_a_missing_a_truncated_and_a_changed_file(folder: Callable[[str], Folder], name: str) -> None:
    at = folder(name)
    at.first.unlink()
    data = at.second.read_bytes()
    at.second.write_bytes(data[: len(data) // 2])
    assert kinds(audit(at.path)) >= {"missing file", "wrong size"}
    middle = len(data) // 2
    at.second.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert kinds(audit(at.path)) >= {"missing file", "changed"}
    assert at.second.name in {finding.where for finding in audit(at.path).findings}


def test_an_extra_file_and_a_left_over_one(folder: Callable[[str], Folder]) -> None:
    at = folder("jsonl")
    shutil.copy(at.first, at.path / "segments-20200101T000000000Z-20200102T000000000Z.jsonl")
    shutil.copy(at.first, at.path / f".{at.first.name}.partial")
    (at.path / "notes.txt").write_text("somebody else's")
    found = audit(at.path)
    assert kinds(found) == {"extra file", "left over"}
    assert len(found.findings) == 2


ROWS: list[tuple[str, set[str], Callable[[list[bytes]], list[bytes]]]] = [
    ("a line lost", {"wrong row count"}, lambda lines: lines[:5] + lines[6:]),
    ("a line twice", {"wrong row count", "doubled id"}, lambda lines: [*lines[:5], lines[5], *lines[5:]]),
    ("a line for another", {"doubled id"}, lambda lines: [*lines[:5], lines[6], *lines[6:]]),
    ("two lines swapped", {"out of order"}, lambda lines: [*lines[:5], lines[6], lines[5], *lines[7:]]),
    ("no JSON", {"unreadable"}, lambda lines: [*lines[:5], b"{oops\n", *lines[6:]]),
    ("not UTF-8", {"unreadable"}, lambda lines: [*lines[:5], b'{"segmentId":"\xff","endTimeL":1}\n', *lines[6:]]),
]


@pytest.mark.parametrize(("kind", "change"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_rows_that_do_not_belong_although_size_and_checksum_agree(
    folder: Callable[[str], Folder], kind: set[str], change: Callable[[list[bytes]], list[bytes]]
) -> None:
    at = folder("jsonl")
    at.rewrite(change)
    assert kinds(audit(at.path)) == kind


def test_rows_of_another_window(folder: Callable[[str], Folder]) -> None:
    at = folder("jsonl")
    stranger = at.second.read_bytes().splitlines(keepends=True)[3]
    at.rewrite(lambda lines: [*lines[:-1], stranger])
    found = audit(at.path)
    assert kinds(found) == {"outside its window", "doubled id"}
    assert any(at.first.name in finding.message for finding in found.findings if finding.kind == "doubled id")


def test_csv_that_is_not_the_same_table(folder: Callable[[str], Folder]) -> None:
    at = folder("csv")
    at.rewrite(lambda lines: [b"a,b,c\r\n", *lines[1:]])
    assert kinds(audit(at.path)) == {"unreadable"}


MANIFESTS: list[tuple[str, str, Callable[[dict[str, Any]], None]]] = [
    ("another version", "bad manifest", lambda content: content.update(format_version=3)),
    ("no windows", "bad manifest", lambda content: content.pop("windows")),
    ("a wrong type", "bad manifest", lambda content: content["windows"][0].update(segments="many")),
    ("overlapping windows", "bad manifest", lambda content: content["windows"].append(content["windows"][0])),
    ("a foreign path", "bad manifest", lambda content: content["windows"][0].update(file="../../etc/passwd")),
    ("another format", "bad manifest", lambda content: content["query"].update(format="xml")),
    ("another count", "wrong row count", lambda content: content["windows"][1].update(segments=7)),
]


@pytest.mark.parametrize(("kind", "change"), [row[1:] for row in MANIFESTS], ids=[row[0] for row in MANIFESTS])
def test_a_bad_manifest(folder: Callable[[str], Folder], kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    at = folder("jsonl")
    at.manifest(change)
    assert kinds(audit(at.path)) == {kind}


def test_a_manifest_that_is_missing_or_no_json(folder: Callable[[str], Folder]) -> None:
    at = folder("jsonl")
    (at.path / "manifest.json").write_text("{")
    assert kinds(audit(at.path)) == {"bad manifest"}
    (at.path / "manifest.json").unlink()
    assert kinds(audit(at.path)) == {"no manifest"}


def test_an_unproven_window_and_a_gap(folder: Callable[[str], Folder]) -> None:
    at = folder("jsonl")
    at.second.unlink()
    gone = {"status": "unproven", "reason": "it moved", "segments": 0}

    def forget(content: dict[str, Any]) -> None:
        last = content["windows"][1]
        for name in ("file", "bytes", "sha256"):
            del last[name]
        last.update(gone)

    at.manifest(forget)
    found = audit(at.path)
    assert kinds(found) == {"unproven"}
    assert "it moved" in found.findings[0].message

    def tear(content: dict[str, Any]) -> None:
        content["windows"][1]["from"] = content["windows"][1]["to"]
        content["windows"][1]["to"] = "2030-01-01T00:00:00Z"

    at.manifest(tear)
    assert kinds(audit(at.path)) == {"unproven", "gap"}


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="there is no folder"):
        audit(tmp_path / "nowhere")
