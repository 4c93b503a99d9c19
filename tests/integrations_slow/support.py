"""Two accounts for the schedulers' examples: served, in the environment, and looked at afterwards."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, Simulator
from tests.support_runs import rows

ROOT = Path(__file__).parents[2]
ACCOUNTS = ("111111", "222222")
SEGMENTS = 2_000
DAY_MS = 86_400_000


class Schedule:
    """An example of a scheduler, with an environment in which it finds two accounts and a folder."""

    def __init__(self, simulator: AccountsSimulator, program: Path, folder: Path) -> None:
        self.simulator = simulator
        self.out = folder / "segments"
        self._program = program
        self._folder = folder
        self.environ = os.environ | {"SEGMENTS_OUT": str(self.out), "HOME": str(folder)}
        for account in ACCOUNTS:
            self.environ[f"SEGMENT_FETCH_BASE_URL_{account}"] = simulator.base_url

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the scheduler's environment."""
        return subprocess.run(
            [str(self._program), *argv], cwd=self._folder, env=self.environ, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    def check(self) -> None:
        """Each account's folder has all of its segments, each once."""
        for account in ACCOUNTS:
            ids = [row["segmentId"] for row in rows(self.out / account)]
            assert (len(ids), len(set(ids))) == (SEGMENTS, SEGMENTS)


@contextmanager
def scheduled(program: Path, folder: Path) -> Iterator[Schedule]:
    """Serve two accounts of the last days for the length of the block."""
    end = int(time.time() * 1000) - 3 * DAY_MS
    simulators = [
        Simulator(
            Dataset(segments=SEGMENTS, start=end - 2 * DAY_MS, end=end, account=account, seed=int(account)),
            auth=Bearer("the-token"),
        )
        for account in ACCOUNTS
    ]
    with AccountsSimulator(simulators).in_thread() as served:
        yield Schedule(served, program, folder)
