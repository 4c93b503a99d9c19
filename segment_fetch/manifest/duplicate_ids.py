"""Find duplicates among any number of ids, in bounded memory.

8-byte hashes are partitioned by their lowest byte, in memory first and then in a temporary file; each partition is
small enough to be searched separately. Ids with equal hashes may still differ, so the caller compares those.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from typing import IO, Self

_PARTS = 256
_IN_MEMORY = 1_000_000  # hashes, 8 MB
_MOST = 200_000
"""Maximum number of equal hashes reported: more would only repeat that whole files are duplicated."""


class Duplicates:
    """Finds equal hashes. A context manager: the temporary file, 8 bytes per id, is deleted at the end."""

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._parts = [array("q") for _ in range(_PARTS)]
        self._count = 0
        self._file: IO[bytes] | None = None
        self._spilled: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, segment_id: str) -> None:
        """Add an id."""
        hashed = hash(segment_id)
        self._parts[hashed & (_PARTS - 1)].append(hashed)
        self._count += 1
        if self._count >= self._in_memory:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="segment_fetch_")  # noqa: SIM115 - closed by __exit__
        self._file.seek(0, 2)
        for part, extents in zip(self._parts, self._spilled, strict=True):
            extents.append((self._file.tell(), len(part) * part.itemsize))
            part.tofile(self._file)
            del part[:]
        self._count = 0

    def find(self) -> set[int]:
        """Return the hashes that were added more than once, at most `_MOST`."""
        found = set[int]()
        for number in range(_PARTS):
            seen = set[int]()
            for hashed in self._part(number):
                if hashed in seen:
                    found.add(hashed)
                    if len(found) == _MOST:
                        return found
                seen.add(hashed)
        return found

    def _part(self, number: int) -> Iterator[int]:
        for at, length in self._spilled[number]:
            if self._file is not None:
                self._file.seek(at)
                yield from array("q", self._file.read(length))
        yield from self._parts[number]
