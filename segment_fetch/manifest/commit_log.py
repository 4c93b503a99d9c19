"""What has been committed: the manifest, and what a further run still has to do.

The manifest is written after the data that it names, so what it names is there. A window that is read again
replaces the ones before it as a whole: while an older one is covered only in part, the new ones wait, unpublished.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct, structs

from segment_fetch.errors import ManifestError
from segment_fetch.manifest.format import (
    FORMAT_VERSION,
    Manifest,
    WindowEntry,
    check_names,
    entry_of,
    identity,
    parse_manifest,
)
from segment_fetch.manifest.staging import Staging
from segment_fetch.query import Query, Window
from segment_fetch.sinks.base import Key, Sink, Written
from segment_fetch.timerange import format_time
from segment_fetch.windows import planning
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part

_HALF_REPLACED = "proven, but not all of the older window that it would replace; that one stays"
_LOST = "its file is missing or was changed, and this part was not asked for again"


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and one.end > other.start


def _touches(window: Window, others: Iterable[Window]) -> bool:
    return any(_overlap(window, other) for other in others)


class Change(Struct, frozen=True):
    """Segments that came and went between two readings of the same windows."""

    added: int = 0
    removed: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(self.added + other.added, self.removed + other.removed)


class CommitLog:
    """The manifest of an open sink."""

    def __init__(self, sink: Sink[Any], query: Query, stored: bytes | None) -> None:
        self._sink = sink
        self._identity = identity(query, sink.settings())
        self._entries: dict[Window, WindowEntry] = {}
        self._staged: dict[Window, WindowEntry] = {}
        self._begun = stored is not None
        self._before: dict[Window, list[Key]] = {}
        self._staging = Staging(sink, self._begin)
        self.change = Change()
        if stored is not None:
            manifest = parse_manifest(stored)
            self._refuse_other_query(manifest.query)
            self._entries = {entry.window: entry for entry in manifest.windows}
            check_names(manifest.windows, sink.may_be_called)

    def _refuse_other_query(self, there: dict[str, Any]) -> None:
        here = self._identity
        different = [
            f"{name} was {there.get(name)!r} and is now {here.get(name)!r}"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name) and name != "source" and not self._sink.migrates(name, there.get(name))
        ]
        if different:
            raise ManifestError(
                f"the destination was made by another query: {'; '.join(different)}; use another destination"
            )

    def resume(
        self, start: int, end: int, oldest: int, keep: AbstractSet[Window] = frozenset()
    ) -> tuple[list[Window], int]:
        """What is still to be read of a range, oldest first, and how many windows are complete. Leftovers go.

        `oldest` is the first moment that the API surely still serves.
        """
        windows = self.to_read(start, end, oldest, keep)
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

    @property
    def entries(self) -> list[WindowEntry]:
        """All windows that the manifest names, oldest first."""
        return [self._entries[window] for window in sorted(self._entries)]

    def settle(self, windows: Iterable[Window]) -> None:
        """Notes that provisional windows are complete as they are."""
        settled = {window: structs.replace(self._entries[window], status="complete") for window in windows}
        if settled:
            self._publish(settled)

    def to_read(self, start: int, end: int, oldest: int, keep: AbstractSet[Window] = frozenset()) -> list[Window]:
        """The parts of a range still to be read, oldest first; windows of `keep` are left as they are.

        A window that reaches out of the range and is not complete is read again as a whole, as it is replaced as a
        whole. One that begins before `oldest` cannot be had as a whole any more: what is there of it stays.
        """
        asked, kept, low, high = Window(start, end), list[Window](), start, end
        for window, entry in self._entries.items():
            if not _overlap(window, asked):
                continue
            if self._holds(entry) and (entry.status == "complete" or window in keep or window.start < oldest):
                kept.append(window)
            elif window.start >= oldest:
                low, high = min(low, window.start), max(high, window.end)
        return planning.missing(low, high, kept)

    def out_of_reach(self, start: int, end: int, oldest: int) -> list[WindowEntry]:
        """Windows of a range that are not complete, and that the API no longer serves as a whole."""
        asked = Window(start, end)
        return [
            entry
            for window, entry in self._entries.items()
            if window.start < oldest and _overlap(window, asked) and entry.status != "complete"
        ]

    def clean(self, windows: Sequence[Window]) -> None:
        """Removes what an interrupted run left within these windows."""
        keep = {entry.file for entry in self._entries.values() if entry.file}
        for window in windows:
            self._sink.clean(keep, window)

    def add(self, window: Window, parts: Iterable[Any]) -> None:
        """Writes what is ready of a window that is still being read. Its errors are those of the next `commit`."""
        self._staging.add(window, parts)

    def withdraw(self, windows: Iterable[Window] | None = None) -> None:
        """Drops what was written of windows that are not committed; of all of them if none are named."""
        self._staging.withdraw(windows)

    def _begin(self) -> None:
        """A run that is killed after its first file can then be told from a folder of strangers."""
        if not self._begun:
            self._publish({})

    def commit(self, read: WindowRead[Part]) -> WindowEntry:
        """Writes a window, or the rest of it, and makes it count; an unproven one is only noted."""
        self._staging.check()
        if read.status == "unproven":
            entry = entry_of(read, Written())
            if not any(
                old.status != "unproven" and _overlap(window, read.window) for window, old in self._entries.items()
            ):
                self._publish({read.window: entry})
            return entry
        self._begin()
        self._remember(read.window)
        entry = entry_of(read, self._staging.written(read))
        self._staged[read.window] = entry
        self._publish_ready(read.window)
        return entry

    def abandon(self) -> list[WindowEntry]:
        """At the end of a run, the windows that could not replace an older one; their files go."""
        left, self._staged = self._staged, {}
        self.clean(list(left))
        return [_unproven(entry, window, _HALF_REPLACED) for window, entry in left.items()]

    def _holds(self, entry: WindowEntry) -> bool:
        return entry.status != "unproven" and self._sink.holds(entry.written)

    def _publish_ready(self, window: Window) -> None:
        """Publishes a staged window, and those that go with it, unless an older one would be replaced only in part."""
        ready, old = {window}, set[Window]()
        grown = True
        while grown:
            more_old = {
                w
                for w, e in self._entries.items()
                if w not in old and _touches(w, ready) and (w in self._before or self._holds(e))
            }
            old |= more_old
            more = {w for w in self._staged if w not in ready and _touches(w, old)}
            ready |= more
            grown = bool(more_old or more)
        if not any(planning.missing(w.start, w.end, ready) for w in old):
            self._compare(old, ready)
            self._publish({w: self._staged.pop(w) for w in ready})

    def _compare(self, old: Iterable[Window], new: Iterable[Window]) -> None:
        """Adds up which segments of the older windows came and went since they were read."""
        within = sorted(old)
        if not within:
            return  # a first reading: nothing is read back from what was just written
        after = chain.from_iterable(self._sink.keys(self._staged[window].written) for window in sorted(new))
        with suppress(ValueError):  # the older file is damaged: it is replaced, but there is nothing to compare
            before = chain.from_iterable(self._older_keys(window) for window in within)
            self.change += changed(before, (key for key in after if _covers(within, key[0])))

    def _remember(self, window: Window) -> None:
        """The older reading of the very same window is about to be overwritten."""
        if window in self._entries and self._holds(self._entries[window]):
            with suppress(ValueError):
                self._before[window] = list(self._sink.keys(self._entries[window].written))

    def _older_keys(self, window: Window) -> Iterable[Key]:
        remembered = self._before.pop(window, None)
        return self._sink.keys(self._entries[window].written) if remembered is None else remembered

    def intact(self, windows: Iterable[Window]) -> list[Window]:
        """Those of the windows whose data is, byte for byte, what the manifest says."""
        return [window for window in windows if self._sink.intact(self._entries[window].written)]

    def _publish(self, entries: dict[Window, WindowEntry]) -> None:
        """Stores the manifest with these windows in it. What they cover of others goes, the rest is noted."""
        gone = {window: old for window, old in self._entries.items() if _touches(window, entries)}
        kept = {window: old for window, old in self._entries.items() if window not in gone}
        rest = {
            part: _unproven(old, part, old.reason or _LOST)
            for window, old in gone.items()
            for part in planning.missing(window.start, window.end, entries)
        }
        after = kept | rest | entries
        new_files = {entry.file for entry in entries.values()}
        obsolete = [old.file for old in gone.values() if old.file and old.file not in new_files]
        manifest = Manifest(FORMAT_VERSION, self._identity, tuple(after[window] for window in sorted(after)))
        self._sink.publish(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n", obsolete)
        self._entries = after
        self._begun = True


def changed(before: Iterable[Key], after: Iterable[Key]) -> Change:
    """What two readings of the same time, both in the written order, do not share."""
    added = removed = 0
    olds, news = iter(before), iter(after)
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if old == new:
            old, new = next(olds, None), next(news, None)
        elif new is None or (old is not None and old < new):
            removed, old = removed + 1, next(olds, None)
        else:
            added, new = added + 1, next(news, None)
    return Change(added, removed)


def _covers(windows: Sequence[Window], at: int) -> bool:
    return any(window.start <= at < window.end for window in windows)


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
