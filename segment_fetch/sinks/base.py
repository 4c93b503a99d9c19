"""The interface of a destination. Write one by subclassing `Sink`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from segment_fetch.query import Window
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.raw_rows import RawRows, decode_lines

Part_co = TypeVar("Part_co", covariant=True)

Damage: TypeAlias = Literal[
    "no manifest",
    "bad manifest",
    "missing file",
    "extra file",
    "extra rows",
    "left over",
    "wrong size",
    "changed",
    "unreadable",
    "wrong row count",
    "doubled id",
    "outside its window",
    "out of order",
    "unproven",
    "gap",
    "differs",
]


class Finding(Struct, frozen=True):
    """A fault that was found: its kind, its place (a file or a window), and in a sentence what to do about it."""

    kind: Damage
    where: str
    message: str


AGAIN = "run the extraction again: it reads the window anew"
"""The mend of most findings."""


class Written(Struct, frozen=True):
    """The location of a window's stored segments: for files the name, length and SHA-256 of the bytes as stored."""

    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None


class Draft(ABC, Generic[Part]):
    """A window's segments being written, before they count. Ends with one call of `finish` or `drop`."""

    @abstractmethod
    def add(self, part: Part) -> None:
        """Take the next segments, as encoded."""

    @abstractmethod
    def finish(self) -> Written:
        """Store the window, which is complete now, in place of any earlier version of it."""

    @abstractmethod
    def drop(self) -> None:
        """Discard everything written so far."""


