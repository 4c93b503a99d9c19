"""How many requests may be in flight, and how many were, rule by rule."""

import pytest

from segment_fetch.throttle.concurrency import ConcurrencyCap, InFlight, Ticket


class TestInFlight:
    def levels(self, flight: InFlight) -> dict[int, int]:
        return {ticket.number: ticket.level for ticket in flight.certain(since=-1.0)}

    def test_an_accepted_one_counts_itself_and_those_before_it(self) -> None:
        flight = InFlight()
        sent = [flight.sent(0.0, 1.0) for _ in range(3)]
        assert [ticket.level for ticket in sent] == [1, 2, 3]
        for ticket in sent:
            flight.accepted(ticket)
        assert self.levels(flight) == {1: 1, 2: 2, 3: 3}
        assert self.levels(flight) == {}, "each once"
        assert len(flight) == 0

    def test_is_certain_once_all_before_it_are_answered(self) -> None:
        flight = InFlight()
        first, second, third, fourth = (flight.sent(0.0, 1.0) for _ in range(4))
        flight.accepted(third)
        flight.accepted(second)
        assert self.levels(flight) == {}
        flight.accepted(first)
        assert self.levels(flight) == {1: 1, 2: 2, 3: 3}
        flight.accepted(fourth)
        assert self.levels(flight) == {4: 4}

    def test_a_refused_one_was_never_there_for_those_behind_it(self) -> None:
        flight = InFlight()
        first, second, third, fourth = (flight.sent(0.0, 1.0) for _ in range(4))
        flight.accepted(third)
        assert flight.refused(second) == 2
        flight.accepted(fourth)
        flight.accepted(first)
        assert self.levels(flight) == {1: 1, 3: 2, 4: 3}

    def test_those_before_it_had_it_not_counted(self) -> None:
        flight = InFlight()
        first, second, third = (flight.sent(0.0, 1.0) for _ in range(3))
        flight.accepted(second)
        flight.refused(third)
        flight.accepted(first)
        assert self.levels(flight) == {1: 1, 2: 2}

    def test_nor_for_one_that_is_refused_later(self) -> None:
        flight = InFlight()
        flight.sent(0.0, 1.0)
        second, third = flight.sent(0.0, 1.0), flight.sent(0.0, 1.0)
        assert (flight.refused(second), flight.refused(third)) == (2, 2)

    def test_one_that_hangs_holds_up_only_those_of_its_time(self) -> None:
        flight = InFlight()
        flight.sent(0.0, 1.0)
        flight.accepted(flight.sent(1.0, 1.0))
        assert flight.certain(since=-0.1) == []
        assert [one.level for one in flight.certain(since=0.0)] == [2]
        flight.accepted(flight.sent(9.0, 1.0))
        assert [one.level for one in flight.certain(since=5.0)] == [2]

    def test_one_that_proves_nothing_holds_nobody_up(self) -> None:
        flight = InFlight()
        first, second = flight.sent(0.0, 1.0), flight.sent(0.0, 1.0)
        flight.accepted(second)
        flight.dropped(first)
        assert self.levels(flight) == {2: 2}


class TestCap:
    def blamed(self, connections: int = 16) -> ConcurrencyCap:
        cap = ConcurrencyCap(connections, None)
        assert cap.is_to_blame(6, most_accepted=5)
        cap.lower(6, 10.0, 11.0)
        assert cap.limit == 5
        return cap

    @pytest.mark.parametrize(("level", "blamed"), [(6, True), (5, False), (1, False)])
    def test_is_blamed_if_it_was_the_fullest_yet(self, level: int, blamed: bool) -> None:
        assert ConcurrencyCap(16, None).is_to_blame(level, most_accepted=5) is blamed

    def test_stays_under_the_refused_level_for_twenty_seconds(self) -> None:
        cap = self.blamed()
        cap.grow(29.0)
        assert cap.limit == 5
        cap.grow(30.0)
        assert cap.limit == 6

    def test_waits_twice_as_long_after_each_failure(self) -> None:
        cap = self.blamed()
        assert cap.is_to_blame(6, most_accepted=6)
        cap.lower(6, 100.0, 101.0)
        cap.grow(139.0)
        assert cap.limit == 5
        cap.grow(140.0)
        assert cap.limit == 6

    def test_grows_freely_once_the_refused_level_is_accepted(self) -> None:
        cap = self.blamed()
        cap.grow(30.0)
        cap.accepted(Ticket(30.0, 6))
        for now in (30.2, 31.0, 31.1, 32.0):
            cap.grow(now)
        assert cap.limit == 8

    def test_an_answer_from_before_the_pause_does_not_count(self) -> None:
        cap = self.blamed()
        cap.accepted(Ticket(10.5, 6))
        cap.grow(20.0)
        assert cap.limit == 5

    def test_a_new_cap_is_disproved_by_a_refusal_below_it(self) -> None:
        cap = self.blamed()
        assert not cap.is_to_blame(3, most_accepted=5)
        assert cap.limit == 16

    def test_a_trusted_cap_falls(self) -> None:
        cap = self.blamed()
        for _ in range(20):
            cap.accepted(Ticket(12.0, 5))
        assert cap.is_to_blame(4, most_accepted=5)
        cap.lower(4, 20.0, 21.0)
        assert cap.limit == 3
        assert not cap.is_to_blame(2, most_accepted=5)

    def test_trust_is_not_earned_by_what_was_sent_before_the_cap(self) -> None:
        cap = self.blamed()
        for _ in range(20):
            cap.accepted(Ticket(5.0, 5))
        assert not cap.is_to_blame(4, most_accepted=5)

    def test_trust_is_earned_by_each_cap_anew(self) -> None:
        cap = ConcurrencyCap(5, None)
        for _ in range(80):
            cap.accepted(Ticket(1.0, 5))
        cap.lower(5, 10.0, 11.0)
        assert not cap.is_to_blame(3, most_accepted=5)

    def test_is_at_least_one(self) -> None:
        cap = ConcurrencyCap(16, None)
        cap.lower(1, 10.0, 11.0)
        assert cap.limit == 1
