"""The reader of one window, from its first request to its proof. No I/O: page requests out, answers in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct, structs

from segment_fetch.errors import RequestRefusedError, SchemaError, SegmentFetchError
from segment_fetch.events import Event, Status, WindowReread
from segment_fetch.query import Window
from segment_fetch.timerange import SETTLE_AFTER_MS, settled_before
from segment_fetch.windows import coverage, page_checks
from segment_fetch.windows.isolation import Isolation
from segment_fetch.windows.live_pass import LivePass
from segment_fetch.windows.page_checks import Checked, Divide, PageFaultError, Remedy, Shrink
from segment_fetch.windows.pass_protocol import Failed, Fetch, More, Page, Proven
from segment_fetch.windows.server_traits import MAX_FAULTY_WINDOWS, ServerTraits, goes_on
from segment_fetch.windows.settled_pass import SettledPass
from segment_fetch.wire.models import Part, Segment
from segment_fetch.wire.pages import EQUAL_FAULTS, PageAnswer, PageRequest, new_fields
from segment_fetch.wire.raw_rows import times_of

Part_contra = TypeVar("Part_contra", contravariant=True)

MAX_PASSES = 6
"""Maximum number of passes over one window: a settled one, a live one, and some that keep all of their pages."""

MAX_MOVED_FAULTS = 40
"""Number of different faults of one page after which its window is given up."""


class Outlet(Protocol[Part_contra]):
    """Receives the parts of a window as they become ready, in order, before the window is proven."""

    def put(self, window: Window, parts: Sequence[Part_contra]) -> None:
        """Take the next parts. They count once the window is proven; its `WindowRead` then holds the remaining ones."""

    def withdraw(self, window: Window) -> None:
        """Drop the parts of the window: it is read again, or given up."""


class WindowRead(Struct, Generic[Part]):
    """The result of reading a window. `parts` are its encoded segments, in order; none if it is unproven, and without
    those that an `Outlet` has taken.

    `count` is the number that the API reported, segments on a shared boundary included; `segments` is the number that
    the window owns, `duplicates` that of rows left out because the same id came later with other content. `pages` is
    the number of pages in the proof; `keys` stand for the ids. `read_at` is the earlier of the server's clock and the
    local one, epoch milliseconds. `code` is the code of the error that caused `reason`, if any.
    """

    window: Window
    status: Status
    parts: list[Part]
    count: int
    segments: int
    duplicates: int
    pages: int
    requests: int
    read_at: int
    unknown_fields: tuple[str, ...]
    reason: str | None = None
    keys: Sequence[Any] = ()
    code: str | None = None


class WindowRequest(PageRequest, Generic[Part], frozen=True):
    """A page request of a window's reader."""

    reader: WindowReader[Part]
    fetch: Fetch

    @property
    def most_faults(self) -> int:
        return EQUAL_FAULTS if self.fetch.limit is None or self.reader.confirms else 1


