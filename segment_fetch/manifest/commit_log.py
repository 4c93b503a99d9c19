"""The commit log of a destination: which windows are committed, and what the next run has to read.

The manifest is written after the data that it names, so that data always exists. A window that is read again replaces
older ones only as a whole: while an older one is covered only in part, the new ones wait, unpublished.
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
    Record,
    WindowEntry,
    check_names,
    encode_manifest,
    entry_of,
    identity,
)
from segment_fetch.manifest.reader import read_committed
from segment_fetch.manifest.time_index import Entries
from segment_fetch.query import Query, Window
from segment_fetch.sinks.base import Draft, Held, Key, Sink, Written
from segment_fetch.timerange import SETTLE_AFTER_MS, format_time, settles_at
from segment_fetch.windows import planning
from segment_fetch.windows.reader import WindowRead
from segment_fetch.wire.models import Part

_HALF_REPLACED = "proven, but covers only part of an older window, which therefore stays"
MOST_DRAFTS = 32
"""Maximum number of windows being written, each to its own open file; the parts of others wait in memory."""

_FOLDED_AT = 1_000
"""Minimum number of appended records before they are folded into the manifest during a run."""
_LOST = "its file is missing or was changed, and this part was not requested again"


def _overlap(one: Window, other: Window) -> bool:
    return one.start < other.end and one.end > other.start


def _touches(window: Window, others: Iterable[Window]) -> bool:
    return any(_overlap(window, other) for other in others)


class Change(Struct, frozen=True):
    """The number of segments that appeared and vanished between two readings of the same windows."""

    added: int = 0
    removed: int = 0

    def __add__(self, other: Change) -> Change:
        return Change(self.added + other.added, self.removed + other.removed)


class CommitLog:
    """The manifest of an open sink, and the windows that are being written to it.

    A commit appends one record if the sink supports it, so that its cost does not depend on the number of windows. The
    records are folded into the manifest when there are as many as it has windows, and at the end of the run.
    """

    def __init__(
        self,
        sink: Sink[Any],
        query: Query,
        stored: bytes | None,
        *,
        settle_after_ms: int = SETTLE_AFTER_MS,
        oldest: int = 0,
    ) -> None:
        """`stored` is the manifest that the sink returned when it was opened; None for a new destination.

        `settle_after_ms` is the settle margin of this run. If it is longer than that of earlier runs, windows that it
        would not have made complete become provisional again, unless they begin before `oldest`, the first moment that
        the API still serves: those could never be settled.
        """
        self._sink = sink
        self._settle_after_ms = settle_after_ms
        self._identity = identity(query, sink.settings())
        self._staged: dict[Window, WindowEntry] = {}
        self._before: dict[Window, list[Key]] = {}
        self._drafts: dict[Window, Draft[Any]] = {}
        self._failed: Exception | None = None
        self._entries = Entries({})
        self._begun = stored is not None
        self._commits = self._appended = 0
        self._appendable = False  # True when the stored manifest is of this version and query, without older records
        self._broken: Exception | None = None
        self.change = Change()
        if stored is not None:
            found = read_committed(stored, sink.appended())
            self._refuse_other_query(found.query)
            check_names(found.entries.items(), sink.may_be_called)
            self._entries, self._commits = found.entries, found.commits
            self._appended = found.appended
            if settle_after_ms > found.settle_after_ms:
                self._reopen(oldest)
            same = found.version == FORMAT_VERSION and found.query == self._identity
            same = same and found.settle_after_ms == settle_after_ms  # the next commit then stores the margin, too
            self._appendable = same and not found.appended

    def _reopen(self, oldest: int) -> None:
        """Make windows provisional again that the settle margin of this run would have left provisional."""
        for window, entry in list(self._entries.items()):
            early = entry.read_ms is not None and entry.read_ms < settles_at(window.end, self._settle_after_ms)
            if entry.status == "complete" and early and window.start >= oldest:
                self._entries.replace([(window, structs.replace(entry, status="provisional"))])

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
        """Return the parts of a range still to be read, oldest first, and how many windows are complete.

        Also delete leftovers of interrupted runs. `oldest` is the first moment that the API still serves.
        """
        windows = self.to_read(start, end, oldest, keep)
        self.clean([Window(start, end), *windows])
        return windows, len(self.complete(start, end))

    def complete(self, start: int, end: int) -> list[WindowEntry]:
        """Return the windows of a range that need not be read again."""
        found = self._entries.within(Window(start, end))
        return [entry for _, entry in found if entry.status == "complete" and self._sink.holds(entry.written)]

    @property
    def entries(self) -> list[WindowEntry]:
        """All windows that the manifest names, oldest first."""
        return list(self._entries)

    @property
    def complete_before(self) -> str | None:
        """The watermark: everything from the destination's first window up to it is stored and final."""
        return self._entries.complete_before()

    def settle(self, windows: Iterable[Window]) -> None:
        """Mark provisional windows as complete without reading them again."""
        settled = {window: structs.replace(self._entries[window], status="complete") for window in windows}
        if settled:
            self._store(settled)

    def to_read(self, start: int, end: int, oldest: int, keep: AbstractSet[Window] = frozenset()) -> list[Window]:
        """Return the parts of a range still to be read, oldest first; windows of `keep` are left as they are.

        A window that extends beyond the range and is not complete is read again completely, because windows are only
        replaced as a whole. One that begins before `oldest` is no longer available as a whole, so it stays as stored.
        """
        kept, low, high = list[Window](), start, end
        for window, entry in self._entries.within(Window(start, end)):
            if self._holds(entry) and (entry.status == "complete" or window in keep or window.start < oldest):
                kept.append(window)
            elif window.start >= oldest:
                low, high = min(low, window.start), max(high, window.end)
        return planning.missing(low, high, kept)

    def out_of_reach(self, start: int, end: int, oldest: int) -> list[WindowEntry]:
        """Return the windows of a range that are not complete, and that the API no longer serves as a whole."""
        found = self._entries.within(Window(start, end))
        return [entry for window, entry in found if window.start < oldest and entry.status != "complete"]

    def clean(self, windows: Sequence[Window]) -> None:
        """Delete the leftovers of interrupted runs between the first and the last of these windows."""
        if windows:
            whole = Window(min(each.start for each in windows), max(each.end for each in windows))
            keep = {entry.file for _, entry in self._entries.within(whole) if entry.file}
            if self._sink.must_commit_first(keep, whole):
                self._store({})
            self._sink.clean(keep, whole)

    def add(self, window: Window, parts: Iterable[Any]) -> None:
        """Write parts of a window that is still being read.

        No caller waits for this, so it raises nothing: the next `commit` raises its error.
        """
        if self._failed is not None:
            return
        try:
            if window not in self._drafts:
                self._begin()
                self._drafts[window] = self._draft(window)
            for part in parts:
                self._drafts[window].add(part)
        except Exception as error:  # noqa: BLE001 - `commit` raises it
            self._failed = error

    def _draft(self, window: Window) -> Draft[Any]:
        begun = sum(not isinstance(draft, Held) for draft in self._drafts.values())
        return self._sink.begin(window) if begun < MOST_DRAFTS else Held(self._sink, window)

    def withdraw(self, windows: Iterable[Window] | None = None) -> None:
        """Drop the drafts of windows that are not committed; of all of them if none are named."""
        for window in list(self._drafts if windows is None else windows):
            if (draft := self._drafts.pop(window, None)) is not None:
                draft.drop()

    def close(self) -> None:
        """Drop everything uncommitted, and fold the records into the manifest. The sink stays open."""
        self.withdraw()
        if (self._appended or self._sink.appended()) and self._broken is None:
            self._commits += 1
            self._publish([])

    def _begin(self) -> None:
        """Publish an empty manifest, so that files left by a killed run are recognised as this destination's."""
        if not self._begun:
            self._store({})

    def commit(self, read: WindowRead[Part]) -> WindowEntry:
        """Write a window, or its remaining parts, and commit it; an unproven one is only recorded."""
        if self._failed is not None:
            raise self._failed
        if read.status == "unproven":
            entry = entry_of(read, Written())
            if all(old.status == "unproven" for _, old in self._entries.within(read.window)):
                self._store({read.window: entry})
            return entry
        self._begin()
        self._remember(read.window)
        entry = entry_of(read, self._write(read))
        self._staged[read.window] = entry
        self._store_ready(read.window)
        return entry

    def _write(self, read: WindowRead[Part]) -> Written:
        """Write a proven window, or the parts that `add` has not written."""
        if read.window not in self._drafts:
            return self._sink.write(read.window, read.parts)
        try:
            for part in read.parts:
                self._drafts[read.window].add(part)
            written = self._drafts[read.window].finish()
        except BaseException:
            self.withdraw([read.window])
            raise
        del self._drafts[read.window]
        return written

    def abandon(self) -> list[WindowEntry]:
        """Return, at the end of a run, the windows that could not replace an older one, and delete their files."""
        left, self._staged = self._staged, {}
        self.clean(list(left))
        return [_unproven(entry, window, _HALF_REPLACED) for window, entry in left.items()]

    def _holds(self, entry: WindowEntry) -> bool:
        return entry.status != "unproven" and self._sink.holds(entry.written)

    def _store_ready(self, window: Window) -> None:
        """Publish a staged window and those it waits with, unless an older one would be replaced only in part."""
        ready, old = {window}, set[Window]()
        grown = True
        while grown:
            touched = {w: e for each in ready for w, e in self._entries.within(each)}
            more_old = {w for w, e in touched.items() if w not in old and (w in self._before or self._holds(e))}
            old |= more_old
            more = {w for w in self._staged if w not in ready and _touches(w, old)}
            ready |= more
            grown = bool(more_old or more)
        if not any(planning.missing(w.start, w.end, ready) for w in old):
            self._compare(old, ready)
            self._store({w: self._staged.pop(w) for w in ready})

    def _compare(self, old: Iterable[Window], new: Iterable[Window]) -> None:
        """Count the segments that appeared and vanished since the older windows were read."""
        within = sorted(old)
        if not within:
            return  # a first reading: nothing is read back from what was just written
        after = chain.from_iterable(self._sink.keys(self._staged[window].written) for window in sorted(new))
        with suppress(ValueError):  # the older file is damaged: it is replaced, but there is nothing to compare
            before = chain.from_iterable(self._older_keys(window) for window in within)
            self.change += changed(before, (key for key in after if _covers(within, key[0])))

    def _remember(self, window: Window) -> None:
        """Keep the keys of the older reading of a window, which is about to be overwritten."""
        if window in self._entries and self._holds(self._entries[window]):
            with suppress(ValueError):
                self._before[window] = list(self._sink.keys(self._entries[window].written))

    def _older_keys(self, window: Window) -> Iterable[Key]:
        remembered = self._before.pop(window, None)
        return self._sink.keys(self._entries[window].written) if remembered is None else remembered

    def intact(self, windows: Iterable[Window]) -> list[Window]:
        """Return the windows whose stored data matches the manifest, byte for byte."""
        return [window for window in windows if self._sink.intact(self._entries[window].written)]

    def _store(self, entries: dict[Window, WindowEntry]) -> None:
        """Commit windows. They replace the parts of others that they cover; what remains of those becomes unproven."""
        if self._broken is not None:
            raise self._broken  # the stored state is unknown: nothing may be added to it
        gone = {window: old for new in entries for window, old in self._entries.within(new)}
        rest = {
            part: _unproven(old, part, old.reason or _LOST)
            for window, old in gone.items()
            for part in planning.missing(window.start, window.end, entries)
        }
        new_files = {entry.file for entry in entries.values()}
        obsolete = [old.file for old in gone.values() if old.file and old.file not in new_files]
        stored = sorted((rest | entries).items())
        self._entries.replace(stored)
        self._commits += 1
        try:
            if self._appendable and self._sink.appends and self._appended < max(_FOLDED_AT, len(self._entries)):
                self._append([entry for _, entry in stored], obsolete)
            else:
                self._publish(obsolete)
        except Exception as error:
            self._broken = error
            raise

    def _append(self, entries: Sequence[WindowEntry], obsolete: Sequence[str]) -> None:
        record = Record(self._commits, self.complete_before, tuple(entries))
        self._sink.append(msgspec.json.encode(record), obsolete)
        self._appended += not self._sink.always_whole

    def _publish(self, obsolete: Sequence[str]) -> None:
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            complete_before=self.complete_before,
            commits=self._commits,
            settle_after_ms=self._settle_after_ms,
            query=self._identity,
            windows=tuple(self._entries),
        )
        self._sink.publish(encode_manifest(manifest), obsolete)
        self._begun = self._appendable = True
        self._appended = 0


def changed(before: Iterable[Key], after: Iterable[Key]) -> Change:
    """Compare two readings of the same range, both in the written order."""
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
    """Return the entry of a window, or of a part of one, that has no data in the destination."""
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
