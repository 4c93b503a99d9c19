"""Object stores: the files of a folder as objects below a prefix, and the manifest beside them. Needs the extra
`objects`.

There is no lock, and none is needed. The manifest is replaced only on condition that it is still the one that the run
knows, so of two runs at once the second to publish loses: it gets DestinationBusyError and takes back what it wrote.
Every object has a name of its own, so none is ever overwritten. And none is deleted before a manifest that does not
name it has been stored, on that same condition, after it was seen: no run can name it from then on.
"""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from segment_fetch.errors import DestinationBusyError, DestinationError, check_type
from segment_fetch.query import Window
from segment_fetch.sinks.base import Key, Written
from segment_fetch.sinks.files.base import FileSink
from segment_fetch.sinks.files.formats import FileFormat, Packer
from segment_fetch.sinks.files.names import DAY, MANIFEST, TOKEN_BYTES, stem, window_in
from segment_fetch.sinks.objects.errors import translated, unsafe
from segment_fetch.sinks.objects.stores import Place, exceptions, place_of, store_of
from segment_fetch.sinks.objects.transfers import READ_AT_ONCE, Download, ObjectDraft
from segment_fetch.wire.models import Part

if TYPE_CHECKING:
    from obstore import PutResult, UpdateVersion
    from obstore.store import ObjectStore

_NO_VERSION = {"e_tag": '"00000000000000000000000000000000"'}


class ObjectSink(FileSink[Part]):
    """Files of one format below a prefix of an object store: `s3://bucket/prefix`, `gs://…`, `az://container/…`.

    `store`, an obstore store for that very bucket and prefix, takes the place of the one that the environment says.
    """

    appends = False

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
        return MANIFEST

    def _forget(self) -> None:
        self._sizes: dict[str, int] = {}
        self._own: set[str] = set()
        self._manifest: bytes | None = None
        self._version: UpdateVersion | None = None
        self._heeded = set() if self.place.scheme == "s3" else {"create", "update"}

    def open(self) -> bytes | None:
        self._forget()
        with self._translated():
            self._sizes = self._listed()
            self._read_manifest()
        if self._manifest is None and self._sizes:
            raise DestinationError(
                f"{self.place} holds {min(self._sizes)} but no {MANIFEST}: restore the manifest, or move the files "
                "elsewhere"
            )
        return self._manifest

    def look(self) -> bytes | None:
        self._forget()
        with self._translated():
            self._read_manifest()
        return self._manifest

    def names(self) -> list[str]:
        """The files of windows that are there, whichever format they have, and the manifest."""
        with self._translated():
            self._sizes = self._listed()
        return sorted(self._sizes)

    def _listed(self) -> dict[str, int]:
        """Names and sizes of windows' files. Folders other than those of days are not looked into."""
        top = self._store.list_with_delimiter()
        found = [*top["objects"]]
        for folder in top["common_prefixes"]:
            name = str(folder).rpartition("/")[2]
            if name.startswith(DAY):
                found += self._store.list_with_delimiter(name)["objects"]
        sizes = {str(each["path"]): int(each["size"]) for each in found}
        return {name: size for name, size in sizes.items() if window_in(name)}

    def _read_manifest(self) -> None:
        try:
            got = self._store.get(MANIFEST)
            self._manifest, self._version = bytes(got.bytes()), _version(got.meta)
        except FileNotFoundError:
            self._manifest = self._version = None

    def _new_file(self, window: Window, packer: Packer[Part]) -> ObjectDraft[Part]:
        name = f"{self._day(window)}{stem(window)}-{secrets.token_hex(TOKEN_BYTES)}.{self._suffix}"
        return ObjectDraft(name, packer, self._translated, store=self._store, done=self._own)

    def keys(self, written: Written) -> Iterator[Key]:
        return iter(()) if written.file is None else self._file_keys(written.file)

    def _file_keys(self, name: str) -> Iterator[Key]:
        """ValueError where the object is not what its name says."""
        with self.open_file(name) as file:
            yield from self._format.keys_in(file, self._compress)

    def intact(self, written: Written) -> bool:
        if written.file is None or self._head(written.file) != written.bytes:
            return False
        with self.open_file(written.file) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == written.sha256  # type: ignore[arg-type]

    def open_file(self, name: str) -> BinaryIO:
        """Return an object's bytes as a file to read, fetched as they are asked for."""
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
        with self._translated():
            self._replace_manifest(manifest)
            self._delete(obsolete)

    def _replace_manifest(self, manifest: bytes) -> None:
        """Stores the manifest if the one that is there is still the one that this run knows."""
        condition = "update" if self._version else "create"
        try:
            put = self._store.put(MANIFEST, manifest, mode=self._version or "create")
            self._manifest, self._version = manifest, _version(put)
        except _conflicts():
            self._read_manifest()
            if self._manifest != manifest:  # else it was stored, and the answer got lost: the repeat found itself
                raise self._overtaken() from None
        self._try(condition)

    def _overtaken(self) -> DestinationBusyError:
        """Another run has published. What this one wrote goes, unless the other has come to know it."""
        manifest = self._manifest or b""
        self._delete([name for name in self._own if name.encode() not in manifest])
        return DestinationBusyError(
            f"another run has written to {self.place} since this one began: what that one committed stays; wait for it "
            "to end, and run again"
        )

    def _try(self, condition: str) -> None:
        """Not every store that speaks S3 heeds conditions: once a run, one is set that does not hold.

        A store that does not heed it stores the same manifest again, and is refused.
        """
        if condition not in self._heeded:
            with suppress(*_conflicts()):
                self._store.put(MANIFEST, self._manifest, mode="create" if condition == "create" else _NO_VERSION)
                raise unsafe(self.place)
            self._heeded.add(condition)

    def clean(self, keep: AbstractSet[str], window: Window) -> None:
        dead = self._left_over({*self._sizes, *self._own}, keep, window)
        with self._translated():
            if self._manifest is not None and not self._own.issuperset(dead):
                # They may be a living run's. With another manifest in place, that run cannot publish them any more.
                self._replace_manifest(self._manifest + b"\n")
            self._delete(dead)

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                self._store.delete(name)
            self._sizes.pop(name, None)
            self._own.discard(name)

    def close(self) -> None:
        """There is no lock to give back."""


def _version(meta: PutResult | Any) -> UpdateVersion:
    told: Any = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
    return told  # type: ignore[no-any-return]


def _conflicts() -> tuple[type[Exception], ...]:
    errors = exceptions()
    return errors.AlreadyExistsError, errors.PreconditionError
