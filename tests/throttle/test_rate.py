"""The rate that a pacer finds, rule by rule."""

import math
from typing import Any

import pytest

from segment_fetch.throttle.meter import AcceptedMeter
from segment_fetch.throttle.rate import Learned, Rate, Refusal


class Meter(AcceptedMeter):
    """One that says what the test wants."""

    def __init__(self, rate: float = 1000.0, best: float = 0.0) -> None:
        super().__init__()
        self.best, self.given = best, rate

    def rate(self, now: float, seconds: float) -> float:
        return self.given


LIMITED = Learned(10.0, limited=True, cap=None, at=0.0)


def refusal(rate: Rate, at: float, given: float, *, again: bool = False, lasted: float = 5.0) -> Refusal:
    return Refusal(1, rate.value, at, given, again, lasted)


def holding(rate: float = 10.0, ceiling: float = math.inf) -> Rate:
    """A rate at which the server has just refused, and which is back at what is worth holding."""
    limited = Rate(ceiling, Learned(rate, limited=True, cap=None, at=0.0))
    limited.value = limited.refused = rate
    limited.lower(refusal(limited, 100.0, rate, again=False, lasted=1.0), pause=1.0)
    limited.pause(100.0, resume=101.0, best=0.0)
    limited.value = limited.aim
    return limited


