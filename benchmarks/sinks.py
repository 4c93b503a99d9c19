"""Speed of destinations, beside the fastest plain way to write the same rows with the same library.

    python -m benchmarks.sinks                        every destination, 200,000 segments, 7 rounds
    python -m benchmarks.sinks parquet --rounds 20    one of them
    python -m benchmarks.sinks parquet --peak         the memory that one window takes, of 50,000 and of 5,000,000

Both begin with segments that are already decoded, in pages of 500. A destination does all that it does in an
extraction: its own form of the rows, checksum, lock, the manifest. The plain way writes the rows and nothing else. Both
end when the rows are on the disk. They take turns; a ratio is that of two neighbours, and the median of all is what
counts. The goal is 0.8.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks import measure
from benchmarks.segments import PAGE, WINDOW, pages
from segment_fetch.sinks import Sink, Written
from segment_fetch.timerange import format_time
from segment_fetch.wire.models import Segment

Pages = Iterable[list[Segment]]
GOAL = 0.8
_FEW = 50_000


class Contest(NamedTuple):
    """A destination and its plain rival. Each is given a folder of its own, new and empty, for each round."""

    sink: Callable[[Path], Sink[Any]]
    plain: Callable[[Path, Pages], None]


DESTINATIONS = {
    "jsonl": "benchmarks.sink_jsonl",
    "parquet": "benchmarks.sink_parquet",
    "objects": "benchmarks.sink_objects",
    "duckdb": "benchmarks.sink_duckdb",
    "postgres": "benchmarks.sink_postgres",
}
"""Modules that have `contest()`: a context manager, as some need a server, that gives a `Contest`."""


def opened(name: str) -> AbstractContextManager[Contest]:
    """The contest of a destination, ready for the length of the block."""
    found: AbstractContextManager[Contest] = import_module(DESTINATIONS[name]).contest()
    return found


def fill(sink: Sink[Any], rows: Pages) -> None:
    """Write one window into a new destination, as an extraction does."""
    sink.open()
    try:
        draft = sink.begin(WINDOW)
        count = 0
        for page in rows:
            draft.add(sink.encode(page))
            count += len(page)
        sink.publish(_manifest(draft.finish(), count), [])
    finally:
        sink.close()


def _manifest(written: Written, segments: int) -> bytes:
    """As much of one as makes a window count."""
    entry: dict[str, Any] = {"from": format_time(WINDOW.start), "to": format_time(WINDOW.end), "status": "complete"}
    entry |= {"file": written.file, "sha256": written.sha256, "segments": segments}
    return msgspec.json.encode({"format_version": 2, "commits": 1, "query": {}, "windows": [entry]})


def timed(work: Callable[[], None]) -> float:
    """Seconds that it takes; no garbage of others is collected meanwhile."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rounds(contest: Contest, rows: list[list[Segment]], count: int, place: Path) -> Iterator[tuple[float, float]]:
    """Seconds of the destination and of its rival, round after round; who begins changes."""
    for number in range(count):
        ours, theirs = place / f"ours{number}", place / f"plain{number}"
        theirs.mkdir()
        todo = [lambda at=ours: fill(contest.sink(at), rows), lambda at=theirs: contest.plain(at, rows)]
        if number % 2:
            second = timed(todo[1])
            yield timed(todo[0]), second
        else:
            yield timed(todo[0]), timed(todo[1])


def compare(names: Iterable[str], segments: int, count: int) -> None:
    """Prints the table."""
    rows = list(pages(segments))
    print(f"{segments:,} segments, {count} rounds; the goal of the ratio is {GOAL}\n")
    print("| destination | segments a second | plain | ratio | from | to |\n|---|---|---|---|---|---|")
    for name in names:
        with opened(name) as contest, tempfile.TemporaryDirectory() as folder:
            found = list(rounds(contest, rows, count, Path(folder)))
        ratios = [theirs / ours for ours, theirs in found]
        ours, theirs = (segments / statistics.median(times) for times in zip(*found, strict=True))
        shown = f"{statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f}"
        print(f"| {name} | {ours:,.0f} | {theirs:,.0f} | {shown} |", flush=True)


def peak(name: str, segments: int) -> None:
    """Prints the peak memory of a process that writes windows of two sizes, the smaller one first."""
    with opened(name) as contest, tempfile.TemporaryDirectory() as folder:
        for size in (min(_FEW, segments), segments):
            fill(contest.sink(Path(folder) / str(size)), pages(size))
            print(f"{name}: a window of {size:>9,} segments: {measure.peak_mb():6.1f} MB peak", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Destinations beside the fastest plain way to write the same rows")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DESTINATIONS)} (default: all)")
    parser.add_argument("--segments", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", action="store_true", help="memory instead of time")
    parser.add_argument("--smoke", action="store_true", help="a small run that shows that the measurement works")
    options = parser.parse_args()
    if unknown := set(options.names) - {*DESTINATIONS}:
        parser.error(f"no destination here is called {', '.join(sorted(unknown))}")
    names = options.names or list(DESTINATIONS)
    if options.peak:
        for name in names:
            peak(name, 4 * PAGE if options.smoke else options.segments or 5_000_000)
        return
    measure.pin(-1)
    segments = 4 * PAGE if options.smoke else options.segments or 200_000
    compare(names, segments, 2 if options.smoke else options.rounds)


if __name__ == "__main__":
    main()
