"""Access to the storage behind a sink, for the conformance suite."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

import msgspec

from segment_fetch.manifest.format import WindowEntry
from segment_fetch.sinks.base import Sink
from segment_fetch.wire.models import ExtendedSegment, Segment

Record: TypeAlias = dict[str, Any]
"""A segment as read back from the storage, in the form that `Medium.record` returns."""


class Medium(ABC):
    """The storage behind one sink: opens, reads and damages it. Each test gets a new one."""

    refuses: AbstractSet[str] = frozenset()
    """Keys of `VALUES` that the destination cannot store: it must raise DestinationError and store nothing."""

    @abstractmethod
    def sink(self) -> Sink[Any]:
        """Return a new sink on the same destination."""

    @abstractmethod
    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        """Return the records of these windows, window by window, in order; read without the sink."""

    @abstractmethod
    def record(self, segment: Segment) -> Record:
        """Return the expected record of a segment; in many cases `as_json` or `as_columns`."""

    @abstractmethod
    def broken(self) -> Sink[Any]:
        """Return a sink whose storage fails while a window is being written, after one part."""

    @abstractmethod
    def harm(self, entry: WindowEntry) -> None:
        """Change the stored data of a window, but not its size."""

    @abstractmethod
    def litter(self) -> list[str]:
        """Return the names of everything stored that the manifest does not name."""

    def kill(self, sink: Sink[Any]) -> None:
        """End an open sink as a killed process would, without a chance to clean up.

        By default this closes the sink, which is equivalent if `close` only releases a lock.
        """
        sink.close()


def as_json(segment: Segment) -> Record:
    """Return a segment as the API sends it: without absent fields, and with new ones."""
    row: Record = msgspec.json.decode(msgspec.json.encode(segment))
    return row | row.pop("extras", {}) if isinstance(segment, ExtendedSegment) else row


def as_columns(segment: Segment) -> Record:
    """Return a segment as a row of `segment_fetch.arrow`: times in epoch ms, `extras` decoded, None if absent.

    Valid for segments without `startTime` and `endTime`, such as those of `VALUES`.
    """
    from segment_fetch.arrow import COLUMNS, EXTRAS  # noqa: PLC0415 - an optional extra

    row = as_json(segment)
    known = {column: row.pop(name, None) for name, column in COLUMNS.items()}
    return known | {EXTRAS: {name: value for name, value in row.items() if value is not None} or None}