class Held(Draft[Part]):
    """A draft in memory, for a sink that stores a window in one call."""

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
    """True if windows must come oldest first."""

    appends: bool = False
    """True if single commits can be appended to the manifest. Where not, it is stored whole with each of them."""

    always_whole: bool = False
    """True if `append` leaves the whole manifest up to date, so that there is nothing to fold in at the end."""

    utc_days: bool = False
    """True if no window may reach over a midnight of UTC."""

    mend: str = "delete what is stored of the window"
    """The step that a user has to take before a damaged window is read again."""

    @property
    def place(self) -> object:
        """The destination as messages name it, without secrets."""
        return type(self).__name__

    @property
    def manifest_name(self) -> str:
        """The manifest as findings name it."""
        return str(self.place)

    @property
    def in_use(self) -> bool:
        """True if a run is known to be writing there now, this one or another."""
        return False

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return the settings that shape the stored data (format, compression, …); the manifest keeps them."""

    def migrates(self, name: str, stored: object) -> bool:
        """Return True if this sink takes over a destination with another value of this setting.

        An older version of the columns is one, to which new ones can be added. Any other difference is refused.
        """
        return False

    @abstractmethod
    def open(self) -> bytes | None:
        """Take the destination for this run, and return the manifest that is there.

        Raises DestinationBusyError where another run has it.
        """

    def look(self) -> bytes | None:
        """Open the destination for reading alone and return the manifest that is there, also while a run writes there.

        Ends with `close`. Unless overridden, the destination is taken as for a run.
        """
        return self.open()

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> Part:
        """Return segments in the form in which they stay in memory until their window is proven. Pure.

        UnstorableValueError where the destination has no room for a value.
        """

    def encode_lines(self, lines: bytes) -> Part:
        """Return the same as `encode`, for segments given as JSON Lines. Pure.

        Worth overriding, beside `encode`, where lines can be stored as they are; otherwise they are decoded.
        """
        return self.encode(decode_lines(lines))

    def name(self, window: Window) -> str | None:
        """Return the name that `write` gives a window's file; None where there are no files."""
        return None

    def may_be_called(self, window: Window, file: str | None) -> bool:
        """Return True if this can be the name of a window's file.

        It comes from the manifest, which may have been edited, and the file of that name is opened and deleted one day.
        """
        return file == self.name(window)

    @abstractmethod
    def write(self, window: Window, parts: Iterable[Part]) -> Written:
        """Store a window's segments, as `encode` returned them, in order; no parts for an empty window."""

    def begin(self, window: Window) -> Draft[Part]:
        """Begin a window that is stored part by part while it is still being read; several may be begun at once.

        Unless overridden, its parts are held until it is proven, and then given to `write`.
        """
        return Held(self, window)

    def keys(self, written: Written) -> Iterator[Key]:
        """Yield close time and id of each stored segment, in order; nothing where they cannot be read back.

        ValueError where the stored data is damaged.
        """
        return iter(())

    @abstractmethod
    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        """Store the whole manifest atomically, which makes what was written count; then delete the obsolete files.

        It takes the place of the manifest that is there and of all records appended to that.
        """

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        """Append one commit to the manifest atomically, which makes what was written count; then delete as `publish`.

        Called only where `appends` is True, and after the first `publish` of a destination. It should cost the same
        however many went before it. `record` is JSON without line breaks; its number, `commit`, rises by one each time.
        """
        raise NotImplementedError

    def appended(self) -> Sequence[bytes]:
        """Return the records that were there when the sink was opened, oldest first.

        Those that the manifest already holds may be among them. A last one that was not written to its end is left
        out; ManifestError where another is damaged.
        """
        return ()

    def holds(self, written: Written) -> bool:
        """Return True if the stored data is still there; if not, its window is read again."""
        return True

    def intact(self, written: Written) -> bool:
        """Return True if the stored data is there, byte for byte as the manifest says."""
        return self.holds(written)

    def fault(self, window: Window, segments: int, written: Written) -> Finding | None:
        """Check the bytes of a window that the manifest names. Return the first thing that is wrong, None if nothing.

        `segments` is their number as the manifest has it.
        """
        if self.intact(written):
            return None
        return Finding("changed", str(window), f"it is not what was written; {self.mend}, and {AGAIN}")

    def strangers(self, known: AbstractSet[str]) -> Iterator[Finding]:
        """Yield what is there that no window accounts for; `known` are the files that the manifest names."""
        return iter(())

    def must_commit_first(self, keep: AbstractSet[str], window: Window) -> bool:
        """Return True if `clean` would delete what another run may be about to commit.

        Where no lock keeps that run out, this one commits first, after which the other can no longer do so.
        """
        return False

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        """Delete what an interrupted run left behind within the window, except the files of these names."""

    @abstractmethod
    def close(self) -> None:
        """Release the destination. Called once after `open`, whatever happened."""


def write_all(draft: Draft[Part], parts: Iterable[Part]) -> Written:
    """Add all parts to a draft and finish it; drop it if the parts or the medium fail."""
    try:
        for part in parts:
            draft.add(part)
        return draft.finish()
    except BaseException:
        draft.drop()
        raise


class Encoder(Protocol[Part_co]):
    """A sink or a format."""

    def encode(self, segments: Sequence[Segment], /) -> Part_co:
        """Return encoded segments."""

    def encode_lines(self, lines: bytes, /) -> Part_co:
        """Return encoded segments, given as JSON Lines."""


def encoded(encoder: Encoder[Part], segments: Sequence[Segment]) -> Part:
    """Return segments in the encoder's form, whether they were decoded or are still the bytes that were received."""
    return encoded_lines(encoder, segments.text) if isinstance(segments, RawRows) else encoder.encode(segments)


def encoded_lines(encoder: Encoder[Part], lines: bytes) -> Part:
    """Return JSON Lines in the encoder's form."""
    return encoder.encode_lines(lines) if _takes_lines(type(encoder)) else encoder.encode(decode_lines(lines))


@cache
def _takes_lines(kind: type) -> bool:
    """Return True if a class's `encode_lines` belongs to its `encode`.

    A class that overrides `encode` alone, below one that has both, has to see every segment.
    """
    return next("encode_lines" in vars(base) for base in kind.__mro__ if {"encode", "encode_lines"} & vars(base).keys())
