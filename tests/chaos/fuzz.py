"""Gives the decoder answers that were changed at random, and holds what it makes of them against a second opinion.

    python -m tests.chaos.fuzz --answers 5000000

An answer may end in a page or in one of the library's own errors, and in nothing else. A page is accepted only if
Python's own `json` reads the same segments from it, each with an id, a close time, and the documented types. Answers
that ever went wrong are kept in `tests/data/corpus` and tried first.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from segment_fetch.api.responses import raise_for_status, server_time
from segment_fetch.errors import SegmentFetchError
from segment_fetch.query import Window
from segment_fetch.sinks import Csv, JsonLines
from segment_fetch.windows.merge import in_order
from segment_fetch.windows.page_checks import checked
from segment_fetch.wire.models import SegmentPage
from segment_fetch.wire.pages import PageAnswer, decode_page, read_page
from segment_fetch.wire.raw_rows import RawRows

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
WINDOW = Window(1_652_389_200_000, 1_652_396_400_000)
TYPES: dict[str, type] = {
    "segmentId": str,
    "startTimeL": int,
    "endTimeL": int,
    "conversationId": str,
    "agentId": int,
    "employeeId": str,
    "skillId": int,
    "groupId": int,
    "endReason": str,
    "totalHandleTimeMillis": int,
    "endTime": str,
    "startTime": str,
}
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e400, -0.0, 2**53, 2**63, 2**64, 10**30, "", "x", "\u0000", "\U0001f600"),
    *("1652391099022", [], {}, [[]], {"a": 1}, [None], "\ud83d\ude00", "é" * 300),
)
HEADERS = ("Retry-After", "Date", "Content-Type")
VALUES = ("", "1", "-1", "1e9", "²", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo 2015", "0", " 5 ", "\x00")
_COMPACT = (",", ":")
STATUSES = (200, 200, 200, 200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 500, 503, 999)


def seeds() -> list[bytes]:
    """Pages that are valid: what the mutations start from."""
    row = {
        "segmentId": "111111:1224046030:f468270d",
        "startTimeL": 1652371219517,
        "endTimeL": 1652391099022,
        "conversationId": "fdcc34c7-50f6",
        "agentId": 123456,
        "employeeId": "abcd\u00e9123",
        "skillId": 146473456,
        "groupId": None,
        "endReason": "backToQueue",
        "totalHandleTimeMillis": 7248915,
        "endTime": "2022-05-12T21:31:39.022Z",
    }
    other = {"segmentId": 'b"\\', "endTimeL": 1652391099000, "newField": {"deep": [1, 2.5, "x"]}}
    timeframe = {"startTimeL": WINDOW.start, "endTimeL": WINDOW.end, "startTime": "2022-05-13T00:00:00+03:00"}
    pages: list[dict[str, Any]] = [
        {"timeframe": timeframe, "segments": [row, other], "pagination": {"count": 2, "references": []}},
        {"segments": [row] * 3, "pagination": {"count": 3, "references": [{"rel": "self", "href": "https://x/?a=1"}]}},
        {"segments": [], "pagination": {"count": 0}},
    ]
    errors = [{"causes": ["limit: must be less"], "message": "bad"}, {"internalCode": 7, "message": "oops"}]
    plain = {"timeframe": timeframe, "segments": [row, {**row, "segmentId": "a"}], "pagination": {"count": 2}}
    compact = [json.dumps(page, separators=_COMPACT, ensure_ascii=False).encode() for page in [plain, plain, pages[1]]]
    return [*(json.dumps(page).encode() for page in [*pages, *errors]), *compact]


def _spots(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that can be changed: the container and the key or index."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(item, (dict, list)):
            _spots(item, found)
    return found


def change_structure(body: bytes, chance: random.Random) -> bytes:
    """One to three values replaced, keys removed, added, renamed or given twice."""
    value = json.loads(body)
    for _ in range(chance.randint(1, 3)):
        spots = _spots(value, [])
        if not spots:
            break
        container, key = chance.choice(spots)
        if isinstance(container, dict) and chance.random() < 0.3:
            moved = container.pop(key)
            container[chance.choice([*TYPES, "segments", "extras", "count", ""])] = moved
        elif chance.random() < 0.2:
            del container[key]
        else:
            container[key] = deepcopy(chance.choice(ODD))
    written = json.dumps(value, ensure_ascii=chance.random() < 0.5, separators=chance.choice((None, _COMPACT)))
    return written.encode("utf-8", "surrogatepass")


def change_bytes(body: bytes, chance: random.Random) -> bytes:
    """One to four bytes changed, pieces cut out, copied, or put in."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data[at:at] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at : at + 1] = bytes([chance.choice(b'{}[]",:\\0-.eE \n\x00\xff')])
            case 3:
                data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randint(1, 40)]
            case _:
                del data[at : at + (len(data) if chance.random() < 0.2 else 1)]
    return bytes(data)


