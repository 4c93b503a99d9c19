"""Short versions of the chaos commands, so that they cannot rot; the commands run them at length."""

from __future__ import annotations

import pytest

from segment_fetch.simulator import Faults
from tests.chaos import drift, faults


@pytest.mark.parametrize("kind", drift.KINDS, ids=lambda kind: kind.name)
async def test_nothing_is_missed_or_doubled_while_rows_move(kind: drift.Kind) -> None:
    seen = await drift.run_kind(kind, runs=10, segments=6_000)
    assert (seen.missed, seen.doubled, seen.unproven) == (0, 0, 0)
    assert seen.runs == 10
    if not kind.burst:  # of so small a window, two thousand on one millisecond are a third
        assert seen.ratio <= kind.bound


@pytest.mark.parametrize(("name", "given"), faults.mixes().items())
async def test_nothing_is_lost_when_a_fifth_of_the_answers_is_broken(name: str, given: Faults) -> None:
    seen = await faults.run_kind(given, runs=2, segments=4_000)
    assert (seen.lost, seen.doubled, seen.unproven) == (0, 0, 0)
    assert seen.requests > seen.pages
