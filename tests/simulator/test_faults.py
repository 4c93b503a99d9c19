from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from segment_fetch.simulator import Fault, Faults
from segment_fetch.simulator.faults import FaultPlan


def plan(**shares: Any) -> FaultPlan:
    made = FaultPlan()
    made.exchange(Faults(**shares))
    return made


def test_each_kind_has_a_share_of_its_name() -> None:
    for kind in Fault:
        assert plan(**{kind: 1.0}).choose() is kind


def test_shares_are_kept() -> None:
    chosen = plan(drop=0.1, error_503=0.2, seed=7)
    counts = Counter(chosen.choose() for _ in range(20_000))
    assert counts[Fault.DROP] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts[Fault.ERROR_503] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert set(counts) == {None, Fault.DROP, Fault.ERROR_503}


def test_the_seed_decides() -> None:
    def chosen(seed: int) -> list[object]:
        faulty = plan(drop=0.5, seed=seed)
        return [faulty.choose() for _ in range(50)]

    assert chosen(1) == chosen(1) != chosen(2)


def test_single_faults_come_first_and_once() -> None:
    faulty = plan()
    faulty.fail_next(Fault.HTML, 2)
    faulty.fail_next(Fault.STALL, 1)
    assert [faulty.choose() for _ in range(4)] == [Fault.HTML, Fault.HTML, Fault.STALL, None]


@pytest.mark.parametrize("name", [*Fault, "retry_after_s", "slow_body_s"])
def test_a_wrong_share_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        plan(**{name: -0.1})


def test_shares_are_at_most_all() -> None:
    with pytest.raises(ValueError, match="at most 1 together"):
        Faults(drop=0.6, stall=0.6)
    assert Faults(drop=0.5, stall=0.5)


def test_the_documentation_names_every_kind() -> None:
    text = Path("docs/simulator.md").read_text()
    assert [kind for kind in Fault if f"`{kind}`" not in text] == []
