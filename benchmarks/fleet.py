"""A fleet beside its slowest account: time, memory, and the start of many accounts that have nothing to do.

    python -m benchmarks.fleet [--accounts 200] [--idle 1000] [--seed 1] [--write] [--smoke]

One server process has all accounts, each with a size and a limit of its own; the fleet has one core, the server
another. The goals: 200 accounts at once in 1.1 times the time of the slowest alone, within 300 MB; 1,000 accounts that
are up to date in 10 s. Exit code 1 if one is missed. The machine must have nothing else to do. `--smoke`
judges nothing.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measure import TOKEN, pin
from benchmarks.report import publish, table
from segment_fetch.simulator import AccountsSimulator, Bearer, Dataset, RateLimit, Simulator

FACTOR, MEMORY_MB, IDLE_S = 1.1, 300.0, 10.0
_DAY_MS = 86_400_000
_LIMITS = (1.0, 2.0, 3.0, 5.0, 8.0)  # requests a second
_SIZES = (500, 2_000, 8_000, 25_000)  # segments


def main() -> None:
    """Measure, print, and say whether the goals are met."""
    options = _options()
    with TemporaryDirectory() as folder:
        place = Path(folder)
        with _serving(options.accounts, options.seed, idle=False) as url:
            _write(place / "busy.toml", url, options.accounts)
            together, memory = _run(place / "busy.toml", place / "together")
            alone, memory_alone = _run(place / "busy.toml", place / "alone", "--only", _slowest(options))
        with _serving(options.idle, options.seed, idle=True) as url:
            _write(place / "idle.toml", url, options.idle)
            _run(place / "idle.toml", place / "idle")
            idle, memory_idle = _run(place / "idle.toml", place / "idle")
    factor = together["seconds"] / alone["seconds"]
    names = ("the slowest account, alone", f"{options.accounts:,} accounts at once", f"{options.idle:,}, up to date")
    goals = ("", f"{FACTOR} x, {MEMORY_MB:.0f} MB", f"{IDLE_S:.0f} s")
    measured = ((alone, memory_alone), (together, memory), (idle, memory_idle))
    rows = [
        [name, f"{factor:.2f}" if report is together else "", *_figures(report), f"{held:.0f}", goal]
        for name, (report, held), goal in zip(names, measured, goals, strict=True)
    ]
    header = ["", "x the slowest", "s", "requests", "core, ms a request", "MB", "at most"]
    publish("fleet", table(header, rows), write=options.write)
    missed = factor > FACTOR or memory > MEMORY_MB or idle["seconds"] > IDLE_S
    sys.exit(missed and not options.smoke)


def _slowest(options: argparse.Namespace) -> str:
    """Return the account that takes longest by itself: the one with the most segments for its limit."""
    drawn = _drawn(options.accounts, options.seed)
    return str(1 + max(range(len(drawn)), key=lambda place: drawn[place][0] / drawn[place][1]))


def _drawn(accounts: int, seed: int) -> list[tuple[int, float]]:
    """Return the size (segments) and the limit (requests a second) of each account."""
    chance = random.Random(seed)
    return [(chance.choice(_SIZES), chance.choice(_LIMITS)) for _ in range(accounts)]


def _figures(report: dict[str, Any]) -> list[str]:
    requests = sum(entry.get("requests", 0) for entry in report["accounts"])
    return [f"{report['seconds']:.1f}", f"{requests:,}", f"{report['core_s'] * 1000 / max(1, requests):.1f}"]


def _run(file: Path, out: Path, *more: str) -> tuple[dict[str, Any], float]:
    """Run the command on the last core; return its report with `core_s`, and the most memory that it held (MB)."""
    argv = [sys.executable, "-m", "segment_fetch", "fleet", str(file), "--json", "--quiet", *more]
    out.mkdir(exist_ok=True)
    with _on_last_core():
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | {"ALL_BEARER": TOKEN}, cwd=out)
    assert process.stdout is not None
    with process.stdout:
        printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    report: dict[str, Any] = json.loads(printed)
    assert process.returncode == 0, report
    report["core_s"] = usage.ru_utime + usage.ru_stime
    return report, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


@contextmanager
def _on_last_core() -> Iterator[None]:
    """Pin the processes that the block starts."""
    if sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    pin(-1)
    yield
    os.sched_setaffinity(0, before)


def _write(file: Path, url: str, accounts: int) -> None:
    text = f'[defaults]\nout = "{{account}}"\nfrom = "now-8d"\nstate = "none"\nbase_url = "{url}"\n'
    text += "credentials = { env = 'ALL_' }\n" + "".join(f"[accounts.{number}]\n" for number in range(1, accounts + 1))
    file.write_text(text)


# The server. ------------------------------------------------------------------------------------------------------


@contextmanager
def _serving(accounts: int, seed: int, *, idle: bool) -> Iterator[str]:
    """Run a server process for the length of the block; yield its base URL. It also ends when this process ends."""
    command = [sys.executable, "-m", "benchmarks.fleet", "--serve", str(accounts), str(seed), str(int(idle))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


async def _serve(accounts: int, seed: int, *, idle: bool) -> None:
    """Serve until standard input ends."""
    end = int(time.time() * 1000) - 3 * _DAY_MS
    simulators = [
        Simulator(
            Dataset(
                segments=0 if idle else size,
                start=end - 4 * _DAY_MS,
                end=end,
                account=str(number),
                seed=number,
            ),
            auth=Bearer(TOKEN),
            limit=None if idle else RateLimit(limit),
        )
        for number, (size, limit) in enumerate(_drawn(accounts, seed), 1)
    ]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with AccountsSimulator(simulators) as served:
        print(served.base_url, flush=True)
        await ended.wait()


def _options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--idle", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--smoke", action="store_true", help="few accounts; nothing is judged")
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.smoke:
        options.accounts, options.idle, options.write = 3, 5, False
    return options


if __name__ == "__main__":
    if (server := _options().serve) is None:
        main()
    else:
        pin(0)
        asyncio.run(_serve(server[0], server[1], idle=bool(server[2])))
