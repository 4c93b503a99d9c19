"""The sink for object stores: the files of a folder as objects under a prefix, with the manifest. Needs the extra
`objects`.

There is no lock, and none is needed. Commits are numbered, and each number is written only once, so of two concurrent
runs the second to commit loses: it gets DestinationBusyError and deletes what it wrote. Every object has a unique name,
so none is ever overwritten. An object that may belong to another run is deleted only after this run has committed,
when the other run can no longer commit.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from segment_fetch.errors import DestinationBusyError, DestinationError, check_type
from segment_fetch.query import Window
from segment_fetch.sinks.base import Key, Written
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.files.file_names import DAY, TOKEN_BYTES, is_segments, stem
from segment_fetch.sinks.files.formats import FileFormat, Packer
from segment_fetch.sinks.objects.errors import translated
from segment_fetch.sinks.objects.object_manifest import ObjectManifest, OvertakenError
from segment_fetch.sinks.objects.stores import Place, place_of, store_of
from segment_fetch.sinks.objects.transfers import READ_AT_ONCE, Download, ObjectDraft
from segment_fetch.wire.models import Part

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class ObjectSink(FileSink[Part]):
    """Files of one format under a prefix of an object store: `s3://bucket/prefix`, `gs://…`, `az://container/…`.

    `store`, an obstore store for that bucket and prefix, replaces the one configured by the environment.
    """

    def __init__(
        self,
        url: str,
        form: FileFormat[Part],
        compress: str = "none",
        *,
        partition: str = "none",
        store: ObjectStore | None = None,
    ) -> None:
        super().__init__(form, compress, partition)
        check_type("url", url, str, "a URL as text")
        self._place = place_of(url)
        self._store: Any = store_of(self._place) if store is None else store
        self._forget()

    @property
    def place(self) -> Place:
        return self._place

    @property
    def manifest_name(self) -> str:
        return self._manifest.name

    def _forget(self) -> None:
        self._sizes: dict[str, int] = {}
        self._own: set[str] = set()
        self._committed = False
        self._manifest = ObjectManifest(self._store, self._place, self._format.manifest)

    def open(self) -> bytes | None:
        manifest = self.look()
        if manifest is None and self._sizes:
            raise DestinationError(
                f"{self.place} holds {min(self._sizes)} but no {self._manifest.name}: restore the manifest, or move "
                "the files elsewhere"
            )
        with self._translated():
            self._manifest.tidy()
        return manifest

    def look(self) -> bytes | None:
        self._forget()
        with self._translated():
            listed = self._listed()
            self._sizes = _windows(listed)
            return self._manifest.read(listed)

    def appended(self) -> Sequence[bytes]:
        return self._manifest.records

    def names(self) -> list[str]:
        """Return the existing files of windows, in any format, and the manifest."""
        with self._translated():
            self._sizes = _windows(self._listed())
        return sorted(self._sizes)

    def _listed(self) -> dict[str, int]:
        """Return names and sizes of all objects. Of subfolders, only day folders are listed."""
        top = self._store.list_with_delimiter()
        found = [*top["objects"]]
        for folder in top["common_prefixes"]:
            name = str(folder).rpartition("/")[2]
            if name.startswith(DAY):
                found += self._store.list_with_delimiter(name)["objects"]
        return {str(each["path"]): int(each["size"]) for each in found}

    def _new_file(self, window: Window, packer: Packer[Part]) -> ObjectDraft[Part]:
        name = f"{self._day(window)}{stem(window)}-{secrets.token_hex(TOKEN_BYTES)}.{self._suffix}"
        return ObjectDraft(name, packer, self._translated, store=self._store, done=self._own)

    def keys(self, written: Written) -> Iterator[Key]:
        return iter(()) if written.file is None else self._file_keys(written.file)

    def _file_keys(self, name: str) -> Iterator[Key]:
        """Yield the keys in an object. Raises ValueError if it is not of its format."""
        with self.open_file(name) as file:
            yield from self._format.keys_in(file, self._compress)

    def intact(self, written: Written) -> bool:
        if written.file is None or self._head(written.file) != written.bytes:
            return False
        with self.open_file(written.file) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256  # type: ignore[arg-type]

    def open_file(self, name: str) -> BinaryIO:
        """Return an object as a readable file, whose bytes are fetched on demand."""
        return io.BufferedReader(Download(self._store, name, self._translated), READ_AT_ONCE)

    def size(self, name: str) -> int | None:
        listed = self._sizes.get(name)
        return self._head(name) if listed is None else listed

    def _head(self, name: str) -> int | None:
        with self._translated():
            try:
                return int(self._store.head(name)["size"])
            except FileNotFoundError:
                return None

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.place)

    def publish(self, manifest: bytes, obsolete: Sequence[str]) -> None:
        self._commit(lambda: self._manifest.publish(manifest), obsolete)

    def append(self, record: bytes, obsolete: Sequence[str]) -> None:
        self._commit(lambda: self._manifest.append(record), obsolete)

    def _commit(self, store: Callable[[], None], obsolete: Sequence[str]) -> None:
        with self._translated():
            try:
                store()
            except OvertakenError:
                raise self._overtaken() from None
            self._committed = True
            self._delete(obsolete)

    def _overtaken(self) -> DestinationBusyError:
        """Return the error to raise; delete what this run wrote, unless the run that committed names it."""
        self._manifest.read(self._listed())
        known = b"".join([self._manifest.whole or b"", *self._manifest.records])
        self._delete([name for name in self._own if name.encode() not in known])
        return DestinationBusyError(
            f"another run has written to {self.place} since this one began: what it committed stays; wait for it "
            "to end, and run again"
        )

    def must_commit_first(self, keep: AbstractSet[str], window: Window) -> bool:
        """Return True if there are objects to delete that this run has not written.

        They may belong to another run, which can no longer commit them once this run has committed.
        """
        dead = self._left_over({*self._sizes, *self._own}, keep, window)
        return not self._committed and self._manifest.whole is not None and not self._own.issuperset(dead)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        with self._translated():
            self._delete(self._left_over({*self._sizes, *self._own}, keep, window))

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._store.delete(name)
            self._sizes.pop(name, None)
            self._own.discard(name)

    def close(self) -> None:
        """Do nothing: there is no lock to release."""


def _windows(listed: Mapping[str, int]) -> dict[str, int]:
    """Return the objects whose names are those of windows' files."""
    return {name: size for name, size in listed.items() if is_segments(name)}
