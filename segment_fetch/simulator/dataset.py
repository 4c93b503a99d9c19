"""The segments of the simulator: up to ten million, a pure function of the seed, not kept in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import orjson

from segment_fetch.simulator.checks import check_share
from segment_fetch.simulator.rows import RowOptions, RowWriter
from segment_fetch.simulator.timeline import Timeline

MAX_SEGMENTS = 10_000_000
_DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Segments that closed in `[start, end)` (epoch ms), in ascending order of close time.

    The same values give the same segments on every machine. Raises `ValueError`, naming the value, if one
    is out of its range.

    `daily_load`: busy during the day, quiet at night and on weekends, instead of uniform.
    `concentrate`: this share of the segments closed in the hour in the middle of the range.
    `ties`: this share of the segments closed in the same millisecond as the one before.
    `burst`: this many of the segments closed in the one millisecond `burst_at` (default: the middle).
    `null_share`: this share of the segments has null fields.
    `unknown_reasons`: this share has an end reason that is not documented.
    `wrong_types`: this share has its `agentId` as a string.
    `new_field_from`: segments from this number on have a field `newField` that is not documented.
    """

    segments: int
    start: int
    end: int
    seed: int = 1
    account: str = "111111"
    daily_load: bool = False
    concentrate: float = 0.0
    ties: float = 0.0
    burst: int = 0
    burst_at: int | None = None
    null_share: float = 0.01
    unknown_reasons: float = 0.0
    wrong_types: float = 0.0
    new_field_from: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.segments <= MAX_SEGMENTS:
            raise ValueError(f"segments must be between 0 and {MAX_SEGMENTS}, not {self.segments}")
        if self.start >= self.end:
            raise ValueError(f"start must be before end, not {self.start} and {self.end}")
        if not 0 <= self.burst <= self.segments:
            raise ValueError(f"burst must be between 0 and segments, not {self.burst}")
        if self.burst_at is not None and not self.start <= self.burst_at < self.end:
            raise ValueError(f"burst_at must be within start and end, not {self.burst_at}")
        for name in ("concentrate", "ties", "null_share", "unknown_reasons", "wrong_types"):
            check_share(name, getattr(self, name))

    @classmethod
    def recent(cls, segments: int, *, now: float, days: float = 7.0, **options: Any) -> Self:
        """Return a dataset of `days` days that ends at the last full hour before `now` (epoch seconds)."""
        end = int(now) // 3600 * 3_600_000
        return cls(segments=segments, start=end - int(days * _DAY_MS), end=end, **options)

    def close_time(self, row: int) -> int:
        """Return the close time of a segment by its number, in epoch ms."""
        return self._timeline.at(row)

    def close_times(self, first: int, last: int) -> list[int]:
        """Return the close times (epoch ms) of the segments `[first, last)`; faster than one by one."""
        return self._timeline.between(first, last)

    def count_before(self, instant: int) -> int:
        """Count the segments that closed before an instant (epoch ms); also the number of the first that did not."""
        if instant > self.end:
            return self.segments
        return self._timeline.before(instant)

    def numbers(self, start: int | None = None, end: int | None = None) -> range:
        """Return the numbers of the segments that closed in `[start, end)` (epoch ms), oldest first."""
        first = 0 if start is None else self.count_before(start)
        return range(first, self.segments if end is None else max(first, self.count_before(end)))

    def ids(self, start: int | None = None, end: int | None = None) -> Iterator[str]:
        """Yield the `segmentId` of each segment that closed in `[start, end)`, oldest first."""
        return map(self.writer.segment_id, self.numbers(start, end))

    def rows(self, start: int | None = None, end: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield each segment that closed in `[start, end)` as the API returns it, oldest first."""
        return map(self.row, self.numbers(start, end))

    def row(self, number: int) -> dict[str, Any]:
        """Return one segment by its number, as the API returns it."""
        row: dict[str, Any] = orjson.loads(self.writer.row(number, self.close_time(number)))
        return row

    @cached_property
    def writer(self) -> RowWriter:
        """The renderer of this dataset's segments."""
        options = RowOptions(self.null_share, self.unknown_reasons, self.wrong_types, self.new_field_from)
        return RowWriter(seed=self.seed, account=self.account, options=options)

    @cached_property
    def _timeline(self) -> Timeline:
        return Timeline(
            seed=self.seed,
            rows=self.segments,
            start=self.start,
            end=self.end,
            daily_load=self.daily_load,
            concentrate=self.concentrate,
            ties=self.ties,
            burst=self.burst,
            burst_at=self.burst_at,
        )
