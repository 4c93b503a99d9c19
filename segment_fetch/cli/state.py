"""Where the command keeps what its runs learned: the user's folder for such things, or the one that is named."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from segment_fetch.throttle.pace_store import PaceStore

_NAME = "segment_fetch"


def pace(named: str | None, environ: Mapping[str, str], platform: str = sys.platform) -> PaceStore | None:
    """The store in the folder of `--state`, else in the user's; None for `--state none`, or where no home is known."""
    if named == "none":
        return None
    folder = Path(named) if named else _own(environ, platform)
    return None if folder is None else PaceStore(folder / "pace")


def _own(environ: Mapping[str, str], platform: str) -> Path | None:
    """By the XDG Base Directory Specification, which ignores a path that is not absolute; on macOS by its custom."""
    given, home = Path(environ.get("XDG_STATE_HOME", "")), Path(environ.get("HOME", ""))
    if given.is_absolute():
        return given / _NAME
    if not home.is_absolute():
        return None
    place = ("Library", "Application Support") if platform == "darwin" else (".local", "state")
    return home.joinpath(*place, _NAME)
