"""Pages ready to send: rendered, compressed, damaged by a content fault, cached for the next request."""

import gzip
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from segment_fetch.simulator.answers import JSON, Answer
from segment_fetch.simulator.faults import Fault
from segment_fetch.simulator.overlay import Row
from segment_fetch.simulator.pages import page_body
from segment_fetch.simulator.population import Page, Population
from segment_fetch.simulator.query import SegmentQuery
from segment_fetch.simulator.rows import RowWriter

PageKey = tuple[SegmentQuery, int, bool]
"""A query, the version of the population, and True if the body is compressed."""

_PAGE_FAULTS = (Fault.SHORT_PAGE, Fault.STALE_COUNT, Fault.BAD_JSON)
_HUGE_MIB = 66


class PageAnswer(NamedTuple):
    """An answer with a page, and its number of rows."""

    answer: Answer
    rows: int


class PreparedPages:
    """Cache of answers, limited to a number of bytes; the oldest is evicted first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._answers: OrderedDict[PageKey, PageAnswer] = OrderedDict()

    def get(self, key: PageKey) -> PageAnswer | None:
        """Return the cached answer to a query, or None."""
        return self._answers.get(key)

    def keep(self, key: PageKey, answer: PageAnswer) -> None:
        """Cache an answer."""
        former = self._answers.pop(key, None)
        self._answers[key] = answer
        self._bytes += len(answer.answer.body) - (len(former.answer.body) if former else 0)
        while self._bytes > self._most:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= len(oldest.answer.body)


class PreparedRows:
    """Cache of rendered rows, shared by overlapping pages; once it is full, new rows are rendered each time."""

    def __init__(self, writer: RowWriter, most_bytes: int) -> None:
        self._writer = writer
        self._room = most_bytes
        self._texts: dict[Row, bytes] = {}

    def render(self, rows: Sequence[Row]) -> list[bytes]:
        """Return the JSON of each row."""
        texts = self._texts
        if self._room > 0:
            missing = [row for row in rows if row not in texts]
            fresh = self._writer.render((number, close) for close, number in missing)
            texts.update(zip(missing, fresh, strict=True))
            self._room -= sum(map(len, fresh))
        return [texts.get(row) or self._writer.row(row[1], row[0]) for row in rows]


class PageRenderer:
    """Renders pages, intact or damaged by a fault, in gzip if requested.

    It caches whole pages, or single rows if the segments change, because then hardly any page is repeated.
    """

    def __init__(self, population: Population, writer: RowWriter, keep_bytes: int) -> None:
        self.url = ""
        self._population = population
        repeatable = population.is_repeatable
        self._prepared = PreparedPages(keep_bytes) if keep_bytes and repeatable else None
        self._rows = PreparedRows(writer, 0 if repeatable else keep_bytes)

    def answer(self, query: SegmentQuery, request: int, fault: Fault | None, *, gzipped: bool) -> PageAnswer:
        """Return the answer to a query; `request` is the number of the request."""
        if fault is Fault.HUGE:
            return _page_answer(huge_body(gzipped), gzipped, 0)
        if fault in _PAGE_FAULTS:
            return self._spoiled(query, self._population.page(query, request), fault, gzipped)
        if self._prepared is None or not query.fixed:
            return self._right(query, self._population.page(query, request), gzipped)
        return self._kept(self._prepared, query, request, gzipped)

    def _kept(self, prepared: PreparedPages, query: SegmentQuery, request: int, gzipped: bool) -> PageAnswer:
        answer = prepared.get((query, self._population.mark(), gzipped))
        if answer is None:
            page = self._population.page(query, request)
            answer = self._right(query, page, gzipped)
            prepared.keep((query, page.version, gzipped), answer)
        return answer

    def _right(self, query: SegmentQuery, page: Page, gzipped: bool) -> PageAnswer:
        body = self._rendered(query, page.rows, page.total)
        return _page_answer(compressed(body) if gzipped else body, gzipped, len(page.rows))

    def _spoiled(self, query: SegmentQuery, page: Page, fault: Fault | None, gzipped: bool) -> PageAnswer:
        rows, total = page.rows, page.total
        if fault is Fault.SHORT_PAGE:
            rows = rows[: len(rows) * 2 // 3]
        if fault is Fault.STALE_COUNT:
            total = total - 1 if total else 1
        body = self._rendered(query, rows, total)
        if fault is Fault.BAD_JSON:
            body = body[: len(body) // 2] + b"}"
        return _page_answer(compressed(body) if gzipped else body, gzipped, len(rows))

    def _rendered(self, query: SegmentQuery, rows: list[Row], count: int) -> bytes:
        return page_body(query, self._rows.render(rows), count, url=self.url)


def _page_answer(body: bytes, gzipped: bool, rows: int) -> PageAnswer:
    headers = {"Content-Type": JSON, **({"Content-Encoding": "gzip"} if gzipped else {})}
    return PageAnswer(Answer(200, body, headers), rows)


@cache
def huge_body(gzipped: bool) -> bytes:
    """Return a page of more than 64 MiB, nearly all of it white space; about 300 KB in gzip."""
    packer = zlib.compressobj(1, wbits=31)
    pieces = [b'{"segments":[', *[b" " * 2**20] * _HUGE_MIB, b'],"pagination":{"count":0,"references":[]}}']
    if not gzipped:
        return b"".join(pieces)
    return b"".join(map(packer.compress, pieces)) + packer.flush()


def compressed(body: bytes) -> bytes:
    """Return the body in gzip, compressed as fast as possible."""
    return gzip.compress(body, compresslevel=1, mtime=0)
