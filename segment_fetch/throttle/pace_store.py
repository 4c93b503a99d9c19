"""The limit that runs learned for each account and source, kept in a folder for the next run; never required."""

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
"""Seconds after which what was learned no longer counts."""
_CLOCKS_DIFFER_S: Final = 86_400.0
_LARGEST: Final = 4096
_SUFFIX: Final = ".pace.json"


class PaceStore:
    """A folder with one small file for each account, service and source; it is made when there is something to keep.

    A file holds a rate, a number at once and a time (epoch seconds), and no credential. It is replaced atomically, so
    that any number of processes may share the folder. What cannot be read, makes no sense or is older than 30 days is
    ignored, and so is a folder that cannot be written: no run fails because of it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        check_type("folder", folder, (str, os.PathLike), "the path of a folder")
        self.folder = Path(folder)

    def load(self, account: str, service: str, now: float, source: str = "") -> Learned | None:
        """Return what was learned about an account at a service (its base URL, or any name); None if nothing was.

        The API throttles by `source`, too. Where a source has no state of its own, that of the whole account counts,
        as earlier versions kept it.
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
            _tell("used", error)
            return None
        return learned if -_CLOCKS_DIFFER_S <= now - learned.at <= OLDEST_S else None

    def save(self, account: str, service: str, learned: Learned, source: str = "") -> None:
        """Keep what was learned, and forget what is too old."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._replace(self._path(account, service, source), msgspec.json.encode(learned) + b"\n")
            self._forget(learned.at)
        except OSError as error:
            _tell("kept", error, worth_knowing=True)

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

    def _forget(self, now: float) -> None:
        """Deletes the files of this store that nothing has touched for too long."""
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(OSError):  # another process was quicker
                if now - path.stat().st_mtime > OLDEST_S:
                    path.unlink()

    def _path(self, account: str, service: str, source: str = "") -> Path:
        """The file's name shows neither: a service's name may hold anything."""
        from hashlib import sha256  # noqa: PLC0415 - `import segment_fetch` does without

        key = "\n".join((account, service, source) if source else (account, service))
        return self.folder / (sha256(key.encode()).hexdigest()[:32] + _SUFFIX)


def _tell(what: str, error: Exception, *, worth_knowing: bool = False) -> None:
    """A line of the log, at info or at debug."""
    import logging  # noqa: PLC0415 - as above

    level = logging.INFO if worth_knowing else logging.DEBUG
    logging.getLogger(__name__).log(level, "what was learned about the pace is not %s: %s", what, error)
