"""The limits that earlier runs learned for each account and source, kept in a folder; never required."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from segment_fetch.errors import check_type
from segment_fetch.local.regular_files import read_regular
from segment_fetch.throttle.pacer import Learned

OLDEST_S: Final = 30 * 86_400.0
"""Seconds after which a learned limit is ignored."""
_CLOCKS_DIFFER_S: Final = 86_400.0
_LARGEST: Final = 4096
_SUFFIX: Final = ".pace.json"


class PaceStore:
    """A folder with one small file for each account, service and source, created by the first `save`.

    A file holds a rate, a number at once and a time (epoch seconds), and no credential. It is replaced atomically, so
    any number of processes may share the folder. A file that is unreadable, invalid or older than 30 days is ignored,
    and so is a folder that cannot be written: no run fails because of it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        check_type("folder", folder, (str, os.PathLike), "the path of a folder")
        self.folder = Path(folder)

    def load(self, account: str, service: str, now: float, source: str = "") -> Learned | None:
        """Return the limit learned for an account at a service (its base URL, or any name); None if there is none.

        The API throttles by `source`, too. A source without its own file uses the account's file, as written by
        earlier versions.
        """
        found = self._read(self._path(account, service, source), now)
        return self._read(self._path(account, service), now) if found is None and source else found

    @staticmethod
    def _read(path: Path, now: float) -> Learned | None:
        try:
            learned = msgspec.json.decode(read_regular(path, _LARGEST), type=Learned)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log_failure("used", error)
            return None
        return learned if -_CLOCKS_DIFFER_S <= now - learned.at <= OLDEST_S else None

    def save(self, account: str, service: str, learned: Learned, source: str = "") -> None:
        """Store a learned limit, and delete files that are too old."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(account, service, source), msgspec.json.encode(learned) + b"\n")
            self._delete_old(learned.at)
        except OSError as error:
            _log_failure("kept", error, worth_knowing=True)

    def _replace(self, path: Path, data: bytes) -> None:
        import tempfile  # noqa: PLC0415 - costs more than the rest of this module

        handle, name = tempfile.mkstemp(dir=self.folder, suffix=_SUFFIX)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def _delete_old(self, now: float) -> None:
        """Delete the files of this store that have not been written for `OLDEST_S`."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):  # another process may have deleted it
                if now - path.stat().st_mtime > OLDEST_S:
                    path.unlink()

    def _path(self, account: str, service: str, source: str = "") -> Path:
        """Return the file's path; its name is a hash, because a service's name may contain any character."""
        from hashlib import sha256  # noqa: PLC0415 - not needed to import segment_fetch

        key = "\n".join((account, service, source) if source else (account, service))
        return self.folder / (sha256(key.encode()).hexdigest()[:32] + _SUFFIX)


def _log_failure(what: str, error: Exception, *, worth_knowing: bool = False) -> None:
    """Log a failure, at level info if it is worth knowing, else at debug."""
    import logging  # noqa: PLC0415 - as above

    level = logging.INFO if worth_knowing else logging.DEBUG
    logging.getLogger(__name__).log(level, "the learned pace is not %s: %s", what, error)
