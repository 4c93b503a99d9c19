"""Verification: check every file and segment of a destination against its manifest, without the API.

Folders, object stores and tables differ in three methods of their sink: `fault` checks the bytes of a window, `keys`
reads its segments back, `strangers` finds data that belongs to no window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from segment_fetch.errors import DestinationError, InputError, ManifestError
from segment_fetch.manifest.duplicate_ids import Duplicates
from segment_fetch.manifest.format import Manifest, WindowEntry, check_names
from segment_fetch.manifest.reader import Committed, read_committed
from segment_fetch.query import Window
from segment_fetch.sinks.base import AGAIN, Finding, Sink
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.registry import file_sink, table_sink

_NOTHING_THERE = "nothing has been committed here yet: run the extraction, or wait for the running one"
_LOST = "it is missing: restore it from a copy, or extract elsewhere"
_UNCHECKED = ("missing file", "bad manifest", "wrong row count")
"""Faults of a window after which its segments are not checked."""


class Audit(Struct, frozen=True):
    """The result of a verification: the number of stored windows, of provisional ones among them, and of segments.

    `running` is True if a run is writing there, so that uncommitted files are no fault. Everything that closed before
    `complete_before` is stored and final.
    """

    findings: tuple[Finding, ...]
    windows: int
    provisional: int
    segments: int
    running: bool = False
    complete_before: str | None = None

    @property
    def sound(self) -> bool:
        """True if there are no findings."""
        return not self.findings


def counted(segments: int) -> str:
    """Return "1 segment", "2 segments" and so on."""
    return f"{segments} segment{'' if segments == 1 else 's'}"


def manifest_of(place: str | Path | Sink[Any]) -> Manifest:
    """Return the manifest of a destination. Raises ManifestError or DestinationError if there is none."""
    sink = _sink(place)
    with _reading(sink) as committed:
        if committed is None:
            raise DestinationError(f"{sink.place}: nothing has been committed there yet; there is no manifest")
        return committed.manifest()


def audit(place: str | Path | Sink[Any]) -> Audit:
    """Check a destination against its manifest. Raises DestinationError if it cannot be read."""
    there = _sink(place)
    try:
        with _reading(there) as committed:
            if committed is None:
                lost = any(each.kind == "extra file" for each in there.strangers(set()))
                return _only(Finding("no manifest", there.manifest_name, _LOST if lost else _NOTHING_THERE))
            sink = there
            if not isinstance(place, Sink) and isinstance(there, FileSink):
                sink = file_sink(place, committed.query)  # now that the settings of the files are known
            check_names(committed.entries.items(), sink.may_be_called)
            return _audit(sink, committed)
    except (ManifestError, InputError) as error:
        return _only(Finding("bad manifest", there.manifest_name, error.message))


def _sink(place: str | Path | Sink[Any]) -> Sink[Any]:
    """Return a sink that can read the manifest; for files, their format need not be known yet."""
    return place if isinstance(place, Sink) else table_sink(place) or file_sink(place)


@contextmanager
def _reading(sink: Sink[Any]) -> Iterator[Committed | None]:
    """Open the destination for reading and yield its state; None if nothing was ever committed."""
    stored = sink.look()
    try:
        yield None if stored is None else read_committed(stored, sink.appended())
    finally:
        sink.close()


def _only(finding: Finding) -> Audit:
    return Audit((finding,), windows=0, provisional=0, segments=0)


def _audit(sink: Sink[Any], committed: Committed) -> Audit:
    entries = [entry for entry in committed.entries if entry.status != "unproven"]
    running = sink.in_use  # checked before and after the files are listed: a run may begin or end meanwhile
    strangers = list(sink.strangers({entry.file for entry in entries if entry.file is not None}))
    running = running or (bool(strangers) and sink.in_use)
    findings = [*(() if running else strangers), *holes(committed.entries)]
    with Duplicates() as seen:
        for entry in entries:
            findings += _check(sink, entry, seen)
        findings += _doubled(sink, entries, seen.find())
    return Audit(
        tuple(findings),
        windows=len(entries),
        provisional=sum(entry.status == "provisional" for entry in entries),
        segments=sum(entry.segments for entry in entries),
        running=running,
        complete_before=committed.entries.complete_before(),
    )


def holes(entries: Iterable[WindowEntry]) -> Iterator[Finding]:
    """Yield the gaps and unproven windows of the manifest; `entries` are ordered by time."""
    before: Window | None = None
    for entry in entries:
        window = entry.window
        if before is not None and before.end < window.start:
            yield Finding("gap", str(Window(before.end, window.start)), "never read; extract it while the API has it")
        if entry.status == "unproven":
            yield Finding("unproven", str(window), f"{entry.reason or 'it could not be proven'}; {AGAIN}")
        before = window


def _where(entry: WindowEntry) -> str:
    """Return the name of a window's file, or for the rows of a table the window."""
    return str(entry.window) if entry.bytes is None else str(entry.file)


def _check(sink: Sink[Any], entry: WindowEntry, seen: Duplicates) -> Iterator[Finding]:
    fault = sink.fault(entry.window, entry.segments, entry.written)
    if fault is not None:
        yield fault
    if fault is None or fault.kind not in _UNCHECKED:
        try:
            yield from _check_rows(sink, entry, seen)
        except ValueError as error:
            yield Finding("unreadable", _where(entry), f"{error}; {sink.mend}, and {AGAIN}")


def _check_rows(sink: Sink[Any], entry: WindowEntry, seen: Duplicates) -> Iterator[Finding]:
    window, rows, outside, ordered = entry.window, 0, 0, True
    last = (window.start - 1, "")
    for key in sink.keys(entry.written):
        rows += 1
        outside += not window.start <= key[0] < window.end
        ordered = ordered and (last <= key or rows == 1)
        last = key
        seen.add(key[1])
    where = _where(entry)
    if rows != entry.segments:
        due = f"it holds {rows} and should hold {counted(entry.segments)}"
        yield Finding("wrong row count", where, f"{due}; {sink.mend}, and {AGAIN}")
    if outside:
        yield Finding("outside its window", where, f"{counted(outside)} did not close within {window}")
    if not ordered:
        yield Finding("out of order", where, "its segments are not in the order of close time and segmentId")


def _doubled(sink: Sink[Any], entries: Sequence[WindowEntry], suspects: set[int]) -> Iterator[Finding]:
    """Yield segments that are stored twice; windows with equal hashes are read again to compare the ids."""
    first: dict[str, str] = {}
    for entry in entries if suspects else ():
        here, doubled = _where(entry), dict[str, list[str]]()
        for segment_id in _suspected(sink, entry, suspects):
            if segment_id in first:
                doubled.setdefault(first[segment_id], []).append(segment_id)
            else:
                first[segment_id] = here
        for there, ids in doubled.items():
            where = f"in it twice; {sink.mend}, and {AGAIN}" if there == here else f"in {there}, too"
            yield Finding("doubled id", here, f"{counted(len(ids))}, {ids[0]} for one: {where}")


def _suspected(sink: Sink[Any], entry: WindowEntry, suspects: set[int]) -> Iterator[str]:
    try:
        yield from (name for _, name in sink.keys(entry.written) if hash(name) in suspects)
    except (ValueError, DestinationError):
        return  # already found to be missing or unreadable
