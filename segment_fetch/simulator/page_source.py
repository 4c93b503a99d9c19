"""Pages ready to send: rendered, compressed, spoiled by a fault of the content, kept for the next time."""

import gzip
import zlib
from collections import OrderedDict
from functools import cache

from segment_fetch.simulator.answers import JSON, Answer
from segment_fetch.simulator.faults import Fault
from segment_fetch.simulator.overlay import Row
from segment_fetch.simulator.pages import page_body
from segment_fetch.simulator.population import Page, Population
from segment_fetch.simulator.query import SegmentQuery
from segment_fetch.simulator.rows import RowWriter

PageKey = tuple[SegmentQuery, int, bool]
"""A query, the version of the population, and whether the body is compressed."""

_PAGE_FAULTS = (Fault.SHORT_PAGE, Fault.STALE_COUNT, Fault.BAD_JSON)
_HUGE_MIB = 66


class PageSource:
    """Renders pages, right ones and spoiled ones, in gzip if asked for."""

    def __init__(self, population: Population, writer: RowWriter, keep_bytes: int) -> None:
        self.url = ""
        self._population = population
        self._writer = writer
        self._prepared = PreparedPages(keep_bytes) if keep_bytes else None

    def answer(self, query: SegmentQuery, request: int, fault: Fault | None, *, gzipped: bool) -> tuple[Answer, int]:
        """The answer to a query, and how many rows it has; `request` is the number of the request."""
        if fault is Fault.HUGE:
            return _page_answer(huge_body(gzipped), gzipped=gzipped), 0
        page = self._population.page(query, request)
        if fault in _PAGE_FAULTS:
            body, rows = self._spoiled(query, page, fault)
            return _page_answer(compressed(body) if gzipped else body, gzipped=gzipped), rows
        return _page_answer(self._body(query, page, gzipped), gzipped=gzipped), len(page.rows)

    def _body(self, query: SegmentQuery, page: Page, gzipped: bool) -> bytes:
        key = (query, page.version, gzipped)
        keep = self._prepared if query.fixed else None
        body = keep.get(key) if keep else None
        if body is None:
            body = self._rendered(query, page.rows, page.total)
            body = compressed(body) if gzipped else body
            if keep:
                keep.keep(key, body)
        return body

    def _spoiled(self, query: SegmentQuery, page: Page, fault: Fault | None) -> tuple[bytes, int]:
        rows, count = page.rows, page.total
        if fault is Fault.SHORT_PAGE:
            rows = rows[: len(rows) * 2 // 3]
        if fault is Fault.STALE_COUNT:
            count = count - 1 if count else 1
        body = self._rendered(query, rows, count)
        if fault is Fault.BAD_JSON:
            body = body[: len(body) // 2] + b"}"
        return body, len(rows)

    def _rendered(self, query: SegmentQuery, rows: list[Row], count: int) -> bytes:
        return page_body(query, rows, count, writer=self._writer, url=self.url)


def _page_answer(body: bytes, *, gzipped: bool) -> Answer:
    return Answer(200, body, {"Content-Type": JSON, **({"Content-Encoding": "gzip"} if gzipped else {})})


@cache
def huge_body(gzipped: bool) -> bytes:
    """A page of more than 64 MiB, nearly all of it white space; about 300 KB in gzip."""
    packer = zlib.compressobj(1, wbits=31)
    pieces = [b'{"segments":[', *[b" " * 2**20] * _HUGE_MIB, b'],"pagination":{"count":0,"references":[]}}']
    if not gzipped:
        return b"".join(pieces)
    return b"".join(map(packer.compress, pieces)) + packer.flush()


def compressed(body: bytes) -> bytes:
    """The body in gzip, as quick as possible."""
    return gzip.compress(body, compresslevel=1, mtime=0)


class PreparedPages:
    """Bodies kept for requests that come again, up to a number of bytes; the oldest goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._bodies: OrderedDict[PageKey, bytes] = OrderedDict()

    def get(self, key: PageKey) -> bytes | None:
        """The body of a page, if it is kept."""
        return self._bodies.get(key)

    def keep(self, key: PageKey, body: bytes) -> None:
        """Keep a body that is not kept yet."""
        self._bodies[key] = body
        self._bytes += len(body)
        while self._bytes > self._most:
            _, oldest = self._bodies.popitem(last=False)
            self._bytes -= len(oldest)
