"""Shards: the accounts that a machine runs, computed by each machine on its own with the same result."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from segment_fetch.errors import InputError

INDEX_VARIABLES = ("JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX")
"""The variables in which Kubernetes Indexed Jobs and AWS Batch array jobs pass a machine its index, from 0 on."""


class _HasAccount(Protocol):
    @property
    def account(self) -> str: ...


J = TypeVar("J", bound=_HasAccount)


def shard_of(jobs: Sequence[J], index: int, count: int, *, weights: Mapping[str, float] | None = None) -> list[J]:
    """Return the jobs of shard `index` (from 0 on) of `count`, in their order.

    Without `weights` an account's shard depends only on its number (SHA-256), so it does not change when accounts are
    added or removed. With them (the seconds of an earlier run, by account) shards are balanced: each account, heaviest
    first, goes to the lightest shard; an account without a weight counts as average. All machines must use the same
    jobs and weights. Raises InputError for an index out of range.
    """
    if count < 1 or not 0 <= index < count:
        raise InputError(f"shard {index}/{count}: the index runs from 0 to {max(0, count - 1)}, the count from 1 on")
    if weights is None:
        return [job for job in jobs if _hashed(job.account) % count == index]
    average = sum(weights.values()) / len(weights) if weights else 1.0
    loads = [0.0] * count
    chosen = set()
    for account in sorted((job.account for job in jobs), key=lambda name: (-weights.get(name, average), name)):
        lightest = loads.index(min(loads))
        loads[lightest] += weights.get(account, average)
        if lightest == index:
            chosen.add(account)
    return [job for job in jobs if job.account in chosen]


def parse_shard(text: str) -> tuple[int, int]:
    """Return the index and the count in "2/8". Raises InputError that shows the format."""
    index, slash, count = text.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or not 0 <= int(index) < int(count):
        raise InputError(f"shard {text!r}: write the index, from 0 on, and the count: 0/8 to 7/8")
    return int(index), int(count)


def index_from(environ: Mapping[str, str]) -> int:
    """Return the index that the scheduler assigned to this machine. Raises InputError if there is none."""
    for name in INDEX_VARIABLES:
        if (text := environ.get(name)) is not None:
            if not text.isdecimal():
                raise InputError(f"{name} is {text!r}, which is not an index")
            return int(text)
    raise InputError(f"no index of this shard: none of {', '.join(INDEX_VARIABLES)} is set; give the shard as 0/8")


def _hashed(account: str) -> int:
    return int.from_bytes(hashlib.sha256(account.encode()).digest()[:8])
