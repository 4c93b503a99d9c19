"""The documentation, tried out: every block is read, and run where it can be, against a simulator on loopback.

* `sh` blocks are run as they stand. The program is told the simulator's address besides, and no limit to its rate;
  what would install something or write a crontab is replaced by a stand-in.
* `shell`, `cron` and `dockerfile` blocks are shown only; their commands are held against the real parser.
* `python` blocks are whole files, named in their first line. Scripts are run, tests are given to pytest. Those of pages
  about the inside are excerpts, and compiled only.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, get_args

import aiohttp
import pytest

import segment_fetch
import segment_fetch.sinks
from segment_fetch import SegmentClient
from segment_fetch.cli import app, exit_codes, parser
from segment_fetch.simulator import Dataset, Simulator

pytestmark = pytest.mark.no_cover  # other tests cover the same code; measuring it here takes minutes

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = parser.build()[1]
SECRETS = ("APP_KEY", "APP_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET")
PLACES = re.compile(r"(?<![\w.])/(?:work|root|home|tmp|Users|var)/|\.\./shared")
REGISTRIES = re.compile(r"\b(?:pypi|pythonhosted|anaconda|npmjs|crates)\b", re.IGNORECASE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """The blocks in these languages, of all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = re.finditer(r"^```(\w*|\{[\w-]+\})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found += [Block(page, text.count("\n", 0, at.start()) + 1, at[1], at[2]) for at in fences]
    shown = [block for block in found if not block.language.startswith("{")]  # a directive of the site's generator
    return [block for block in shown if block.language in languages or not languages]


def lines(block: Block) -> list[str]:
    """The lines of a shell block, continued ones joined, without comments."""
    joined = block.text.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def words(line: str) -> list[str]:
    """A line as a shell divides it; operators are words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def is_operator(word: str) -> bool:
    return bool(word) and set(word) <= set("();<>|&")


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the arguments after each `segment-fetch` in a block."""
    if block.language == "dockerfile":
        given = [json.loads(line.partition(" ")[2]) for line in lines(block) if line.startswith(("ENTRY", "CMD"))]
        yield [word for part in given for word in part][1:]
        return
    for line in lines(block):
        yield from in_line(line)


def in_line(line: str) -> Iterator[list[str]]:
    rest = words(line)
    while rest:
        word, *rest = rest
        if (word == "segment-fetch" or word.endswith("/bin/segment-fetch")) and "docker" not in line:
            end = next((at for at, word in enumerate(rest) if is_operator(word)), len(rest))
            redirected = rest[end : end + 1] == [">"] and rest[end - 1].isdigit()
            yield rest[: end - redirected]


def each(found: Sequence[Block]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", found, ids=str)


SHELLS = blocks("sh", "shell", "cron", "dockerfile", "")
RUN = [block for block in blocks("sh") if any(commands(block))]
[SET_UP] = [block for block in blocks("sh") if "crontab" in block.text]
FILL = ("extract", "--from", "now-7d", "--out", "segments")
INSIDE = {"pacing.md"}
PYTHON = [block for block in blocks("python") if block.page.name not in INSIDE]
EXCERPTS = [block for block in blocks("python") if block not in PYTHON]
SCRIPTS = [block for block in PYTHON if not block.text.startswith("# test_")]


@pytest.fixture(scope="module")
def served() -> Iterator[Simulator]:
    """A month of segments until now."""
    dataset = Dataset.recent(2_000, now=time.time(), days=30)
    with Simulator(dataset).in_thread() as simulator:
        yield simulator


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, which is also the home, and credentials in the environment."""
    for name in [name for name in os.environ if name.startswith("LIVEPERSON_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name in SECRETS:
        monkeypatch.setenv(f"LIVEPERSON_{name}", f"the-{name}")
    monkeypatch.setenv("LIVEPERSON_ACCOUNT", "111111")
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_blocks_have_a_language_that_is_tested() -> None:
    assert {block.language for block in blocks()} == {
        *("sh", "shell", "cron", "dockerfile", "python"),
        *("text", "json", "toml", "yaml", ""),
    }
    assert len(RUN) > 10
    assert len(SCRIPTS) > 10


@each(SHELLS)
def test_commands_are_as_the_parser_has_them(block: Block) -> None:
    for argv in commands(block):
        assert argv == ["--version"] or parser.parse(argv).command in COMMANDS


OFFLINE = sorted(name for name, parser in COMMANDS.items() if "--base-url" not in parser.names())


def asked(served: Simulator, command: str) -> list[str]:
    """Options that lead a command to the simulator; none for one that asks no API."""
    return [] if command in OFFLINE else ["--base-url", served.base_url, "--rate", "none"]


def is_plain(line: str) -> bool:
    """Return True if the line needs no shell."""
    divided = words(line)
    return divided[0] in ("export", "segment-fetch") and not any(map(is_operator, divided))


@each([block for block in RUN if block != SET_UP])
def test_shell_blocks_run(
    block: Block, served: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "--out segments" in block.text and "--from" not in block.text:  # goes on from a block above it
        assert app.main([*FILL, *asked(served, "extract")]) == exit_codes.OK
    if not all(map(is_plain, lines(block))):
        in_a_shell(block.text, served, folder)
        return
    for line in lines(block):
        name, *rest = words(os.path.expandvars(line))
        if name == "export":
            monkeypatch.setenv(*rest[0].split("=", 1))
        else:
            assert app.main([*rest, *asked(served, rest[0])]) == exit_codes.OK, capfd.readouterr().err


def in_a_shell(text: str, served: Simulator, folder: Path) -> None:
    """Runs a text in bash, with stand-ins first in the PATH."""
    tools = folder / "tools" / "bin"
    run = f'exec {shlex.quote(sys.executable)} -m segment_fetch "$@"'
    program = f'case "$1" in {"|".join(OFFLINE)}) {run};; *) {run} {shlex.join(asked(served, "extract"))};; esac'
    install(tools / "segment-fetch", program)
    install(tools / "pip", 'test -f "$SOURCE/pyproject.toml"')
    install(tools / "python3", 'test "$1 $2" = "-m venv" && mkdir -p "$3" && cp -R "$TOOLS" "$3/bin"')
    install(
        tools / "crontab",
        'if test "$1" = -l; then cat "$HOME/cron"; else cat > "$HOME/new" && mv "$HOME/new" "$HOME/cron"; fi',
    )
    if shutil.which("jq") is None:
        install(tools / "jq", "cat > /dev/null")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "TOOLS": str(tools), "SOURCE": str(ROOT), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def install(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_account_is_set_up_and_its_nightly_job_needs_no_environment(
    served: Simulator, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "cron").write_text("0 4 * * * another\n")
    for _ in range(2):
        in_a_shell(SET_UP.text, served, folder)
    for name in [name for name in os.environ if name.startswith("LIVEPERSON_")]:
        monkeypatch.delenv(name)
    assert (folder / "liveperson.env").stat().st_mode & 0o77 == 0
    another, line = (folder / "cron").read_text().splitlines()
    assert another == "0 4 * * * another"
    assert line.startswith("15 3 * * * ")
    [argv] = in_line(line)
    assert app.main([*argv, *asked(served, argv[0])]) == exit_codes.OK
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def scripts(folder: Path, served: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every Python block in a file; a client that is told no address asks the simulator."""
    real = SegmentClient.__init__

    def init(self: SegmentClient, account: str, **settings: Any) -> None:
        real(self, account, **{"base_url": served.base_url, "rate": None, **settings})

    monkeypatch.setattr(SegmentClient, "__init__", init)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield saved(folder)
    aiohttp.set_zlib_backend(zlib)  # one of the scripts changes it
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def file_name(block: Block) -> str:
    """Return the file name in the first line of a Python block."""
    named = re.fullmatch(r"# (\w+\.py)", block.text.partition("\n")[0])
    assert named, f"{block}: the first line must be a comment with the file's name"
    return named[1]


def saved(folder: Path) -> Path:
    for block in PYTHON:
        (folder / file_name(block)).write_text(block.text, encoding="utf-8")
    return folder


@each(SCRIPTS)
def test_python_scripts_run(block: Block, scripts: Path) -> None:
    try:
        runpy.run_path(str(scripts / file_name(block)), run_name="__main__")
    except SystemExit as done:
        assert not done.code  # noqa: PT017 - a script ends as it likes, but well


@each(EXCERPTS)
def test_excerpts_are_python(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_names_of_python_blocks_are_different() -> None:
    names = [file_name(block) for block in PYTHON]
    assert len(set(names)) == len(names)


def test_tests_for_users_pass(folder: Path) -> None:
    names = [file_name(block) for block in PYTHON if block not in SCRIPTS]
    assert len(names) >= 2
    saved(folder)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", "-p", "no:cacheprovider", *names],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def mentions(page: str, name: str) -> bool:
    """Return True if a page of the documentation has the name as a word."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    page = {
        "simulate": "docs/simulator.md",
        "report": "docs/report.md",
        "fleet": "docs/fleet.md",
        "handle-time": "docs/handle-time.md",
    }.get(command, "docs/commands.md")
    assert mentions("docs/commands.md", f"`{command}`")
    names = set(COMMANDS[command].names()) - {"--help"}
    common = {"--json", "--quiet", "--log-level", "--log-format"}
    assert [name for name in sorted(names) if not mentions(page, name) and name not in common] == []
    assert [name for name in sorted(common) if not mentions("docs/commands.md", name)] == []


def test_exit_codes_are_those_of_the_program() -> None:
    table = re.findall(r"^\| (\d+)(?:, \d+)* \|", (ROOT / "docs/exit-codes.md").read_text(), re.MULTILINE)
    assert table == [code for code, _ in exit_codes.MEANINGS]


def test_the_library_is_documented() -> None:
    errors = [name for name in segment_fetch.__all__ if name.endswith("Error")]
    kinds = [kind.__name__ for kind in get_args(segment_fetch.Event)]
    calls = ["plan", "count", "stream", "stream_arrow", "extract", "sync"]
    missing = [name for name in [*errors, *kinds, *calls] if not mentions("docs/library.md", name)]
    assert missing == []
    sinks = [name for name in segment_fetch.sinks.__all__ if name.endswith("Sink")]
    assert [name for name in sinks if not any(mentions(f"docs/{page.name}", name) for page in PAGES[3:])] == []


def test_the_site_builds_without_a_warning_and_needs_no_other_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "trees"),
        "docs",
        str(site),
    ]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    loaded = re.compile(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=.https?://")
    assert [name for name, text in pages.items() if loaded.search(text)] == []
    documented = set(re.findall(r'id="segment_fetch\.([\w.]+)"', pages["reference-python.html"]))
    assert set(segment_fetch.__all__) - documented == {"Event", "Rate", "TimeLike"}  # aliases of types
    assert {f"sinks.{name}" for name in segment_fetch.sinks.__all__} <= documented
    assert all(code in (site / "searchindex.js").read_text(encoding="utf-8") for code in ("handle-time", "watermark"))
    assert all(f"{name}" in pages["reference-commands.html"] for name in COMMANDS)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_place_of_one_machine_or_a_registry(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert PLACES.findall(text) == []
    assert REGISTRIES.findall(text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_in_the_project_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *(block.text for block in SHELLS if block.page == page)])
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets
    for module, options in re.findall(r"^python -m ((?:tests|benchmarks)\.[\w.]+)(.*)$", code, re.MULTILINE):
        found = find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations:
            found = find_spec(f"{module}.__main__")
            assert found is not None, module
        assert found.origin is not None
        source = Path(found.origin).read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in re.findall(r"--\w+", options)), options
    for path in re.findall(r"^(?:tests|docs|benchmarks)/[\w./]+$", code, re.MULTILINE):
        assert (ROOT / path).exists(), path
