"""Windows of up to some hundred rows, with many events and big ties, read in any order: no proof lacks a row."""

from __future__ import annotations

import operator
import random
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from segment_fetch.query import Window
from segment_fetch.windows import coverage, overlap
from tests.windows.model_check import Row, Setting, World, read_window


class Plan(NamedTuple):
    """Everything that a reading depends on; `seed` says which rows, which events and which order of reading."""

    setting: Setting
    size: int  # rows at first
    end: int  # close times lie from 0 to this: the smaller, the bigger the ties
    unrest: int  # out of 10 requests, so many see the window changed
    seed: int


plans = st.builds(
    Plan,
    setting=st.builds(
        Setting,
        limit=st.integers(3, 25),
        inclusive=st.booleans(),
        settled=st.booleans(),
        ascending=st.booleans(),
        server=st.sampled_from(["honest", "lagging"]),
    ),
    size=st.integers(0, 120),
    end=st.integers(1, 400),
    unrest=st.integers(0, 10),
    seed=st.integers(0, 2**32),
)


class Drifting(World):
    """A world where rows come and go by chance, in swarms, and ties take another order by chance."""

    def __init__(self, plan: Plan) -> None:
        self.chance = random.Random(plan.seed)
        self.unrest = plan.unrest
        rows = [(self.chance.randint(0, plan.end), f"r{i}") for i in range(plan.size)]
        super().__init__(tuple(sorted(rows)), plan.setting, self.chance.randrange, plan.end)

    def drift(self) -> None:
        if self.chance.randrange(10) >= self.unrest:
            return
        self.turns += self.chance.randrange(4) == 0
        for _ in range(self.chance.choice((1, 1, 2, 5, 2 * self.setting.limit))):
            if self.chance.randrange(2):
                self.events += 1
                self.come((self.chance.randint(0, self.window.end), f"n{self.events}"))
            elif self.rows:
                self.go(self.chance.randrange(len(self.rows)))

    def sort(self, found: list[Row]) -> list[Row]:
        random.Random(self.turns).shuffle(found)
        sign = 1 if self.setting.ascending else -1
        return sorted(found, key=lambda row: sign * row[0])


def accepted_without(plan: Plan) -> set[Row]:
    """The rows that were present throughout and are not in the result, if that was accepted."""
    world = Drifting(plan)
    rows, windows = read_window(world)
    assert len({name for _, name in rows}) == len(rows), "a row is kept twice"
    return {row for row in world.throughout if any(part.start <= row[0] < part.end for part in windows)} - set(rows)


@settings(max_examples=150, deadline=None)
@given(plans)
def test_no_row_that_was_present_throughout_is_missing(plan: Plan) -> None:
    assert not accepted_without(plan)


def still(plan: Plan) -> Plan:
    return plan._replace(unrest=0, setting=plan.setting._replace(server="honest"))


@settings(max_examples=150, deadline=None)
@given(plans.map(still))
def test_a_window_that_does_not_change_is_read_exactly(plan: Plan) -> None:
    world = Drifting(plan)
    rows, windows = read_window(world)
    assert windows == [world.window]
    assert set(rows) == world.throughout


@settings(max_examples=150, deadline=None)
@given(plans.map(still), st.booleans())
def test_a_settled_window_without_ties_costs_no_request_but_its_pages(plan: Plan, ascending: bool) -> None:
    world = Drifting(plan._replace(setting=plan.setting._replace(settled=True, ascending=ascending)))
    world.rows = tuple((2 * at, f"r{at}") for at in range(plan.size))
    world.window = Window(0, 2 * plan.size + 1)
    world.throughout = set(world.rows)
    rows, _ = read_window(world)
    assert rows == sorted(world.rows)
    limit = plan.setting.limit
    assert world.reads == len(overlap.offsets(plan.size, limit, 2))


def test_a_step_that_is_not_strict_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "follows", operator.ge)
    plan = find(
        plans,
        lambda plan: bool(accepted_without(plan)),
        settings=settings(max_examples=2000, deadline=None, database=None, phases=[Phase.generate]),
    )
    assert accepted_without(plan)


@given(st.integers(0, 5000), st.integers(2, 500), st.integers(0, 1000))
def test_the_offsets_cover_the_result_and_share_rows(count: int, limit: int, k: int) -> None:
    found = list(overlap.offsets(count, limit, k))
    assert found[0] == 0
    assert found[-1] + limit > count or not k
    shared = min(k, max(limit // 2, min(2, limit - 1)))
    assert all(later == earlier + limit - shared for earlier, later in pairwise(found))
    assert len(found) == 1 or found[-1] + shared <= count, "the last page is needed"
