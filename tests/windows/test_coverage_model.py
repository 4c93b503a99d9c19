"""The check of small worlds, in short, and that it can fail: each weakening of the rules is found out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from segment_fetch.windows import coverage, live_pass, merge, overlap, reader
from segment_fetch.windows.coverage import PageView
from segment_fetch.windows.merge import Merged
from tests.windows.model_check import check, main

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

rightful_link = coverage._link
rightful_tie_proof = coverage.tie_proof


def by_any_count(
    middle: Sequence[PageView], later: Sequence[PageView] = (), earlier: Sequence[PageView] = ()
) -> set[str] | None:
    full = [structs.replace(page, is_full=False) for page in middle]
    return rightful_tie_proof(full, later, earlier)


def link_as_if_inclusive(
    index: int, page: PageView | coverage.ProvenTie, start: int, end: int, inclusive: bool
) -> coverage._Link:
    return rightful_link(index, page, start, end, True)


def is_last_by_its_count(page: PageView) -> bool:
    return page.count is not None and page.offset + len(page.ids) >= page.count


def offsets_up_to_the_count(count: int, limit: int, k: int) -> range:
    step = limit - min(k, limit // 2)
    return range(0, max(1, count - limit + step), step)


def merged_by_id_alone(pages: Any) -> Merged:
    return merge.merged(pages)._replace(conflicts=frozenset())


def test_no_small_world_is_accepted_without_a_row_that_was_present_throughout() -> None:
    tally = check(12_000)
    assert tally.interleavings == 12_000
    assert tally.missed == 0, tally.example
    assert tally.accepted > tally.interleavings // 2, "too few are accepted for the check to mean much"


@pytest.mark.parametrize(
    ("where", "name", "weaker", "server"),
    [
        pytest.param(
            coverage, "follows", operator.ge, "honest", id="a page may begin at the close time that the last ended at"
        ),
        pytest.param(coverage, "tie_proof", by_any_count, "lagging", id="a full page may hold all of a tie"),
        pytest.param(coverage, "_link", link_as_if_inclusive, "honest", id="the server's `to` is taken as inclusive"),
        pytest.param(
            PageView,
            "is_last",
            property(is_last_by_its_count),
            "lagging",
            id="a full page may be the last by its count",
        ),
        pytest.param(live_pass, "merged", merged_by_id_alone, "repeating", id="a row is dropped for its id alone"),
    ],
)
def test_a_weaker_rule_misses_a_row(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, weaker: object, server: str
) -> None:
    monkeypatch.setattr(where, name, weaker)
    if where is PageView:
        monkeypatch.setattr(overlap, "offsets", offsets_up_to_the_count)
    tally = check(40_000, stop=True, server=server)
    assert tally.missed
    assert tally.example


def test_rows_behind_a_capped_count_are_missed_where_the_page_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_to_the_count(self: PageView, *, start: int, limit: int) -> str | None:
        return None

    monkeypatch.setattr(coverage, "check_page", cut_to_the_count)
    monkeypatch.setattr(PageView, "is_last", property(is_last_by_its_count))
    monkeypatch.setattr(reader, "goes_on", lambda _: False)
    tally = check(40_000, stop=True, server="capped")
    assert tally.missed


def test_the_command_says_what_it_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["model_check", "--interleavings", "1000"])
    assert main() == 0
    assert "missed 0" in capsys.readouterr().out
    monkeypatch.setattr(coverage, "follows", operator.ge)
    monkeypatch.setattr("sys.argv", ["model_check", "--interleavings", "6000"])
    assert main() == 1
    assert "first miss: " in capsys.readouterr().out