class TestRamp:
    @pytest.mark.parametrize(("value", "factor"), [(10.0, 2.0), (60.0, 2.5)])
    def test_grows_until_the_first_refusal(self, value: float, factor: float) -> None:
        rate = Rate(math.inf, None)
        rate.value = value
        rate.adjust(1.0, 1.0, Meter(), capped=False)
        assert rate.value == pytest.approx(value * factor)

    def test_does_not_run_ahead_of_what_is_accepted(self) -> None:
        rate = Rate(math.inf, None)
        for now in range(10):
            rate.adjust(now, 1.0, Meter(rate=6.0), capped=False)
        assert rate.value == 12.0

    @pytest.mark.parametrize(("given", "value"), [(9.0, 13.5), (39.0, 38.2)])
    def test_falls_to_half_as_much_again_as_was_accepted(self, given: float, value: float) -> None:
        rate = Rate(math.inf, None)
        rate.value = 40.0
        rate.lower(refusal(rate, 10.0, given, again=False, lasted=5.0), pause=1.0)
        rate.pause(10.0, 11.0, 0.0)
        assert rate.value == pytest.approx(value)
        assert not rate.ramping
        assert rate.aim == pytest.approx(0.955 * 40)

    def test_where_it_may_have_been_the_number_most_of_the_rate_is_kept(self) -> None:
        rate = Rate(math.inf, None)
        rate.value = 40.0
        rate.lower(refusal(rate, 10.0, 9.0), pause=1.0, doubtful=True)
        assert rate.value == rate.aim == pytest.approx(0.955 * 40)

    @pytest.mark.parametrize("confirmed", [False, True])
    def test_that_can_be_taken_back_until_the_rate_is_refused_once_more(self, confirmed: bool) -> None:
        rate = Rate(math.inf, None)
        rate.lower(refusal(rate, 10.0, 9.0), pause=1.0, doubtful=True)
        rate.pause(10.0, 11.0, best=0.0)
        if confirmed:
            rate.lower(refusal(rate, 20.0, 9.0), pause=1.0)
        rate.acquit()
        assert bool(rate.aim) is bool(rate.refused) is confirmed

    def test_a_server_that_asks_for_a_long_pause_counts_it_in(self) -> None:
        rate = Rate(math.inf, None)
        rate.value = 80.0
        rate.lower(refusal(rate, 4.0, given=25.0, lasted=4.0), pause=8.0)
        assert rate.value == pytest.approx(1.5 * 10)

    def test_where_one_alone_was_refused_near_a_ceiling_requests_keep_a_little_further_apart(self) -> None:
        """A server that counts each request by itself; what was accepted before is no measure yet."""
        rate = Rate(20.0, None)
        for at, value in ((0.2, 0.96 * 19.6), (3.0, 0.96**2 * 19.6)):
            rate.lower(refusal(rate, at, 6.0), pause=1.0, alone=True)
            rate.pause(at, at + 1, best=0.0)
            assert rate.value == rate.aim == pytest.approx(value)

    @pytest.mark.parametrize(
        ("ramp", "alone", "value"),
        [
            ({"given": 13.3}, [True, True], 0.96**2 * 19.1),  # two thirds of 20, while it doubled: it never had more
            ({"given": 11.6}, [True], 0.96 * 17.4),  # a tenth less, as timers are late
            ({"given": 11.0}, [True], 0.7 * 16.5),  # less still: the ramp went on above what it gives, on a burst
            ({"given": 13.3, "doubtful": True}, [True], 0.96 * 19.1),
            ({"given": 11.0, "doubtful": True}, [True], 0.7 * 19.1),
            ({"given": 13.3}, [False], 0.7 * 19.1),
            ({"given": 13.3}, [False, True], 9.5),
        ],
    )
    def test_where_a_server_has_no_burst_one_refused_alone_came_too_early(
        self, ramp: dict[str, Any], alone: list[bool], value: float
    ) -> None:
        rate = Rate(math.inf, None)
        rate.value = 20.0
        rate.lower(refusal(rate, 1.5, ramp.pop("given"), lasted=1.5), pause=1.0, **ramp)
        for at, one in enumerate(alone, 3):
            rate.pause(at - 1.0, at, best=0.0)
            rate.lower(refusal(rate, at, 9.5), pause=1.0, alone=one)
        assert rate.value == pytest.approx(value)

    @pytest.mark.parametrize(
        ("ceiling", "given", "value"),
        [
            pytest.param(math.inf, 13.3, 0.7 * 19.1, id="it has no burst"),
            pytest.param(math.inf, 11.0, 2.0, id="it has one"),
            pytest.param(math.inf, 0.0, 2.0, id="nothing is known yet"),
            pytest.param(20 / 0.98, 13.3, 2.0, id="there was no ramp"),
        ],
    )
    def test_above_the_limit_of_a_server_without_a_burst_half_is_refused_again_at_once(
        self, ceiling: float, given: float, value: float
    ) -> None:
        rate = Rate(ceiling, None)
        rate.value = 20.0
        rate.lower(refusal(rate, 1.5, given, lasted=1.5), pause=1.0)
        rate.pause(1.5, 2.5, best=0.0)
        rate.lower(refusal(rate, 2.6, 2.0, again=True), pause=2.0)
        assert rate.value == pytest.approx(value)

    def test_a_limit_on_the_number_at_once_says_nothing_of_a_burst(self) -> None:
        rate = Rate(math.inf, None)
        rate.value = 20.0
        rate.lower(refusal(rate, 1.5, 13.3, lasted=1.5), pause=1.0, doubtful=True)
        rate.pause(1.5, 2.5, best=0.0)
        rate.acquit()
        rate.lower(refusal(rate, 2.6, 2.0, again=True), pause=2.0)
        assert rate.value == 2.0

    @pytest.mark.parametrize("ceiling", [20.0, 40.0, math.inf])
    def test_one_refused_alone_at_what_an_earlier_run_found_came_too_early_as_well(self, ceiling: float) -> None:
        rate = Rate(ceiling, Learned(19.0, limited=True, cap=None, at=0.0))
        before = rate.value
        for at, value in ((3.0, 0.96 * before), (5.0, 0.96**2 * before)):
            rate.lower(refusal(rate, at, 12.0), pause=1.0, alone=True)
            rate.pause(at, at + 1, best=0.0)
            assert rate.value == pytest.approx(value)

    def test_above_what_an_earlier_run_found_one_refused_alone_is_a_measurement(self) -> None:
        rate = Rate(math.inf, Learned(19.0, limited=True, cap=None, at=0.0))
        rate.value = 1.02 * 19.0
        rate.lower(refusal(rate, 3.0, 16.0), pause=1.0, alone=True)
        assert rate.value == pytest.approx(16.0)

    def test_a_number_is_noted_only_where_there_is_no_burst(self) -> None:
        rate = Rate(math.inf, None)
        assert not rate.excuses(3)
        rate.sharp = True
        assert rate.excuses(3)
        assert not rate.excuses(3)

    def test_even_the_slowest_rate_grows_with_what_is_accepted(self) -> None:
        class Sparse(AcceptedMeter):
            def rate(self, now: float, seconds: float) -> float:
                return 0.1 if seconds >= 10 else 0.0

        rate = Rate(math.inf, None)
        rate.ramping, rate.value = False, 0.1
        for now in range(100):
            rate.adjust(now, 1.0, Sparse(), capped=False)
        assert rate.value == pytest.approx(0.2)

    @pytest.mark.parametrize("later", [False, True])
    def test_any_other_refusal_below_a_ceiling_is_a_measurement(self, later: bool) -> None:
        rate = Rate(40.0, Learned(19.0, limited=True, cap=None, at=0.0))
        rate.lower(refusal(rate, 3.0, 15.0), pause=1.0)
        assert rate.value == pytest.approx(15.0)
        if later:
            rate.pause(3.0, 4.0, best=0.0)
            rate.lower(refusal(rate, 9.0, 13.0), pause=1.0, alone=True)
            assert rate.value == pytest.approx(13.0)