def mutations(seed: int) -> Iterator[tuple[int, dict[str, str], bytes]]:
    """Answers without end: status, headers, body."""
    chance = random.Random(seed)
    bodies = seeds()
    while True:
        body = chance.choice(bodies)
        kind = chance.random()
        if kind < 0.55:
            body = change_structure(body, chance)
        if kind > 0.45:
            body = change_bytes(body, chance)
        headers = {name: chance.choice(VALUES) for name in HEADERS if chance.random() < 0.3}
        yield chance.choice(STATUSES), headers, body


def accept(status: int, headers: dict[str, str], body: bytes) -> SegmentPage | None:
    """Return the client's result for an answer: a page, None for an error of its own. Anything else passes through."""
    try:
        raise_for_status(status, headers, body, 1_652_400_000_000)
        page = read_page(body)
        server_time(headers)
        checked(PageAnswer(page, 0), WINDOW, 0, 500)
    except SegmentFetchError as error:
        str(error)
        return None
    JsonLines().encode(page.segments)
    Csv(safe=True).encode(page.segments)
    return page


def objection(page: SegmentPage, body: bytes) -> str | None:
    """Return the reason why a page should not have been accepted, found in another way."""
    try:
        answer = json.loads(body.decode("utf-8", "replace"))
        rows, count = answer["segments"], answer["pagination"]["count"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"not a page: {error!r}"
    if type(count) is not int or len(rows) != min(500, count):
        return f"{len(rows)} rows by a count of {count!r}"
    if isinstance(page.segments, RawRows):
        rows.sort(key=lambda row: (row["endTimeL"], row["segmentId"]), reverse=True)
        if fault := _other_road(page.segments, body):
            return fault
    lines = [json.loads(line) for line in JsonLines().encode(page.segments).splitlines()]
    for row, line in zip(rows, lines, strict=True):
        if line != row:
            return f"{row!r} became {line!r}"
        if fault := _row_fault(row):
            return fault
    return None


def _other_road(lines: RawRows, body: bytes) -> str | None:
    """Return the differences between the fast path's lines and those of the decoded page."""
    segments = in_order(decode_page(body).segments[::-1])
    if bytes(lines.text) != JsonLines().encode(segments):
        return f"{bytes(lines.text)!r} are not its lines"
    times = [segment.endTimeL for segment in reversed(segments)]
    if list(lines.times) != times or lines.falling != (len(set(times)) == len(times)):
        return f"{list(lines.times)} are not its close times"
    return None


def _row_fault(row: dict[str, Any]) -> str | None:
    if type(row.get("segmentId")) is not str or type(row.get("endTimeL")) is not int:
        return f"no id or close time in {row!r}"
    for name, kind in TYPES.items():
        if row.get(name) is not None and type(row[name]) is not kind:
            return f"{name} of {row!r}"
    return None


def run(answers: int, seed: int, keep: Callable[[bytes], None]) -> tuple[Counter[str], list[str]]:
    """Tries so many answers. Returns how many were accepted and refused, and what went wrong."""
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    known = [(200, dict[str, str](), path.read_bytes()) for path in sorted(CORPUS.glob("*"))]
    source = mutations(seed)
    for number in range(answers):
        status, headers, body = known[number] if number < len(known) else next(source)
        try:
            page = accept(status, headers, body)
            fault = None if page is None else objection(page, body)
        except Exception as error:  # noqa: BLE001 - any other error is what this looks for
            page, fault = None, f"{error!r}"
        seen["accepted" if page is not None else "refused"] += 1
        seen["quick"] += page is not None and isinstance(page.segments, RawRows)
        if fault is not None:
            wrong.append(f"{fault} for {status} {headers} {body!r}")
            keep(body)
    return seen, wrong


def main() -> int:
    """Prints what was found, and keeps what went wrong in the corpus; exit code 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=5_000_000, help="answers to try")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    options = parser.parse_args()
    started, seed = time.monotonic(), options.seed or random.randrange(1, 2**31)

    def keep(body: bytes) -> None:
        CORPUS.mkdir(exist_ok=True)
        (CORPUS / f"{abs(hash(body)):016x}").write_bytes(body)

    seen, wrong = run(options.answers, seed, keep)
    for line in wrong[:20]:
        print(line)
    accepted = f"{seen['accepted']} accepted, of them {seen['quick']} on the fast path"
    refused = f"{seen['refused']} refused, {len(wrong)} wrong"
    print(f"seed {seed}: {accepted}, {refused}; {time.monotonic() - started:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
