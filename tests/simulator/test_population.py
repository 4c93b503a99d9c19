from itertools import pairwise
from typing import Any

import pytest

from segment_fetch.simulator import Dataset, Drift
from segment_fetch.simulator.population import Population
from segment_fetch.simulator.query import parse_query
from tests.simulator.conftest import DAY_MS, HOUR_MS, NOON, NOON_MS, Clock

START = NOON_MS - DAY_MS


def population(clock: Clock, dataset: Dataset, *, to_inclusive: bool = True, **drift: Any) -> Population:
    return Population(dataset, Drift(**drift), clock=clock, to_inclusive=to_inclusive)


def query(start: int = START, end: int = NOON_MS, limit: int = 500, offset: int = 0, **more: Any) -> Any:
    sent = {"fromMillis": start, "toMillis": end, "limit": limit, "offset": offset, **more}
    return parse_query({"source": "tests", **{name: str(value) for name, value in sent.items()}}, NOON)


def everything(people: Population, request: int = 1, **asked: Any) -> list[tuple[int, int]]:
    """The rows of all pages, newest first."""
    rows: list[tuple[int, int]] = []
    while page := people.page(query(offset=len(rows), **asked), request).rows:
        rows += page
    return rows


def test_pages_are_newest_first_and_complete(clock: Clock, day: Dataset) -> None:
    rows = everything(population(clock, day))
    assert [number for _, number in rows] == list(range(1199, -1, -1))
    assert rows == sorted(rows, reverse=True)


@pytest.mark.parametrize(("to_inclusive", "extra"), [(True, 1), (False, 0)])
def test_the_end_is_inclusive_by_choice(clock: Clock, day: Dataset, to_inclusive: bool, extra: int) -> None:
    people = population(clock, day, to_inclusive=to_inclusive)
    last = day.close_time(600)
    assert people.page(query(end=last), 1).total == 600 + extra
    assert people.page(query(start=last), 1).total == 600


def test_a_page_beyond_the_end_is_empty(clock: Clock, day: Dataset) -> None:
    page = population(clock, day).page(query(offset=1200), 1)
    assert (page.rows, page.total) == ([], 1200)
    assert len(population(clock, day).page(query(offset=1199), 1).rows) == 1


def test_what_closes_in_the_future_is_not_there_yet(day: Dataset) -> None:
    clock = Clock(NOON - 3600)
    people = population(clock, day)
    before = people.page(query(), 1).total
    assert before == day.count_before(NOON_MS - HOUR_MS + 1) < 1200
    clock.now = NOON
    assert people.page(query(), 1).total == 1200


def test_late_rows_come_within_their_delay(day: Dataset) -> None:
    clock = Clock(NOON)
    people = population(clock, day, late_share=0.5, late_delay_s=3600)
    mark, seen = people.mark(), set(people.ids(START, NOON_MS))
    early = {number for _, number in everything(people) if number < day.count_before(NOON_MS - HOUR_MS)}
    assert early == set(range(day.count_before(NOON_MS - HOUR_MS)))
    assert 5 < 1200 - len(seen) < 25
    clock.now += 1800
    half = set(people.ids(START, NOON_MS))
    clock.now += 1801
    assert seen < half < set(people.ids(START, NOON_MS)) == set(day.ids())
    assert people.ids_throughout(START, NOON_MS, since=mark, until=people.mark()) == seen


def test_late_rows_are_hidden_also_if_they_close_later_on(day: Dataset) -> None:
    clock = Clock(NOON - 7200)
    people = population(clock, day, late_share=1.0, late_delay_s=3600)
    for _ in range(60):
        clock.now += 60
        people.advance()
    closed = day.count_before(int(clock.now * 1000))
    assert len(list(people.ids(START, NOON_MS))) < closed - 10
    clock.now = NOON + 3601
    assert set(people.ids(START, NOON_MS)) == set(day.ids())


def test_a_row_can_be_inserted_and_removed(clock: Clock, day: Dataset) -> None:
    people = population(clock, day)
    mark = people.mark()
    added = people.insert(NOON_MS - 1000)
    assert people.page(query(), 1).total == 1201
    assert added in set(people.ids(NOON_MS - 1000, NOON_MS - 999))
    gone = day.row(700)["segmentId"]
    people.remove(gone)
    people.remove(added)
    assert set(people.ids(START, NOON_MS)) == set(day.ids()) - {gone}
    assert people.ids_throughout(START, NOON_MS, since=mark, until=people.mark()) == set(day.ids()) - {gone}


