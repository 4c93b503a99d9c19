"""The rows present at one moment: a range of numbers, minus those absent, plus those inserted.

The base stays a function of the row's number. The overlay is two short sorted lists, so that a count and the
row at an offset are exact at every moment and take a few steps, whatever the size of the base.
"""

from bisect import bisect_left, bisect_right, insort

from segment_fetch.simulator.dataset import Dataset

FIRST_INSERTED = 2**31
"""Rows from this number on are inserted ones; the base has fewer."""

Row = tuple[int, int]
"""A close time in epoch ms, and the number of the row: rows sort by it, oldest first."""


class Overlay:
    """The rows of a dataset that are present, in ascending order of close time and number."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.horizon = dataset.segments
        self.absent: list[int] = []
        self.inserted: list[Row] = []
        self.inserted_times: dict[int, int] = {}

    def base_times(self, first: int, last: int) -> list[int]:
        """Return the close times of the base rows `[first, last)`, in epoch ms."""
        return self._dataset.close_times(first, last)

    def hide(self, number: int) -> None:
        """Mark a base row as absent; it must be present."""
        insort(self.absent, number)

    def show(self, number: int) -> None:
        """Mark an absent base row as present."""
        del self.absent[bisect_left(self.absent, number)]

    def insert(self, close: int) -> int:
        """Add a row that closed at `close` (epoch ms); return its number."""
        number = FIRST_INSERTED + len(self.inserted_times)
        self.inserted_times[number] = close
        insort(self.inserted, (close, number))
        return number

    def discard(self, number: int) -> None:
        """Remove an inserted row; it must be present."""
        del self.inserted[bisect_left(self.inserted, (self.inserted_times[number], number))]

    def is_present(self, number: int) -> bool:
        """Return True if a row is present now."""
        if number >= FIRST_INSERTED:
            row = (self.inserted_times.get(number, -1), number)
            at = bisect_left(self.inserted, row)
            return self.inserted[at : at + 1] == [row]
        at = bisect_left(self.absent, number)
        return 0 <= number < self.horizon and self.absent[at : at + 1] != [number]

    def slice(self, start: int, end: int) -> "OverlaySlice":
        """Return the rows that closed in `[start, end)` (epoch ms); valid until the next change."""
        low = self.base_before(start)
        high = max(low, self.base_before(end))
        inserted = bisect_left(self.inserted, (start, 0)), bisect_left(self.inserted, (end, 0))
        return OverlaySlice(self, low, high, inserted)

    def base_before(self, instant: int) -> int:
        """Count the base rows, present or absent, that closed before an instant (epoch ms)."""
        return min(self._dataset.count_before(instant), self.horizon)


class OverlaySlice:
    """The rows between two close times. A rank is a row's place among them, oldest first, from 0."""

    def __init__(self, overlay: Overlay, low: int, high: int, inserted: tuple[int, int]) -> None:
        self._overlay = overlay
        self._low = low
        self._first_absent = bisect_left(overlay.absent, low)
        self._first_inserted, self._last_inserted = inserted
        self._base = high - low - (bisect_left(overlay.absent, high) - self._first_absent)
        self.count = self._base + self._last_inserted - self._first_inserted

    def rows(self, first: int, last: int) -> list[Row]:
        """Return the rows of the ranks `[first, last)`, ascending."""
        low, high = self._inserted_before(first), self._inserted_before(last)
        rows = self._base_rows(first - low, last - high)
        if high > low:
            rows += self._overlay.inserted[self._first_inserted + low : self._first_inserted + high]
            rows.sort()
        return rows

    def rank_before(self, instant: int) -> int:
        """Count the rows of this slice that closed before an instant (epoch ms)."""
        overlay = self._overlay
        inserted = bisect_left(overlay.inserted, (instant, 0), self._first_inserted, self._last_inserted)
        return inserted - self._first_inserted + self._base_before(instant)

    def _inserted_before(self, rank: int) -> int:
        """Count the inserted rows whose rank is below this one."""
        places = range(self._last_inserted - self._first_inserted)
        return bisect_left(places, rank, key=self._rank_of_inserted)

    def _rank_of_inserted(self, place: int) -> int:
        """Return the rank of an inserted row: after all base rows of its close time, because its number is higher."""
        close, _ = self._overlay.inserted[self._first_inserted + place]
        return place + self._base_before(close + 1)

    def _base_before(self, instant: int) -> int:
        number = self._overlay.base_before(instant)
        absent = bisect_left(self._overlay.absent, number) - self._first_absent
        return max(0, min(number - self._low - absent, self._base))

    def _base_rows(self, first: int, last: int) -> list[Row]:
        """Return the base rows of the base ranks `[first, last)`."""
        if first >= last:
            return []
        absent = self._overlay.absent
        low, high = self._number_at(first), self._number_at(last - 1) + 1
        rows = list(zip(self._overlay.base_times(low, high), range(low, high), strict=True))
        gone = set(absent[bisect_left(absent, low) : bisect_left(absent, high)])
        return [row for row in rows if row[1] not in gone] if gone else rows

    def _number_at(self, rank: int) -> int:
        """Return the number of the base row at a base rank: the rank plus the absent rows before it."""
        absent, first = self._overlay.absent, self._first_absent
        skipped = bisect_right(range(len(absent) - first), rank, key=lambda at: absent[first + at] - self._low - at)
        return self._low + rank + skipped
