"""Is a table what its manifest says? Every row, without asking the API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segment_fetch.errors import DestinationError, ManifestError
from segment_fetch.manifest.format import Manifest, WindowEntry, check_names, parse_manifest
from segment_fetch.manifest.verify import AGAIN, Audit, Finding, counted, holes
from segment_fetch.sinks.tables.base import TableSink

_REPLACED = "delete its rows from the table, and " + AGAIN


def manifest_of(sink: TableSink) -> Manifest:
    """The manifest beside a table. DestinationError where there is none, or where the table cannot be read."""
    with _looking(sink) as stored:
        if stored is None:
            raise DestinationError(f"{sink.place}: nothing has been committed there yet")
        return parse_manifest(stored)


def audit(sink: TableSink) -> Audit:
    """Holds a table against its manifest. DestinationError where it cannot be read."""
    try:
        with _looking(sink) as stored:
            if stored is None:
                told = "nothing has been committed there yet: run the extraction, or let the one that is running go on"
                return _only(Finding("no manifest", sink.place, told))
            manifest = parse_manifest(stored)
            check_names(manifest.windows, sink.may_be_called)
            return _audit(sink, manifest)
    except ManifestError as error:
        return _only(Finding("bad manifest", sink.place, error.message))


@contextmanager
def _looking(sink: TableSink) -> Iterator[bytes | None]:
    manifest = sink.look()
    try:
        yield manifest
    finally:
        sink.close()


def _only(finding: Finding) -> Audit:
    return Audit((finding,), windows=0, provisional=0, segments=0)


def _audit(sink: TableSink, manifest: Manifest) -> Audit:
    entries = [entry for entry in manifest.windows if entry.status != "unproven"]
    findings, known = list(holes(manifest)), 0
    for entry in entries:
        found = sink.found(entry.file)
        known += found
        findings += _check(sink, entry, found)
    if strangers := sink.found() - known:
        told = "closed at a time that is in no window of the manifest; delete them, or keep them in another table"
        findings.append(Finding("extra rows", sink.place, f"{counted(strangers)} {told}"))
    return Audit(
        tuple(findings),
        windows=len(entries),
        provisional=sum(entry.status == "provisional" for entry in entries),
        segments=sum(entry.segments for entry in entries),
    )


def _check(sink: TableSink, entry: WindowEntry, found: int) -> Iterator[Finding]:
    where = str(entry.window)
    if found != entry.segments:
        due = f"the table has {counted(found)} of it and should have {entry.segments}"
        yield Finding("wrong row count", where, f"{due}; {AGAIN}")
    elif not sink.intact(entry.written):
        told = "the number of its segments is right, but their values have changed"
        yield Finding("changed", where, f"{told}; {_REPLACED}")