class TestRate:
    @pytest.mark.parametrize(
        ("given", "value"),
        [(20.0, 9.8), (10.0, 9.8), (9.0, 9.0), (6.0, 7.0), (2.5, 5.0)],
        ids=["least", "same", "to it", "most", "half of the way"],
    )
    def test_a_refused_rate_falls_to_what_was_accepted_within_bounds(self, given: float, value: float) -> None:
        rate = Rate(math.inf, LIMITED)
        rate.value = 10.0
        rate.lower(refusal(rate, 50.0, given, again=False, lasted=5.0), pause=1.0)
        assert rate.value == pytest.approx(value)

    @pytest.mark.parametrize(("lasted", "aim"), [(5.0, 9.7), (20.0, (9.7 + 9.0) / 2)])
    def test_a_long_measurement_lowers_the_aim_too(self, lasted: float, aim: float) -> None:
        rate = Rate(math.inf, LIMITED)
        rate.value = 10.0
        rate.lower(refusal(rate, 50.0, 9.0, again=False, lasted=lasted), pause=1.0)
        assert rate.aim == pytest.approx(aim)

    @pytest.mark.parametrize(("given", "value"), [(4.0, 4.0), (12.0, 10.0), (0.0, 0.1)])
    def test_the_same_congestion_is_no_new_measurement(self, given: float, value: float) -> None:
        rate = Rate(math.inf, LIMITED)
        rate.value, rate.aim = 10.0, 9.9
        rate.lower(refusal(rate, 50.0, given, again=True, lasted=1.0), pause=1.0)
        assert (rate.value, rate.aim) == (value, 9.9)

    @pytest.mark.parametrize(("ceiling", "slowest"), [(math.inf, 0.1), (0.05, 0.049)])
    @pytest.mark.parametrize("again", [True, False])
    def test_never_stops_and_never_passes_a_low_ceiling(self, ceiling: float, slowest: float, again: bool) -> None:
        rate = Rate(ceiling, None)
        for now in range(50):
            rate.lower(refusal(rate, now, 0.0, again=again, lasted=5.0), pause=1.0)
            rate.pause(now, now + 1, best=0.0)
        assert rate.value == slowest

    @pytest.mark.parametrize("refused", [{"again": True}, {"alone": True}, {}])
    def test_the_slowest_is_not_undercut(self, refused: dict[str, bool]) -> None:
        rate = Rate(math.inf, Learned(0.1, limited=True, cap=None, at=0.0))
        assert rate.value == 0.1
        rate.sharp = True
        rate.lower(refusal(rate, 50.0, 0.0, again=refused.pop("again", False)), pause=1.0, **refused)
        assert rate.value == 0.1

    def test_approaches_the_rate_worth_holding_and_stops_there(self) -> None:
        rate = holding()
        rate.value = 7.0
        seen = []
        for now in range(102, 155):
            rate.adjust(now, 1.0, Meter(), capped=False)
            seen.append(rate.value)
        assert seen[4] == pytest.approx(7.0 + 0.3 * 2.7)
        assert any(value == pytest.approx(9.7) for value in seen)
        assert max(seen) < 9.75

    def test_creeps_faster_and_faster(self) -> None:
        rate, seen = holding(20.0), []
        for now in range(106, 160, 5):
            before = rate.value
            rate.adjust(now, 5.0, Meter(), capped=False)
            seen.append(rate.value / before - 1)
        assert seen[0] == pytest.approx(0.00141, rel=0.01)
        assert seen[4] == pytest.approx(4 * seen[0])

    def test_creeps_slowly_at_a_slow_rate(self) -> None:
        rate = holding(1.0)
        rate.value = rate.aim
        rate.adjust(106.0, 5.0, Meter(), capped=False)
        crept = rate.value
        rate.adjust(150.0, 5.0, Meter(), capped=False)
        assert rate.value == crept
        rate.adjust(160.0, 5.0, Meter(), capped=False)
        assert rate.value > crept

    def test_well_above_the_refused_rate_that_limit_is_gone(self) -> None:
        rate = holding()
        rate.value = 10.5
        rate.adjust(102.0, 1.0, Meter(), capped=False)
        assert rate.value == pytest.approx(10.5 * 1.15)
        rate.adjust(103.0, 1.0, Meter(rate=6.1), capped=False)
        assert rate.value == pytest.approx(12.2)

    @pytest.mark.parametrize(("value", "after"), [(5.0, 5.75), (9.6, 9.7)])
    def test_a_binding_cap_lets_the_rate_rise_to_what_is_worth_holding(self, value: float, after: float) -> None:
        rate = holding()
        rate.value = value
        rate.adjust(102.0, 1.0, Meter(), capped=True)
        assert rate.value == pytest.approx(after)

    def test_above_what_is_worth_holding_a_binding_cap_does_not_stop_the_creep(self) -> None:
        rate = holding()
        rate.adjust(107.0, 1.0, Meter(), capped=True)
        assert 9.7 < rate.value < 9.75

    def test_never_above_the_ceiling(self) -> None:
        rate = holding(ceiling=10.0)
        for now in range(102, 400):
            rate.adjust(now, 1.0, Meter(best=50.0), capped=now % 2 == 0)
        assert rate.value == 9.8


