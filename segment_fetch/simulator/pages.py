"""The body of a segments answer: time frame, rows, count and links."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlencode

import orjson

from segment_fetch.simulator.query import SegmentQuery
from segment_fetch.simulator.rows import utc_text


def page_body(query: SegmentQuery, rows: Iterable[bytes], count: int, *, url: str) -> bytes:
    """Return the JSON of a page with these rows and this total count; `url` is the address of the endpoint."""
    frame = orjson.dumps(_time_frame(query))
    pagination = orjson.dumps({"count": count, "references": _references(query, count, url)})
    return b'{"timeframe":%b,"segments":[%b],"pagination":%b}' % (frame, b",".join(rows), pagination)


def _time_frame(query: SegmentQuery) -> dict[str, str | int]:
    start_offset, end_offset = query.offsets
    return {
        "startTime": _local_text(query.start, start_offset),
        "endTime": _local_text(query.end, end_offset),
        "startTimeL": query.start,
        "endTimeL": query.end,
    }


def _local_text(instant: int, offset_minutes: int) -> str:
    if not offset_minutes:
        return utc_text(instant)
    zone = timezone(timedelta(minutes=offset_minutes))
    moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=instant)
    return moment.astimezone(zone).isoformat(timespec="milliseconds")


def _references(query: SegmentQuery, count: int, url: str) -> list[dict[str, str]]:
    """Return the links self, next, previous, last and first; next and previous only if there is such a page."""
    limit, offset = query.limit, query.offset
    last = max(count - 1, 0) // limit * limit
    pages = {"self": (offset, limit)}
    if offset + limit < count:
        pages["next"] = (offset + limit, limit)
    if offset > 0:
        pages["previous"] = (max(offset - limit, 0), min(limit, offset))
    pages["last"] = (last, max(min(limit, count - last), 1))
    pages["first"] = (0, limit)
    return [{"rel": rel, "href": f"{url}?{_link(query, *page)}"} for rel, page in pages.items()]


def _link(query: SegmentQuery, offset: int, limit: int) -> str:
    own = (("offset", offset), ("limit", limit), ("source", query.source))
    order = () if query.sort == "Date" else (("sort", query.sort),)
    return urlencode((*query.echo, *own, *order, ("sortType", query.sort.upper())))
