"""The exhaustive check of small worlds, in short, and that it can fail: each weakening of the rules is found out."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import pytest

from segment_fetch.windows import coverage
from tests.windows.model_check import check, main

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segment_fetch.windows.coverage import PageView

rightful_link = coverage._link


def single_pass(later: Sequence[PageView], earlier: Sequence[PageView] = ()) -> bool:
    return coverage.count_proof(later) is not None


def link_as_if_inclusive(
    index: int, page: PageView | coverage.ProvenTie, start: int, end: int, inclusive: bool
) -> coverage._Link:
    return rightful_link(index, page, start, end, True)


def test_no_small_world_is_accepted_without_a_row_that_was_present_throughout() -> None:
    tally = check(20_000)
    assert tally.interleavings >= 20_000
    assert tally.missed == 0, tally.example
    assert tally.accepted > tally.interleavings // 2, "too few are accepted for the check to mean much"


@pytest.mark.parametrize(
    ("name", "weaker"),
    [
        pytest.param("follows", operator.ge, id="a page may begin at the close time that the last one ended at"),
        pytest.param("tie_proof", single_pass, id="one pass over an instant is enough"),
        pytest.param("_link", link_as_if_inclusive, id="the server's `to` is taken to be inclusive"),
    ],
)
def test_a_weaker_rule_misses_a_row(monkeypatch: pytest.MonkeyPatch, name: str, weaker: object) -> None:
    monkeypatch.setattr(coverage, name, weaker)
    tally = check(100_000, stop=True)
    assert tally.missed
    assert tally.example


def test_the_command_says_what_it_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["stitch_model_check", "--interleavings", "1000"])
    assert main() == 0
    assert "missed 0" in capsys.readouterr().out
    monkeypatch.setattr(coverage, "follows", operator.ge)
    assert main() == 1
    assert "first miss: " in capsys.readouterr().out
