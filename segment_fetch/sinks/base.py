"""What a destination must do. Write one by subclassing `Sink`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Generic, TypeAlias

from msgspec import Struct

from segment_fetch.query import Window
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import decode_lines


class Written(Struct, frozen=True):
    """Where a window's segments are: for files the name, length and SHA-256 of the bytes as stored."""

    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None


class Draft(ABC, Generic[Part]):
    """A window's segments on their way into a destination, before they count. Ends with one `finish` or `drop`."""

    @abstractmethod
    def add(self, part: Part) -> None:
        """Takes the next segments, as encoded."""

    @abstractmethod
    def finish(self) -> Written:
        """All is there: stores the window, complete, and replaces what was there of it."""

    @abstractmethod
    def drop(self) -> None:
        """Nothing of it is to be left."""


class Held(Draft[Part]):
    """A draft in memory, for a sink that stores a window in one go."""

    def __init__(self, sink: Sink[Part], window: Window) -> None:
        self._sink = sink
        self._window = window
        self._parts: list[Part] = []

    def add(self, part: Part) -> None:
        self._parts.append(part)

    def finish(self) -> Written:
        return self._sink.write(self._window, self._parts)

    def drop(self) -> None:
        self._parts.clear()


Key: TypeAlias = tuple[int, str]
"""Close time (epoch milliseconds) and segmentId: the written order."""


class Sink(ABC, Generic[Part]):
    """A destination for windows of segments.

    What it promises: a window is complete or absent, whatever happens in between; writing a window again replaces it;
    the manifest is stored last, so it never names what is not there. `encode` is called in the event loop for each page
    and must not wait; all other methods are called one at a time in a thread. Errors of the medium (OSError, or a
    driver's own) are to be raised as DestinationError, with what to do.
    """

    ordered: bool = False
    """Whether windows must come oldest first."""

    utc_days: bool = False
    """Whether no window may reach over a midnight of UTC."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """What shapes the stored data (format, compression, …): kept in the manifest, the same in every run."""

    @abstractmethod
    def open(self) -> bytes | None:
        """Takes the destination for this run, and returns the manifest that is there.

        Raises DestinationBusyError where another run has it.
        """

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> Part:
        """Segments in the form in which they are held in memory until their window is proven. Pure."""

    def encode_lines(self, lines: bytes) -> Part:
        """Segments that came as JSON Lines: the same as `encode` makes of them. Pure.

        Worth overriding, beside `encode`, where lines can be stored as they are; otherwise they are decoded.
        """
        return self.encode(decode_lines(lines))

    def name(self, window: Window) -> str | None:
        """What `write` calls a window's file; None where there are no files."""
        return None

    def may_be_called(self, window: Window, file: str | None) -> bool:
        """Whether a window's file can have this name: it comes from the manifest, and is opened and deleted one day."""
        return file == self.name(window)

    @abstractmethod
    def write(self, window: Window, parts: Iterable[Part]) -> Written:
        """Stores a window's segments: what `encode` made of them, in order; no parts for an empty window."""

    def begin(self, window: Window) -> Draft[Part]:
        """A window that is to be stored part by part, while it is still being read; several may be begun at once.

        Unless overridden, its parts are held until it is proven, and then given to `write`.
        """
        return Held(self, window)

    def keys(self, written: Written) -> Iterator[Key]:
        """Close time and id of each segment that was stored, in order; none where that cannot be read back.

        ValueError where what is there is damaged.
        """
        return iter(())

    @abstractmethod
    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        """Stores the manifest atomically, which makes what was written count; then deletes the files it replaced."""

    def holds(self, written: Written) -> bool:
        """Whether what the manifest names is still there; where not, its window is read again."""
        return True

    def intact(self, written: Written) -> bool:
        """Whether it is there and, byte for byte, what the manifest says."""
        return self.holds(written)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        """Deletes what an interrupted run left behind within the window, except what is named by `keep`."""

    @abstractmethod
    def close(self) -> None:
        """Gives the destination back. Called once after `open`, whatever happened."""
