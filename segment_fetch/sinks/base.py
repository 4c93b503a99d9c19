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
    """A fault: its kind, its place (a file or a window), and a sentence that says what to do about it."""

    kind: Damage
    where: str
    message: str


AGAIN = "run the extraction again, which reads the window again"
"""The remedy for most findings."""


class Written(Struct, frozen=True):
    """The location of a window's stored segments: for files the name, length and SHA-256 of the bytes as stored."""

    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None


class Draft(ABC, Generic[Part]):
    """A window while it is being written, before it is committed. Ends with one call of `finish` or `drop`."""

    @abstractmethod
    def add(self, part: Part) -> None:
        """Add the next segments, as encoded."""

    @abstractmethod
    def finish(self) -> Written:
        """Store the window, which is now complete, in place of any earlier version of it."""

    @abstractmethod
    def drop(self) -> None:
        """Discard everything written so far."""


class Held(Draft[Part]):
    """A draft in memory, for sinks that store a window in one call."""

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

    It promises that a window is complete or absent, whatever happens; that writing a window again replaces it; and that
    the manifest is stored last, so it never names missing data. `encode` is called in the event loop for each page and
    must not block; all other methods are called one at a time in a thread. Errors of the medium (OSError, or those of a
    driver) must be raised as DestinationError, with a message that says what to do.
    """

    ordered: bool = False
    """True if windows must be written oldest first."""

    appends: bool = False
    """True if single commits can be appended to the manifest; otherwise each commit stores it as a whole."""

    always_whole: bool = False
    """True if `append` keeps the whole manifest up to date, so that no records need to be folded in."""

    utc_days: bool = False
    """True if no window may extend past midnight UTC."""

    mend: str = "delete what is stored of the window"
    """The step that a user must take before a damaged window can be read again."""

    @property
    def place(self) -> object:
        """The destination as shown in messages, without secrets."""
        return type(self).__name__

    @property
    def manifest_name(self) -> str:
        """The manifest as shown in findings."""
        return str(self.place)

    @property
    def in_use(self) -> bool:
        """True if a run, this one or another, is known to be writing there now."""
        return False

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return the settings that shape the stored data (format, compression, …); the manifest keeps them."""

    def migrates(self, name: str, stored: object) -> bool:
        """Return True if this sink can take over a destination with another value of this setting.

        For example, columns of an older version, to which the new ones can be added. Other differences are refused.
        """
        return False

    @abstractmethod
    def open(self) -> bytes | None:
        """Take the destination for this run, and return its manifest, None if there is none.

        Raises DestinationBusyError if another run is using it.
        """

    def look(self) -> bytes | None:
        """Open the destination for reading only and return its manifest, even while a run is writing there.

        Ends with `close`. By default the destination is taken as for a run.
        """
        return self.open()

    @abstractmethod
    def encode(self, segments: Sequence[Segment]) -> Part:
        """Return segments in the form in which they are kept in memory until their window is proven. Pure.

        Raises UnstorableValueError if the destination cannot store a value.
        """

    def encode_lines(self, lines: bytes) -> Part:
        """Return the same as `encode`, for segments passed as JSON Lines. Pure.

        Worth overriding together with `encode` if lines can be stored unchanged; by default they are decoded.
        """
        return self.encode(decode_lines(lines))

    def name(self, window: Window) -> str | None:
        """Return the name that `write` gives to a window's file; None if there are no files."""
        return None

    def may_be_called(self, window: Window, file: str | None) -> bool:
        """Return True if this can be the name of a window's file.

        The name comes from the manifest, which may have been edited, and the file will be opened and deleted.
        """
        return file == self.name(window)

    @abstractmethod
    def write(self, window: Window, parts: Iterable[Part]) -> Written:
        """Store a window's segments, as returned by `encode`, in order; there are no parts for an empty window."""

    def begin(self, window: Window) -> Draft[Part]:
        """Begin a window that is stored part by part while it is being read; several can be open at once.

        By default its parts are kept in memory until it is proven, and then passed to `write`.
        """
        return Held(self, window)

    def keys(self, written: Written) -> Iterator[Key]:
        """Yield close time and id of each stored segment, in order; nothing if they cannot be read back.

        Raises ValueError if the stored data is damaged.
        """
        return iter(())

    @abstractmethod
    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        """Store the whole manifest atomically, which commits what was written; then delete the obsolete files.

        It replaces the existing manifest and all records appended to it.
        """

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        """Append one commit to the manifest atomically, which commits what was written; then delete obsolete files.

        Called only if `appends` is True, and after the first `publish` of a destination. Its cost should not depend on
        the number of commits. `record` is JSON without line breaks; its number, `commit`, rises by one each time.
        """
        raise NotImplementedError

    def appended(self) -> Sequence[bytes]:
        """Return the records that existed when the sink was opened, oldest first.

        They may include some that the manifest already contains. An incomplete last record is left out; raises
        ManifestError if another one is damaged.
        """
        return ()

    def holds(self, written: Written) -> bool:
        """Return True if the stored data still exists; if not, its window is read again."""
        return True

    def intact(self, written: Written) -> bool:
        """Return True if the stored data exists and matches the manifest, byte for byte."""
        return self.holds(written)

    def fault(self, window: Window, segments: int, written: Written) -> Finding | None:
        """Check the stored data of a window in the manifest. Return the first fault, None if there is none.

        `segments` is the number of segments by the manifest.
        """
        if self.intact(written):
            return None
        return Finding("changed", str(window), f"it differs from what was written; {self.mend}, and {AGAIN}")

    def strangers(self, known: AbstractSet[str]) -> Iterator[Finding]:
        """Yield stored data that belongs to no window; `known` are the files that the manifest names."""
        return iter(())

    def must_commit_first(self, keep: AbstractSet[str], window: Window) -> bool:
        """Return True if `clean` would delete data that another run may be about to commit.

        Without a lock that excludes such a run, this one commits first, after which the other one can no longer commit.
        """
        return False

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        """Delete what interrupted runs left behind within the window, except the files named in `keep`."""

    @abstractmethod
    def close(self) -> None:
        """Release the destination. Always called once after `open`."""


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
        """Return encoded segments, passed as JSON Lines."""


def encoded(encoder: Encoder[Part], segments: Sequence[Segment]) -> Part:
    """Return segments in the encoder's form, from decoded segments or from the bytes received."""
    return encoded_lines(encoder, segments.text) if isinstance(segments, RawRows) else encoder.encode(segments)


def encoded_lines(encoder: Encoder[Part], lines: bytes) -> Part:
    """Return JSON Lines in the encoder's form."""
    return encoder.encode_lines(lines) if _takes_lines(type(encoder)) else encoder.encode(decode_lines(lines))


@cache
def _takes_lines(kind: type) -> bool:
    """Return True if a class's `encode_lines` matches its `encode`.

    If a subclass overrides only `encode`, that must be called for every segment.
    """
    return next("encode_lines" in vars(base) for base in kind.__mro__ if {"encode", "encode_lines"} & vars(base).keys())
