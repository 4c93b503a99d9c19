from collections.abc import Callable

import pytest

from segment_fetch.simulator import AtOnce, RateLimit, SlidingWindow


def test_a_rate_refills_by_time_up_to_its_burst() -> None:
    bucket = RateLimit(2.0, burst=3).counter()
    assert [bucket.admit(100.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.admit(100.25) == pytest.approx(0.25)
    assert bucket.admit(100.5) == 0
    assert [bucket.admit(1000.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = RateLimit(1.0, burst=2).counter()
    assert bucket.admit(100.0) == 0
    assert bucket.admit(50.0) == 0
    assert bucket.admit(50.0) == 1.0


def test_a_window_slides() -> None:
    window = SlidingWindow(2, 10.0).counter()
    assert [window.admit(at) for at in (0.0, 4.0, 5.0, 9.0)] == [0, 0, 5.0, 1.0]
    assert [window.admit(at) for at in (10.0, 11.0, 14.0)] == [0, 3.0, 0]


def test_places_are_given_back() -> None:
    places = AtOnce(2).counter()
    assert [places.admit(0.0) for _ in range(3)] == [0, 0, 1.0]
    places.leave()
    assert [places.admit(0.0) for _ in range(2)] == [0, 1.0]


def test_no_place_refuses_all() -> None:
    assert AtOnce(0).counter().admit(0.0) == 1.0


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("rate", lambda: RateLimit(0)),
        ("burst", lambda: RateLimit(1, burst=0)),
        ("requests", lambda: SlidingWindow(0, 1)),
        ("seconds", lambda: SlidingWindow(1, 0)),
        ("requests", lambda: AtOnce(-1)),
    ],
)
def test_a_wrong_limit_is_refused_by_name(name: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        make()
