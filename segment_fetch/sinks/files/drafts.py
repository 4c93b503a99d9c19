"""A window's file while it is written, wherever it is to be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from segment_fetch.sinks.base import Draft, Written
from segment_fetch.sinks.files.formats import Packer
from segment_fetch.wire.models import Part


def write_all(draft: Draft[Part], parts: Iterable[Part]) -> Written:
    """A window in one go. Nothing is left if its parts, or the medium, fail."""
    try:
        for part in parts:
            draft.add(part)
        return draft.finish()
    except BaseException:
        draft.drop()
        raise


class NewFile(Protocol):
    """A file that takes its name when it is whole, or leaves nothing behind. Errors of the medium pass through."""

    name: str

    def write(self, data: bytes) -> None:
        """Appends all of the data."""

    def finish(self) -> None:
        """Gives it its name, in a way that survives a loss of power."""

    def drop(self) -> None:
        """Deletes what there is of it."""


class FileDraft(Draft[Part]):
    """A window's file while it is written. Each piece is hashed when it is written, while the processor has it."""

    def __init__(
        self,
        file: NewFile,
        packer: Packer[Part],
        header: Part | None,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._file = file
        self._packer = packer
        self._header = header
        self._translated = translated
        self._sha = hashlib.sha256()
        self._size = 0

    def add(self, part: Part) -> None:
        with self._translated():
            self._begin()
            self._write(self._packer.compress(part))

    def _begin(self) -> None:
        if self._header is not None:
            header, self._header = self._header, None
            self._write(self._packer.compress(header))

    def _write(self, data: bytes) -> None:
        if data:
            self._file.write(data)
            self._sha.update(data)
            self._size += len(data)

    def finish(self) -> Written:
        with self._translated():
            self._begin()
            self._write(self._packer.flush())
            self._file.finish()
        return Written(file=self._file.name, bytes=self._size, sha256=self._sha.hexdigest())

    def drop(self) -> None:
        with self._translated():
            self._file.drop()
