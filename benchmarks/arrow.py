"""Segments a second that become Arrow record batches on one core, beside other ways to do it.

    python -m benchmarks.arrow [--segments 200000] [--rounds 5] [--smoke]

Each way gets pages of 500 structs, decoded just before and for it alone; decoding is not timed. The ways take turns
every ten pages, so that other load on the machine affects all of them alike.
Prints segments a second of processor time in the best round, and the median of each way's rate over that of the library
in the same round. The others do less: the library checks that the texts of times say what the numbers say,
encodes reasons by a dictionary, and keeps unknown fields.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.json
from msgspec import UNSET

from benchmarks.measure import pin
from benchmarks.segments import PAGE, bodies, decoded
from segment_fetch.arrow import record_batch, schema
from segment_fetch.wire.models import SEGMENT_FIELDS, Segment

Way = Callable[[Sequence[Segment]], Any]
_GOAL = 1_000_000
_BLOCK = 10  # pages
_encoder = msgspec.json.Encoder()
_getters = {name: attrgetter(name) for name in SEGMENT_FIELDS}
_NUMBERS = ("startTimeL", "endTimeL", "agentId", "skillId", "groupId", "totalHandleTimeMillis")
_TYPES = {name: pa.int64() if name in _NUMBERS else pa.string() for name in SEGMENT_FIELDS}
_OPTIONS = pyarrow.json.ParseOptions(explicit_schema=pa.schema(list(_TYPES.items())))
_READ = pyarrow.json.ReadOptions(use_threads=False)


def columns(segments: Sequence[Segment]) -> pa.RecordBatch:
    """Build each column by itself."""
    arrays = []
    for name, getter in _getters.items():
        values = [None if value is UNSET else value for value in map(getter, segments)]
        arrays.append(pa.array(values, _TYPES[name]))
    return pa.RecordBatch.from_arrays(arrays, names=list(_getters))


def dicts(segments: Sequence[Segment]) -> pa.RecordBatch:
    """Pass the rows as dicts, the first way in pyarrow's documentation."""
    return pa.RecordBatch.from_pylist(msgspec.to_builtins(segments), schema=pa.schema(list(_TYPES.items())))


def json_by_pyarrow(segments: Sequence[Segment]) -> pa.Table:
    """Encode JSON Lines and let pyarrow read them."""
    data = pa.BufferReader(_encoder.encode_lines(segments))
    return pyarrow.json.read_json(data, read_options=_READ, parse_options=_OPTIONS)


def json_by_polars(segments: Sequence[Segment]) -> pl.DataFrame:
    """Encode JSON Lines and let Polars read them."""
    return pl.read_ndjson(_encoder.encode_lines(segments))


WAYS: dict[str, Way] = {
    "segment_fetch.arrow": record_batch,
    "a list for each column": columns,
    "a dict for each row": dicts,
    "JSON Lines, by pyarrow": json_by_pyarrow,
    "JSON Lines, by Polars": json_by_polars,
}


def measured(segments: int) -> dict[str, float]:
    """Run one round; return segments a second of processor time by way."""
    spent = dict.fromkeys(WAYS, 0.0)
    waiting = iter(bodies(segments))
    while block := list(islice(waiting, _BLOCK)):
        for name, way in WAYS.items():
            for page in map(decoded, block):
                began = time.thread_time()
                way(page)
                spent[name] += time.thread_time() - began
    return {name: segments / seconds for name, seconds in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Segments into Arrow record batches, on one core")
    parser.add_argument("--segments", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    options = parser.parse_args()
    pin(-1)
    segments, rounds = (4 * PAGE, 1) if options.smoke else (options.segments, options.rounds)
    found = [measured(segments) for _ in range(rounds)]
    own = next(iter(WAYS))
    print(f"{segments:,} segments, {rounds} rounds, {len(schema())} columns; the goal is {_GOAL:,} a second\n")
    print("| way | segments a second | ratio |\n|---|---|---|")
    for name in WAYS:
        ratio = statistics.median(each[name] / each[own] for each in found)
        print(f"| {name} | {max(each[name] for each in found):,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
