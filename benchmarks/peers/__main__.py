"""This client beside programs that people use today: the same pages from the same server, all in one command.

    make bench-peers                                  all of them, in an environment of their own
    python -m benchmarks.peers [--segments 200000] [--rounds 3] [--settings limited late] [--write]
    python -m benchmarks.peers --profile httpx_async  where a program's time goes, without a limit
    python -m benchmarks.peers --smoke                a small run of the programs that can be imported

Settings: `unlimited`, the server as fast as it can, on a core of its own, its pages rendered beforehand; `limited`, 20
requests a second, 20 at once after a pause, answers after 150 ms, a limit that each program has to find out; `strict`,
the same but for those 20 at once; `told`, as `limited`, for the programs that can be told a limit; `day` and
`day-at-once`, a job of 40 pages at 10 requests a second, and at 5 in flight; `late`, 30 rows a second appear and 30
vanish while they are read, answers after 100 ms. Each program runs in a process of its own, one at
a time, A B C A B C ...; ratios are taken within a round, and medians of the rounds are shown. Without drift, what a
program writes must be each row once.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median

from benchmarks.measure import Job
from benchmarks.peers.running import (
    OWN,
    PROGRAMS,
    SETTINGS,
    Outcome,
    Program,
    Setting,
    command,
    dataset_of,
    run_once,
    serving,
)
from benchmarks.plot import bars
from benchmarks.report import middle, publish, table

Round = dict[Program, Outcome | None]
"""The result of each program; None for one that gave up."""

_CLEARLY = 0.97
"""A figure counts as better than this client's from here on."""


def run_rounds(setting: Setting, programs: Sequence[Program], segments: int, rounds: int) -> list[Round]:
    """The rounds of a setting; where the server's speed counts, after it has rendered the pages that are asked for."""
    asked = [program for program in programs if program.told or setting.name != "told"]
    simulator = setting.simulator(dataset_of(setting, segments))
    with serving(simulator):
        for program in () if setting.latency_ms else asked:
            run_once(program, setting, simulator)
        done = [{program: run_once(program, setting, simulator) for program in asked} for _ in range(rounds)]
    if setting.drift is None:
        check(done)
    return done


def check(rounds: Sequence[Round]) -> None:
    """SystemExit if a program wrote a row twice or left one out although nothing changed."""
    for one in rounds:
        for program, outcome in one.items():
            if outcome and (outcome.missing or outcome.doubled):
                raise SystemExit(f"{program.title}: {outcome.missing} rows missing, {outcome.doubled} doubled")


def ratios(rounds: Sequence[Round], program: Program, of: Callable[[Outcome], float]) -> list[float]:
    """A program's figure over this client's, for each round in which both have one."""
    pairs = ((one[program], one[OWN]) for one in rounds)
    return [of(other) / of(own) for other, own in pairs if other and own]


def figures(rounds: Sequence[Round], program: Program, *, drifting: bool) -> list[tuple[Sequence[float], int]]:
    """A program's line of the table: each figure of all rounds, and with how many digits it is shown."""
    found = [outcome for one in rounds if (outcome := one[program])]
    counts: list[tuple[Sequence[float], int]] = [
        ([outcome.requests for outcome in found], 0),
        ([outcome.refused for outcome in found], 0),
        ([outcome.missing for outcome in found], 0),
        ([outcome.doubled for outcome in found], 0),
    ]
    return [
        (ratios(rounds, program, lambda outcome: outcome.cost.seconds), 2),
        (ratios(rounds, program, lambda outcome: outcome.cost.cpu), 2),
        ([outcome.cost.seconds for outcome in found], 2),
        ([outcome.cost.cpu for outcome in found], 2),
        ([outcome.cost.peak_mb for outcome in found], 0),
        *(counts if drifting else counts[:2]),
    ]


def shown(setting: Setting, rounds: Sequence[Round], segments: int) -> str:
    """The table of a setting; what is better than this client's is bold."""
    drifting = setting.drift is not None
    header = ["program", "time, x this client's", "CPU, x", "s", "CPU s", "peak MB", "requests", "429"]
    header += ["missing", "doubled"] if drifting else []
    own = figures(rounds, OWN, drifting=drifting)
    lines = []
    for program in rounds[0]:
        line = [program.title]
        for (values, digits), (others, _) in zip(figures(rounds, program, drifting=drifting), own, strict=True):
            wins = values and others and median(values) < _CLEARLY * median(others)
            line.append(f"**{middle(values, digits)}**" if wins else middle(values, digits))
        lines.append(line)
    return f"### {setting.title.capitalize()}\n\n{segments:,} segments.\n\n{table(header, lines)}"


def bar(rounds: Sequence[Round], program: Program) -> tuple[str, float]:
    """A program's bar: how many times this client's time it takes."""
    found = ratios(rounds, program, lambda outcome: outcome.cost.seconds)
    return program.title, median(found) if found else math.inf


def profile(name: str, segments: int) -> None:
    """Run one program under cProfile, with its most expensive functions on standard error."""
    [program] = [program for program in PROGRAMS if program.module == name]
    setting = SETTINGS[0]
    simulator = setting.simulator(dataset_of(setting, segments))
    with serving(simulator), tempfile.TemporaryDirectory(prefix="segment_fetch_") as out:
        run_once(program, setting, simulator)
        dataset = simulator.dataset
        job = Job(simulator.base_url, dataset.account, dataset.start, dataset.end, out)
        subprocess.run(command(program, job, "--profile", "40"), check=True)


def main() -> None:
    """Run what is asked for."""
    options = _options()
    if options.profile:
        profile(options.profile, options.segments)
        return
    programs = [program for program in PROGRAMS if find_spec(program.needs)]
    for program in set(PROGRAMS).difference(programs):
        print(f"{program.title}: left out, as {program.needs} is not installed", file=sys.stderr)
    texts, plotted = [], {}
    for setting in (setting for setting in SETTINGS if setting.name in options.settings):
        rounds = run_rounds(setting, programs, options.segments, options.rounds)
        texts.append(shown(setting, rounds, int(options.segments * setting.share)))
        if not setting.drift:
            plotted[setting.title] = [bar(rounds, program) for program in rounds[0]]
    plot = bars("Time of a whole extraction, as a multiple of this client's", plotted)
    publish("peers", "\n\n".join(texts), plots={"peers": plot}, write=options.write, usual="make bench-peers")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    names = [setting.name for setting in SETTINGS]
    parser.add_argument("--segments", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--settings", nargs="+", choices=names, default=names)
    parser.add_argument("--profile", choices=[program.module for program in PROGRAMS], help="profile one instead")
    parser.add_argument("--write", action="store_true", help="put tables and plots into the documentation")
    parser.add_argument("--smoke", action="store_true", help="a small run that checks what is written; no figures")
    options = parser.parse_args()
    if options.smoke:
        options.segments, options.rounds, options.write = 2_000, 1, False
    return options


if __name__ == "__main__":
    main()
