"""Start-up time of the program and the library over a bare interpreter, and the modules that they load.

    python -m benchmarks.startup [--rounds 15] [--write] [--smoke]

`python -c pass`, `segment-fetch --help` and `import segment_fetch`, one after the other in each round; the fastest of
the rounds counts, because other load can only add. The goals: `--help` in at most 1.5 times the bare interpreter
and 150 ms, the import in 150 ms and without the packages that only some tasks need. Exit code 1 if one is missed.
`--smoke` judges only what is loaded.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from sysconfig import get_path

from benchmarks.report import publish, table

HEAVY = ("pyarrow", "duckdb", "rich", "aiohttp", "dlt", "numpy")
"""Modules that `import segment_fetch` must not load."""

HELP_FACTOR, ALLOWED_MS = 1.5, 150.0
_BARE, _IMPORT = ["-c", "pass"], ["-c", "import segment_fetch"]
_MODULES = "import json, sys, segment_fetch; print(json.dumps(sorted(sys.modules)))"


def loaded() -> list[str]:
    """Return the heavy packages that an import of the library loads."""
    done = subprocess.run([sys.executable, "-c", _MODULES], check=True, capture_output=True)
    return sorted({name.partition(".")[0] for name in json.loads(done.stdout)}.intersection(HEAVY))


def _help() -> list[str]:
    """Return the arguments that run the installed program."""
    return [str(Path(get_path("scripts"), "segment-fetch")), "--help"]


def milliseconds(arguments: list[str]) -> float:
    """Return the seconds that an interpreter takes for these arguments, from its start to its end, modules compiled."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environ)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Measure, print, and end with 1 if a goal is missed."""
    options = _options()
    milliseconds(_help())  # compiles the modules that are not yet
    rounds = [[milliseconds(what) for what in (_BARE, _help(), _IMPORT)] for _ in range(options.rounds)]
    bare, helped, imported = (min(one[at] for one in rounds) for at in range(3))
    importing = imported - bare
    goal = HELP_FACTOR * bare + ALLOWED_MS
    rows = [
        ["`python -c pass`", "1.00", f"{bare:.0f}", ""],
        ["`segment-fetch --help`", f"{helped / bare:.2f}", f"{helped:.0f}", f"{goal:.0f}"],
        ["`python -c 'import segment_fetch'`", f"{imported / bare:.2f}", f"{imported:.0f}", ""],
        ["the import itself", f"{importing / bare:.2f}", f"{importing:.0f}", f"{ALLOWED_MS:.0f}"],
    ]
    brought = loaded()
    told = f"`import segment_fetch` loads {', '.join(brought) or 'none'} of {', '.join(HEAVY)}."
    text = f"{table(['', 'x bare', 'ms', 'at most'], rows)}\n\n{told}"
    publish("startup", text, write=options.write)
    slow = not options.smoke and (helped > goal or importing > ALLOWED_MS)
    sys.exit(bool(slow or brought))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    parser.add_argument("--smoke", action="store_true", help="one round; only what is loaded is judged")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.write = 1, False
    return options


if __name__ == "__main__":
    main()
