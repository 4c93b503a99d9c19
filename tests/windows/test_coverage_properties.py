"""Windows of up to some hundred rows, with many events and big ties, read in any order: no proof lacks a row."""

from __future__ import annotations

import operator
import random
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from segment_fetch.windows import coverage
from segment_fetch.windows.coverage import PageView, Proof
from tests.windows.model_check import MODES, Setting, World, read_window


class Plan(NamedTuple):
    """Everything that a reading depends on; `seed` says which rows, which events and which order of reading."""

    setting: Setting
    size: int  # rows at first
    end: int  # close times lie from a bit before 0 to this: the smaller, the bigger the ties
    unrest: int  # out of 10 requests, so many see the window changed
    seed: int


plans = st.builds(
    Plan,
    setting=st.builds(
        Setting,
        limit=st.integers(2, 25),
        k=st.integers(0, 12),
        inclusive=st.booleans(),
        mode=st.sampled_from(MODES),
    ),
    size=st.integers(0, 250),
    end=st.integers(1, 400),
    unrest=st.integers(0, 10),
    seed=st.integers(0, 2**32),
)


class Drifting(World):
    """A world where rows come and go by chance, in swarms, and ties take another order by chance."""

    def __init__(self, plan: Plan) -> None:
        self.chance = random.Random(plan.seed)
        self.unrest = plan.unrest
        below = -2 if plan.setting.mode == "prefix" else 0
        rows = [(self.chance.randint(below, plan.end), f"r{i}") for i in range(plan.size)]
        super().__init__(tuple(sorted(rows)), plan.setting, self.chance.randrange, plan.end)

    def drift(self) -> None:
        if self.chance.randrange(10) >= self.unrest:
            return
        self.turns += self.chance.randrange(4) == 0
        for _ in range(self.chance.choice((1, 1, 2, 5, 2 * self.setting.limit))):
            gone, new = self.changes()
            if new and self.chance.randrange(2):
                self.events += 1
                self.come((self.chance.randint(self.start, self.end), f"n{self.events}"))
            elif gone:
                self.go(self.chance.randrange(gone))

    def answer(self, start: int, to: int, offset: int) -> PageView:
        inclusive, limit = self.setting.inclusive, self.setting.limit
        found = [row for row in self.rows if start <= row[0] and (row[0] < to or (inclusive and row[0] == to))]
        random.Random(self.turns).shuffle(found)
        found.sort(key=lambda row: -row[0])
        part = found[offset : offset + limit]
        page = PageView(to, offset, len(found), [name for _, name in part], [at for at, _ in part])
        assert coverage.check_page(page, start=start, limit=limit) is None
        return page


def accepted_without(plan: Plan) -> set[str]:
    """The rows that were present throughout and are not in the result, if that was accepted."""
    world = Drifting(plan)
    ids = read_window(world)
    if ids is None:
        return set()
    assert len(set(ids)) == len(ids), "a row is kept twice"
    return world.throughout.difference(ids)


@settings(max_examples=300, deadline=None)
@given(plans)
def test_no_row_that_was_present_throughout_is_missing(plan: Plan) -> None:
    assert not accepted_without(plan)


@settings(max_examples=150, deadline=None)
@given(plans.map(lambda plan: plan._replace(unrest=0)))
def test_a_window_that_does_not_change_is_read_exactly(plan: Plan) -> None:
    world = Drifting(plan)
    ids = read_window(world)
    assert ids is not None
    assert set(ids) == world.throughout


@settings(max_examples=150, deadline=None)
@given(plans.map(lambda plan: plan._replace(setting=plan.setting._replace(mode="settled", k=0), unrest=0)))
def test_a_settled_window_costs_no_request_but_its_pages(plan: Plan) -> None:
    world = Drifting(plan)
    read_window(world)
    assert world.reads == len(coverage.offsets(len(world.throughout), plan.setting.limit))


@settings(max_examples=300, deadline=None)
@given(plans)
def test_the_order_in_which_the_pages_are_handed_over_does_not_matter(plan: Plan) -> None:
    world, limit = Drifting(plan), plan.setting.limit
    pages = [world.page(0, plan.end, offset) for offset in coverage.offsets(plan.size, limit, plan.setting.k)]
    outcomes = []
    for _ in range(2):
        outcome = coverage.find_coverage(pages, start=0, end=plan.end)
        outcomes.append(outcome.segments if isinstance(outcome, Proof) else outcome)
        world.chance.shuffle(pages)
    assert type(outcomes[0]) is type(outcomes[1])
    if isinstance(outcomes[0], coverage.Uncovered) and isinstance(outcomes[1], coverage.Uncovered):
        assert spans(outcomes[0]) == spans(outcomes[1])


def spans(broken: coverage.Uncovered) -> set[tuple[int, ...]]:
    return {(gap.newest, gap.oldest) for gap in broken.gaps} | {(tie.at,) for tie in broken.ties}


def test_a_step_that_is_not_strict_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "follows", operator.ge)
    plan = find(
        plans,
        lambda plan: bool(accepted_without(plan)),
        settings=settings(max_examples=2000, deadline=None, database=None, phases=[Phase.generate]),
    )
    assert accepted_without(plan)


@given(st.integers(0, 5000), st.integers(1, 500), st.integers(0, 1000))
def test_the_offsets_cover_the_result_and_share_rows(count: int, limit: int, k: int) -> None:
    found = list(coverage.offsets(count, limit, k))
    assert found[0] == 0
    assert found[-1] + limit >= count
    shared = min(k, limit // 2, limit - 1)
    assert all(later == earlier + limit - shared for earlier, later in pairwise(found))
    assert len(found) == 1 or found[-2] + limit < count, "the last page is needed"
