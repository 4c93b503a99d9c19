"""Records of commits in a file: one per line, each after its checksum, which reveals a record that was cut off.

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
    """Return the records in a file. An incomplete last record is left out, unless all must be `whole`.

    Only the last one can have been cut off by a crash, because each was on disk before the next was started. Raises
    ManifestError with the line number if another one is damaged.
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
                f"the manifest is damaged: line {number} of {name} does not match its checksum; restore {name} and the "
                "manifest beside it from a copy, or move the destination away and extract again"
            )
    return [record for record in records if record is not None]


def _record(line: bytes) -> bytes | None:
    record = line[_SUM + 1 :]
    return record if line[: _SUM + 1] == b"%08x " % zlib.crc32(record) else None
