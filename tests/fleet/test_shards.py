"""Shards: each account in exactly one, the same on every machine, balanced only by a file."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from segment_fetch import InputError
from segment_fetch.fleet.shards import index_from, parse_shard, shard_of


class Job(NamedTuple):
    account: str


JOBS = [Job(str(number)) for number in range(100_000, 101_000)]


@pytest.mark.parametrize("weights", [None, {job.account: float(int(job.account) % 97) for job in JOBS}])
def test_each_account_is_in_exactly_one_shard(weights: dict[str, float] | None) -> None:
    shards = [shard_of(JOBS, index, 8, weights=weights) for index in range(8)]
    assert sorted(job for shard in shards for job in shard) == sorted(JOBS)
    assert max(map(len, shards)) < 200


def test_the_shard_of_an_account_never_changes() -> None:
    assert [job.account for job in shard_of(JOBS[:20], 0, 4)] == ["100003", "100010", "100017", "100018"]
    assert set(shard_of(JOBS[5:15], 0, 4)) == set(shard_of(JOBS, 0, 4)) & set(JOBS[5:15])


def test_weights_balance_the_shards() -> None:
    weights = {job.account: 1000.0 if number < 4 else 1.0 for number, job in enumerate(JOBS)}
    loads = [sum(weights[job.account] for job in shard_of(JOBS, index, 4, weights=weights)) for index in range(4)]
    assert max(loads) - min(loads) <= 1


@pytest.mark.parametrize("text", ["8/8", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="0/8 to 7/8"):
        parse_shard(text)


def test_the_scheduler_gives_the_index() -> None:
    assert parse_shard("2/8") == (2, 8)
    assert index_from({"JOB_COMPLETION_INDEX": "3"}) == 3
    assert index_from({"AWS_BATCH_JOB_ARRAY_INDEX": "4"}) == 4
    with pytest.raises(InputError, match="none of JOB_COMPLETION_INDEX, AWS_BATCH_JOB_ARRAY_INDEX is set"):
        index_from({})
    with pytest.raises(InputError, match="is not an index"):
        index_from({"JOB_COMPLETION_INDEX": "x"})
    with pytest.raises(InputError, match="from 0 to 1"):
        shard_of(JOBS, 2, 2)
