"""The return of failed pages: rules by table, and whole runs on a clock of their own."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest

from segment_fetch.errors import CredentialsError, TransientError
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.throttle.retry_queue import DOWN_AFTER, TOKENS, Again, Attempt, Down, Lost, RetryQueue

SERVER = TransientError("the service failed with 503", "server")
NETWORK = TransientError("the connection was dropped")


def retry_queue(policy: RetryPolicy | None = None, wanted: Callable[[object], bool] = lambda _: True) -> RetryQueue:
    return RetryQueue(policy or RetryPolicy(jitter=0), lambda: 0.5, wanted)


def fresh(*requests: str) -> Callable[[], str | None]:
    left = iter(requests)
    return lambda: next(left, None)


REFUSED = CredentialsError("the API did not accept the credentials (401)", status=401)


def healthy(policy: RetryPolicy | None = None) -> RetryQueue:
    """A queue that has seen a success."""
    made = retry_queue(policy)
    made.succeeded(0.0)
    return made


def test_a_failed_page_waits_its_delay_while_others_go_on() -> None:
    made = healthy()
    assert made.failed(Attempt("bad"), SERVER, 0.0) == Again(5.0)
    assert made.next_at(0.0) == 5.0
    taken = made.take(1.0, fresh("other"), idle=False)
    assert taken is not None
    assert taken.request == "other"
    assert made.take(4.9, fresh(), idle=True) is None
    again = made.take(5.0, fresh("late"), idle=False)
    assert again is not None
    assert again.request == "bad"


def test_delays_grow_and_differ_by_kind() -> None:
    for error, delays in ((SERVER, [5.0, 10.0, 15.0]), (NETWORK, [0.5, 1.0, 2.0])):
        made, attempt = healthy(), Attempt("page")
        assert [made.failed(attempt, error, 0.0) for _ in delays] == [Again(delay) for delay in delays]


def test_a_page_alone_in_failing_is_parked_twice_and_then_lost() -> None:
    made, attempt, now = healthy(), Attempt("page"), 0.0
    seen = []
    for _ in range(12):
        now += 1
        seen.append(made.failed(attempt, NETWORK, now))
        made.succeeded(now)
        made.take(now + 1000, fresh(), idle=False)
    quick = [Again(0.5), Again(1.0), Again(2.0)]
    assert seen == [*quick, Again(30.0, parked=True), *quick, Again(120.0, parked=True), *quick, Lost(alone=True)]


def test_a_service_that_never_answered_is_given_up_with_the_first_page_that_used_up_its_retries() -> None:
    made, attempt = retry_queue(), Attempt("page")
    seen = [made.failed(attempt, NETWORK, float(at)) for at in range(4)]
    assert seen[-1] == Lost(alone=False)
    assert not made.is_closed


def test_nothing_through_since_a_page_first_failed_means_down() -> None:
    made, attempt = healthy(), Attempt("page")
    seen = [made.failed(attempt, NETWORK, float(at)) for at in range(1, 5)]
    assert seen[-1] == Down(3.0)
    assert made.is_closed


def test_many_failures_in_a_row_mean_down_and_then_only_probes_go() -> None:
    made = healthy()
    for number in range(DOWN_AFTER):
        outcome = made.failed(Attempt(number), SERVER, 1.0)
    assert outcome == Down(0.0)
    assert made.take(15.9, fresh("fresh"), idle=True) is None
    assert made.next_at(15.9) == 16.0
    probe = made.take(16.0, fresh("fresh"), idle=True)
    assert probe is not None
    assert made.take(16.0, fresh("fresh"), idle=False) is None
    assert made.failed(probe, SERVER, 17.0) == Down(16.0)
    assert made.take(31.9, fresh("fresh"), idle=True) is None
    probe = made.take(32.0, fresh("fresh"), idle=True)
    assert probe is not None
    assert made.succeeded(33.0) == 32.0
    assert made.take(33.0, fresh("fresh"), idle=False) is not None


@pytest.mark.parametrize(("patience", "probes"), [(60, [15, 30, 45, 60]), (20, [15, 20]), (2, [2])])
def test_patience_ends_when_it_is_over(patience: float, probes: list[float]) -> None:
    made = healthy(RetryPolicy(patience=patience, jitter=0))
    for number in range(DOWN_AFTER):
        made.failed(Attempt(number), SERVER, 0.0)
    for now in probes:
        assert made.next_at(now - 0.1) == now
        probe = made.take(now, fresh(), idle=True)
        assert probe is not None
        outcome = made.failed(probe, SERVER, now)
        assert outcome == (Lost(alone=False, down=patience) if now == patience else Down(now))


def test_without_patience_nothing_is_waited_for() -> None:
    made = healthy(RetryPolicy(patience=0))
    seen = [made.failed(Attempt(number), SERVER, 0.0) for number in range(DOWN_AFTER)]
    assert seen[-1] == Lost(alone=False, down=0.0)


def test_a_429_costs_neither_a_retry_nor_a_token() -> None:
    made, attempt = healthy(), Attempt("page")
    for at in range(200):
        assert made.throttled(attempt, float(at), 1.0) == at
        assert made.take(at + 1.0, fresh(), idle=False) is attempt
    assert attempt.failures == 0


def test_without_tokens_retries_wait_and_fresh_pages_go_on() -> None:
    made = healthy()
    for number in range(int(TOKENS) + 3):
        made.failed(Attempt(f"bad{number}"), NETWORK, 0.0)
        made.succeeded(0.0)
    retried = 0
    while (taken := made.take(1.0, fresh("fresh"), idle=False)) and taken.request != "fresh":
        retried += 1
    assert retried == TOKENS
    for _ in range(11):
        made.succeeded(1.0)
    earned = made.take(1.0, fresh("fresh"), idle=False)
    assert earned is not None
    assert earned.request != "fresh"


def test_workers_do_not_spin_while_a_page_waits_for_a_token() -> None:
    made = healthy()
    for number in range(int(TOKENS) + 1):
        made.failed(Attempt(number), NETWORK, 0.0)
        made.succeeded(0.0)
    for _ in range(int(TOKENS)):
        made.take(1.0, fresh(), idle=False)
    assert made.next_at(1.0) is None
    made.throttled(Attempt("refused"), 1.0, 2.0)
    assert made.next_at(1.0) == 3.0
    taken = made.take(3.0, fresh(), idle=False)
    assert taken is not None
    assert taken.request == "refused"


def test_with_nothing_else_to_do_a_probe_takes_the_place_of_a_token() -> None:
    made = healthy()
    for number in range(int(TOKENS) + 1):
        made.failed(Attempt(number), NETWORK, 0.0)
        made.succeeded(0.0)
    for _ in range(int(TOKENS)):
        made.take(1.0, fresh(), idle=False)
    assert made.take(1.0, fresh(), idle=False) is None
    made.take(1.0, fresh(), idle=True)
    assert made.take(1.0, fresh(), idle=True) is not None
    assert made.succeeded(1.0) is None


def test_a_page_no_longer_wanted_is_forgotten() -> None:
    made = retry_queue(wanted=lambda request: request != "stale")
    made.succeeded(0.0)
    made.failed(Attempt("stale"), NETWORK, 0.0)
    assert made.take(1.0, fresh(), idle=True) is None
    assert made.next_at(1.0) is None


def run(pages: int, broken: Callable[[float, random.Random], bool], seed: int) -> tuple[int, int, float]:
    """Requests sent, pages that came, and the seconds it took; 16 workers, 0.3 s an answer."""
    rng = random.Random(seed)
    made = RetryQueue(RetryPolicy(), rng.random, lambda _: True)
    order, numbers = count(), iter(range(pages))
    flight: list[tuple[float, int, Attempt]] = []
    now, sent, came = 0.0, 0, 0
    while came < pages:
        while len(flight) < 16 and (attempt := made.take(now, lambda: next(numbers, None), idle=not flight)):
            heapq.heappush(flight, (now + 0.3, next(order), attempt))
            sent += 1
        at = made.next_at(now)
        if flight and (at is None or flight[0][0] <= max(at, now)):
            now, _, attempt = heapq.heappop(flight)
            if broken(now, rng):
                assert not isinstance(made.failed(attempt, SERVER, now), Lost)
            else:
                came += 1
                made.succeeded(now)
        else:
            assert at is not None
            now = max(now, at) if at > now else now + 0.01
    return sent, came, now


@pytest.mark.parametrize("seed", range(5))
def test_five_percent_of_faults_cost_at_most_six_percent_of_requests(seed: int) -> None:
    sent, came, _ = run(10_000, lambda _, rng: rng.random() < 0.05, seed)
    assert came == 10_000
    assert sent / came <= 1.06


@pytest.mark.parametrize("minutes", [1, 5, 12])
@pytest.mark.parametrize("pages", [500, 5_000])
def test_an_outage_is_waited_out_with_few_requests(minutes: int, pages: int) -> None:
    sent, came, seconds = run(pages, lambda now, _: 2 < now < 2 + 60 * minutes, seed=minutes)
    assert came == pages
    assert sent / came <= 1.1 + 50 / pages
    assert seconds < 60 * minutes + 0.3 * pages / 16 + 60


def test_a_fifth_of_all_answers_broken_still_ends() -> None:
    sent, came, _ = run(2_000, lambda _, rng: rng.random() < 0.2, seed=1)
    assert came == 2_000
    assert sent < 2_000 * 1.35


def test_a_probe_whose_answer_is_of_no_use_makes_room_for_another() -> None:
    made = healthy()
    for number in range(DOWN_AFTER):
        made.failed(Attempt(number), SERVER, 1.0)
    probe = made.take(16.0, fresh(), idle=True)
    assert probe is not None
    assert made.take(16.0, fresh(), idle=False) is None
    made.given_up(probe)
    assert made.take(16.0, fresh(), idle=True) is not None


def test_until_something_was_served_one_request_goes_at_a_time_and_no_other_than_the_first() -> None:
    made, sent, now = retry_queue(), [], 0.0
    pages = fresh(*map(str, range(200)))
    outcome: object = None
    while outcome != Lost(alone=False):
        attempt = made.take(now, pages, idle=True)
        if attempt is None:
            due = made.next_at(now)
            assert due is not None
            now = due
            continue
        assert made.take(now, pages, idle=False) is None
        sent.append(attempt.request)
        outcome = made.failed(attempt, NETWORK, now)
    assert sent == ["0"] * 4
    assert now < 10
    assert not made.is_closed


def test_what_an_earlier_run_was_served_opens_all_connections_at_once() -> None:
    made = RetryQueue(RetryPolicy(), lambda: 0.5, lambda _: True, served=True)
    assert made.take(0.0, fresh("a"), idle=True) is not None
    assert made.take(0.0, fresh("b"), idle=False) is not None


def test_refused_credentials_are_probed_three_times_one_at_a_time_and_then_the_run_ends() -> None:
    made, sent = healthy(), [Attempt(number) for number in range(16)]
    assert made.rejected(sent[0], REFUSED, 100.0) == Again(5.0)
    for attempt in sent[1:]:  # they were in flight already, and tell nothing new
        assert made.rejected(attempt, REFUSED, 101.0) == Again(4.0)
    seen, now = [], 101.0
    while made.is_closed:
        assert made.take(now, fresh("new"), idle=True) is None
        due = made.next_at(now)
        assert due is not None
        now = due
        probe = made.take(now, fresh("new"), idle=True)
        assert probe is not None
        assert made.take(now, fresh("new"), idle=False) is None
        assert not any(made.may_send(attempt) for attempt in sent if attempt is not probe)
        seen.append((now, made.rejected(probe, REFUSED, now)))
        if isinstance(seen[-1][1], Lost):
            break
    assert seen == [(105.0, Again(10.0)), (115.0, Again(15.0)), (130.0, Lost(alone=False))]


def test_a_page_that_comes_ends_the_probing_and_the_refused_page_keeps_its_delay() -> None:
    made, refused = healthy(), Attempt("refused")
    assert made.rejected(refused, REFUSED, 100.0) == Again(5.0)
    assert made.succeeded(100.1) is None
    taken = made.take(100.2, fresh("next"), idle=False)
    assert taken is not None
    assert taken.request == "next"
    assert made.take(104.9, fresh(), idle=False) is None
    assert made.take(105.0, fresh(), idle=False) is refused


def test_a_page_that_alone_is_forbidden_is_lost_alone() -> None:
    made, refused, now = healthy(), Attempt("refused"), 0.0
    outcome: object = None
    for number in range(1, 13):
        outcome = made.rejected(refused, REFUSED, now)
        made.succeeded(now)
        now += 1_000
        taken = made.take(now, fresh(), idle=False)
        assert (taken is refused) == (number < 12)
    assert outcome == Lost(alone=True)


@pytest.mark.parametrize(("asked", "waits"), [(2.0, 5.0), (7.0, 7.0), (1e9, 900.0)])
def test_no_page_comes_back_earlier_than_its_answer_asked_for_nor_later_than_the_patience(
    asked: float, waits: float
) -> None:
    busy = TransientError("the service failed with 503", "server", retry_after=asked)
    assert healthy().failed(Attempt("page"), busy, 0.0) == Again(waits)
    forbidden = CredentialsError("the API forbids this (403)", status=403, retry_after=asked)
    assert healthy().rejected(Attempt("page"), forbidden, 0.0) == Again(waits)


def test_probes_keep_to_what_the_answer_asked_for() -> None:
    made = healthy()
    for number in range(DOWN_AFTER):
        made.failed(Attempt(number), TransientError("503", "server", retry_after=40.0), 0.0)
    assert made.next_at(0.0) == 40.0


def test_a_page_that_was_not_sent_goes_next_and_costs_nothing() -> None:
    made, attempt = healthy(), Attempt("page")
    made.put_back(attempt, 1.0)
    assert made.take(1.0, fresh("other"), idle=False) is attempt
    assert (attempt.failures, attempt.since) == (0, None)


def test_nobody_spins_while_the_service_is_down_and_nothing_waits() -> None:
    made = healthy()
    for number in range(DOWN_AFTER):
        made.failed(Attempt(number), SERVER, 1.0)
    made._free.clear()
    made._charged.clear()
    assert made.next_at(100.0) is None
