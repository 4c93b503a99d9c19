"""The checks of a page: that it is consistent in itself and matches the request, before a proof sees it.

A page that fails is a fault; it is requested again and never used. A fault that recurs unchanged is not an accident; it
names its remedy: to give the window up, to divide it, or to request smaller pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from segment_fetch.errors import InconsistentError, TransientError, printable
from segment_fetch.query import Window
from segment_fetch.timerange import format_time, to_ms
from segment_fetch.windows import coverage
from segment_fetch.windows.pass_protocol import Failed
from segment_fetch.windows.server_traits import goes_on
from segment_fetch.wire.models import Segment, SegmentPage, Timeframe
from segment_fetch.wire.pages import PageAnswer
from segment_fetch.wire.raw_rows import RawRows, distinct, keys_of, times_of

MAX_DIVISIONS = 1_000
"""Maximum number of times that one window is divided because the server does not answer for all of it."""

MAX_ISOLATING = 10
"""Maximum number of times that one window is divided to isolate faults."""

MAX_HALVING = 1
"""The same if every examined row is broken."""

NOW_TOLERANCE_MS = 60_000
"""Milliseconds by which a time frame that the server cut at its current time may end before its clock."""


class Divide(Struct, frozen=True):
    """Read these windows instead, oldest first; together they cover the window, which is divided at most `most` times
    for this reason. `broken` is one of them that is known to be unreadable. `code` is as in `Failed`.
    """

    windows: tuple[Window, ...]
    reason: str
    most: int = MAX_DIVISIONS
    broken: Window | None = None
    code: str | None = None


class Shrink(Struct, frozen=True):
    """Request at most `limit` rows per page."""

    limit: int


Remedy: TypeAlias = Failed | Divide | Shrink
"""The reaction to a fault that recurs."""


class PageFaultError(TransientError):
    """A page that contradicts itself or does not match the request. If the same fault recurs, `remedy` applies; without
    one the fault is isolated, so that everything except the place of the fault can be read.
    """

    def __init__(
        self, message: str, remedy: Remedy | None = None, *, short: int | None = None, cap: int | None = None
    ) -> None:
        super().__init__(message, status=200)
        self.remedy = remedy
        self.cap = cap
        """The count of a page that has rows beyond it."""
        self.short = short
        """The number of rows of a first page with too few rows."""

    @property
    def failed(self) -> Failed:
        """The failure of a window that cannot be read because the fault recurs."""
        return inconsistent(f"{self.message}, each time it was requested")


def inconsistent(reason: str) -> Failed:
    """Return the failure of a window for which the server's answers contradict each other, or the request."""
    return Failed(reason, code=InconsistentError.code)


def halves(window: Window, failed: Failed, most: int = MAX_DIVISIONS) -> Divide | Failed:
    """Return the two halves of a window, to be read instead; `failed` if it is one millisecond long."""
    middle = (window.start + window.end) // 2
    if middle == window.start:
        return failed
    windows = (Window(window.start, middle), Window(middle, window.end))
    return Divide(windows, failed.reason, most, code=failed.code)


class Checked(NamedTuple):
    """A page that passed all checks, its rows as sent, and the order of its close times if they show one."""

    view: coverage.PageView
    rows: Sequence[Segment]
    order: coverage.Order | None


def checked(
    answer: PageAnswer,
    fetched: Window,
    offset: int,
    limit: int,
    *,
    whole: Window | None = None,
    prefix: bool = False,
) -> Checked:
    """Check the page at an offset of a time frame, which is (part of) the window `whole`. Raises PageFaultError.

    A prefix is the newest part of a window, taken from a page of another query whose count is not the window's.
    """
    whole = whole or fetched
    rows = answer.page.segments
    count = None if prefix else answer.page.pagination.count
    scanned = isinstance(rows, RawRows)
    times = times_of(rows)
    full = len(rows) >= limit or (not rows and offset > 0)  # nor does an empty page beyond the count show more
    view = coverage.PageView(fetched.end, offset, count, keys_of(rows), times, scanned, fetched.start, full)
    if fault := coverage.check_page(view, start=fetched.start, limit=limit):
        raise _explained(fault, answer.page, whole, offset=offset, limit=limit)
    if distinct([keys_of(rows)]) < len(rows) and (twice := _with_two_contents(rows)) is not None:
        message = f"the page at offset {offset} has two different rows of segmentId {printable(twice, 80)!r}"
        raise PageFaultError(message, inconsistent(message))  # divided, each row would be complete beside the other
    if not prefix:
        _check_frame(answer, fetched, whole)
    if scanned:
        order: coverage.Order | None = "descending" if rows and times[0] > times[-1] else None
    else:
        order = coverage.order_of(times)
    return Checked(view, rows, order)


