"""Is a folder, or a place in an object store, what its manifest says? Every file, every line, without the API."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from segment_fetch.errors import DestinationError, InputError, ManifestError
from segment_fetch.manifest.format import Manifest, WindowEntry, check_names, parse_manifest
from segment_fetch.query import Window
from segment_fetch.regular_files import read_regular
from segment_fetch.sinks.base import Key
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.files.folder import FolderSink, is_leftover
from segment_fetch.sinks.files.names import MANIFEST, is_segments
from segment_fetch.sinks.objects.sink import ObjectSink
from segment_fetch.sinks.registry import file_sink, kind_of

Damage: TypeAlias = Literal[
    "no manifest",
    "bad manifest",
    "missing file",
    "extra file",
    "extra rows",
    "left over",
    "wrong size",
    "changed",
    "unreadable",
    "wrong row count",
    "doubled id",
    "outside its window",
    "out of order",
    "unproven",
    "gap",
    "differs",
]


class Finding(Struct, frozen=True):
    """One thing that is wrong: what kind, where (a file or a window), and in a sentence what to do about it."""

    kind: Damage
    where: str
    message: str


class Audit(Struct, frozen=True):
    """What a verification found: `windows` that are whole, how many of them are provisional, the segments in them.

    `running`: a run is writing there, so that files which are not committed yet say nothing.
    """

    findings: tuple[Finding, ...]
    windows: int
    provisional: int
    segments: int
    running: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def counted(segments: int) -> str:
    """1 segment, 2 segments."""
    return f"{segments} segment{'' if segments == 1 else 's'}"


AGAIN = "run the extraction again: it reads the window anew"
"""The mend of most findings."""


def manifest_of(place: str | Path) -> Manifest:
    """The manifest of a folder or object store. ManifestError or DestinationError where there is none."""
    stored = _stored(place)
    if stored is None:
        raise DestinationError(f"{place}/{MANIFEST} cannot be read: it is not there")
    return parse_manifest(stored)


def audit(place: str | Path) -> Audit:
    """Holds a folder, or the URL of an object store, against its manifest. DestinationError where there is none."""
    if kind_of(place) == "folder" and not Path(place).is_dir():
        raise DestinationError(f"{place} is not a folder")
    stored = _stored(place)
    if stored is None:
        return _only(Finding("no manifest", MANIFEST, _without_manifest(place)))
    try:
        manifest = parse_manifest(stored)
        sink = file_sink(place, manifest.query)
        check_names(manifest.windows, sink.may_be_called)
    except (ManifestError, InputError) as error:
        return _only(Finding("bad manifest", MANIFEST, error.message))
    return _audit(sink, manifest)


def _stored(place: str | Path) -> bytes | None:
    if isinstance(sink := file_sink(place), ObjectSink):
        return sink.stored()
    try:
        return read_regular(Path(place) / MANIFEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DestinationError(f"{place}/{MANIFEST} cannot be read: {error.strerror}") from None


def _without_manifest(place: str | Path) -> str:
    if any(map(is_segments, file_sink(place).names())):
        return "it is missing: restore it from a copy, or extract elsewhere"
    return "nothing has been committed here yet: run the extraction, or let the one that is running go on"


def _only(finding: Finding) -> Audit:
    return Audit((finding,), windows=0, provisional=0, segments=0)


def _audit(sink: FileSink[Any], manifest: Manifest) -> Audit:
    entries = [entry for entry in manifest.windows if entry.status != "unproven"]
    running = _in_use(sink)  # before and after the files are listed: a run may begin or end meanwhile
    strangers = list(_strangers(sink, entries))
    running = running or (bool(strangers) and _in_use(sink))
    findings = [*(() if running else strangers), *holes(manifest)]
    seen = array("Q")
    for entry in entries:
        findings += _check_file(sink, entry, seen)
    findings += _doubles_across(sink, entries, seen)
    return Audit(
        tuple(findings),
        windows=len(entries),
        provisional=sum(entry.status == "provisional" for entry in entries),
        segments=sum(entry.segments for entry in entries),
        running=running,
    )


def _in_use(sink: FileSink[Any]) -> bool:
    return isinstance(sink, FolderSink) and sink.in_use


def _strangers(sink: FileSink[Any], entries: Sequence[WindowEntry]) -> Iterator[Finding]:
    known = {entry.file for entry in entries}
    for name in sink.names():
        if is_leftover(name):
            yield Finding("left over", name, "an interrupted run left it; the next run removes it")
        elif is_segments(name) and name not in known:
            yield Finding(
                "extra file",
                name,
                "the manifest does not name it, but a reader of the folder would count it: move or delete it",
            )


def holes(manifest: Manifest) -> Iterator[Finding]:
    """What the manifest itself says is missing."""
    for entry in manifest.windows:
        if entry.status == "unproven":
            yield Finding("unproven", str(entry.window), f"{entry.reason or 'it could not be proven'}; {AGAIN}")
    ordered = sorted(entry.window for entry in manifest.windows)
    for one, other in pairwise(ordered):
        if one.end < other.start:
            yield Finding("gap", str(Window(one.end, other.start)), "never read; extract it while the API has it")


def _check_file(sink: FileSink[Any], entry: WindowEntry, seen: array[int]) -> Iterator[Finding]:
    name = str(entry.file)
    size = sink.size(name)
    if size is None:
        yield Finding("missing file", name, f"it is not there; {AGAIN}")
        return
    if entry.sha256 is None or entry.bytes is None:
        yield Finding("bad manifest", name, "its size or checksum is not in the manifest: restore that from a copy")
        return
    if size != entry.bytes:
        yield Finding("wrong size", name, f"it has {size} bytes and should have {entry.bytes}; {AGAIN}")
    elif not sink.intact(entry.written):
        yield Finding("changed", name, f"its size is right but its contents have changed; delete it, and {AGAIN}")
    try:
        yield from _check_rows(name, entry, list(sink.keys(entry.written)), seen)
    except ValueError as error:
        yield Finding("unreadable", name, f"{error}; delete the file, and {AGAIN}")


def _check_rows(name: str, entry: WindowEntry, keys: list[Key], seen: array[int]) -> Iterator[Finding]:
    seen.extend(_hash(segment_id) for _, segment_id in keys)
    window, doubled = entry.window, len(keys) - len({segment_id for _, segment_id in keys})
    outside = sum(not window.start <= at < window.end for at, _ in keys)
    if len(keys) != entry.segments:
        due = f"it holds {len(keys)} and should hold {counted(entry.segments)}"
        yield Finding("wrong row count", name, f"{due}; delete it, and {AGAIN}")
    if doubled:
        yield Finding("doubled id", name, f"{counted(doubled)} too many, in it twice; delete it, and {AGAIN}")
    if outside:
        yield Finding("outside its window", name, f"{counted(outside)} did not close within {window}")
    if keys != sorted(keys):
        yield Finding("out of order", name, "its segments are not in the order of close time and segmentId")


def _hash(segment_id: str) -> int:
    return int.from_bytes(blake2b(segment_id.encode(), digest_size=8).digest())


def _doubles_across(sink: FileSink[Any], entries: Sequence[WindowEntry], seen: array[int]) -> Iterator[Finding]:
    """Segments that are in two files. 8 bytes a segment tell whether there may be any; only then names are compared."""
    ordered = sorted(seen)
    suspects = {one for one, other in pairwise(ordered) if one == other}
    where: dict[str, str] = {}
    for entry in entries if suspects else ():
        for segment_id in sorted({name for _, name in _readable(sink, entry) if _hash(name) in suspects}):
            first = where.setdefault(segment_id, str(entry.file))
            if first != entry.file:
                yield Finding("doubled id", str(entry.file), f"segment {segment_id} is in {first}, too")


def _readable(sink: FileSink[Any], entry: WindowEntry) -> list[Key]:
    try:
        return list(sink.keys(entry.written))
    except (ValueError, DestinationError):
        return []  # already found to be missing or unreadable
