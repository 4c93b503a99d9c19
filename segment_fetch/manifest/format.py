"""The manifest's contents, the records appended to it, and their checks.

A manifest may have been edited by hand or copied in part; nothing in it is trusted before it has been checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from segment_fetch.errors import InputError, ManifestError
from segment_fetch.events import Status
from segment_fetch.query import Query, Window
from segment_fetch.sinks.base import Written
from segment_fetch.timerange import MAX_SETTLE_AFTER_MS, SETTLE_AFTER_MS, format_time
from segment_fetch.windows.reader import WindowRead

FORMAT_VERSION = 2
"""The version written. Version 1 had neither `commits` nor appended records; the next run upgrades it."""
READ_VERSIONS = (1, 2)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z", re.ASCII)


class WindowEntry(Struct, frozen=True, omit_defaults=True, gc=False):
    """A window in the manifest and in reports; times are RFC 3339, in UTC.

    `count` is the number that the API reported, `segments` the number written, `duplicates` the rows read beyond those:
    seen twice, or on the boundary that belongs to the next window. If no page was read, `read_at` is None and `count`
    is meaningless. `bytes` and `sha256` are those of the file. `code` is the stable code of the error that caused
    `reason` (`segment_fetch.errors`), if any.
    """

    from_: str = field(name="from")
    to: str
    status: Status
    count: int
    segments: int
    duplicates: int
    pages: int
    requests: int
    read_at: str | None
    unknown_fields: tuple[str, ...]
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    reason: str | None = None
    code: str | None = None

    @property
    def window(self) -> Window:
        """The window of the entry."""
        return Window(_ms(self.from_), _ms(self.to))

    @property
    def read_ms(self) -> int | None:
        """The time at which it was read, epoch milliseconds; None if no page was read."""
        return None if self.read_at is None else _ms(self.read_at)

    @property
    def written(self) -> Written:
        """The location of its segments."""
        return Written(self.file, self.bytes, self.sha256)


class Manifest(Struct, frozen=True, kw_only=True):
    """The whole manifest. `query` is the query of every window of the destination.

    `commits` counts the commits it contains: records appended since have higher numbers. Everything that closed before
    `complete_before`, from the first window on, is stored and final; None if there are no windows. `settle_after_ms` is
    the settle margin of the last run: the time after its end in which a window may still change.
    """

    format_version: int
    complete_before: str | None = None
    commits: int = 0
    settle_after_ms: Annotated[int, Meta(ge=0, le=MAX_SETTLE_AFTER_MS)] = SETTLE_AFTER_MS
    query: dict[str, Any]
    windows: tuple[WindowEntry, ...]


class Record(Struct, frozen=True):
    """One commit, as appended to a manifest: `windows` replace all windows that they overlap."""

    commit: int
    complete_before: str | None
    windows: tuple[WindowEntry, ...]


def entry_of(read: WindowRead[Any], written: Written) -> WindowEntry:
    """Return the entry of a window that was read and, unless it is unproven, written."""
    return WindowEntry(
        from_=format_time(read.window.start),
        to=format_time(read.window.end),
        status=read.status,
        count=read.count,
        segments=read.segments,
        duplicates=read.duplicates,
        pages=read.pages,
        requests=read.requests,
        read_at=format_time(read.read_at) if read.pages else None,
        unknown_fields=read.unknown_fields,
        file=written.file,
        bytes=written.bytes,
        sha256=written.sha256,
        reason=read.reason,
        code=read.code,
    )


def identity(query: Query, settings: dict[str, str]) -> dict[str, Any]:
    """Return the settings that may not change between runs into one destination, and `source`, which may.

    Raises InputError if the destination belongs to another account.
    """
    if settings.get("account_id", query.account) != query.account:
        raise InputError(f"the destination belongs to account {settings['account_id']}, not to {query.account}")
    return {
        "account": query.account,
        "source": query.source,
        "filters": query.filters.params(),
        **settings,
    }


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest, without appended records. Raises ManifestError that says where it is damaged."""
    return parse_with_windows(data)[0]


def parse_with_windows(data: bytes) -> tuple[Manifest, list[Window]]:
    """Return the manifest and the windows of its entries, so that those need not be parsed twice."""
    try:
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except msgspec.ValidationError:  # that of another version may be of another form
            _check_version(msgspec.json.decode(data, type=_Version).format_version)
            raise
        _check_version(manifest.format_version)
        windows = _checked(manifest.windows)
        _check_apart(windows)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        raise _damaged(str(error)) from None
    return manifest, windows


def parse_record(data: bytes) -> Record:
    """Return one appended record. Raises ManifestError that says where it is damaged."""
    try:
        record = msgspec.json.decode(data, type=Record)
        _checked(record.windows)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InputError) as error:
        raise _damaged(f"an appended record: {error}") from None
    return record


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as stored: indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def check_names(
    entries: Iterable[tuple[Window, WindowEntry]], may_be_called: Callable[[Window, str | None], bool]
) -> None:
    """Check that the sink could have given each file its name: the manifest's files will be opened and deleted."""
    for window, entry in entries:
        if entry.status != "unproven" and not may_be_called(window, entry.file):
            raise _damaged(f"the file of window {window} cannot be {entry.file!r}")


def damaged_sequence(number: int, due: int) -> ManifestError:
    """Return the error for a record that does not follow the one before it."""
    return _damaged(f"commit {due} is missing from the appended records; the next one is {number}")


def _damaged(where: str) -> ManifestError:
    return ManifestError(
        f"the manifest is damaged: {where}; restore it from a copy, or move the destination away and extract again"
    )


class _Version(Struct):
    format_version: int


def _check_version(version: int) -> None:
    if version not in READ_VERSIONS:
        raise ManifestError(
            f"the manifest has format version {version}; this release reads {FORMAT_VERSION} and older ones: use "
            "the release that wrote it, or another destination"
        )


def _checked(entries: Sequence[WindowEntry]) -> list[Window]:
    """Return the windows of the entries, each checked on its own."""
    windows = []
    for index, entry in enumerate(entries):
        try:
            window = entry.window
            if entry.read_at is not None:
                _ms(entry.read_at)
            fault = _value_fault(entry, window)
        except ValueError as error:
            fault = str(error)
        if fault is not None:
            raise InputError(f"{fault} - at `$.windows[{index}]`")
        windows.append(window)
    return windows


def _check_apart(windows: Iterable[Window]) -> None:
    for one, other in pairwise(sorted(windows)):
        if other.start < one.end:
            raise InputError(f"windows {one} and {other} overlap")


@lru_cache(maxsize=4)  # a window begins where the one before it ends
def _ms(text: str) -> int:
    """Return the epoch milliseconds of a time in the manifest; faster than `parse_time`, which knows many forms.

    Raises ValueError if it is not a time.
    """
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is not a time such as 2026-11-01T08:00:00Z")
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _value_fault(entry: WindowEntry, window: Window) -> str | None:
    if window.start >= window.end:
        return f"window {window} does not end after it starts"
    if min(entry.count, entry.segments, entry.duplicates, entry.pages, entry.requests, entry.bytes or 0) < 0:
        return f"window {window} has a negative number"
    if entry.status != "unproven":
        return f"window {window} is proven, but was never read" if entry.read_at is None else None
    return f"window {window} is unproven, but has a file" if entry.written != Written() else None
