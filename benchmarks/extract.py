"""The speed of this client beside three other ways to extract the same segments, all measured in one run.

    python -m benchmarks.extract [--segments 200000] [--rounds 5] [--gzip] [--recent] [--profile client] [--write]

One simulator in a process of its own on one core, its pages rendered beforehand; each contender in a new process on
another core, one at a time: A B C D, A B C D, ... Ratios are taken within each round and the median of the rounds is
printed, so that other load on the machine affects both sides. Every round, what was written must be the segments of
the data set, each once. The contenders are described in `contenders`: this client with every check, compiled and not, a
bare loop of aiohttp and msgspec without any, the usual script of aiohttp and json, and requests page after page.

All segments closed two days ago or earlier, so that this client takes them for settled; `--recent` lets them end now,
and this client then reads the last day in overlapping pages, as it may still change.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.contenders import CONTENDERS
from benchmarks.harness import Served, closed, in_process, serving
from benchmarks.measure import Cost, Job
from benchmarks.plot import bars
from benchmarks.report import publish, table

DAYS = 7
_KEEP_BYTES = 8 * 2**30
_TITLES = {
    "client": "segment_fetch, every check",
    "uncompiled": "the same, installed without a compiler",
    "bare": "bare loop, aiohttp + msgspec",
    "usual": "usual script, aiohttp + json",
    "sequential": "requests, page after page",
}

Round = Mapping[str, Cost]


class _Line(msgspec.Struct, rename="camel"):
    segment_id: str


def run_once(name: str, base_url: str, served: Served) -> Cost:
    """Run one contender and check its files. Whatever others wrote is flushed to the disk before its clock runs."""
    with tempfile.TemporaryDirectory(prefix="segment_fetch_") as out:
        os.sync()
        cost = in_process("contenders", [name, _job(base_url, served, out)])
        check(name, Path(out), served)
    return cost


def _job(base_url: str, served: Served, out: str) -> str:
    return Job(base_url, served.dataset.account, served.start, served.end, out).encode()


def check(name: str, out: Path, served: Served) -> None:
    """Check that each segment of the data set is in the files exactly once, and no other; SystemExit if not."""
    decode = msgspec.json.Decoder(_Line).decode_lines
    missing = set(served.dataset.ids())
    written = 0
    for path in sorted(out.glob("*.jsonl")):
        ids = [line.segment_id for line in decode(path.read_bytes())]
        written += len(ids)
        missing.difference_update(ids)
    if written != served.segments or missing:
        raise SystemExit(f"{name} wrote {written} of {served.segments} segments, {len(missing)} are missing")


def run_rounds(served: Served, rounds: int, *, warm: bool = True) -> list[Round]:
    """Run the rounds; if `warm`, after one in which the server renders the pages that they request."""
    with serving(served) as base_url:
        for name in ("client", "bare") if warm else ():
            run_once(name, base_url, served)
        return [{name: run_once(name, base_url, served) for name in CONTENDERS} for _ in range(rounds)]


def shown(rounds: Sequence[Round], segments: int) -> str:
    """Return the table: medians of the rounds, first as multiples of this client's time and CPU."""
    millions = segments / 1e6
    rows = [
        [
            title,
            f"{median(one[name].seconds / one['client'].seconds for one in rounds):.2f}",
            f"{median(one[name].cpu / one['client'].cpu for one in rounds):.2f}",
            f"{median(one[name].seconds for one in rounds) / millions:.2f}",
            f"{median(one[name].cpu for one in rounds) / millions:.2f}",
            f"{median(one[name].peak_mb for one in rounds):.0f}",
        ]
        for name, title in _TITLES.items()
    ]
    return table(["program", "time, x this client's", "CPU, x", "s a million", "CPU s a million", "peak MB"], rows)


def plotted(rounds: Sequence[Round]) -> str:
    """Return the same as a bar chart."""
    ratios = [
        (title, median(one[name].seconds / one["client"].seconds for one in rounds)) for name, title in _TITLES.items()
    ]
    return bars("Time without a limit, as a multiple of this client's", {"one core for the client": ratios})


def profile(name: str, served: Served, perf: str | None) -> None:
    """Run one contender under cProfile, its most expensive functions on standard error, or under `perf` into a file.

    `perf` begins half a second late, once everything is imported, so use a million segments or more.
    """
    with serving(served) as base_url, tempfile.TemporaryDirectory(prefix="segment_fetch_") as out:
        run_once(name, base_url, served)
        job = _job(base_url, served, out)
        command = [sys.executable, "-m", "benchmarks.contenders", name, job]
        if perf:
            command = ["perf", "record", "--delay", "500", "--output", perf, *command]
        else:
            command += ["--profile", "45"]
        subprocess.run(command, check=True, timeout=600)


def main() -> None:
    """Run the rounds, or a profile, and print what they show."""
    parser = argparse.ArgumentParser(description="Time, CPU and memory of four ways to extract the same segments")
    parser.add_argument("--segments", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gzip", action="store_true", help="let the server compress, as clients ask it to")
    parser.add_argument("--recent", action="store_true", help="segments up to now, the newest of which may still move")
    parser.add_argument("--profile", choices=CONTENDERS, help="profile one contender instead")
    parser.add_argument("--perf", metavar="FILE", help="profile by `perf record` into this file, where there is perf")
    parser.add_argument("--write", action="store_true", help="put table and plot into the documentation")
    parser.add_argument("--smoke", action="store_true", help="a small run that checks what is written; no figures")
    options = parser.parse_args()
    segments, rounds = (2_000, 1) if options.smoke else (options.segments, options.rounds)
    days_ago = 0 if options.recent else 2
    served = closed(segments, days=DAYS, days_ago=days_ago, keep_bytes=_KEEP_BYTES, gzip=options.gzip)
    if options.profile:
        profile(options.profile, served, options.perf)
        return
    kind = f"{'gzip' if options.gzip else 'no compression'}, {'up to now' if options.recent else 'settled'}"
    done = run_rounds(served, rounds, warm=not options.smoke)
    text = f"{segments:,} segments, {kind}, medians of {rounds} rounds.\n\n{shown(done, segments)}"
    write = options.write and not options.smoke
    publish("extract", text, plots={"extract": plotted(done)}, write=write, usual="make bench")


if __name__ == "__main__":
    main()
