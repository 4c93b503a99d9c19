"""The names of files: the manifest, and the file of each window."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache

from segment_fetch.query import Window

MANIFEST = "manifest.json"
HIDDEN_MANIFEST = "_manifest.json"
"""The manifest's name for formats whose readers load a whole folder: they skip names that begin with an underscore."""
MANIFESTS = (MANIFEST, HIDDEN_MANIFEST)
DAY = "date="
"""The prefix of a day folder's name."""
PATTERN = r"segments-(\d{8}T\d{9}Z)-(\d{8}T\d{9}Z)"
"""The start of a window's file name, as a regular expression; its groups are the start and end times."""
PARTIAL = ".partial"
"""The suffix of a file while it is being written."""
TOKEN_BYTES = 6
"""Number of random bytes in a name, if each version of a window gets a separate file; shown in hexadecimal."""
TOKEN = rf"[0-9a-f]{{{2 * TOKEN_BYTES}}}"
"""The token made of those bytes, as a regular expression."""
_TOKEN = re.compile(f"-{TOKEN}", re.ASCII)
_OWN = rf"\.(?:{'|'.join(map(re.escape, MANIFESTS))}|{PATTERN}(?:-{TOKEN})?\.[a-z0-9.-]+?)"
_OWN_PARTIAL = re.compile(rf"{_OWN}(?:\.{TOKEN})?{re.escape(PARTIAL)}", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()
_NAME = re.compile(PATTERN + r"[.-]", re.ASCII)


def log_name(manifest: str, number: int | None = None) -> str:
    """Return the name of a manifest's log, or of the object with one of its records."""
    stem = manifest.removesuffix(".json")
    return f"{stem}.log" if number is None else f"{stem}-{number:012}.log"


def is_leftover(name: str) -> bool:
    """Return True if a file's name is that of an unfinished file of a run that has ended."""
    return _OWN_PARTIAL.fullmatch(name) is not None


def is_segments(name: str) -> bool:
    """Return True if a file's name is that of a window's file."""
    return _NAME.match(_base(name)) is not None


@lru_cache(maxsize=4)  # a window begins where the one before it ends
def stamp(ms: int) -> str:
    """Return a time in the form used in file names: 20261101T000000000Z."""
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{_date(hours // 24)}T{hours % 24:02}{minutes:02}{rest:05}Z"


@lru_cache(maxsize=4)  # formatting a date takes long, and there are many windows of one day
def _date(days: int) -> str:
    """Return a date, in days since 1970: 20261101."""
    return f"{date.fromordinal(_EPOCH + days):%Y%m%d}"


def day(ms: int) -> str:
    """Return the day of a time, in UTC: 2026-11-01."""
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%d}"


def stem(window: Window) -> str:
    """Return the start of the name of a window's file."""
    return f"segments-{stamp(window.start)}-{stamp(window.end)}"


def window_in(name: str) -> Window | None:
    """Return the window in a file's name, None if there is none. The rest of the name is ignored."""
    name = _base(name)
    match = _NAME.match(name)
    try:
        window = Window(*map(_stamped, match.groups())) if match else None
    except ValueError:
        return None
    return window if window and name.startswith(stem(window)) else None


def is_name(name: str | None, window: Window, suffix: str) -> bool:
    """Return True if a name is one of this window's: `segments-START-END.suffix`, or with a token before the suffix."""
    start, end = stem(window), f".{suffix}"
    if name == start + end:
        return True
    if name is None or not (name.startswith(start) and name.endswith(end)):
        return False
    between = name[len(start) : -len(end)]
    return not between or _TOKEN.fullmatch(between) is not None


def _base(name: str) -> str:
    """Return a name without its day folder."""
    return name.rpartition("/")[2]


def _stamped(text: str) -> int:
    seconds = datetime.fromisoformat(f"{text[:15]}+00:00").timestamp()
    return int(seconds) * 1000 + int(text[15:18])
