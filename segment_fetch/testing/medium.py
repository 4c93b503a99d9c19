"""Where a sink stores things: what a test must know of it."""

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
"""A segment as a medium gives it back: whatever `Medium.record` expects."""


class Medium(ABC):
    """Where one sink stores things: how to open it again, read it back and break it. Each test has one of its own."""

    refuses: AbstractSet[str] = frozenset()
    """Keys of `VALUES` that the destination has no room for: DestinationError is due for them, and nothing stored."""

    @abstractmethod
    def sink(self) -> Sink[Any]:
        """A new sink on the same destination."""

    @abstractmethod
    def stored(self, entries: Sequence[WindowEntry]) -> list[Record]:
        """The records of these windows, one window after the other, in order; read back without the sink."""

    @abstractmethod
    def record(self, segment: Segment) -> Record:
        """What is expected to be stored of a segment; `as_json` or `as_columns`, in many cases."""

    @abstractmethod
    def broken(self) -> Sink[Any]:
        """A sink whose medium fails while a window is written, after a part of it."""

    @abstractmethod
    def harm(self, entry: WindowEntry) -> None:
        """Changes what is stored of a window, but not its size."""

    @abstractmethod
    def litter(self) -> list[str]:
        """What is there that the manifest does not name."""

    def kill(self, sink: Sink[Any]) -> None:
        """Ends an open sink as the end of its process would, which gives it no chance to tidy up.

        Closes it, unless overridden: that is the same where `close` does nothing but give back a lock.
        """
        sink.close()


def as_json(segment: Segment) -> Record:
    """A segment as the wire has it: absent fields absent, new ones beside the others."""
    row: Record = msgspec.json.decode(msgspec.json.encode(segment))
    return row | row.pop("extras", {}) if isinstance(segment, ExtendedSegment) else row


def as_columns(segment: Segment) -> Record:
    """A segment as `segment_fetch.arrow` has it: times in epoch milliseconds, `extras` decoded, None for nothing.

    Right for segments without `startTime` and `endTime`, as those of `VALUES` are.
    """
    from segment_fetch.arrow import COLUMNS, EXTRAS  # noqa: PLC0415 - an optional extra

    row = as_json(segment)
    known = {column: row.pop(name, None) for name, column in COLUMNS.items()}
    return known | {EXTRAS: {name: value for name, value in row.items() if value is not None} or None}
