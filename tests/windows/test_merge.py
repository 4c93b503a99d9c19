"""Pages merge to each id once, in one order; of two contents the later one stays, and is named."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.windows.coverage import PageView
from segment_fetch.windows.merge import in_order, merged, since
from segment_fetch.windows.pass_protocol import Page
from segment_fetch.wire.models import Segment


def page(number: int, *rows: Segment) -> Page:
    return Page(PageView(0, 0, None, [], []), rows, number)


def row(name: str, close: int = 1, agent: int = 0) -> Segment:
    return Segment(segmentId=name, endTimeL=close, agentId=agent)


def test_of_two_contents_the_one_on_the_later_page_stays() -> None:
    found = merged([page(2, row("a", 5), row("b")), page(1, row("a", 3), row("b"), row("c"))])
    assert found.rows == {"a": row("a", 5), "b": row("b"), "c": row("c")}
    assert found.conflicts == {"a"}


def test_two_contents_on_one_page_are_named_as_well() -> None:
    assert merged([page(1, row("a", agent=1), row("a", agent=2))]).conflicts == {"a"}


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=2)), max_size=30))
def test_the_written_order_is_by_close_time_then_by_id(rows: list[tuple[int, str]]) -> None:
    made = in_order(row(name, close) for close, name in rows)
    assert [(each.endTimeL, each.segmentId) for each in made] == sorted(rows)


def test_since_counts_the_rows_from_a_moment_on() -> None:
    assert [since([9, 7, 7, 3], at) for at in (10, 9, 8, 7, 3, 0)] == [0, 1, 1, 3, 4, 4]
