"""The manifest in an object store: a whole one, and an object for each commit since.

A commit writes the object of its number on condition that it does not exist yet. Two runs that know the same commits
would write the same number, so the second one finds out that it has lost. A number is reused only if its object was
deleted after the manifest was replaced; so after writing its object each run checks that the manifest is still the one
that it knows.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from segment_fetch.errors import DestinationError, ManifestError
from segment_fetch.sinks.files.commit_records import frame, unframe
from segment_fetch.sinks.files.file_names import MANIFESTS, log_name
from segment_fetch.sinks.objects.errors import unsafe
from segment_fetch.sinks.objects.stores import Place, exceptions

if TYPE_CHECKING:
    from obstore import PutResult, UpdateVersion

_LOG = re.compile(r"(_?manifest)-(\d{12})\.log", re.ASCII)
_TOGETHER = 64
"""Maximum number of commits whose records are in one object, so that few objects have to be read."""
_NO_VERSION = {"e_tag": '"00000000000000000000000000000000"'}
_TURNS = 5  # attempts to read a manifest that is being replaced


class OvertakenError(Exception):
    """Another run has committed since this one began."""


class _Commits(msgspec.Struct):
    commits: int = 0


class _Commit(msgspec.Struct):
    commit: int


class ObjectManifest:
    """The manifest of one place. The store's errors pass through."""

    def __init__(self, store: Any, place: Place, usual: str) -> None:
        self.name = usual
        self.whole: bytes | None = None
        self.records: list[bytes] = []
        """The known records of commits since the whole manifest, oldest first."""
        self._store = store
        self._place = place
        self._usual = usual
        self._version: UpdateVersion | None = None
        self._last = 0
        self._token = secrets.token_hex(6).encode()
        self._objects: set[str] = set()
        self._heeded = set() if place.scheme == "s3" else {"create", "update"}

    def read(self, listed: Iterable[str]) -> bytes | None:
        """Return the whole manifest, None if there is none, and set `records`; `listed` are the existing objects."""
        names = set(listed)
        there = [name for name in MANIFESTS if name in names]
        if len(there) > 1:
            raise DestinationError(f"{self._place} has {' and '.join(there)}: move the one away that is not in use")
        self.name = there[0] if there else self._usual
        stem = self.name.removesuffix(".json")
        self._objects = {name for name in names if (found := _LOG.fullmatch(name)) and found[1] == stem}
        for _ in range(_TURNS):
            self._read_whole()
            with suppress(FileNotFoundError):  # folded into a newer manifest since the listing
                self._read_records()
                return self.whole
        raise ManifestError(f"{self._place}: records of commits that are not in {self.name} are missing")

    def _read_whole(self) -> None:
        try:
            got = self._store.get(self.name)
            self.whole, self._version = bytes(got.bytes()), _version(got.meta)
        except FileNotFoundError:
            self.whole = self._version = None

    def _read_records(self) -> None:
        """Read backwards from the last commit: an object holds the records of up to `_TOGETHER` commits."""
        first = _commits(self.whole)
        number = self._last = max([first, *(_number(name) for name in self._objects)])
        self.records = []
        while number > first:
            name = log_name(self.name, number)
            _, _, lines = bytes(self._store.get(name).bytes()).partition(b"\n")
            records = unframe(lines, name, whole=True)
            self.records[:0] = records
            number -= max(1, len(records))

    def tidy(self) -> None:
        """Delete objects that a killed run left behind, whose records are in the manifest."""
        folded = _commits(self.whole)
        for name in sorted(name for name in self._objects if _number(name) <= folded):
            self._delete(name)

    def append(self, record: bytes) -> None:
        """Write the object of one commit. Raises OvertakenError if another run has written it."""
        number = msgspec.json.decode(record, type=_Commit).commit
        self._claim(number, [*self.records, record])
        if self._version != self._head():
            try:
                self._check_not_folded(number)
            except OvertakenError:
                self._delete(log_name(self.name, number))
                raise
        self.records.append(record)
        del self.records[: -2 * _TOGETHER]

    def _claim(self, number: int, records: list[bytes]) -> None:
        """Write the object of a number, with its record and the preceding ones that it includes, unless it exists."""
        name = log_name(self.name, number)
        together = min(number & -number, _TOGETHER, len(records))  # 1, 2, 1, 4, 1, 2, 1, 8, … as the number rises
        data = b"%s\n" % self._token + b"".join(map(frame, records[len(records) - together :]))
        try:
            self._store.put(name, data, mode="create")
        except _conflicts():
            if self._found(name) != data:  # else the response was lost, and the retry met its own object
                raise OvertakenError from None
        self._objects.add(name)
        self._last = number
        self._try("create", name, data)

    def _found(self, name: str) -> bytes | None:
        try:
            return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            return None

    def _head(self) -> UpdateVersion | None:
        try:
            return _version(self._store.head(self.name))
        except FileNotFoundError:
            return None

    def _check_not_folded(self, number: int) -> None:
        """Raise OvertakenError if the current manifest may have been made without the commit of this number.

        It is harmless if a run that lost to this one replaced it with the commits of before.
        """
        known = _commits(self.whole)
        self._read_whole()
        if not known < _commits(self.whole) < number:
            raise OvertakenError

    def publish(self, data: bytes) -> None:
        """Replace the whole manifest, unless overtaken, and then delete the objects whose records it contains."""
        number = _commits(data)
        if self._version is not None:
            empty = msgspec.json.encode({"commit": number, "complete_before": None, "windows": []})
            self._claim(number, [empty])  # from now on no other run can commit something that this manifest lacks
        self._replace(data, number)
        for name in sorted(self._objects):
            self._delete(name)
        self.records = []

    def _replace(self, data: bytes, number: int) -> None:
        condition = "update" if self._version else "create"
        try:
            self._put_whole(data)
        except _conflicts():
            if self._found(self.name) != data:  # else the response was lost, and the retry met its own object
                self._check_not_folded(number)
                try:
                    self._put_whole(data)
                except _conflicts():
                    raise OvertakenError from None
            else:
                self._read_whole()
        self._try(condition, self.name, data)

    def _put_whole(self, data: bytes) -> None:
        put = self._store.put(self.name, data, mode=self._version or "create")
        self.whole, self._version = data, _version(put)

    def _delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._store.delete(name)
        self._objects.discard(name)

    def _try(self, condition: str, name: str, data: bytes) -> None:
        """Check once per run that the store honours conditions, with one that is not met: not every S3 store does.

        A store that ignores it stores the same bytes again, and is refused.
        """
        if condition not in self._heeded:
            with suppress(*_conflicts()):
                self._store.put(name, data, mode="create" if condition == "create" else _NO_VERSION)
                raise unsafe(self._place)
            self._heeded.add(condition)


def _number(name: str) -> int:
    return int(name.rpartition("-")[2].removesuffix(".log"))


def _commits(manifest: bytes | None) -> int:
    """Return the number of the last commit in a manifest; 0 if it has none or cannot be read."""
    try:
        return 0 if manifest is None else msgspec.json.decode(manifest, type=_Commits).commits
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0  # damaged: the commit log reports it


def _version(meta: PutResult | Any) -> UpdateVersion:
    told: Any = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
    return told  # type: ignore[no-any-return]


def _conflicts() -> tuple[type[Exception], ...]:
    errors = exceptions()
    return errors.AlreadyExistsError, errors.PreconditionError