@pytest.mark.parametrize("wrong", ["nonsense", "111111:1000000000:a:b", "111111:9999999999:a:b"])
def test_what_is_not_there_cannot_be_removed(clock: Clock, day: Dataset, wrong: str) -> None:
    with pytest.raises(LookupError, match=wrong):
        population(clock, day).remove(wrong)


def test_a_row_cannot_be_removed_twice(clock: Clock, day: Dataset) -> None:
    people = population(clock, day)
    people.remove(day.row(1)["segmentId"])
    with pytest.raises(LookupError):
        people.remove(day.row(1)["segmentId"])


def test_truth_is_what_was_there_from_mark_to_mark(clock: Clock, day: Dataset) -> None:
    people = population(clock, day)
    ids = list(day.ids())
    people.remove(ids[0])
    added_before = people.insert(NOON_MS - 5000)
    since = people.mark()
    people.remove(ids[1])
    people.insert(NOON_MS - 4000)
    until = people.mark()
    people.remove(ids[2])
    people.remove(added_before)
    assert people.ids_throughout(START, NOON_MS, since=since, until=until) == {*ids[2:], added_before}
    assert people.ids_throughout(START, START + HOUR_MS, since=0, until=until) == set(
        day.ids(START, START + HOUR_MS)
    ) - set(ids[:2])


def test_truth_knows_what_had_not_closed_at_the_mark(day: Dataset) -> None:
    clock = Clock(NOON - 3600)
    people = population(clock, day)
    mark, seen = people.mark(), set(people.ids(START, NOON_MS))
    clock.now = NOON
    assert people.ids_throughout(START, NOON_MS, since=mark, until=people.mark()) == seen
    assert people.ids_throughout(START, NOON_MS, since=people.mark(), until=people.mark()) == set(day.ids())


def test_rates_are_kept_by_the_clock(clock: Clock, day: Dataset) -> None:
    people = population(clock, day, inserts_per_s=3, removals_per_s=1.5)
    for _ in range(20):
        clock.now += 0.5
        people.advance()
    assert people.page(query(), 1).total == 1200 + 30 - 15
    assert len(set(day.ids()) - set(people.ids(START, NOON_MS))) == pytest.approx(15, abs=2)


def test_what_comes_and_goes_closed_recently(clock: Clock, day: Dataset) -> None:
    people = population(clock, day, swaps_per_s=10, recent_s=3600)
    clock.now += 10
    people.advance()
    changed = set(day.ids()) ^ set(people.ids(START, NOON_MS))
    assert len(changed) > 60
    assert changed.isdisjoint(people.ids(START, NOON_MS - HOUR_MS))
    assert set(day.ids(START, NOON_MS - HOUR_MS)) <= set(people.ids(START, NOON_MS))


def test_swaps_keep_the_count(clock: Clock, day: Dataset) -> None:
    people = population(clock, day, swaps_per_s=10)
    ids = set(people.ids(START, NOON_MS))
    for _ in range(10):
        clock.now += 1
        assert people.page(query(), 1).total == 1200
    assert len(ids - set(people.ids(START, NOON_MS))) == pytest.approx(100, abs=8)


def test_the_same_seed_drifts_the_same_way(day: Dataset) -> None:
    def drifted(seed: int) -> list[str]:
        clock = Clock()
        people = population(clock, day, swaps_per_s=5, late_share=0.1, seed=seed)
        clock.now += 10
        return list(people.ids(START, NOON_MS))

    assert drifted(1) == drifted(1) != drifted(2)


def test_nothing_is_left_to_remove_from_an_empty_dataset(clock: Clock) -> None:
    people = population(clock, Dataset(segments=0, start=START, end=NOON_MS), swaps_per_s=1, removals_per_s=1)
    clock.now += 10
    assert people.page(query(), 1).total == 0


def test_the_version_says_whether_anything_changed(clock: Clock, day: Dataset) -> None:
    people = population(clock, day, inserts_per_s=1)
    first = people.page(query(), 1).version
    clock.now += 0.9
    assert people.mark() == first
    clock.now += 0.2
    assert people.mark() == first + 1


