"""Delays as a table of what failed, how often, and chance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_fetch.errors import InputError
from segment_fetch.throttle.retry_policy import Kind, RetryPolicy


@pytest.mark.parametrize(
    ("kind", "failures", "expected"),
    [
        ("server", 1, 5.0),
        ("server", 2, 10.0),
        ("server", 3, 15.0),
        ("server", 4, None),
        ("network", 1, 0.5),
        ("network", 2, 1.0),
        ("network", 3, 2.0),
        ("network", 4, None),
        ("network", 400, None),
    ],
)
def test_delays_by_kind_and_number(kind: Kind, failures: int, expected: float | None) -> None:
    assert RetryPolicy().delay(kind, failures, lambda: 0.0) == expected


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 5.0), (0.25, 5.25), (0.5, 5.5), (0.75, 5.75)])
def test_jitter_only_lengthens_the_vendors_least_waits(chance: float, expected: float) -> None:
    assert RetryPolicy().delay("server", 1, lambda: chance) == pytest.approx(expected)
    assert RetryPolicy(jitter=0.0).delay("server", 1, lambda: chance) == 5.0


@given(st.floats(min_value=0, max_value=1, exclude_max=True), st.integers(min_value=1, max_value=3))
def test_no_delay_is_far_from_the_advice(chance: float, failures: int) -> None:
    advised = (5.0, 10.0, 15.0)[failures - 1]
    delay = RetryPolicy().delay("server", failures, lambda: chance)
    assert delay is not None
    assert advised <= delay <= 1.2 * advised


def test_there_may_be_no_retries() -> None:
    policy = RetryPolicy(server=(), network=())
    assert policy.delay("server", 1, lambda: 0.5) is None
    assert policy.delay("network", 1, lambda: 0.5) is None


@pytest.mark.parametrize(
    "policy",
    [{"server": (5.0, -1.0)}, {"network": (-0.1,)}, {"jitter": -0.1}, {"jitter": 1.0}],
)
def test_policies_that_cannot_work(policy: dict[str, float]) -> None:
    with pytest.raises(InputError, match="retry"):
        RetryPolicy(**policy)  # type: ignore[arg-type]
