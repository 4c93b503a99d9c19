"""What has been committed: the manifest, and what a further run still has to do.

The manifest is written after the data that it names, so what it names is there. A window that is read again
replaces the ones before it as a whole: while an older one is covered only in part, the new ones wait, unpublished.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct, field, structs

from segment_fetch import plan
from segment_fetch.errors import InputError, ManifestError
from segment_fetch.events import Status
from segment_fetch.order import Part
from segment_fetch.query import Query, Window, format_time, parse_time
from segment_fetch.reading import WindowRead
from segment_fetch.sinks.base import Sink, Written

FORMAT_VERSION = 1

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)
_HALF_REPLACED = "proven, but not all of the older window that it would replace; that one stays"
_LOST = "its file is missing or was changed, and this part was not asked for again"


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
        _check_windows(manifest.windows)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        raise _damaged(str(error)) from None
    return manifest


def _damaged(where: str) -> ManifestError:
    return ManifestError(
        f"the manifest is damaged: {where}; restore it from a copy, or move the destination away and extract again"
    )


class _Version(Struct):
    format_version: int


def _check_windows(entries: Sequence[WindowEntry]) -> None:
    for index, entry in enumerate(entries):
        if fault := _time_fault(entry) or _value_fault(entry):
            raise InputError(f"{fault} - at `$.windows[{index}]`")
    ordered = sorted(entry.window for entry in entries)
    for one, other in pairwise(ordered):
        if other.start < one.end:
            raise InputError(f"windows {one} and {other} overlap")


def _time_fault(entry: WindowEntry) -> str | None:
    for text in (entry.from_, entry.to, entry.read_at):
        if not _TIME.fullmatch(text):
            return f"{text!r} is not a time as 2026-11-01T08:00:00Z"
        parse_time(text, 0)
    window = entry.window
    return f"window {window} does not end after it starts" if window.start >= window.end else None


def _value_fault(entry: WindowEntry) -> str | None:
    numbers = (entry.count, entry.segments, entry.duplicates, entry.pages, entry.requests, entry.bytes or 0)
    if min(numbers) < 0:
        return f"window {entry.window} has a negative number"
    if entry.status == "unproven" and entry.written != Written():
        return f"window {entry.window} is unproven, but has a file"
    return None


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and one.end > other.start


def _touches(window: Window, others: Iterable[Window]) -> bool:
    return any(_overlap(window, other) for other in others)


class Ledger:
    """The manifest of an open sink."""

    def __init__(self, sink: Sink[Any], query: Query, stored: bytes | None) -> None:
        self._sink = sink
        self._identity = identity(query, sink.settings())
        self._entries: dict[Window, WindowEntry] = {}
        self._staged: dict[Window, WindowEntry] = {}
        self._begun = stored is not None
        if stored is not None:
            manifest = parse_manifest(stored)
            self._refuse_other_query(manifest.query)
            self._entries = {entry.window: entry for entry in manifest.windows}
            self._refuse_other_names(sink.name)

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

    def _refuse_other_names(self, name: Callable[[Window], str | None]) -> None:
        """A name from the manifest is deleted one day: it must be the one that the sink itself would give."""
        for window, entry in self._entries.items():
            due = name(window)
            if entry.status != "unproven" and entry.file != due:
                raise _damaged(f"the file of window {window} must be {due!r}, not {entry.file!r}")

    def resume(self, start: int, end: int, oldest: int) -> tuple[list[Window], int]:
        """What is still to be read of a range, oldest first, and how many windows are complete. Leftovers go.

        `oldest` is the first moment that the API surely still serves.
        """
        windows = self.to_read(start, end, oldest)
        self.clean([Window(start, end), *windows])
        return windows, len(self.complete(start, end))

    def complete(self, start: int, end: int) -> list[WindowEntry]:
        """The windows of a range that need not be read again."""
        asked = Window(start, end)
        return [
            entry
            for window, entry in self._entries.items()
            if entry.status == "complete" and _overlap(window, asked) and self._sink.holds(entry.written)
        ]

    def to_read(self, start: int, end: int, oldest: int) -> list[Window]:
        """The parts of a range still to be read, oldest first.

        A window that reaches out of the range and is not complete is read again as a whole, as it is replaced as a
        whole. One that begins before `oldest` cannot be had as a whole any more: what is there of it stays.
        """
        asked, kept, low, high = Window(start, end), list[Window](), start, end
        for window, entry in self._entries.items():
            if not _overlap(window, asked):
                continue
            if self._holds(entry) and (entry.status == "complete" or window.start < oldest):
                kept.append(window)
            elif window.start >= oldest:
                low, high = min(low, window.start), max(high, window.end)
        return plan.missing(low, high, kept)

    def clean(self, windows: Sequence[Window]) -> None:
        """Removes what an interrupted run left within these windows."""
        keep = {entry.file for entry in self._entries.values() if entry.file}
        for window in windows:
            self._sink.clean(keep, window)

    def commit(self, read: WindowRead[Part]) -> WindowEntry:
        """Writes a window and makes it count; an unproven one is only noted."""
        if read.status == "unproven":
            entry = entry_of(read, Written())
            if not any(old.status != "unproven" and _overlap(window, read.window) for window, old in self._items()):
                self._publish({read.window: entry})
            return entry
        if not self._begun:
            self._publish({})  # a run that is killed after its first file can then be told from a folder of strangers
        entry = entry_of(read, self._sink.write(read.window, read.parts))
        self._staged[read.window] = entry
        self._publish_ready(read.window)
        return entry

    def abandon(self) -> list[WindowEntry]:
        """At the end of a run, the windows that could not replace an older one; their files go."""
        left, self._staged = self._staged, {}
        self.clean(list(left))
        return [_unproven(entry, window, _HALF_REPLACED) for window, entry in left.items()]

    def _items(self) -> list[tuple[Window, WindowEntry]]:
        return list(self._entries.items())

    def _holds(self, entry: WindowEntry) -> bool:
        return entry.status != "unproven" and self._sink.holds(entry.written)

    def _publish_ready(self, window: Window) -> None:
        """Publishes a staged window, and those that go with it, unless an older one would be replaced only in part."""
        ready, old = {window}, set[Window]()
        grown = True
        while grown:
            more_old = {w for w, e in self._items() if w not in old and _touches(w, ready) and self._holds(e)}
            old |= more_old
            more = {w for w in self._staged if w not in ready and _touches(w, old)}
            ready |= more
            grown = bool(more_old or more)
        if not any(plan.missing(w.start, w.end, ready) for w in old):
            self._publish({w: self._staged.pop(w) for w in ready})

    def _publish(self, entries: dict[Window, WindowEntry]) -> None:
        """Stores the manifest with these windows in it. What they cover of others goes, the rest is noted."""
        gone = {window: old for window, old in self._items() if _touches(window, entries)}
        kept = {window: old for window, old in self._items() if window not in gone}
        rest = {
            part: _unproven(old, part, old.reason or _LOST)
            for window, old in gone.items()
            for part in plan.missing(window.start, window.end, entries)
        }
        after = kept | rest | entries
        new_files = {entry.file for entry in entries.values()}
        obsolete = [old.file for old in gone.values() if old.file and old.file not in new_files]
        manifest = Manifest(FORMAT_VERSION, self._identity, tuple(after[window] for window in sorted(after)))
        self._sink.publish(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n", obsolete)
        self._entries = after
        self._begun = True


def _unproven(entry: WindowEntry, part: Window, reason: str) -> WindowEntry:
    """An entry of a window, or of a part of it, of which nothing is in the destination."""
    return structs.replace(
        entry,
        from_=format_time(part.start),
        to=format_time(part.end),
        status="unproven",
        segments=0,
        duplicates=0,
        file=None,
        bytes=None,
        sha256=None,
        reason=reason,
    )
