"""The overlay against a plain list of the same rows, for many random changes."""

import random

import pytest

from segment_fetch.simulator import Dataset
from segment_fetch.simulator.overlay import Overlay
from tests.simulator.conftest import HOUR_MS, NOON_MS

START, END = NOON_MS - HOUR_MS, NOON_MS


class Model:
    """The overlay, and a sorted list that is changed in the same way."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.dataset = Dataset(segments=200, start=START, end=END, ties=0.4, burst=30, seed=seed)
        self.overlay = Overlay(self.dataset)
        self.rows = [(self.dataset.close_time(number), number) for number in range(200)]
        self.hidden: list[int] = []

    def change(self) -> None:
        match self.random.choice(("hide", "show", "insert", "discard")):
            case "hide" if base := [number for _, number in self.rows if number < 200]:
                number = self.random.choice(base)
                self.overlay.hide(number)
                self.rows.remove((self.dataset.close_time(number), number))
                self.hidden.append(number)
            case "show" if self.hidden:
                number = self.hidden.pop(self.random.randrange(len(self.hidden)))
                self.overlay.show(number)
                self.rows.append((self.dataset.close_time(number), number))
            case "insert":
                close = self.random.choice(self.rows)[0] if self.rows else START
                self.rows.append((close, self.overlay.insert(close)))
            case "discard" if inserted := [row for row in self.rows if row[1] >= 200]:
                row = self.random.choice(inserted)
                self.overlay.discard(row[1])
                self.rows.remove(row)
        self.rows.sort()


@pytest.mark.parametrize("seed", range(20))
def test_counts_ranks_and_rows_are_those_of_a_plain_list(seed: int) -> None:
    model = Model(seed)
    for _ in range(150):
        model.change()
    for _ in range(60):
        start, end = sorted(model.random.randrange(START - 1000, END + 1000) for _ in range(2))
        expected = [row for row in model.rows if start <= row[0] < end]
        seen = model.overlay.slice(start, end)
        assert seen.count == len(expected)
        first, last = sorted(model.random.randrange(len(expected) + 1) for _ in range(2))
        assert seen.rows(first, last) == expected[first:last]
        instant = model.random.randrange(START - 1000, END + 1000)
        inside = min(max(instant, start), end)
        assert seen.rank_before(inside) == sum(close < inside for close, _ in expected)
    present = {number for _, number in model.rows}
    numbers = [*range(200), *model.overlay.inserted_times]
    assert {number for number in numbers if model.overlay.is_present(number)} == present


def test_rows_beyond_the_horizon_are_not_there() -> None:
    overlay = Overlay(Dataset(segments=100, start=START, end=END))
    overlay.horizon = 40
    seen = overlay.slice(START, END)
    assert [number for _, number in seen.rows(0, seen.count)] == list(range(40))
    assert not overlay.is_present(40)
