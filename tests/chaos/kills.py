"""Kills a running extraction with SIGKILL at moments by chance, runs it again, and holds the files against the truth.

    python -m tests.chaos.kills --kills 200

Every few kills hit the same extraction in a row, before it may end. A run after a kill asks for no window that
the manifest had as complete.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msgspec import Struct

from segment_fetch.errors import DestinationError
from segment_fetch.manifest.verify import audit, manifest_of
from segment_fetch.simulator import Bearer, Dataset, Simulator
from segment_fetch.timerange import format_time

DAY_MS = 86_400_000
IN_A_ROW = 12
TOKEN = "kills-token"


class Job:
    """The command, extracting ten windows from a simulator into a folder; about a second and a half of work."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.simulator = simulator
        self.folder = folder

    def start(self) -> subprocess.Popen[bytes]:
        dataset = self.simulator.dataset
        options = {
            "--account": dataset.account,
            "--from": format_time(dataset.start),
            "--to": format_time(dataset.end),
            "--out": str(self.folder),
            "--base-url": self.simulator.base_url,
            "--window": "1d",
            "--rate": "none",
            "--connections": "2",
        }
        command = [
            sys.executable,
            "-m",
            "segment_fetch",
            "extract",
            *(word for pair in options.items() for word in pair),
        ]
        environment = {**os.environ, "LIVEPERSON_BEARER": TOKEN}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> tuple[int, str]:
        """Runs to the end."""
        process = self.start()
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors.decode()

    def complete(self) -> list[tuple[int, int]]:
        """The windows that the manifest, and the commits in the log beside it, have as complete."""
        try:
            windows = [entry.window for entry in manifest_of(self.folder).windows]
        except DestinationError:
            return []
        return [(window.start, window.end) for window in windows]

    def ids(self) -> list[str]:
        """Return the contents of the files."""
        files = sorted(self.folder.glob("segments-*.jsonl"))
        return [json.loads(line)["segmentId"] for path in files for line in path.read_bytes().splitlines()]


class Outcome(Struct):
    """Kills that hit a running process, and what was wrong after them."""

    kills: int = 0
    repeated: int = 0
    different: int = 0
    failed: int = 0


def simulator() -> Simulator:
    """Settled segments of ten days; a page takes 20 ms."""
    end = int(time.time() * 1000) // DAY_MS * DAY_MS - 2 * DAY_MS
    dataset = Dataset(segments=20_000, start=end - 10 * DAY_MS, end=end, seed=4)
    return Simulator(dataset, auth=Bearer(TOKEN), latency_ms=20)


def kill_once(job: Job, after: float, outcome: Outcome) -> None:
    """Starts the job, kills it, and looks whether the run before it had been in vain."""
    done = job.complete()
    job.simulator.stats.log.clear()
    process = job.start()
    time.sleep(after)
    outcome.kills += process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _count_repeats(job, done, outcome)


def _count_repeats(job: Job, done: list[tuple[int, int]], outcome: Outcome) -> None:
    asked = {(record.query.start, record.query.end) for record in list(job.simulator.stats.log) if record.query}
    outcome.repeated += len(asked & set(done))


def run(kills: int, seed: int = 1) -> Outcome:
    """So many kills, in rows; after each row the extraction is run to its end."""
    outcome, chance = Outcome(), random.Random(seed)
    with simulator().in_thread() as served, tempfile.TemporaryDirectory() as name:
        truth = served.ids(served.dataset.start, served.dataset.end)
        row = 0
        while outcome.kills < kills:
            row += 1
            job = Job(served, Path(name) / str(row))
            for _ in range(min(IN_A_ROW, kills - outcome.kills)):
                kill_once(job, chance.uniform(0.2, 1.4), outcome)
            code, _ = job.finish()
            outcome.failed += code != 0
            outcome.different += sorted(job.ids()) != sorted(truth) or not audit(job.folder).sound
    return outcome


def main() -> int:
    """Prints what was found; exit code 1 if anything was lost, doubled or repeated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="processes to kill")
    options = parser.parse_args()
    started = time.monotonic()
    seen = run(options.kills)
    print(f"{seen.kills} kills, {seen.different} different results, {seen.repeated} complete windows asked for again, ")
    print(f"{seen.failed} failed runs after them; {time.monotonic() - started:.0f} s")
    return 1 if seen.different or seen.repeated or seen.failed else 0


if __name__ == "__main__":
    sys.exit(main())