class TestBackToTheBest:
    def lowered(self) -> Rate:
        rate = holding()
        rate.value, rate.aim, rate.refused = 5.0, 5.0, 5.2
        rate.pause(100.0, 101.0, best=10.0)
        return rate

    def climb(self, rate: Rate, start: int, end: int) -> list[float]:
        seen = []
        for now in range(start, end):
            rate.adjust(now, 1.0, Meter(best=10.0), capped=False)
            seen.append(rate.value)
        return seen

    def test_is_tried_after_twenty_seconds(self) -> None:
        rate = self.lowered()
        assert max(self.climb(rate, 102, 120)) < 5.1
        assert max(self.climb(rate, 120, 126)) == 10.0
        assert max(self.climb(rate, 127, 150)) < 10.4

    def test_is_undone_and_tried_later_if_refused(self) -> None:
        rate = self.lowered()
        self.climb(rate, 102, 123)
        rate.lower(refusal(rate, 123.0, 6.0, again=False, lasted=20.0), pause=1.0)
        rate.pause(123.0, 124.0, best=10.0)
        assert rate.value < 5.1
        assert max(self.climb(rate, 125, 162)) < 5.4
        assert max(self.climb(rate, 163, 169)) == 10.0

    def test_is_undone_to_no_less_than_what_was_accepted_meanwhile(self) -> None:
        """Where it was silence that had brought the rate down, say of a window of a minute that was full."""
        rate = self.lowered()
        rate.value = 0.1
        self.climb(rate, 102, 140)
        rate._before = 0.1, 5.2, 5.0
        rate.lower(refusal(rate, 140.0, 6.0), pause=1.0)
        assert rate.value == pytest.approx(0.7 * 6.0)
        rate._before = 0.1, 5.2, 5.0
        rate.lower(refusal(rate, 142.0, 60.0), pause=1.0)
        assert rate.value == pytest.approx(0.7 * 6.0), "nor to more than before"

    def test_to_a_rate_below_what_is_worth_holding_forgets_nothing(self) -> None:
        rate = self.lowered()
        rate.value, rate.aim, rate.refused = 0.1, 19.0, 19.6
        assert max(self.climb(rate, 102, 160)) > 15
        assert (rate.aim, rate.refused) == (19.0, 19.6)

    def test_a_refusal_soon_after_arriving_undoes_it_too(self) -> None:
        rate = self.lowered()
        self.climb(rate, 102, 130)
        rate.lower(refusal(rate, 130.0, 6.0, again=False, lasted=20.0), pause=1.0)
        assert rate.value < 5.1

    def test_a_refusal_once_it_held_is_an_ordinary_one(self) -> None:
        rate = self.lowered()
        self.climb(rate, 102, 140)
        rate.lower(refusal(rate, 140.0, 9.5, again=False, lasted=20.0), pause=1.0)
        assert rate.value == 9.5

    def test_is_not_tried_for_a_small_difference(self) -> None:
        rate = holding()
        rate.pause(100.0, 101.0, best=12.0)
        assert max(self.climb(rate, 102, 126)) < 9.9
