"""The written order does not depend on how pages came or how ties were ordered in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.sinks import JsonLines
from segment_fetch.sinks.base import encoded
from segment_fetch.windows.merge import (
    EncodedPage,
    OrderedPage,
    PartJoiner,
    close_order,
    encode_page,
    in_order,
    ordered_page,
)
from segment_fetch.wire.models import Segment
from segment_fetch.wire.raw_rows import COMPILED, RawRows, scan_page


def encode(rows: Sequence[Segment]) -> list[Segment]:
    assert rows, "nothing is encoded that holds no row"
    return list(rows)


def sliced(rows: Sequence[Segment]) -> EncodedPage[list[Segment]]:
    return encode_page(rows, [row.endTimeL for row in rows], encode)


def join(
    pieces: Iterable[OrderedPage[list[Segment]]], more: Mapping[int, Mapping[str, Segment]]
) -> list[list[Segment]]:
    joiner = PartJoiner(encode)
    parts = [part for piece in pieces for part in joiner.add(piece, more)]
    made = [*parts, *joiner.end(more)]
    assert joiner.rows == sum(map(len, made))
    return made


def lines(rows: Sequence[Segment]) -> Sequence[Segment]:
    """The rows as the lines of a page; as they are where there is no scanner."""
    page = scan_page(msgspec.json.encode({"segments": rows, "pagination": {"count": len(rows)}})) if rows else None
    return page.segments if page else rows


def as_lines(rows: Sequence[Segment]) -> OrderedPage[list[Segment]]:
    return ordered_page(lines(rows), [row.endTimeL for row in rows], encode)


needs_the_scanner = pytest.mark.skipif(not COMPILED, reason="no C compiler was there")


@given(st.lists(st.integers(min_value=0, max_value=12), max_size=60), st.data())
def test_any_pages_join_to_the_one_order(closes: list[int], data: st.DataObject) -> None:
    rows = [Segment(segmentId=f"{at:02d}", endTimeL=close) for at, close in enumerate(closes)]
    shuffled = data.draw(st.permutations(rows))
    newest_first = sorted(shuffled, key=lambda row: -row.endTimeL)
    pages, at = [], 0
    while at < len(newest_first):
        size = data.draw(st.integers(min_value=1, max_value=9))
        pages.append(newest_first[at : at + size])
        at += size
    if data.draw(st.booleans()):
        pages.append([])
    pieces = [data.draw(st.sampled_from([sliced, as_lines]))(page) for page in reversed(pages)]
    parts = join(pieces, {})
    assert [row for part in parts for row in part] == sorted(rows, key=close_order) == in_order(rows)


def test_the_middle_of_a_page_is_encoded_at_once_and_only_its_edges_wait() -> None:
    rows = [
        Segment(segmentId=name, endTimeL=close) for close, name in [(9, "b"), (9, "a"), (7, "c"), (5, "e"), (5, "d")]
    ]
    made = sliced(rows)
    assert [row.segmentId for row in made.oldest] == ["d", "e"]
    assert [row.segmentId for row in made.middle or ()] == ["c"]
    assert [row.segmentId for row in made.newest] == ["a", "b"]


def test_a_page_of_one_millisecond_is_all_edge() -> None:
    made = sliced([Segment(segmentId=name, endTimeL=5) for name in "cab"])
    assert made == EncodedPage(in_order(made.oldest), None, ())


def segments(*named: tuple[int, str]) -> list[Segment]:
    return [Segment(segmentId=name, endTimeL=close) for close, name in named]


@pytest.mark.parametrize("newest", [sliced, as_lines])
@pytest.mark.parametrize("oldest", [sliced, as_lines])
def test_an_instant_that_a_page_boundary_cuts_is_mended_and_keeps_each_segment_once(
    oldest: Callable[[Sequence[Segment]], OrderedPage[list[Segment]]],
    newest: Callable[[Sequence[Segment]], OrderedPage[list[Segment]]],
) -> None:
    newer = newest(segments((9, "x"), (7, "d"), (7, "b")))
    older = oldest(segments((7, "b"), (7, "a"), (5, "y")))
    more = {7: {row.segmentId: row for row in segments((7, "c"), (7, "d"))}}
    parts = join([older, newer], more)
    assert [[row.segmentId for row in part] for part in parts] == [["y"], ["a", "b", "c", "d"], ["x"]]


@needs_the_scanner
@pytest.mark.parametrize("at", [5, 7, 9])
def test_what_was_read_of_an_instant_by_itself_joins_a_page_of_lines(at: int) -> None:
    page = as_lines(segments((9, "x"), (7, "b"), (5, "y")))
    extra = Segment(segmentId="z", endTimeL=at)
    parts = join([page], {at: {"z": extra}} if at != 7 else {})
    expected = segments((5, "y"), (7, "b"), (9, "x"))
    assert [row for part in parts for row in part] == in_order([*expected, extra] if at != 7 else expected)


@needs_the_scanner
def test_a_page_of_lines_that_no_neighbour_touches_is_one_part_its_bytes_those_that_were_read() -> None:
    form, rows = JsonLines(), [Segment(segmentId=f"{close}", endTimeL=close) for close in range(40, 0, -1)]
    pages = [lines(rows[at : at + 10]) for at in range(0, 40, 10)]
    joiner = PartJoiner[bytes](lambda segments: encoded(form, segments))
    parts = [part for page in reversed(pages) for part in joiner.add(ordered_page(page, (), form.encode))]
    parts += joiner.end()
    assert [part.count(b"\n") for part in parts] == [10, 10, 10, 10]
    assert all(
        part is page[::-1].text for part, page in zip(reversed(parts), pages, strict=True) if isinstance(page, RawRows)
    )
    assert b"".join(parts) == form.encode(rows[::-1])


def test_there_may_be_nothing_to_join() -> None:
    assert join([], {}) == []
    assert join([sliced([])], {}) == []


def test_a_joiner_tells_a_cut_instant_before_it_gives_anything_of_it() -> None:
    joiner = PartJoiner(encode)
    assert not joiner.cuts(sliced(segments((7, "a"), (5, "y"))))
    assert list(joiner.add(sliced(segments((7, "a"), (5, "y"))))) == [segments((5, "y"))]
    assert joiner.cuts(sliced(segments((9, "x"), (7, "b"))))
    assert not joiner.cuts(sliced(segments((9, "x"), (8, "b"))))
    assert not joiner.cuts(sliced([]))