class TestTies:
    @pytest.fixture
    def tied(self) -> Dataset:
        return Dataset(segments=900, start=START, end=NOON_MS, ties=0.5, burst=300)

    def test_each_request_has_another_order(self, clock: Clock, tied: Dataset) -> None:
        people = population(clock, tied, shuffle_ties=True)
        one, same, other = everything(people, 1), everything(people, 1), everything(people, 2)
        assert one == same != other
        assert sorted(one) == sorted(other)
        assert [close for close, _ in one] == [close for close, _ in other]

    @pytest.mark.parametrize("limit", [7, 100, 500])
    def test_pages_of_one_order_fit_together(self, clock: Clock, tied: Dataset, limit: int) -> None:
        people = population(clock, tied, shuffle_ties=True)
        assert everything(people, 5, limit=limit) == everything(people, 5)

    def test_pages_of_different_orders_double_and_miss_rows(self, clock: Clock, tied: Dataset) -> None:
        people = population(clock, tied, shuffle_ties=True)
        rows = [row for page in range(9) for row in people.page(query(limit=100, offset=page * 100), page).rows]
        assert len(rows) == 900 > len(set(rows))

    def test_order_is_steady_unless_asked_for(self, clock: Clock, tied: Dataset) -> None:
        people = population(clock, tied)
        assert everything(people, 1) == everything(people, 2)


class TestFiltersAndSorts:
    def test_filters_find_all_rows_that_match(self, clock: Clock, day: Dataset) -> None:
        people, row = population(clock, day), day.row(600)
        names = {
            "ConversationId": "conversationId",
            "AgentId": "agentId",
            "EmployeeId": "employeeId",
            "SkillId": "skillId",
            "GroupId": "groupId",
        }
        for name, field in names.items():
            found = people.page(query(**{name: row[field]}), 1)
            expected = [one["segmentId"] for one in day.rows() if one.get(field) == row[field]]
            ids = [day.writer.segment_id(number) for _, number in found.rows]
            assert ids == expected[::-1]
            assert found.total == len(expected)

    def test_filters_are_combined(self, clock: Clock, day: Dataset) -> None:
        people, row = population(clock, day), day.row(600)
        both = people.page(query(AgentId=row["agentId"], SkillId=row["skillId"]), 1)
        assert 600 in [number for _, number in both.rows]
        assert both.total < people.page(query(SkillId=row["skillId"]), 1).total

    def test_a_filter_that_nothing_matches_finds_nothing(self, clock: Clock, day: Dataset) -> None:
        assert population(clock, day).page(query(AgentId="1"), 1) == ([], 0, 0)

    def test_a_filter_sees_what_has_changed(self, clock: Clock, day: Dataset) -> None:
        people, row = population(clock, day), day.row(600)
        before = people.page(query(AgentId=row["agentId"]), 1).total
        people.remove(row["segmentId"])
        assert people.page(query(AgentId=row["agentId"]), 1).total == before - 1

    @pytest.mark.parametrize(
        ("sort", "field"),
        [
            ("Conversation", "conversationId"),
            ("Agent", "agentId"),
            ("Employee", "employeeId"),
            ("Skill", "skillId"),
            ("Group", "groupId"),
        ],
    )
    def test_other_orders_are_by_their_field_and_newest_first_within(self, clock: Clock, sort: str, field: str) -> None:
        data = Dataset(segments=400, start=START, end=NOON_MS, null_share=0.0)
        rows = everything(population(clock, data), sort=sort, limit=150)
        told = [data.row(number) for _, number in rows]
        expected = sorted(data.rows(), key=lambda row: -row["endTimeL"])
        if sort != "Employee":
            assert told == sorted(expected, key=lambda row: row[field])
        groups = [row.get(field) for row in told]
        changes = sum(one != two for one, two in pairwise(groups))
        assert changes == len(set(groups)) - 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("late_share", {"late_share": 1.5}),
        ("late_delay_s", {"late_delay_s": 0}),
        ("inserts_per_s", {"inserts_per_s": -1}),
        ("removals_per_s", {"removals_per_s": -1}),
        ("swaps_per_s", {"swaps_per_s": -1}),
        ("recent_s", {"recent_s": 0}),
    ],
)
def test_a_wrong_drift_is_refused_by_name(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{name} must"):
        Drift(**options)
