"""Output of the benchmarks: Markdown tables on standard output and, with `--write`, in the documentation.

`docs/benchmarks.md` has a pair of comments for each benchmark, `<!-- NAME -->` and `<!-- /NAME -->`; what stands
between them is replaced. Plots go beside it, into `docs/figures`.
"""

import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

DOCS = Path(__file__).parents[1] / "docs"
_PAGE = "benchmarks.md"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is readable as plain text: the first column to the left, the others to the right."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return f"| {' | '.join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in pairs)} |"

    rule = "|".join(f"{'-' * (width + 1)}{':' if at else '-'}" for at, width in enumerate(widths))
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def middle(values: Sequence[float], digits: int) -> str:
    """Return the median as text, or a mark that there is none."""
    return f"{median(values):,.{digits}f}" if values else "-"


def circumstances(command: str) -> str:
    """Return the date, the machine and the versions of the figures."""
    cores = os.cpu_count()  # not those of this process, which may have been pinned to one
    versions = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "msgspec"))
    return (
        f"`{command}` on {time.strftime('%Y-%m-%d')}: {cores} cores ({_processor()}), {platform.system()}, "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", known.read_text(), re.MULTILINE) if known.exists() else None
    return found[1] if found else platform.machine()


def publish(
    name: str, text: str, *, write: bool, plots: Mapping[str, str] | None = None, usual: str | None = None
) -> None:
    """Print the figures; if `write`, put them and their plots (names and SVG) into the documentation, too.

    `name` is the module's; `usual` is how it is called where no option was given.
    """
    given = [argument for argument in sys.argv[1:] if argument != "--write"]
    command = " ".join(["python -m", f"benchmarks.{name}", *given]) if given or not usual else usual
    told, plots = f"{text}\n\n{circumstances(command)}", plots or {}
    print(told, flush=True)
    if write:
        (DOCS / "figures").mkdir(exist_ok=True)
        for plot, svg in plots.items():
            (DOCS / "figures" / f"{plot}.svg").write_text(svg, encoding="utf-8")
        images = "\n".join(f"![{plot.replace('-', ' ')}](figures/{plot}.svg)" for plot in plots)
        page = DOCS / _PAGE
        page.write_text(replaced(page.read_text("utf-8"), name, "\n\n".join(filter(None, (told, images)))), "utf-8")


def replaced(page: str, name: str, text: str) -> str:
    """Return a page with other text between the comments of a name; SystemExit unless there is exactly one pair."""
    head, begin, rest = page.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- /{name} -->")
    if not begin or not end:
        raise SystemExit(f"docs/{_PAGE} has no place for {name}: write <!-- {name} --> and <!-- /{name} -->")
    return f"{head}{begin}{text}\n{end}{tail}"
