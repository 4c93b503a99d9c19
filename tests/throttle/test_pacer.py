"""The pacer, rule by rule, then as a whole against simulated servers. Nothing here waits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import pacing as benchmark
from benchmarks.pacing_world import AtOnce, Conditions, Limit, SlidingWindow, TokenBucket, Unlimited, World
from benchmarks.pacing_worlds import draw, score
from segment_fetch.throttle import pacer as module
from segment_fetch.throttle.pacer import HOLD, LONGEST, PROOF, RETRY, Learned, Pacer, Permit

LIMITED = Learned(10.0, limited=True, cap=None, at=0.0)


def send(pacer: Pacer, now: float) -> Permit:
    assert pacer.next_send(now) == 0
    return pacer.sent(now)


def accept_for(pacer: Pacer, start: float, end: float, latency: float = 0.05) -> float:
    """Send an even stream that is always accepted, one request at a time; return the time after it."""
    now = start
    while now < end:
        now += pacer.next_send(now)
        permit = send(pacer, now)
        now += latency
        pacer.accepted(permit, now)
    return now


def refuse_next(pacer: Pacer, now: float, retry_after: float | None = None) -> float:
    """Send as soon as that is allowed, refuse it at once, and return when."""
    now += pacer.next_send(now)
    pacer.refused(send(pacer, now), now, retry_after)
    return now


def send_beside(pacer: Pacer, now: float, others: int) -> tuple[list[Permit], Permit, float]:
    """Send so many requests and one more, all of them in flight together."""
    tickets = []
    for _ in range(others + 1):
        now += pacer.next_send(now)
        tickets.append(send(pacer, now))
    return tickets[:-1], tickets[-1], now


class TestSpacing:
    def test_starts_at_ten_a_second_evenly(self) -> None:
        pacer = Pacer()
        send(pacer, 50.0)
        assert pacer.next_send(50.0) == pytest.approx(0.1)

    def test_what_was_not_there_to_be_sent_is_not_made_up_for(self) -> None:
        pacer = Pacer()
        send(pacer, 0.0)
        send(pacer, 10.0)
        assert pacer.next_send(10.0) == pytest.approx(0.1)

    def test_a_fast_sender_makes_up_for_ten_milliseconds_of_late_waking(self) -> None:
        pacer = Pacer(learned=Learned(1000 / HOLD, limited=True, cap=None, at=0.0), connections=100)
        send(pacer, 0.0)
        at_once = 0
        while pacer.next_send(0.5) == 0:
            pacer.sent(0.5)
            at_once += 1
        assert at_once in {10, 11}

    def test_a_slow_one_does_not(self) -> None:
        pacer = Pacer(learned=LIMITED)
        send(pacer, 0.0)
        send(pacer, 0.13)
        assert pacer.next_send(0.13) > 0.1

    def test_waits_for_an_answer_when_all_connections_are_busy(self) -> None:
        pacer = Pacer(connections=2)
        first, _ = send(pacer, 0.0), send(pacer, 1.0)
        assert pacer.next_send(2.0) == math.inf
        pacer.accepted(first, 2.0)
        assert pacer.next_send(2.0) == 0

    @pytest.mark.parametrize("arguments", [{"connections": 0}, {"ceiling": 0.0}, {"ceiling": -1.0}])
    def test_refuses_settings_that_would_never_send(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="at least one connection"):
            Pacer(**arguments)

    def test_asking_changes_nothing(self) -> None:
        pacer = Pacer(learned=LIMITED)
        now = refuse_next(pacer, accept_for(pacer, 0.0, 9.0)) + 3
        waits = {pacer.next_send(now) for _ in range(5)}
        states = [(pacer.rate, pacer.at_once, pacer.expected, pacer.has_learned, pacer.learned(1.0)) for _ in range(2)]
        assert len(waits) == 1
        assert states[0] == states[1]


class TestPause:
    @pytest.mark.parametrize(("retry_after", "pause"), [(None, 1.0), (0.2, 1.0), (7.0, 7.0)])
    def test_everything_pauses(self, retry_after: float | None, pause: float) -> None:
        pacer = Pacer()
        now = refuse_next(pacer, accept_for(pacer, 0.0, 3.0), retry_after)
        assert pacer.next_send(now) == pytest.approx(pause)
        assert pacer.resumes_at == pytest.approx(now + pause)
        assert pacer.next_send(now + pause) == 0

    def test_an_event_counts_once_but_may_ask_for_a_longer_pause(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        (first, second), third, now = send_beside(pacer, now, 2)
        pacer.refused(first, now)
        rate, cap = pacer.rate, pacer.cap
        pacer.refused(second, now + 0.1)
        assert (pacer.rate, pacer.cap) == (rate, cap)
        assert pacer.next_send(now) == pytest.approx(1.0)
        pacer.refused(third, now + 0.1, retry_after=5.0)
        assert pacer.next_send(now) == pytest.approx(5.1)
        assert pacer.in_flight == 0

    def test_the_same_congestion_pauses_twice_as_long_up_to_eight_seconds(self) -> None:
        pacer = Pacer()
        now, pauses = accept_for(pacer, 0.0, 3.0), []
        for _ in range(6):
            now = refuse_next(pacer, now)
            pauses.append(round(pacer.next_send(now), 6))
        assert pauses == [1, 2, 4, 8, 8, 8]

    def test_one_accepted_request_makes_it_a_new_event(self) -> None:
        pacer = Pacer()
        now = refuse_next(pacer, accept_for(pacer, 0.0, 3.0))
        now = refuse_next(pacer, accept_for(pacer, now + 1, now + 1.05))
        assert pacer.next_send(now) == pytest.approx(1.0)

    def test_under_a_slow_ceiling_the_next_request_keeps_its_distance(self) -> None:
        pacer = Pacer(ceiling=0.1)
        now = refuse_next(pacer, 0.0)
        assert pacer.next_send(now) == pytest.approx(10 / HOLD)


class TestCause:
    def test_more_in_flight_than_was_ever_accepted_is_a_matter_of_the_number(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        before = pacer.rate
        _, refused, now = send_beside(pacer, now, 4)
        pacer.refused(refused, now)
        assert (pacer.at_once, pacer.cause, pacer.rate >= before) == (4, "at_once", True)

    def test_no_more_than_are_often_accepted_is_a_matter_of_the_rate(self) -> None:
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        for _ in range(PROOF):
            others, last, now = send_beside(pacer, now, 2)
            for permit in (*others, last):
                pacer.accepted(permit, now + 0.05)
            now += 0.1
        before = pacer.rate
        _, refused, now = send_beside(pacer, now, 2)
        pacer.refused(refused, now)
        assert (pacer.at_once, pacer.cause) == (None, "rate")
        assert pacer.rate < before

    def test_one_alone_is_never_too_many(self) -> None:
        pacer = Pacer()
        refuse_next(pacer, 0.0)
        assert (pacer.at_once, pacer.cause) == (None, "rate")
        assert pacer.rate >= 5

    def test_a_request_that_was_dropped_is_no_evidence(self) -> None:
        dropping, plain = Pacer(), Pacer()
        for pacer in (dropping, plain):
            accept_for(pacer, 0.0, 3.0)
        for _ in range(16):
            dropping.dropped(dropping.sent(4.0), 4.0)
        assert (dropping.rate, dropping.cap, dropping.in_flight) == (plain.rate, plain.cap, 0)


class TestCap:
    def capped(self) -> tuple[Pacer, float]:
        """Return a pacer that holds two at once, as three were refused."""
        pacer = Pacer()
        now = accept_for(pacer, 0.0, 3.0)
        _, refused, now = send_beside(pacer, now, 2)
        pacer.refused(refused, now)
        for _ in range(2):
            pacer.dropped(refused, now)
        return pacer, now + 1

    def fill(self, pacer: Pacer, now: float, rounds: int) -> float:
        """Keep as many in flight as the pacer allows, all of them accepted."""
        for _ in range(rounds):
            tickets = []
            while (wait := pacer.next_send(now)) < math.inf:
                now += wait
                tickets.append(send(pacer, now))
            now += 0.05
            for permit in tickets:
                pacer.accepted(permit, now)
        return now

    def test_a_refused_number_is_tried_again_after_ten_seconds_and_kept_if_it_is_accepted_often(self) -> None:
        pacer, now = self.capped()
        now = self.fill(pacer, now, PROOF)
        assert pacer.cap == 2
        now = self.fill(pacer, now + RETRY, 1)
        assert pacer.cap == 3
        now = self.fill(pacer, now, PROOF)
        assert pacer.cap > 3

    def test_a_number_that_is_refused_again_waits_longer_each_time(self) -> None:
        pacer, now = self.capped()
        waits = []
        for _ in range(5):
            began = now
            while pacer.cap == 2:
                now = self.fill(pacer, now, 1)
            waits.append(now - began)
            others, refused, now = send_beside(pacer, now, 2)
            pacer.refused(refused, now)
            for permit in others:
                pacer.accepted(permit, now)
            now += 1
        longest = LONGEST * RETRY
        assert waits == [pytest.approx(wait, abs=2) for wait in (RETRY, 2 * RETRY, 4 * RETRY, longest, longest)]


class TestLearned:
    def learn(self, limit: Limit) -> Learned:
        pacer = Pacer()
        World(limit, Conditions(seconds=120), 1).run(pacer)
        return pacer.learned(77.0)

    def test_a_rate(self) -> None:
        learned = self.learn(SlidingWindow(100, 10))
        assert 9.3 < learned.rate < 10.7
        assert (learned.limited, learned.cap, learned.at) == (True, None, 77.0)
        assert Pacer(learned=learned).rate == pytest.approx(HOLD * learned.rate)

    def test_a_number_at_once(self) -> None:
        learned = self.learn(AtOnce(5))
        assert (learned.limited, learned.cap) == (False, 5)
        assert Pacer(learned=learned).at_once == 5

    def test_a_remembered_number_is_not_tested_at_once(self) -> None:
        pacer = Pacer(learned=Learned(50.0, limited=False, cap=5, at=0.0))
        assert World(AtOnce(5), Conditions(seconds=5), 1).run(pacer).refused == 0

    @pytest.mark.parametrize("before", [Learned(30.0, limited=True, cap=None, at=0.0), None])
    def test_a_run_below_a_ceiling_does_not_unlearn(self, before: Learned | None) -> None:
        pacer = Pacer(ceiling=5.0, learned=before)
        accept_for(pacer, 0.0, 30.0)
        assert pacer.learned(1.0).rate == pytest.approx(30.0 if before else HOLD * 5)

    def test_fewer_connections_than_a_cap_do_not_unlearn_it(self) -> None:
        before = Learned(30.0, limited=False, cap=5, at=0.0)
        assert Pacer(connections=4, learned=before).learned(1.0).cap == 5
        assert Pacer(connections=16, learned=before).learned(1.0).cap == 5

    def test_a_few_answers_teach_nothing(self) -> None:
        pacer = Pacer()
        pacer.accepted(send(pacer, 0.0), 0.1)
        assert not pacer.has_learned
        refuse_next(pacer, 1.0)
        assert pacer.has_learned

    @pytest.mark.parametrize("ceiling", [0.01, 1e9])
    def test_a_state_can_be_read_again_whatever_the_ceiling(self, ceiling: float) -> None:
        pacer = Pacer(ceiling=ceiling)
        accept_for(pacer, 0.0, 3 / ceiling)
        learned = pacer.learned(0.0)
        assert msgspec.json.decode(msgspec.json.encode(learned), type=Learned) == learned

    @pytest.mark.parametrize(
        ("pacer", "expected"),
        [
            (Pacer(), None),
            (Pacer(ceiling=20.0), 19.6),
            (Pacer(learned=LIMITED), 10.0),
            (Pacer(ceiling=5.0, learned=LIMITED), 4.9),
        ],
    )
    def test_a_plan_may_reckon_with_a_rate_that_is_known(self, pacer: Pacer, expected: float | None) -> None:
        assert pacer.expected == (None if expected is None else pytest.approx(expected, rel=0.001))

    @pytest.mark.parametrize(("ceiling", "remembers"), [(None, True), (9.0, False), (30.0, True)])
    def test_a_ceiling_is_not_what_an_earlier_run_found(self, ceiling: float | None, remembers: bool) -> None:
        assert Pacer(ceiling=ceiling, learned=LIMITED).remembers is remembers


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

    def reserve(self, seconds: float) -> float:
        return 0.0


class TestLongRuns:
    """Figures that double with time have to stop somewhere."""

    @pytest.mark.parametrize("options", [{}, {"ceiling": 20.0}, {"learned": LIMITED}])
    @pytest.mark.parametrize("idle", [1_100.0, 12_000.0, 1e9])
    def test_a_long_silence_changes_little(self, options: dict[str, Any], idle: float) -> None:
        pacer = Pacer(**options)
        now = accept_for(pacer, 0.0, 3.0) + idle
        assert pacer.next_send(now) == 0
        assert 0 < pacer.rate < 5000

    def test_hours_at_a_ceiling_bring_the_rate_back_to_it(self) -> None:
        pacer = Pacer(ceiling=0.5)
        now = refuse_next(pacer, accept_for(pacer, 0.0, 60.0))
        accept_for(pacer, now, 20_000.0)
        assert pacer.rate == pytest.approx(HOLD * 0.5)

    def test_hours_of_nothing_but_refusals(self) -> None:
        pacer, now = Pacer(), 0.0
        for _ in range(1_100):
            now = refuse_next(pacer, now)
        assert 0.1 <= pacer.rate < 10
        assert pacer.next_send(now) <= 10


class TestProperties:
    @settings(max_examples=40, deadline=None)
    @given(
        ceiling=st.floats(0.05, 300),
        refusals=st.lists(st.sampled_from([False] * 9 + [True]), min_size=1, max_size=40),
        learned=st.none() | st.just(Learned(500.0, limited=True, cap=None, at=0.0)),
    )
    def test_a_ceiling_holds_in_every_second(
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
        assert 1 <= pacer.cap <= connections
        assert pacer.in_flight <= connections
        assert 0.09 < pacer.rate < 1e6
        assert len(outcome.sends) >= 5

    @pytest.mark.parametrize("origin", [123456.0, -5000.0])
    def test_the_origin_of_time_does_not_matter(self, origin: float) -> None:
        class Shifted(Pacer):
            def next_send(self, now: float) -> float:
                return super().next_send(now + origin)

            def sent(self, now: float) -> Permit:
                return super().sent(now + origin)

            def accepted(self, permit: Permit, now: float) -> None:
                super().accepted(permit, now + origin)

            def refused(self, permit: Permit, now: float, retry_after: float | None = None) -> None:
                super().refused(permit, now + origin, retry_after)

        outcome, plain = (World(TokenBucket(10, 10), Conditions(seconds=100), 1).run(p) for p in (Shifted(), Pacer()))
        assert outcome.accepted == pytest.approx(plain.accepted, rel=0.02)


ROWS = {row.name: row for row in benchmark.ROWS}
HARD = {
    "token bucket, doubles midway": (0.65, 0.8),
    "token bucket 1/s, burst 5": (0.95, 5.5),
    "token bucket, 0.2 % random 429": (0.8, 0.8),
    "5 at once, 429 late": (0.93, 0.6),
    "sliding window 600 in 60 s": (0.88, 2.0),
}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.gate and not row.warm])
def test_the_gates_hold(name: str) -> None:
    assert benchmark.holds(ROWS[name], benchmark.measure(ROWS[name], None, 4))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.warm])
def test_a_warm_start_is_better_than_a_cold_one(name: str) -> None:
    warm = benchmark.measure(ROWS[name], None, 1)
    cold = benchmark.measure(ROWS[name.replace("warm", "cold")], None, 1)
    assert warm[0] >= cold[0] - 0.01
    assert warm[1] < cold[1]


@pytest.mark.parametrize("name", HARD)
def test_servers_that_are_hard_do_not_become_harder(name: str) -> None:
    goodput, refused = benchmark.measure(ROWS[name], None, 1)
    assert goodput >= HARD[name][0]
    assert refused <= HARD[name][1]


@pytest.mark.parametrize("kind", ["at once", "rate and at once"])
def test_random_worlds_are_served_better_than_by_the_pacer_before(kind: str) -> None:
    from benchmarks.pacing_worlds import PACERS

    specs = [spec for spec in (draw(seed) for seed in range(100_000, 100_120)) if spec.kind == kind]
    ours, before = (sum(score(spec, make).goodput for spec in specs) for make in PACERS.values())
    assert ours > before


def test_a_limit_that_does_not_move_is_refused_less_and_less() -> None:
    outcome = World(SlidingWindow(100, 10), Conditions(seconds=600), 1).run(Pacer())
    late = sum(at > 300 for at in outcome.refusals)
    assert late < outcome.refused / 2
    assert late <= 0.005 * 3000


def test_without_a_limit_five_hundred_a_second_come_within_nine_seconds() -> None:
    outcome = World(Unlimited(), Conditions(seconds=10, latency=0.02), 1).run(Pacer())
    assert sum(9 <= at < 9.5 for at in outcome.sends) >= 250


@pytest.mark.parametrize("rule", benchmark.RULES)
def test_every_rule_that_the_benchmark_takes_out_exists(rule: str) -> None:
    with benchmark.patched(rule):
        assert Pacer().next_send(0.0) == 0


def test_it_is_small_enough_to_hold_in_the_head() -> None:
    constants = [name for name in module.__annotations__ if name.isupper()]
    assert 0 < len(constants) <= 18
    assert len(Path(module.__file__).read_text().splitlines()) <= 250
