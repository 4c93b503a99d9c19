"""Cost of a commit, and of opening a destination, when many windows are there already.

    python -m benchmarks.commits [--sizes 100 2000 50000] [--write]

A destination of so many windows is made without their data, opened, and given 50 more windows of one segment, each
committed by itself. The folder is on the disk of the temporary files, the object store in memory, and PostgreSQL a
server that is started for it, with its usual settings. Opening is reading and checking the manifest, the median of
three times; the peak is that of Python's own memory while it is read.
"""

import argparse
import gc
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from obstore.store import MemoryStore

from benchmarks.report import publish, table
from segment_fetch import Segment, Window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.format import FORMAT_VERSION, Manifest, WindowEntry, encode_manifest, identity
from segment_fetch.query import Query
from segment_fetch.sinks import DuckDbSink, JsonLines, JsonlSink, ObjectSink, PostgresSink, Sink
from segment_fetch.timerange import format_time
from segment_fetch.windows.reader import WindowRead
from tests.support_postgres import postgres

QUERY = Query("111111", "commits")
HOUR_MS = 3_600_000
START = 1_640_995_200_000  # 2022-01-01
COMMITS = 50
FIRST_COMMIT = 1_000_000  # so that numbers are of one length
_SIZES, _SMOKE = [100, 2_000, 10_000, 50_000], [10, 100]


def window(number: int) -> Window:
    """Return the window of an hour."""
    return Window(START + number * HOUR_MS, START + (number + 1) * HOUR_MS)


def prepared(sink: Sink[Any], count: int) -> None:
    """Give a new destination a manifest of so many windows."""
    entries = tuple(
        WindowEntry(
            from_=format_time(each.start),
            to=format_time(each.end),
            status="complete",
            count=1,
            segments=1,
            duplicates=0,
            pages=1,
            requests=1,
            read_at=format_time(each.end),
            unknown_fields=(),
            file=sink.name(each),
            bytes=70,
            sha256="0" * 64,
        )
        for each in map(window, range(count))
    )
    sink.open()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        commits=FIRST_COMMIT,
        query=identity(QUERY, sink.settings()),
        windows=entries,
    )
    sink.publish(encode_manifest(manifest), [])
    sink.close()


def commit(log: CommitLog, sink: Sink[Any], each: Window) -> None:
    """Commit a window of one segment."""
    part = sink.encode([Segment(segmentId=str(each.start), endTimeL=each.start)])
    read = WindowRead(
        window=each,
        status="complete",
        parts=[part],
        count=1,
        segments=1,
        duplicates=0,
        pages=1,
        requests=1,
        read_at=each.end,
        unknown_fields=(),
        reason=None,
    )
    log.commit(read)


def measure(sink: Callable[[], Sink[Any]], count: int) -> tuple[float, float, float]:
    """Return milliseconds a commit, seconds to open, and megabytes at the peak of opening."""
    prepared(sink(), count)
    opening = median(_opening(sink()) for _ in range(3))
    opened = sink()
    log = CommitLog(opened, QUERY, opened.open())
    taken = []
    for number in range(COMMITS):
        began = time.perf_counter()
        commit(log, opened, window(count + number))
        taken.append(time.perf_counter() - began)
    log.close()
    opened.close()
    return median(taken) * 1000, opening, _peak(sink())


def _opening(sink: Sink[Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    CommitLog(sink, QUERY, sink.open())
    taken = time.perf_counter() - began
    sink.close()
    return taken


def _peak(sink: Sink[Any]) -> float:
    tracemalloc.start()
    log = CommitLog(sink, QUERY, sink.open())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    log.withdraw()
    sink.close()
    return peak / 1e6


def destinations(place: Path, url: str) -> Mapping[str, Callable[[], Sink[Any]]]:
    """Return what makes the sink of one new destination of each kind; `url` is that of a database of PostgreSQL."""
    store = MemoryStore()
    return {
        "folder": lambda: JsonlSink(place / "folder"),
        "object store": lambda: ObjectSink("gs://bucket", JsonLines(), store=store),
        "DuckDB": lambda: DuckDbSink(place / "segments.duckdb"),
        "PostgreSQL": lambda: PostgresSink(url, place.name),
    }


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="windows that are there")
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place, postgres(Path(place) / "data", settings="") as server:
        for size in _SMOKE if options.smoke else options.sizes:
            with tempfile.TemporaryDirectory(prefix="commits_") as name:
                for kind, sink in destinations(Path(name), server.url()).items():
                    ms, opening, peak = measure(sink, size)
                    rows.append([kind, f"{size:,}", f"{ms:.2f}", f"{opening:.2f}", f"{peak:.0f}"])
                    print(rows[-1], file=sys.stderr, flush=True)
    publish(
        "commits", table(["destination", "windows", "ms a commit", "s to open", "peak MB"], rows), write=options.write
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
