"""Queries with a filter, or sorted by something other than date, which need a scan of all rows of the range."""

from collections import OrderedDict
from collections.abc import Callable

from segment_fetch.simulator.overlay import Row
from segment_fetch.simulator.rows import RowWriter, Traits

SelectionKey = tuple[int, int, int, str, tuple[tuple[str, str], ...]]
"""Version, start, end (epoch ms), sort and filters, which together determine rows and order."""

_KEPT = 16


class SelectionCache:
    """Cache of the last few selections, so that all pages of one query cost a single scan."""

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self._kept: OrderedDict[SelectionKey, list[Row]] = OrderedDict()

    def get(self, key: SelectionKey, rows: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows that pass the key's filters, in the key's order, out of all rows of its range."""
        if key not in self._kept:
            self._kept[key] = self._select(key[3], key[4], rows())
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _select(self, sort: str, filters: tuple[tuple[str, str], ...], rows: list[Row]) -> list[Row]:
        """Filter and sort: by date newest first; by other fields ascending, and newest first among equals."""
        found = [row for row in reversed(rows) if self._matches(row, filters)] if filters else rows[::-1]
        if sort != "Date":
            found.sort(key=lambda row: _sort_key(_trait(self._writer.traits(row[1]), sort)))
        return found

    def _matches(self, row: Row, filters: tuple[tuple[str, str], ...]) -> bool:
        traits = self._writer.traits(row[1])
        return all(_trait(traits, name) == value for name, value in filters)


def _trait(traits: Traits, name: str) -> str:
    """Return the field for the name of a filter or sort: `AgentId` and `Agent` both mean the agent."""
    value: str = getattr(traits, name.removesuffix("Id").lower())
    return value


def _sort_key(value: str) -> tuple[int, str]:
    """Return a sort key that orders numbers by value, before anything else."""
    return (len(value) if value.isdigit() else 1000, value)