class WindowReader(Generic[Part]):
    """Reads one window until its pages prove it, or cannot.

    A settled window is read with a settled pass. If it changes, or is not settled yet, it is read with a live pass; and
    once more, in the rare case that pages which were joined prove inconsistent. `newest` is a page already read, of a
    larger query, that holds the newest segments of the window. `part_of` is the planned window that it is part of, if
    that was divided.
    """

    def __init__(
        self,
        window: Window,
        limit: int,
        encode: Callable[[Sequence[Segment]], Part],
        *,
        tell: Callable[[Event], None],
        traits: ServerTraits | None = None,
        newest: PageAnswer | None = None,
        divided: bool = False,
        outlet: Outlet[Part] | None = None,
        settle_after_ms: int = SETTLE_AFTER_MS,
        part_of: Window | None = None,
    ) -> None:
        self.window = window
        self._part_of = part_of or window
        self._settle_after_ms = settle_after_ms
        self.traits = traits or ServerTraits()
        self.limit = min(limit, self.traits.page_limit or limit)
        self.requests = 0
        self.count: int | None = None
        self.divided = divided or newest is not None
        self._encode = encode
        self._tell = tell
        self._outlet = outlet
        self._unknown: set[str] = set()
        self._pages = self._passes = 0
        self._began = 0
        self._pass: LivePass[Part] | None = None
        self._conflicts: frozenset[str] | None = None
        self._order: coverage.Order = self.traits.order or "descending"
        self._knows_order = False
        self._todo: deque[Fetch] = deque()
        self._wanted: set[Fetch] = set()
        self._faults: Counter[tuple[Window, int, str]] = Counter()
        self._verdict: Remedy | None = None
        self._isolation: Isolation | None = None
        self._doubtful_link: Fetch | None = None
        self._probing = False
        if newest is None:
            self._ask([Fetch(window)])
        else:
            self.requests = 1
            self._hold(Fetch(window), newest, page_checks.checked(newest, window, 0, self.limit, prefix=True))
            self.advance()

    def _ask(self, fetches: Iterable[Fetch]) -> None:
        self._todo.extend(fetches)
        self._wanted.update(self._todo)

    @property
    def has_next(self) -> bool:
        """True if there is a page to request."""
        return bool(self._todo)

    @property
    def is_decided(self) -> bool:
        """True if it is known that the window cannot be read in its present form."""
        return self._verdict is not None

    @property
    def confirms(self) -> bool:
        """True if the page in flight decides which row breaks its page."""
        return self._isolation is not None and self._isolation.confirms

    def next(self) -> WindowRequest[Part]:
        """Return the next page to request."""
        fetch = self._todo.popleft()
        self.requests += 1
        return WindowRequest(fetch.window, fetch.offset, fetch.limit or self.limit, self, fetch)

    def wants(self, request: WindowRequest[Part]) -> bool:
        """Return True if a page is still needed and has not arrived yet."""
        return request.fetch in self._wanted

    def answered(self, request: WindowRequest[Part], answer: PageAnswer) -> bool:
        """Take a page. Return True if it was accepted. Raises TransientError if it contradicts itself and must be
        requested again.
        """
        fetch, begins = request.fetch, self._pass is None
        if self._isolation is not None:
            self._look_at(self._isolation, fetch, answer)
            return False
        try:
            if fetch.probe:
                self._probed(page_checks.leads_on(answer, fetch.offset))
                return True
            page = page_checks.checked(answer, fetch.window, fetch.offset, self.limit, whole=self.window)
            futile = self._hold(fetch, answer, page)
        except PageFaultError as fault:
            self._note(fetch, fault)
            return False
        self._wanted.discard(fetch)
        if begins or self.count is None:
            self.count = answer.page.pagination.count
            if self.traits.count_cap is not None and self.count >= self.traits.count_cap:
                self._verdict = page_checks.capped(self.window, self.count)
            elif self.traits.reach is not None and self.count > self.traits.reach:
                self._verdict = self._out_of_reach(self.traits.reach)
        self.traits.largest_page = max(self.traits.largest_page, len(page.rows))
        self._look_behind(fetch, answer)
        if futile is not None:
            self._start_over(futile)
        return True

    def _look_behind(self, fetch: Fetch, answer: PageAnswer) -> None:
        """Note a link to a next page on a page that is the last by its count: there may be more rows than counted."""
        count, rows = answer.page.pagination.count, len(answer.page.segments)
        if fetch.tie is None and rows and fetch.offset + rows >= count and goes_on(answer.page):
            self._doubtful_link = Fetch(fetch.window, count - 1, probe=True)

    def _note(self, fetch: Fetch, fault: PageFaultError) -> None:
        """Raise a fault, so that the page is retried; after several, stop retrying and apply the fault's remedy."""
        self._faults[key := (fetch.window, fetch.offset, fault.message)] += 1
        total = sum(times for (window, offset, _), times in self._faults.items() if (window, offset) == key[:2])
        if self._faults[key] < EQUAL_FAULTS and total < MAX_MOVED_FAULTS:
            raise fault
        remedy = fault.remedy
        self.traits.count_cap = fault.cap or self.traits.count_cap
        if fault.short is not None and self.traits.is_page_limit(fault.short, self.window):
            remedy = Shrink(fault.short)
        if remedy is None:
            self._isolate(fetch, fault.message, fault.failed)
        else:
            self._todo.clear()
            self._wanted.clear()
            self._verdict = remedy

    def _isolate(self, fetch: Fetch, fault: str, failed: Failed) -> None:
        """Find the place of a fault that recurs, so that everything else can be read."""
        self._todo.clear()
        self._wanted.clear()
        if not self.traits.may_isolate(fault, self._part_of):
            self._verdict = structs.replace(failed, reason=f"{failed.reason}; as in {MAX_FAULTY_WINDOWS} others")
        elif fetch.window == self.window and fetch.tie is None:
            self._isolation = Isolation(fetch, self.limit, failed, ascending=self._order == "ascending")
            self._ask([self._isolation.next])
        else:
            self._verdict = page_checks.halves(self.window, failed, page_checks.MAX_ISOLATING)

    def _look_at(self, isolation: Isolation, fetch: Fetch, answer: PageAnswer) -> None:
        """Take a smaller page, which shows where the fault is."""
        try:
            page_checks.checked(answer, fetch.window, fetch.offset, fetch.limit or self.limit, whole=self.window)
        except PageFaultError as fault:
            self._faults[key := (fetch.window, fetch.offset, f"alone: {fault.message}")] += 1
            if isolation.confirms and self._faults[key] < EQUAL_FAULTS:
                raise
            isolation.bad(fault.failed)
        else:
            isolation.good(times_of(answer.page.segments))
        self._go_on(isolation)

    def _go_on(self, isolation: Isolation) -> None:
        self._wanted.clear()
        self._verdict = isolation.result
        if self._verdict is None:
            self._ask([isolation.next])

    def _out_of_reach(self, reach: int) -> Divide | Failed:
        reason = f"the server refuses pages beyond {reach} rows, and there are more segments"
        return page_checks.halves(self.window, Failed(reason, code=RequestRefusedError.code))

    def _hold(self, fetch: Fetch, answer: PageAnswer, found: Checked) -> str | None:
        if found.order is not None and (futile := self._ordered(found.order)) is not None:
            return futile
        if self._pass is None:
            self._began = answer.at_ms
            self._pass = self._first_pass()
        page = Page(found.view, found.rows, self._pages)
        is_part = found.view.is_full or len(found.rows) < (found.view.count or 0)
        if self.traits.order is None and is_part and found.view.count is not None:
            # all of its rows close in one millisecond, which does not show whether the others are older or newer
            self._pass.unordered_at = found.view.times[0] if found.rows else self._pass.unordered_at
            page = page._replace(view=structs.replace(found.view, offset=max(1, found.view.offset), is_full=True))
        if self._order == "ascending" and found.view.count is not None:
            page = Page(coverage.newest_first(found.view), found.rows[::-1], self._pages)
        futile = self._pass.take(fetch, page)
        self._pages += 1
        self._unknown |= new_fields(answer.page)
        if self._outlet and futile is None and (parts := self._pass.ready()):
            self._outlet.put(self.window, parts)
        return futile

    def _ordered(self, order: coverage.Order) -> str | None:
        """Note the order of a page. The first page of a window that shows one decides; all others must agree."""
        if order != self._order:
            if self._knows_order:
                raise PageFaultError(f"its pages are sorted in both directions: this one is {order}")
            self._order, self._knows_order, self.traits.order = order, True, order
            return None if self._pass is None else f"it is sorted in {order} order"
        self._knows_order = True
        self.traits.order = order
        return None

    def refused(self, request: WindowRequest[Part], error: SegmentFetchError) -> bool:
        """Handle a page that could not be fetched. Return True if reading continues without it."""
        fetch = request.fetch
        failed = Failed(str(error), code=error.code)
        match error:
            case SchemaError() if self._isolation is not None:
                self._isolation.bad(failed)
                self._go_on(self._isolation)
            case SchemaError():
                self._isolate(fetch, error.path, failed)
            case RequestRefusedError() if fetch.probe:
                self._probed(leads_on=True)  # a refused page beyond the count shows that there are rows
            case RequestRefusedError() if (limit := error.page_limit(request.limit)) is not None:
                self._verdict = Shrink(limit)
            case RequestRefusedError(status=400) if fetch.offset > 0 and self._isolation is None:
                reach = self.traits.reach = min(self.traits.reach or fetch.offset, fetch.offset)
                self._todo.clear()
                self._wanted.clear()
                self._verdict = self._out_of_reach(reach)
            case _:
                return False
        return True

    def _probed(self, leads_on: bool | None) -> None:
        self._wanted.clear()
        self._end_probe()
        self._doubtful_link = None
        if leads_on is False:
            self.traits.links_mean_nothing = True
        elif leads_on:
            self.traits.count_cap = self.count
            self._verdict = page_checks.capped(self.window, self.count or 0)

    def _end_probe(self) -> None:
        if self._probing:
            self._probing = self.traits.is_probing = False

    @property
    def waits(self) -> bool:
        """True if all pages have arrived and the outcome depends on another window's probe."""
        return self._pass is not None and not self._wanted and not self._probing

    def _withdraw(self) -> None:
        if self._outlet:
            self._outlet.withdraw(self.window)

    @property
    def _settled(self) -> bool:
        return self.window.end <= settled_before(self._began, self._settle_after_ms)

    def _first_pass(self) -> LivePass[Part]:
        self._passes += 1
        if self._settled and self._passes == 1:
            return SettledPass(self.window, self.limit, self._encode, order=self._order)
        joins = self._passes <= 1 + self._settled
        return LivePass(
            self.window, self.limit, self._encode, order=self._order, joins=joins, conflicts=self._conflicts
        )

    def _start_over(self, reason: str) -> None:
        """Read the window again, in another way. Requests still in flight are ignored."""
        self._tell(WindowReread(self.window, self._passes, reason))
        self._withdraw()
        self._todo.clear()
        self._wanted.clear()
        self._pass = None
        self._pages = 0
        self._ask([Fetch(self.window)])

    def advance(self) -> WindowRead[Part] | Divide | None:
        """Return the result of the window, the windows to read in its place, or None while pages are still to be
        requested.
        """
        match self._verdict:
            case Failed():
                return self.unproven(self._verdict)
            case Divide():
                self._withdraw()
                return self._verdict
            case Shrink(limit):
                self._verdict = None
                self.limit = self.traits.page_limit = limit
                self._start_over(f"the server puts at most {limit} rows on a page")
        if self._wanted or self._pass is None or self._must_probe():
            return None
        match self._pass.advance():
            case More(fetches):
                self._ask(fetches)
            case Proven() as proven:
                return self._result("complete" if self._settled else "provisional", proven)
            case Failed(again=True) as failed if self._passes < MAX_PASSES:
                self._conflicts = failed.conflicts or self._conflicts
                self._start_over(failed.reason)
            case Failed() as failed:
                return self.unproven(failed)
        return None

    def _must_probe(self) -> bool:
        """Return True while a `next` link on the last page keeps the window from being proven. One window of a run at a
        time follows such a link; the others wait for the result.
        """
        if self._doubtful_link is None or self.traits.links_mean_nothing:
            return False
        if not self.traits.is_probing:
            self._probing = self.traits.is_probing = True
            self._ask([self._doubtful_link])
        return True

    def unproven(self, failed: Failed) -> WindowRead[Part]:
        """Give the window up; nothing more is requested."""
        self._end_probe()
        self._withdraw()
        self._todo.clear()
        self._wanted.clear()
        return self._result("unproven", Proven([], 0), failed)

    def _result(self, status: Status, proven: Proven[Part], failed: Failed | None = None) -> WindowRead[Part]:
        return WindowRead(
            window=self.window,
            status=status,
            parts=proven.parts,
            count=self.count or 0,
            segments=proven.segments,
            duplicates=proven.duplicates,
            pages=self._pages,
            requests=self.requests,
            read_at=self._began,
            unknown_fields=tuple(sorted(self._unknown)),
            reason=None if failed is None else failed.reason,
            keys=proven.keys,
            code=None if failed is None else failed.code,
        )
