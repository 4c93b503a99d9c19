"""Records of commits in a file: one a line, each behind its checksum, so that one that is cut off is told from others.

5f0c9a1e {"commit":17,…}
"""

from __future__ import annotations

import zlib

from segment_fetch.errors import ManifestError

_SUM = 8  # hexadecimal digits of the CRC-32 of what follows the space


def frame(record: bytes) -> bytes:
    """Return the line for a record, which has no line breaks itself."""
    return b"%08x %s\n" % (zlib.crc32(record), record)


def unframe(data: bytes, name: str, *, whole: bool = False) -> list[bytes]:
    """Return the records in a file. A last one that was not written to its end is left out, unless all are `whole`.

    Only the last one can have been cut off by a crash, as each was on the disk before the next was begun. ManifestError
    names the line where another one is damaged.
    """
    *lines, rest = data.split(b"\n")
    records = [_record(line) for line in lines]
    if whole and rest:
        records.append(None)
    elif records and records[-1] is None and not rest and not whole:
        records.pop()
    for number, record in enumerate(records, 1):
        if record is None:
            raise ManifestError(
                f"the manifest is damaged: line {number} of {name} does not fit its checksum; restore {name} and the "
                "manifest beside it from a copy, or move the destination away and extract again"
            )
    return [record for record in records if record is not None]


def _record(line: bytes) -> bytes | None:
    record = line[_SUM + 1 :]
    return record if line[: _SUM + 1] == b"%08x " % zlib.crc32(record) else None
