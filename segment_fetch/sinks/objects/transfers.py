"""Upload and download of objects, one piece at a time."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from segment_fetch.sinks.files.base import FileDraft
from segment_fetch.sinks.files.formats import Packer
from segment_fetch.wire.models import Part

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_log = logging.getLogger(__name__)
READ_AT_ONCE = 4 * 1024 * 1024
_PART = 5 * 1024 * 1024  # the minimum of S3; 10,000 parts make an object of 50 GB
_PARTS_AT_ONCE = 3


class ObjectDraft(FileDraft[Part]):
    """An object that appears once complete, or not at all: one request if it is small, else a multipart upload.

    At most `_PARTS_AT_ONCE` + 1 parts of `_PART` bytes are in memory. The name is added to `done` when it exists.
    """

    def __init__(
        self,
        name: str,
        packer: Packer[Part],
        translated: Callable[[], AbstractContextManager[None]],
        *,
        store: ObjectStore,
        done: set[str],
    ) -> None:
        from obstore import open_writer  # noqa: PLC0415 - an optional extra

        super().__init__(name, packer, translated)
        self._done = done
        self._writer = open_writer(store, name, buffer_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def _store(self, data: bytes) -> None:
        self._writer.write(data)  # blocks while the maximum number of parts is being sent

    def _give_name(self) -> None:
        self._writer.close()
        self._done.add(self.name)

    def _discard(self) -> None:
        """Abort the upload. If that fails, parts remain that the store does not list but charges for."""
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an optional extra

        try:
            with suppress(_DroppedError), self._writer:
                raise _DroppedError
        except (OSError, BaseError) as error:
            _log.warning(
                "aborting the upload of %s failed; let a lifecycle rule remove its parts: %s", self.name, error
            )


class _DroppedError(Exception):
    """Makes a writer abort its upload."""


class Download(io.RawIOBase):
    """An object as a file, fetched piece by piece. `translated` turns the store's errors into DestinationErrors."""

    def __init__(self, store: ObjectStore, name: str, translated: Callable[[], AbstractContextManager[None]]) -> None:
        from obstore import open_reader  # noqa: PLC0415 - an optional extra

        self._translated = translated
        with translated():
            self._file = open_reader(store, name, buffer_size=READ_AT_ONCE)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        with self._translated():
            data = self._file.read(len(into))
        into[: len(data)] = memoryview(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
