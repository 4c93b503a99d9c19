"""What has been committed: the manifest, and what a further run still has to do.

The manifest is written after the data that it names, so what it names is there. A window that is read again
replaces the ones before it as a whole: while an older one is covered only in part, the new ones wait, unpublished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from segment_fetch import plan
from segment_fetch.errors import InputError, ManifestError
from segment_fetch.events import Status
from segment_fetch.order import Part
from segment_fetch.query import Query, Window, format_time, parse_time
from segment_fetch.reading import WindowRead
from segment_fetch.sinks.base import Sink, Written

FORMAT_VERSION = 1


class WindowEntry(Struct, frozen=True, omit_defaults=True):
    """A window in the manifest and in reports; times are RFC 3339, in UTC.

    `count` is what the API reported, `segments` what was written, `duplicates` rows that were read beyond those: seen
    twice, or on the instant that belongs to the next window. `bytes` and `sha256` are those of the file.
    """

    from_: str = field(name="from")
    to: str
    status: Status
    count: int
    segments: int
    duplicates: int
    pages: int
    requests: int
    read_at: str
    unknown_fields: tuple[str, ...]
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    reason: str | None = None

    @property
    def window(self) -> Window:
        """The window that the entry is about."""
        return Window(parse_time(self.from_, 0), parse_time(self.to, 0))

    @property
    def written(self) -> Written:
        """Where its segments are."""
        return Written(self.file, self.bytes, self.sha256)


class Manifest(Struct, frozen=True):
    """All of `manifest.json`. `query` is what every window of the destination was asked with."""

    format_version: int
    query: dict[str, Any]
    windows: tuple[WindowEntry, ...]


def entry_of(read: WindowRead[Any], written: Written) -> WindowEntry:
    """The entry of a window that was read, and written unless it is unproven."""
    return WindowEntry(
        from_=format_time(read.window.start),
        to=format_time(read.window.end),
        status=read.status,
        count=read.count,
        segments=read.segments,
        duplicates=read.duplicates,
        pages=read.pages,
        requests=read.requests,
        read_at=format_time(read.read_at),
        unknown_fields=read.unknown_fields,
        file=written.file,
        bytes=written.bytes,
        sha256=written.sha256,
        reason=read.reason,
    )


def identity(query: Query, settings: dict[str, str]) -> dict[str, Any]:
    """What may not change between two runs into one destination."""
    return {
        "account": query.account,
        "source": query.source,
        "filters": query.filters.params(),
        **settings,
    }


def parse_manifest(data: bytes) -> Manifest:
    """The manifest, or ManifestError that says where it is damaged."""
    try:
        version = msgspec.json.decode(data, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise ManifestError(
                f"the manifest has format version {version}; this release reads {FORMAT_VERSION}: use the release that "
                "wrote it, or another destination"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
        _check_windows(manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, InputError) as error:
        raise ManifestError(
            f"the manifest is damaged: {error}; restore it from a copy, or move the destination away and extract again"
        ) from None
    return manifest


class _Version(Struct):
    format_version: int


def _check_windows(manifest: Manifest) -> None:
    last: Window | None = None
    for entry in sorted(manifest.windows, key=lambda entry: entry.window):
        window = entry.window
        if window.start >= window.end:
            raise InputError(f"window {window} ends before it starts")
        if last is not None and window.start < last.end:
            raise InputError(f"windows {last} and {window} overlap")
        if entry.status != "unproven" and min(entry.count, entry.segments) < 0:
            raise InputError(f"window {window} has a negative count")
        last = window


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and one.end > other.start


class Ledger:
    """The manifest of an open sink."""

    def __init__(self, sink: Sink[Any], query: Query, stored: bytes | None) -> None:
        self._sink = sink
        self._identity = identity(query, sink.settings())
        self._entries: list[WindowEntry] = []
        self._staged: list[WindowEntry] = []
        if stored is not None:
            manifest = parse_manifest(stored)
            self._refuse_other_query(manifest.query)
            self._entries = list(manifest.windows)

    def _refuse_other_query(self, there: dict[str, Any]) -> None:
        here = self._identity
        different = [
            f"{name} was {there.get(name)!r} and is now {here.get(name)!r}"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        if different:
            raise ManifestError(
                f"the destination was made by another query: {'; '.join(different)}; use another destination"
            )

    def complete(self, start: int, end: int) -> list[WindowEntry]:
        """The windows of a range that need not be read again."""
        return [
            entry
            for entry in self._entries
            if entry.status == "complete"
            and _overlap(entry.window, Window(start, end))
            and self._sink.holds(entry.written)
        ]

    def to_read(self, start: int, end: int, oldest: int) -> list[Window]:
        """The parts of a range still to be read, oldest first.

        An older, provisional window that reaches out of the range is read again as a whole, as it is replaced as a
        whole; unless it begins before `oldest`, the first moment that the API still serves.
        """
        kept = [entry.window for entry in self.complete(start, end)]
        replaced: list[Window] = []
        for entry in self._entries:
            if entry.window in kept or not _overlap(entry.window, Window(start, end)):
                continue
            (replaced if entry.window.start >= oldest or not entry.file else kept).append(entry.window)
        low = min([start, *(window.start for window in replaced)])
        high = max([end, *(window.end for window in replaced)])
        return plan.missing(low, high, kept)

    def clean(self, windows: Sequence[Window]) -> None:
        """Removes what an interrupted run left in windows that are read now."""
        keep = {entry.file for entry in self._entries if entry.file}
        for window in windows:
            self._sink.clean(keep, window)

    def commit(self, read: WindowRead[Part]) -> WindowEntry:
        """Writes a window and makes it count; an unproven one is only noted."""
        written = Written() if read.status == "unproven" else self._sink.write(read.window, read.parts)
        entry = entry_of(read, written)
        if entry.status == "unproven":
            if not any(old.status != "unproven" and _overlap(old.window, read.window) for old in self._entries):
                self._publish([entry])
            return entry
        self._staged.append(entry)
        self._publish(self._ready(entry))
        return entry

    def _ready(self, entry: WindowEntry) -> list[WindowEntry]:
        """The staged windows to publish with this one: none while an older window would be replaced only in part."""
        staged, old = [entry], list[WindowEntry]()
        grown = True
        while grown:
            more_old = [e for e in self._entries if e.file and e not in old and _touches(e, staged)]
            old += more_old
            more = [e for e in self._staged if e not in staged and _touches(e, old)]
            staged += more
            grown = bool(more_old or more)
        windows = [e.window for e in staged]
        if any(plan.missing(e.window.start, e.window.end, windows) for e in old):
            return []
        return staged

    def _publish(self, entries: Sequence[WindowEntry]) -> None:
        if not entries:
            return
        gone = [old for old in self._entries if _touches(old, entries)]
        kept = [old for old in self._entries if old not in gone]
        windows = tuple(sorted([*kept, *entries], key=lambda entry: entry.window))
        new_files = {entry.file for entry in entries}
        obsolete = [old.file for old in gone if old.file and old.file not in new_files]
        manifest = Manifest(FORMAT_VERSION, self._identity, windows)
        self._sink.publish(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n", obsolete)
        self._entries = list(windows)
        self._staged = [entry for entry in self._staged if entry not in entries]


def _touches(entry: WindowEntry, others: Sequence[WindowEntry]) -> bool:
    return any(_overlap(entry.window, other.window) for other in others)
