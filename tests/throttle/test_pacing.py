"""The pacer, rule by rule, then as a whole against simulated servers. Nothing here waits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import pacing as benchmark
from benchmarks.pacing_world import AtOnce, Conditions, Limit, SlidingWindow, TokenBucket, Unlimited, World
from segment_fetch.throttle.concurrency import Ticket
from segment_fetch.throttle.meter import AcceptedMeter
from segment_fetch.throttle.pacing import Pacer, Snapshot
from segment_fetch.throttle.rate import Learned

LIMITED = Learned(10.0, limited=True, cap=None, at=0.0)


def send(pacer: Pacer, now: float) -> Ticket:
    assert pacer.next_send(now) == 0
    return pacer.sent(now)


def accept_for(pacer: Pacer, start: float, end: float, latency: float = 0.05) -> float:
    """An even stream that is always accepted, one request at a time; the time after it."""
    now = start
    while now < end:
        now += pacer.next_send(now)
        ticket = send(pacer, now)
        now += latency
        pacer.accepted(ticket, now)
    return now


def refused_before(pacer: Pacer, now: float, others: str) -> Snapshot:
    """What it makes of a refusal, where those sent right behind it are accepted ("a") or refused ("r") as well."""
    tickets = []
    for _ in range(1 + len(others)):
        now += pacer.next_send(now)
        tickets.append(send(pacer, now))
    pacer.refused(tickets[0], now)
    for ticket, outcome in zip(tickets[1:], others, strict=True):
        (pacer.accepted if outcome == "a" else pacer.refused)(ticket, now + 0.1)
    pacer.next_send(now + 1.1)
    return pacer.snapshot(now + 1.1)


def late_sends(pacer: Pacer, late: Sequence[float], now: float = 0.0) -> list[float]:
    """When requests go that are each woken so many seconds late, and always accepted."""
    sends = []
    for seconds in late:
        now += pacer.next_send(now) + seconds
        pacer.accepted(send(pacer, now), now)
        sends.append(now)
    return sends


def refuse_next(pacer: Pacer, now: float, retry_after: float | None = None) -> float:
    """Sends as soon as it may and has it refused at once; when."""
    now += pacer.next_send(now)
    pacer.refused(send(pacer, now), now, retry_after)
    return now


class TestSpacing:
    def test_starts_at_ten_a_second_evenly(self) -> None:
        pacer = Pacer()
        first = send(pacer, 50.0)
        assert pacer.next_send(50.0) == pytest.approx(0.1 + 0.005), "the first one takes longer to get under way"
        pacer.accepted(first, 50.1)
        send(pacer, 51.0)
        assert pacer.next_send(51.0) == pytest.approx(1 / pacer.snapshot(51.0).rate)

    def test_does_not_catch_up_after_idling(self) -> None:
        pacer = Pacer()
        send(pacer, 0.0)
        send(pacer, 10.0)
        assert pacer.next_send(10.0) == pytest.approx(0.1)

    def test_what_was_not_there_to_be_sent_is_not_made_up_for(self) -> None:
        """A server without any burst takes two requests for one too many, however long it had none before."""
        pacer, now = Pacer(ceiling=20.0), 0.0
        pacer.accepted(send(pacer, now), 0.15)
        send(pacer, 0.15)
        assert pacer.next_send(0.15) > 0.05

    @pytest.mark.parametrize("ceiling", [0.5, 20.0, 50.0])
    def test_no_two_requests_are_closer_than_a_ceiling_says(self, ceiling: float) -> None:
        sends = late_sends(Pacer(ceiling=ceiling), [0.0, 0.02, 0.001, 0.3, 0.0, 0.004])
        assert min(later - earlier for earlier, later in pairwise(sends)) > 1.01 / ceiling

    def test_no_two_requests_are_closer_than_the_rate_says(self) -> None:
        sends = late_sends(Pacer(learned=LIMITED), [0.0, 0.03, 0.0])
        assert sends[2] - sends[1] > 1 / 9.8

    def test_begins_just_below_a_ceiling(self) -> None:
        assert Pacer(ceiling=20.0).snapshot(0.0).rate == pytest.approx(0.98 * 20)

    @pytest.mark.parametrize(("found", "rate"), [(20.0, 19.6), (19.0, 19.0), (16.0, 0.97 * 16), (21.0, 19.6)])
    def test_begins_just_below_a_ceiling_at_which_an_earlier_run_was_refused(self, found: float, rate: float) -> None:
        pacer = Pacer(ceiling=20.0, learned=Learned(found, limited=True, cap=None, at=0.0))
        assert pacer.snapshot(0.0).rate == pytest.approx(rate)
        now = accept_for(pacer, 100.0, 104.0)
        assert pacer.snapshot(now).rate == pytest.approx(rate, rel=0.015)

    def test_begins_at_what_was_learned_if_that_is_less(self) -> None:
        assert Pacer(ceiling=20.0, learned=LIMITED).snapshot(0.0).rate == pytest.approx(9.7)

    def test_makes_up_for_ten_milliseconds_of_late_waking(self) -> None:
        pacer = Pacer(learned=Learned(1000 / 0.97, limited=True, cap=None, at=0.0), connections=100)
        send(pacer, 0.0)
        at_once = 0
        while pacer.next_send(0.5) == 0:
            pacer.sent(0.5)
            at_once += 1
        assert at_once in {10, 11}

    def test_waits_for_an_answer_when_all_connections_are_busy(self) -> None:
        pacer = Pacer(connections=2)
        first = send(pacer, 0.0)
        send(pacer, 1.0)
        assert pacer.next_send(2.0) == math.inf
        pacer.accepted(first, 2.0)
        assert pacer.next_send(2.0) == 0

    @pytest.mark.parametrize("arguments", [{"connections": 0}, {"ceiling": 0.0}, {"ceiling": -1.0}])
    def test_refuses_settings_that_would_never_send(self, arguments: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="at least one connection"):
            Pacer(**arguments)  # type: ignore[arg-type]


class TestPause:
    @pytest.mark.parametrize(("retry_after", "pause"), [(None, 1.0), (0.2, 1.0), (7.0, 7.0)])
    def test_everything_pauses(self, retry_after: float | None, pause: float) -> None:
        pacer = Pacer()
        now = refuse_next(pacer, accept_for(pacer, 0.0, 3.0), retry_after)
        assert pacer.next_send(now) == pytest.approx(pause)
        assert pacer.snapshot(now).phase == "paused"
        assert pacer.next_send(now + pause) == 0

    def test_an_event_counts_once_but_may_ask_for_a_longer_pause(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        now += pacer.next_send(now)
        first, now = send(pacer, now), now + 0.3
        second = send(pacer, now)
        pacer.refused(first, now)
        after_one = pacer.snapshot(now)
        pacer.refused(second, now + 0.1)
        assert pacer.snapshot(now).rate == after_one.rate
        assert pacer.next_send(now) == pytest.approx(1.0)
        assert pacer.snapshot(now).in_flight == 0

    def test_a_late_refusal_of_the_same_event_may_ask_for_longer(self) -> None:
        pacer = Pacer()
        first, second = send(pacer, 0.0), send(pacer, 1.0)
        pacer.refused(first, 1.0)
        pacer.refused(second, 1.1, retry_after=5.0)
        assert pacer.next_send(1.1) == pytest.approx(5.0)

    def test_the_same_congestion_pauses_twice_as_long_up_to_eight_seconds(self) -> None:
        pacer = Pacer()
        now, pauses = accept_for(pacer, 0.0, 3.0), []
        for _ in range(6):
            now = refuse_next(pacer, now)
            pauses.append(round(pacer.next_send(now), 6))
        assert pauses == [1, 2, 4, 8, 8, 8]

    def test_four_accepted_make_it_a_new_event(self) -> None:
        pacer = Pacer()
        now = refuse_next(pacer, accept_for(pacer, 0.0, 3.0))
        now = refuse_next(pacer, accept_for(pacer, now + 1, now + 3))
        assert pacer.next_send(now) == pytest.approx(1.0)


class TestMeter:
    def test_counts_what_is_recent(self) -> None:
        meter = AcceptedMeter()
        for tick in range(400):
            meter.add(1000 + tick / 10)
            meter.reach(3 if tick < 100 else 2)
        assert meter.rate(1040.0, 10.0) == pytest.approx(10.0, rel=0.06)
        assert meter.best == pytest.approx(10.0, rel=0.02)
        assert meter.level() == 2

    def test_does_not_take_a_short_history_for_a_low_rate(self) -> None:
        meter = AcceptedMeter()
        for tick in range(20):
            meter.add(tick / 10)
        assert meter.rate(2.0, 10.0) == pytest.approx(10.0)

    def test_forgets_after_silence(self) -> None:
        meter = AcceptedMeter()
        meter.add(0.0)
        meter.reach(9)
        meter.roll(40.0)
        assert meter.level() == 0
        for _ in range(5):
            meter.add(100.0)
        assert meter.rate(100.0, 10.0) == 10.0


class TestEvidence:
    def test_what_a_ramp_has_grown_since_the_request_was_sent_is_not_what_was_refused(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 1.0)
        now += pacer.next_send(now)
        followed_at = pacer.snapshot(now).rate
        pacer.accepted(send(pacer, now), now)
        now += pacer.next_send(now)
        ticket = send(pacer, now)
        assert ticket.rate == followed_at
        now = accept_for(pacer, now, now + 0.5)
        assert pacer.snapshot(now).rate > 1.2 * followed_at
        pacer.refused(ticket, now)
        assert pacer.learned(0.0).rate == pytest.approx(0.955 * followed_at)

    def test_dropped_requests_are_none(self) -> None:
        dropping, plain = Pacer(), Pacer()
        for pacer in (dropping, plain):
            accept_for(pacer, 0.0, 3.0)
        for _ in range(16):
            dropping.dropped(dropping.sent(4.0), 4.0)
        assert dropping.snapshot(4.0) == plain.snapshot(4.0)

    def crowded(self, pacer: Pacer, now: float, others: int) -> Snapshot:
        """What it makes of a refusal beside so many others in flight, more than ever before."""
        for _ in range(others):
            now += pacer.next_send(now)
            send(pacer, now)
        now += pacer.next_send(now)
        pacer.refused(send(pacer, now), now)
        pacer.next_send(now + 1.1)
        return pacer.snapshot(now + 1.1)

    def test_a_refusal_with_more_in_flight_than_ever_lowers_the_cap_only(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        before = pacer.snapshot(now).rate
        after = self.crowded(pacer, now, 8)
        assert (after.cap, after.blame, after.rate >= before) == (8, "concurrency", True)

    def test_a_ramp_that_has_no_more_in_flight_than_its_rate_brings_along_lowers_the_rate(self) -> None:
        """Rate and number grow together, so either may have been refused; a cap on a rate costs far more."""
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 1.0, latency=0.1)
        assert pacer.snapshot(now).rate > 15
        after = self.crowded(pacer, now, 1)
        assert (after.cap, after.blame) == (16, "rate")

    def test_what_was_accepted_behind_an_earlier_refusal_does_not_count(self) -> None:
        pacer = Pacer(ceiling=20.0)
        now = accept_for(pacer, 0.0, 1.0)
        tickets = []
        for _ in range(3):
            now += pacer.next_send(now)
            tickets.append(send(pacer, now))
        pacer.refused(tickets[0], now)
        for ticket in tickets[1:]:
            pacer.accepted(ticket, now + 0.1)
        now = accept_for(pacer, now + 1.0, now + 3.0)
        now = refuse_next(pacer, now)
        pacer.next_send(now + 1.1)
        assert pacer.snapshot(now + 1.1).rate < 0.9 * 0.96 * 19.6, "a measurement"

    def test_a_first_refusal_before_any_answer_is_no_measurement(self) -> None:
        """Nothing accepted is not a rate of nothing: from there it would take minutes to get anywhere."""
        pacer = Pacer(ceiling=20.0)
        now = refuse_next(pacer, 0.0)
        pacer.next_send(now + 1.1)
        assert pacer.snapshot(now + 1.1).rate == pytest.approx(0.955 * 19.6)

    def test_once_the_rate_was_refused_a_fuller_one_is_about_the_number(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 2.0)
        now = refuse_next(pacer, now)
        now = accept_for(pacer, now + 1.0, now + 6.0)
        after = self.crowded(pacer, now, 1)
        assert (after.cap, after.blame) == (1, "concurrency")
        assert pacer.learned(0.0).limited, "the first one was about the rate"

    def test_that_is_taken_back_if_the_number_turns_out_to_be_it(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 1.0, latency=0.1)
        self.crowded(pacer, now, 1)
        now = accept_for(pacer, now + 5, now + 15, latency=0.1)
        after = self.crowded(pacer, now, 4)
        assert (after.cap, after.blame) == (5, "concurrency")
        assert not pacer.learned(0.0).limited

    def test_the_first_refusal_at_a_ceiling_is_not_taken_for_one_of_the_number_at_once(self) -> None:
        """However few answers have come yet: a cap would cost far more."""
        pacer = Pacer(ceiling=20.0)
        now = accept_for(pacer, 0.0, 0.4)
        send(pacer, now + 0.1)
        pacer.refused(send(pacer, now + 0.2), now + 0.25)
        pacer.next_send(now + 1.3)
        after = pacer.snapshot(now + 1.3)
        assert (after.cap, after.blame) == (16, "rate")
        assert after.rate == pytest.approx(0.955 * 0.98 * 20)

    @pytest.mark.parametrize(
        ("rate", "seconds", "pause", "during", "whole"),
        [
            pytest.param(30.0, 6.0, 1.0, 0, True, id="130 in 6 s are a measurement"),
            pytest.param(30.0, 4.0, 1.0, 0, False, id="4 s are too short"),
            pytest.param(15.0, 6.0, 1.0, 0, False, id="70 are too few"),
            pytest.param(15.0, 6.0, 1.0, 40, False, id="what comes during the pause is none of them"),
            pytest.param(30.0, 6.0, 2.5, 0, False, id="in a long pause more may have been stored"),
        ],
    )
    def test_a_pause_is_left_out_of_what_was_given_if_enough_came_since(
        self, rate: float, seconds: float, pause: float, during: int, whole: bool
    ) -> None:
        pacer = Pacer(connections=64, learned=Learned(rate, limited=True, cap=None, at=0.0))
        now = accept_for(pacer, 0.0, 2.0, latency=0.001)
        behind = []
        for _ in range(1 + during):
            now += pacer.next_send(now)
            behind.append(send(pacer, now))
        pacer.refused(behind.pop(), now, pause)
        for ticket in behind:
            pacer.accepted(ticket, now + 0.5)
        now = accept_for(pacer, now + pause, now + pause + seconds, latency=0.001)
        now += pacer.next_send(now)
        before = pacer.snapshot(now).rate
        pacer.refused(send(pacer, now), now)
        pacer.next_send(now + 1.0)
        assert (pacer.snapshot(now + 1.0).rate > 0.95 * before) is whole

    @pytest.mark.parametrize(
        ("sharp", "others", "blame"),
        [
            pytest.param(True, "aa", "rate", id="no burst, so it came too early"),
            pytest.param(True, "ar", "concurrency", id="not alone"),
            pytest.param(False, "aa", "concurrency", id="a burst"),
            pytest.param(False, "aaa", "rate", id="as many at once were accepted"),
        ],
    )
    def test_one_alone_is_not_about_the_number_at_once_where_a_server_has_no_burst(
        self, sharp: bool, others: str, blame: str
    ) -> None:
        pacer = Pacer(learned=Learned(20.0, limited=True, cap=None, at=0.0))
        pacer._rate.sharp = sharp
        assert self.third(pacer, accept_for(pacer, 0.0, 3.0), others).blame == blame

    def test_one_that_hangs_from_the_start_is_no_second_one_at_the_server(self) -> None:
        pacer = Pacer()
        hanging = send(pacer, 0.0)
        assert refused_before(pacer, accept_for(pacer, 0.1, 0.6), "").blame == "rate"
        pacer.dropped(hanging, 3.0)

    def test_nor_for_what_a_run_learned_that_ends_in_a_pause(self) -> None:
        pacer = Pacer()
        send(pacer, 0.0)
        refuse_next(pacer, accept_for(pacer, 0.1, 0.6))
        assert pacer.learned(0.0).cap is None

    @pytest.mark.parametrize(("latency", "after", "level"), [(2.0, 5.0, 1), (2.0, 20.0, 2), (0.02, 0.5, 1)])
    def test_a_429_is_waited_for_as_long_as_answers_take_four_times_and_a_second(
        self, latency: float, after: float, level: int
    ) -> None:
        pacer, now = Pacer(learned=Learned(10.0, limited=True, cap=None, at=0.0)), 0.0
        for _ in range(20):
            now += pacer.next_send(now)
            ticket, now = send(pacer, now), now + latency
            pacer.accepted(ticket, now)
        now += 40.0
        first, second = send(pacer, now), send(pacer, now + 0.2)
        pacer.accepted(second, now + 0.2 + latency)
        pacer.accepted(send(pacer, now + after), now + after)
        pacer.refused(first, now + after + 0.1)
        pacer.next_send(now + after + 2.0)
        assert pacer._meter.level() == level

    def test_a_cap_that_has_served_is_trusted(self) -> None:
        pacer, now = Pacer(learned=Learned(50.0, limited=True, cap=2, at=0.0)), 0.0
        for _ in range(25):
            pair = []
            for _ in range(2):
                now += pacer.next_send(now)
                pair.append(send(pacer, now))
            for ticket in pair:
                pacer.accepted(ticket, now)
        assert refused_before(pacer, now, "").blame == "concurrency"

    def test_while_one_hangs_the_others_still_tell_how_many_may_be(self) -> None:
        pacer = Pacer(ceiling=20.0, learned=Learned(20.0, limited=True, cap=None, at=0.0))
        hanging = send(pacer, 0.0)
        now = accept_for(pacer, 0.1, 60.0)
        assert refused_before(pacer, now, "").blame == "rate"
        pacer.dropped(hanging, now + 2.0)

    def test_one_whose_429_comes_late_is_not_counted(self) -> None:
        def four(now: float) -> tuple[float, list[Ticket]]:
            sent = []
            for _ in range(4):
                now += pacer.next_send(now)
                sent.append(send(pacer, now))
            return now, sent

        pacer = Pacer()
        now, sent = four(0.0)
        for ticket in sent:
            pacer.accepted(ticket, now)
        now, (_, second, third, _) = four(now)
        pacer.refused(second, now)
        now += pacer.next_send(now)
        last = send(pacer, now)
        pacer.refused(third, now)
        pacer.refused(last, now)
        assert pacer._event is not None
        assert (last.level, pacer._event.level) == (4, 3)

    def test_the_same_number_is_not_taken_for_too_early_again(self) -> None:
        """Else a server that does allow no more at once would be refused for ever, and slower each time."""
        pacer = Pacer(learned=Learned(20.0, limited=True, cap=None, at=0.0))
        pacer._rate.sharp = True
        assert self.third(pacer, accept_for(pacer, 0.0, 3.0), "aa").blame == "rate"
        assert self.third(pacer, accept_for(pacer, 6.0, 9.0), "aa").blame == "concurrency"

    def third(self, pacer: Pacer, now: float, others: str) -> Snapshot:
        """Refused while two are in flight that are answered only later, as never more than one has been."""
        earlier = []
        for _ in range(2):
            now += pacer.next_send(now)
            earlier.append(send(pacer, now))
        after = refused_before(pacer, now, others)
        for ticket in earlier:
            pacer.dropped(ticket, now + 1.2)
        return after

    def test_a_later_one_may_be_about_the_number_at_once(self) -> None:
        pacer = Pacer(ceiling=20.0, learned=Learned(20.0, limited=True, cap=None, at=0.0))
        after = self.crowded(pacer, accept_for(pacer, 0.0, 2.0), 3)
        assert (after.cap, after.blame) == (3, "concurrency")

    @pytest.mark.parametrize(
        ("others", "share"), [("aa", 0.96), ("aar", 0.96), ("aarr", 0.955), ("a", 0.955), ("", 0.955)]
    )
    def test_what_becomes_of_those_behind_a_refused_one_tells_whether_it_was_alone(
        self, others: str, share: float
    ) -> None:
        pacer = Pacer(ceiling=20.0)
        now = accept_for(pacer, 0.0, 1.0)
        assert refused_before(pacer, now, others).rate == pytest.approx(share * 0.98 * 20)

    def test_what_is_answered_during_the_pause_may_still_clear_the_number_at_once(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        first, second, third = (send(pacer, now + wait) for wait in (1, 2, 3))
        beside = send(pacer, now + 3.5)
        pacer.accepted(first, now + 4)
        refused = send(pacer, now + 4)
        assert refused.level == beside.level == 4
        pacer.refused(refused, now + 4.1)
        for ticket in (second, third, beside):
            pacer.accepted(ticket, now + 4.5)
        assert pacer.next_send(now + 5.2) == 0
        after = pacer.snapshot(now + 5.2)
        assert (after.cap, after.blame) == (16, "rate")

    def test_before_anything_was_accepted_the_rate_is_to_blame(self) -> None:
        pacer = Pacer()
        send(pacer, 0.0)
        pacer.refused(send(pacer, 1.0), 1.1)
        pacer.next_send(2.2)
        assert pacer.snapshot(2.2).blame == "rate"

    def test_what_was_learned_counts_a_refusal_whose_pause_is_not_over(self) -> None:
        pacer = Pacer(learned=LIMITED)
        now = refuse_next(pacer, accept_for(pacer, 0.0, 8.0))
        assert pacer.learned(now).rate == pytest.approx(9.7)

    def test_an_answer_during_the_pause_does_not_prove_its_level(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        tickets = [send(pacer, now + wait) for wait in (1, 2, 3)]
        pacer.refused(tickets[0], now + 3)
        pacer.accepted(tickets[2], now + 3.5)
        assert pacer._meter.level() == 1


class TestLearned:
    def learn(self, limit: Limit, latency: float = 0.2) -> Learned:
        pacer = Pacer()
        World(limit, Conditions(seconds=120, latency=latency), 1).run(pacer)
        return pacer.learned(77.0)

    def test_a_rate(self) -> None:
        learned = self.learn(TokenBucket(10, 10))
        assert 9.3 < learned.rate < 10.7
        assert (learned.limited, learned.cap, learned.at) == (True, None, 77.0)
        warm = Pacer(learned=learned).snapshot(0.0)
        assert warm.rate == pytest.approx(0.97 * learned.rate)
        assert warm.phase == "holding"

    def test_a_cap(self) -> None:
        learned = self.learn(AtOnce(5))
        assert (learned.limited, learned.cap) == (False, 5)
        warm = Pacer(learned=learned).snapshot(0.0)
        assert (warm.cap, warm.phase) == (5, "ramping")

    def test_a_warm_cap_is_not_tested_at_once(self) -> None:
        pacer = Pacer(learned=Learned(50.0, limited=False, cap=5, at=0.0))
        outcome = World(AtOnce(5), Conditions(seconds=15), 1).run(pacer)
        assert outcome.refused == 0

    def test_the_first_measurement_begins_with_the_run(self) -> None:
        pacer = Pacer(learned=LIMITED)
        refuse_next(pacer, accept_for(pacer, 5000.0, 5008.0, latency=0.2))
        assert pacer.learned(0.0).rate == pytest.approx(9.7, rel=0.01)

    @pytest.mark.parametrize(
        ("before", "ceiling", "rate"),
        [
            (Learned(30.0, limited=True, cap=None, at=0.0), 5.0, 30.0),
            (Learned(30.0, limited=False, cap=None, at=0.0), 5.0, 30.0),
            (None, 5.0, 4.9),
        ],
    )
    def test_a_slow_run_does_not_unlearn(self, before: Learned | None, ceiling: float, rate: float) -> None:
        pacer = Pacer(ceiling=ceiling, learned=before)
        accept_for(pacer, 0.0, 30.0)
        assert pacer.learned(1.0).rate == pytest.approx(rate, rel=0.001)

    @pytest.mark.parametrize(
        ("before", "rate", "limited"),
        [
            (None, 0.466, False),
            (Learned(30.0, limited=True, cap=None, at=0.0), 30.0, True),
            (Learned(30.0, limited=False, cap=None, at=0.0), 30.0, False),
        ],
    )
    def test_one_refusal_at_a_low_ceiling_is_no_limit(self, before: Learned | None, rate: float, limited: bool) -> None:
        pacer = Pacer(ceiling=0.5, learned=before)
        now = refuse_next(pacer, accept_for(pacer, 0.0, 30.0))
        accept_for(pacer, now, 60.0)
        learned = pacer.learned(0.0)
        assert learned.rate == pytest.approx(rate, rel=0.02)
        assert learned.limited is limited

    def test_a_second_refusal_at_a_low_ceiling_is(self) -> None:
        pacer = Pacer(ceiling=0.5)
        now = 0.0
        for _ in range(2):
            now = refuse_next(pacer, accept_for(pacer, now, now + 30.0))
        learned = pacer.learned(0.0)
        assert learned.limited
        assert learned.rate < 0.49

    def test_what_a_slower_run_than_any_other_learned_is_within_the_bounds(self) -> None:
        pacer = Pacer(ceiling=0.01)
        accept_for(pacer, 0.0, 3000.0)
        learned = pacer.learned(0.0)
        assert msgspec.convert(msgspec.to_builtins(learned), Learned) == learned

    def test_fewer_connections_than_a_cap_do_not_unlearn_it(self) -> None:
        before = Learned(30.0, limited=False, cap=5, at=0.0)
        assert Pacer(connections=4, learned=before).learned(1.0).cap == 5
        assert Pacer(connections=16, learned=before).learned(1.0).cap == 5

    def test_a_few_answers_teach_nothing(self) -> None:
        pacer = Pacer()
        accept_for(pacer, 0.0, 1.0)
        assert not pacer.has_learned

    @pytest.mark.parametrize("answered_for", [0.5, 10.0])
    def test_many_answers_or_one_refusal_teach_something(self, answered_for: float) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, answered_for)
        if answered_for < 1:
            refuse_next(pacer, now)
        assert pacer.has_learned

    @pytest.mark.parametrize(
        ("pacer", "expected"),
        [
            (Pacer(), None),
            (Pacer(ceiling=20.0), 19.6),
            (Pacer(learned=LIMITED), 10.0),
            (Pacer(ceiling=5.0, learned=LIMITED), 4.9),
        ],
    )
    def test_what_a_plan_may_reckon_with(self, pacer: Pacer, expected: float | None) -> None:
        assert pacer.expected == (None if expected is None else pytest.approx(expected, rel=0.001))

    def test_fewer_connections_than_learned(self) -> None:
        assert Pacer(connections=3, learned=Learned(9.0, limited=True, cap=5, at=0.0)).snapshot(0.0).cap == 3


@pytest.mark.parametrize(
    ("limit", "phases"),
    [
        (TokenBucket(10, 10), {"ramping", "paused", "holding", "probing"}),
        (Unlimited(), {"ramping"}),
        (AtOnce(5), {"ramping", "paused", "holding", "probing"}),
    ],
)
def test_phases(limit: Limit, phases: set[str]) -> None:
    seen = set()

    class Watched(Pacer):
        def next_send(self, now: float) -> float:
            seen.add(self.snapshot(now).phase)
            return super().next_send(now)

    World(limit, Conditions(seconds=60), 1).run(Watched())
    assert seen == phases


@dataclass
class Scripted:
    """A limit that refuses as a list of booleans says, over and over."""

    refusals: Sequence[bool]
    asked: int = 0

    def offer(self, at: float, took: float) -> float:
        self.asked += 1
        return float(self.refusals[self.asked % len(self.refusals)])

    def scale(self, factor: float) -> None: ...

    def capacity(self, latency: float) -> float:
        return 1.0


class TestLongRuns:
    """Figures that double with time have to stop somewhere."""

    @pytest.mark.parametrize(
        "options", [{}, {"ceiling": 20.0}, {"learned": LIMITED}, {"ceiling": 20.0, "learned": LIMITED}]
    )
    @pytest.mark.parametrize("idle", [1_100.0, 5_200.0, 12_000.0, 1e9])
    def test_a_long_silence_changes_little(self, options: dict[str, Any], idle: float) -> None:
        pacer = Pacer(**options)
        now = accept_for(pacer, 0.0, 3.0) + idle
        assert pacer.next_send(now) == 0
        assert 0 < pacer.snapshot(now).rate < 5000

    @pytest.mark.parametrize("learned", [None, Learned(0.5, limited=True, cap=None, at=0.0)])
    def test_hours_at_a_ceiling_without_a_refusal(self, learned: Learned | None) -> None:
        pacer = Pacer(ceiling=0.5, learned=learned)
        refuse_next(pacer, accept_for(pacer, 0.0, 60.0))
        now = accept_for(pacer, 70.0, 20_000.0)
        assert pacer.snapshot(now).rate == pytest.approx(0.98 * 0.5)

    @pytest.mark.parametrize(("ceiling", "remembers"), [(None, True), (9.0, False), (30.0, True)])
    def test_a_ceiling_is_not_what_an_earlier_run_found(self, ceiling: float | None, remembers: bool) -> None:
        assert Pacer(ceiling=ceiling, learned=LIMITED).remembers is remembers

    def test_what_is_learned_can_be_read_again_whatever_the_ceiling(self) -> None:
        learned = Pacer(ceiling=1e9).learned(0.0)
        assert msgspec.json.decode(msgspec.json.encode(learned), type=Learned) == learned

    def test_hours_of_nothing_but_refusals(self) -> None:
        pacer, now = Pacer(), 0.0
        for _ in range(1_100):
            now = refuse_next(pacer, now)
        assert 0.1 <= pacer.snapshot(now).rate < 10
        assert pacer.next_send(now) == pytest.approx(8.0)


class TestProperties:
    @settings(max_examples=40, deadline=None)
    @given(
        ceiling=st.floats(0.5, 300),
        refusals=st.lists(st.sampled_from([False] * 9 + [True]), min_size=1, max_size=40),
        learned=st.none() | st.just(Learned(500.0, limited=True, cap=None, at=0.0)),
    )
    def test_the_ceiling_holds_in_every_window(
        self, ceiling: float, refusals: list[bool], learned: Learned | None
    ) -> None:
        pacer = Pacer(ceiling=ceiling, learned=learned)
        sends = World(Scripted(refusals), Conditions(seconds=20, latency=0.05), 1).run(pacer).sends
        for start in range(0, len(sends), 7):
            for end in range(start, len(sends), 5):
                assert end - start + 1 <= ceiling * (sends[end] - sends[start] + 0.0101) + 1

    @settings(max_examples=40, deadline=None)
    @given(
        refusals=st.lists(st.booleans(), min_size=1, max_size=60),
        connections=st.integers(1, 20),
        seed=st.integers(0, 9),
    )
    def test_whatever_is_answered_it_goes_on_and_stays_in_bounds(
        self, refusals: list[bool], connections: int, seed: int
    ) -> None:
        pacer = Pacer(connections=connections)
        outcome = World(Scripted([*refusals, False]), Conditions(seconds=60), seed).run(pacer)
        state = pacer.snapshot(60.0)
        assert 1 <= state.cap <= connections
        assert state.in_flight <= connections
        assert 0.09 < state.rate < 1e6
        assert len(outcome.sends) >= 5

    @pytest.mark.parametrize("origin", [0.0, 123456.0, -5000.0])
    def test_the_origin_of_time_does_not_matter(self, origin: float) -> None:
        class Shifted(Pacer):
            def next_send(self, now: float) -> float:
                return super().next_send(now + origin)

            def sent(self, now: float) -> Ticket:
                return super().sent(now + origin)

            def accepted(self, ticket: Ticket, now: float) -> None:
                super().accepted(ticket, now + origin)

            def refused(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
                super().refused(ticket, now + origin, retry_after)

        outcome = World(SlidingWindow(100, 10), Conditions(seconds=100), 1).run(Shifted())
        plain = World(SlidingWindow(100, 10), Conditions(seconds=100), 1).run(Pacer())
        assert outcome.accepted == pytest.approx(plain.accepted, rel=0.02)


ROWS = {row.name: row for row in benchmark.ROWS}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.gate])
def test_the_gates_hold(name: str) -> None:
    assert benchmark.holds(ROWS[name], benchmark.measure(ROWS[name], None, 1))


@pytest.mark.parametrize(
    ("name", "goodput", "refused"),
    [
        ("token bucket, doubles midway", 0.86, 0.5),
        ("sliding window, neighbour 5/s on and off", 0.8, 2.0),
        ("token bucket 1/s, burst 5", 0.95, 4.0),
        ("sliding window, 12 to 15 in flight", 0.9, 0.8),
        ("token bucket, 0.2 % random 429", 0.8, 0.8),
        ("5 at once, 429 late", 0.93, 0.6),
        ("token bucket 10/s, burst 1, 429 late", 0.9, 0.9),
        ("sliding window 600 in 60 s", 0.9, 1.3),
    ],
)
def test_what_is_hard_stays_as_good_as_it_is(name: str, goodput: float, refused: float) -> None:
    measured = benchmark.measure(ROWS[name], None, 1)
    assert measured[0] >= goodput
    assert measured[1] <= refused


@pytest.mark.parametrize("latency", [0.05, 0.2, 0.4])
def test_a_server_that_counts_more_strictly_than_it_says_does_not_refuse_a_ceiling(latency: float) -> None:
    outcome = World(TokenBucket(19.9, 1), Conditions(seconds=60, latency=latency), 1).run(Pacer(ceiling=20.0))
    assert outcome.refused == 0
    assert outcome.goodput == pytest.approx(0.985, abs=0.005)


def test_without_a_limit_five_hundred_a_second_come_within_nine_seconds() -> None:
    outcome = World(Unlimited(), Conditions(seconds=10, latency=0.02), 1).run(Pacer())
    assert sum(9 <= at < 9.5 for at in outcome.sends) >= 250


@pytest.mark.parametrize("rule", benchmark.RULES)
def test_every_rule_that_the_benchmark_takes_out_exists(rule: str) -> None:
    with benchmark.patched(rule):
        assert Pacer().next_send(0.0) == 0