def _explained(fault: str, page: SegmentPage, whole: Window, *, offset: int, limit: int) -> PageFaultError:
    """Return the fault and its remedy for a page whose rows do not match its count, order or time frame."""
    rows, count = len(page.segments), page.pagination.count
    due = max(0, min(limit, count - offset))
    if rows > due and offset + rows > count and (rows == limit or goes_on(page)):
        return PageFaultError(f"{fault}; there are more rows than the count", capped(whole, count), cap=count)
    return PageFaultError(fault, short=rows if 0 < rows < due and offset == 0 else None)


def capped(whole: Window, count: int) -> Divide | Failed:
    """Return the remedy for a count at which the server stops counting: windows with fewer segments."""
    return halves(whole, inconsistent(f"the server counts no further than {count}, and there are more segments"))


def leads_on(answer: PageAnswer, offset: int) -> bool | None:
    """Return True if the page to which a link on the last page leads holds rows beyond the count; None if the count has
    changed since, which makes the result meaningless.
    """
    rows, due = len(answer.page.segments), max(0, answer.page.pagination.count - offset)
    if rows > due:
        return True
    return False if rows == due <= 1 else None


def _with_two_contents(rows: Sequence[Segment]) -> str | None:
    seen: dict[str, Segment] = {}
    return next((row.segmentId for row in rows if seen.setdefault(row.segmentId, row) != row), None)


def _check_frame(answer: PageAnswer, fetched: Window, whole: Window) -> None:
    """Check that the server answers for all of the requested time frame; answering for a wider one is no fault."""
    if answer.page.timeframe is None:
        return
    start, end = _frame(answer.page.timeframe)
    starts_late = start is not None and start > fetched.start and not _is_rounded(start, fetched.start)
    ends_early = end is not None and end < fetched.end and not _is_rounded(end, fetched.end)
    if ends_early and end is not None and end >= answer.at_ms - NOW_TOLERANCE_MS:
        ends_early = False  # cut at the server's current time: there is nothing after it
    if not (starts_late or ends_early):
        return
    first = start if starts_late and start is not None else fetched.start
    last = end if ends_early and end is not None else fetched.end
    message = f"the server answers for {_shown(first)} to {_shown(last)}, but was asked for {fetched}"
    cuts = sorted({cut for cut in (first, last) if whole.start < cut < whole.end})
    if not cuts or first >= last:
        raise PageFaultError(message, inconsistent(message))
    edges = [whole.start, *cuts, whole.end]
    parts = tuple(Window(*pair) for pair in pairwise(edges))
    raise PageFaultError(message, Divide(parts, message, code=InconsistentError.code))


def _frame(timeframe: Timeframe) -> tuple[int | None, int | None]:
    return (
        _moment(timeframe.startTimeL, timeframe.startTime),
        _moment(timeframe.endTimeL, timeframe.endTime),
    )


def _moment(millis: int | str | None, text: str | None) -> int | None:
    """Return a bound of a time frame, epoch milliseconds; None if it is missing or in an unknown form."""
    try:
        if millis is not None:
            return int(millis)
        return None if text is None else to_ms(datetime.fromisoformat(text.upper()))
    except (ValueError, TypeError, OverflowError):
        return None


def _is_rounded(echoed: int, asked: int) -> bool:
    """Return True if a bound was echoed rounded to the second."""
    return echoed % 1000 == 0 and abs(echoed - asked) < 1000


def _shown(ms: int) -> str:
    try:
        return format_time(ms)
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
