"""The output of `--version`: the program, Python, the scanner (compiled or not), and the installed extras."""

from __future__ import annotations

import platform
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import segment_fetch
from segment_fetch.wire import raw_rows

_PACKAGE = "segment-fetch"
_DEVELOPMENT = ("dev", "docs", "release", "test")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?.*?(?:; extra == \"([a-z]+)\")?")


def described() -> str:
    """Return the version, Python, the scanner and the extras, one line each."""
    installed = _distribution(_PACKAGE)
    version = (
        f"{installed.version}" if installed else f"(not installed, run from {Path(segment_fetch.__file__).parent})"
    )
    lines = [
        f"{_PACKAGE} {version}",
        f"Python {platform.python_version()} ({platform.python_implementation()}, {platform.platform(terse=True)})",
        f"scanner: {'compiled' if raw_rows.COMPILED else 'not compiled: pages are decoded in Python, which is slower'}",
    ]
    if installed:
        present, absent = _extras(installed)
        lines += [f"extras: {', '.join(present) or 'none'}"]
        lines += [f"extras not installed: {', '.join(absent)}"] if absent else []
    return "\n".join(lines)


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _extras(installed: Distribution) -> tuple[list[str], list[str]]:
    """Return the extras whose packages are all installed, and the others."""
    names = [name for name in installed.metadata.get_all("Provides-Extra") or [] if name not in _DEVELOPMENT]
    present = [name for name in names if all(map(_distribution, _packages(installed, name)))]
    return present, [name for name in names if name not in present]


def _packages(installed: Distribution, extra: str) -> set[str]:
    """Return the packages that an extra installs, directly or through another extra of this package."""
    found: set[str] = set()
    for requirement in installed.requires or []:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None or match[3] != extra:
            continue
        if match[1] == _PACKAGE:
            found |= set().union(*(_packages(installed, name.strip()) for name in match[2].split(",")))
        else:
            found.add(match[1])
    return found
