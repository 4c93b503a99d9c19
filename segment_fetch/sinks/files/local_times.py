"""Local times in a time zone, for files that people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from segment_fetch.timerange import zone_of

_QUARTER = 15 * 60_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LocalClock:
    """The local clock of a time zone (IANA name). Times are epoch milliseconds, offsets are minutes from UTC."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._zone = zone_of(zone)
        self._offsets: dict[int, int | None] = {}

    def offset(self, moment: int) -> int | None:
        """Return the offset at a moment, None outside the years 1 to 9999.

        Looked up once per quarter of an hour: no zone changes its offset within one.
        """
        quarter = moment // _QUARTER
        if quarter not in self._offsets:
            try:
                since = (_EPOCH + timedelta(milliseconds=quarter * _QUARTER)).astimezone(self._zone).utcoffset()
                found = None if since is None else round(since.total_seconds() / 60)
            except (OverflowError, ValueError):
                found = None
            self._offsets[quarter] = found
        return self._offsets[quarter]

    def wall(self, moment: int) -> tuple[datetime, int] | None:
        """Return the local time, without a time zone, and its offset; None outside the years 1 to 9999."""
        offset = self.offset(moment)
        if offset is None:
            return None
        try:
            shown = _EPOCH + timedelta(milliseconds=moment, minutes=offset)
        except OverflowError:
            return None
        return shown.replace(tzinfo=None), offset


def offset_text(minutes: int) -> str:
    """Return an offset from UTC in the form +01:00."""
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
