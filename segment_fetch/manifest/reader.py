"""Reads the committed state back: the manifest and the records appended to it since.

Runs, `verify` and all other readers of a destination use this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from segment_fetch.manifest.format import (
    FORMAT_VERSION,
    Manifest,
    damaged_sequence,
    parse_record,
    parse_with_windows,
)
from segment_fetch.manifest.time_index import Entries


class Committed(Struct):
    """The state of a destination: `commits` counts all commits, `appended` those not folded in yet."""

    version: int
    query: dict[str, Any]
    entries: Entries
    commits: int
    appended: int
    settle_after_ms: int

    def manifest(self) -> Manifest:
        """Return the state as one manifest, in the version that this release writes."""
        return Manifest(
            format_version=FORMAT_VERSION,
            complete_before=self.entries.complete_before(),
            commits=self.commits,
            settle_after_ms=self.settle_after_ms,
            query=self.query,
            windows=tuple(self.entries),
        )


def read_committed(stored: bytes, records: Iterable[bytes] = ()) -> Committed:
    """Return the state of a stored manifest and its appended records. Raises ManifestError if they are damaged.

    Records that the manifest already contains are skipped: a run killed after it stored the manifest left them behind.
    """
    manifest, windows = parse_with_windows(stored)
    entries = Entries(dict(zip(windows, manifest.windows, strict=True)))
    commits = manifest.commits
    for record in map(parse_record, records):
        if record.commit <= commits:
            continue
        if record.commit != commits + 1:
            raise damaged_sequence(record.commit, commits + 1)
        entries.replace((entry.window, entry) for entry in record.windows)
        commits = record.commit
    return Committed(
        version=manifest.format_version,
        query=manifest.query,
        entries=entries,
        commits=commits,
        appended=commits - manifest.commits,
        settle_after_ms=manifest.settle_after_ms,
    )
