"""Time and memory of `verify`, by the number of segments.

    python -m benchmarks.verify [--sizes 100000 1000000 10000000] [--write]

A folder of JSON Lines in windows of 50,000 segments is written without a server, and verified by a new process: every
line, every checksum, and that no id is there twice. The peak is that of the process, Python and the library included.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Cost, Meter
from benchmarks.report import publish, table
from benchmarks.segments import PAGE, decoded
from segment_fetch import Segment, Window
from segment_fetch.manifest.commit_log import CommitLog
from segment_fetch.manifest.verify import audit
from segment_fetch.query import Query
from segment_fetch.simulator import Dataset
from segment_fetch.sinks import JsonlSink
from segment_fetch.windows.planning import windows
from segment_fetch.windows.reader import WindowRead

_SIZES, _SMOKE = [100_000, 1_000_000, 10_000_000], [1_000]
_WINDOW_ROWS = 50_000
_START, _DAYS_MS = 1_793_491_200_000, 25 * 86_400_000  # 2026-11-01


def write(folder: Path, segments: int) -> None:
    """Extract so many segments into a folder, as far as its files are concerned."""
    dataset = Dataset(segments=segments, start=_START, end=_START + _DAYS_MS)
    sink = JsonlSink(folder)
    log = CommitLog(sink, Query("111111", "verify"), sink.open())
    for window in windows(_START, _START + _DAYS_MS, _DAYS_MS * _WINDOW_ROWS // max(segments, _WINDOW_ROWS)):
        rows = dataset.numbers(window.start, window.end)
        log.commit(_read(window, len(rows), [sink.encode(page) for page in _pages(dataset, rows)]))
    log.close()
    sink.close()


def _pages(dataset: Dataset, rows: range) -> Iterator[list[Segment]]:
    for first in range(rows.start, rows.stop, PAGE):
        last = min(first + PAGE, rows.stop)
        page = zip(range(first, last), dataset.close_times(first, last), strict=True)
        yield decoded(b"[" + b",".join(dataset.writer.render(page)) + b"]")


def _read(window: Window, segments: int, parts: list[bytes]) -> WindowRead[bytes]:
    return WindowRead(
        window=window,
        status="complete",
        parts=parts,
        count=segments,
        segments=segments,
        duplicates=0,
        pages=len(parts) or 1,
        requests=len(parts) or 1,
        read_at=window.end,
        unknown_fields=(),
        reason=None,
    )


def measure(segments: int) -> Cost:
    """Write a folder, and return what verifying it costs."""
    with tempfile.TemporaryDirectory(prefix="verify_") as place:
        folder = Path(place) / "out"
        write(folder, segments)
        command = [sys.executable, "-m", "benchmarks.verify", "--folder", str(folder), "--sizes", str(segments)]
        return Cost.told(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="segments")
    parser.add_argument("--smoke", action="store_true", help="a small size, to see that it works")
    parser.add_argument("--write", action="store_true", help="write the table into the documentation")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        meter = Meter()
        found = audit(options.folder)
        meter.cost().tell()
        return 0 if found.sound and found.segments == options.sizes[0] else 1
    rows = []
    for size in _SMOKE if options.smoke else options.sizes:
        cost = measure(size)
        rows.append([f"{size:,}", f"{cost.seconds:.1f}", f"{size / cost.seconds:,.0f}", f"{cost.peak_mb:.0f}"])
        print(rows[-1], file=sys.stderr, flush=True)
    publish("verify", table(["segments", "s", "segments a second", "peak MB"], rows), write=options.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
