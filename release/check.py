"""Build a release and check all that can be checked on this machine.

    make release-check
    python -m release.check [--out dist] [--only NAME ...]

Prints a line for each check: ok, FAILED, or not run with the reason. Exit code 1 if one failed. It uploads nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from tempfile import TemporaryDirectory

from release.build import ROOT, build

MOST_WHEEL_KB, MOST_SDIST_KB = 420, 1000  # the wheel holds sources alone; 190 files cost 40 KB before any text
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_FOR_USERS = ("test", "dev", "docs", "release")
METADATA = ("Summary", "Keywords", "License-Expression", "License-File", "Requires-Python", "Description-Content-Type")
INSTALLED = """\
import importlib.resources, segment_fetch
from segment_fetch.wire import raw_rows
assert importlib.resources.files(segment_fetch).joinpath("py.typed").is_file(), "py.typed is missing"
assert raw_rows.COMPILED is {compiled}, f"COMPILED is {{raw_rows.COMPILED}}"
"""


class FailedError(Exception):
    """A check failed; the message says how."""


class NotRunError(Exception):
    """A check cannot be made here; the message says why."""


class Release:
    """The files of a release, built when the object is made, and a folder for whatever the checks make."""

    def __init__(self, out: Path, scratch: Path) -> None:
        self.scratch = scratch
        shutil.rmtree(out, ignore_errors=True)
        self.sdist, self.wheel = build(out, SEGMENT_FETCH_SCANNER="require")
        _, self.pure = build(scratch / "pure", SEGMENT_FETCH_SCANNER="skip")
        shutil.copy(self.pure, out)

    def environment(self, python: str, wheel: Path) -> Path:
        """Make an empty environment, install a wheel into it, and return its `bin`."""
        folder = self.scratch / f"env-{Path(python).parent.parent.name}-{wheel.stem}"
        if not folder.exists():
            run(python, "-m", "venv", str(folder))
            run(str(folder / "bin/python"), "-m", "pip", "install", "--quiet", str(wheel))
        return folder / "bin"


def run(*command: str, **environ: str) -> str:
    """Run a command outside the sources; return what it printed. Raises FailedError with its output."""
    with TemporaryDirectory() as folder:
        variables = {**os.environ, **environ}
        variables.pop("PYTHONPATH", None)
        done = subprocess.run(command, cwd=folder, env=variables, check=False, capture_output=True, text=True)
    if done.returncode:
        raise FailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def tool(name: str, *arguments: str) -> str:
    """Run a program of this environment."""
    return run(str(Path(sys.executable).parent / name), *arguments)


def found_pythons() -> Iterator[tuple[str, str | None]]:
    """Yield each version of Python that is supported, and its interpreter on this machine or None."""
    folders = [*os.environ.get("PATH", "").split(os.pathsep)]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for version in PYTHONS:
        paths = [*versions.glob(f"{version}.*/bin/python"), *(Path(folder, f"python{version}") for folder in folders)]
        yield version, next((str(path) for path in paths if is_python(path, version)), None)


def is_python(path: Path, version: str) -> bool:
    """Return True if a path is a working interpreter of a version that can make environments."""
    asked = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    if not path.is_file():
        return False
    done = subprocess.run([str(path), "-c", asked], check=False, capture_output=True, text=True)
    return done.stdout.strip() == version


def reproducible(release: Release) -> str:
    """Two builds of the commit, in two folders, have the same bytes."""
    again = build(release.scratch / "again", SEGMENT_FETCH_SCANNER="require")
    for first, second in zip((release.sdist, release.wheel), again, strict=True):
        if first.name != second.name or first.read_bytes() != second.read_bytes():
            raise FailedError(f"{first.name} differs from build to build")
    return "sdist and wheel, built twice in different folders"


def small(release: Release) -> str:
    """The files are not larger than they should be."""
    sizes = {path: path.stat().st_size / 1000 for path in (release.wheel, release.sdist)}
    for path, most in ((release.wheel, MOST_WHEEL_KB), (release.sdist, MOST_SDIST_KB)):
        if sizes[path] > most:
            raise FailedError(f"{path.name} has {sizes[path]:.0f} KB; at most {most} are allowed")
    return f"wheel {sizes[release.wheel]:.0f} KB, sdist {sizes[release.sdist]:.0f} KB"


def tags(release: Release) -> str:
    """A wheel is tagged for a platform exactly if the scanner is in it, whatever happens to the compiler."""
    broken = build(release.scratch / "broken", CC="/bin/false", SEGMENT_FETCH_SCANNER="")[1]
    for wheel, expected in ((release.wheel, True), (release.pure, False), (broken, False)):
        compiled = any(name.endswith(".so") for name in zipfile.ZipFile(wheel).namelist())
        if compiled is not expected or compiled is wheel.name.endswith("-py3-none-any.whl"):
            raise FailedError(f"{wheel.name}: the scanner is {'in' if compiled else 'not in'} it")
    try:
        build(release.scratch / "required", CC="/bin/false", SEGMENT_FETCH_SCANNER="require")
    except SystemExit:
        return "with the scanner abi3, without it py3-none-any; `require` refuses a broken compiler"
    raise FailedError("SEGMENT_FETCH_SCANNER=require built a wheel although the compiler failed")


def metadata(release: Release) -> str:
    """The description renders, and no field that an index shows is missing."""
    tool("twine", "check", "--strict", str(release.sdist), str(release.wheel))
    with zipfile.ZipFile(release.wheel) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        fields = message_from_bytes(wheel.read(name))
        files = {path.partition("/")[2] for path in wheel.namelist()}
    missing = [field for field in METADATA if not fields[field]]
    missing += [file for file in ("py.typed", "wire/_scanner.pyi") if file not in files]
    if missing:
        raise FailedError(f"missing in the wheel: {', '.join(missing)}")
    return f"{fields['Name']} {fields['Version']}, {len(fields.get_all('Classifier', []))} classifiers, py.typed"


def abi3(release: Release) -> str:
    """The scanner uses nothing but the stable ABI of the version in its tag."""
    tool("abi3audit", "--strict", "--summary", str(release.wheel))
    return release.wheel.name


def pythons(release: Release) -> str:
    """The wheel works in an empty environment of every Python that is found."""
    done, missing = [], []
    for version, python in found_pythons():
        if python is None:
            missing.append(version)
            continue
        for wheel, compiled in ((release.wheel, True), (release.pure, False)):
            programs = release.environment(python, wheel)
            run(str(programs / "python"), "-c", INSTALLED.format(compiled=compiled))
            run(str(programs / "segment-fetch"), "demo", "--segments", "2000", "--out", "out")
        done.append(version)
    if not done:
        raise NotRunError(f"none of {', '.join(PYTHONS)} was found")
    return f"demo ran on {', '.join(done)}, both wheels" + (f"; not run: {', '.join(missing)}" if missing else "")


def extras(release: Release) -> str:
    """The requirements of every extra can be met."""
    programs = release.environment(sys.executable, release.wheel)
    names = [name for name in PROJECT["optional-dependencies"] if name not in NOT_FOR_USERS]
    for name in names:
        wanted = f"{release.wheel}[{name}]"
        run(str(programs / "python"), "-m", "pip", "install", "--quiet", "--dry-run", wanted)
    return ", ".join(names)


def licences(release: Release) -> str:
    """The licences of the dependencies, for a person to read."""
    programs = release.environment(sys.executable, release.wheel)
    text = tool("pip-licenses", f"--python={programs / 'python'}", "--format=json", "--from=mixed")
    own = {"pip", "setuptools", PROJECT["name"]}
    return "; ".join(f"{row['Name']} {row['License']}" for row in json.loads(text) if row["Name"] not in own)


def vulnerabilities(release: Release) -> str:
    """No dependency has a vulnerability that is known."""
    programs = release.environment(sys.executable, release.wheel)
    [packages] = programs.parent.glob("lib/python*/site-packages")
    try:
        text = tool("pip-audit", "--path", str(packages), "--progress-spinner=off", "--format=json")
    except FailedError as error:
        if "vulnerabilit" in str(error).lower() and '"vulns": [{' in str(error):
            raise
        raise NotRunError(str(error).strip().splitlines()[-1]) from None
    rows = [row for row in json.loads(text)["dependencies"] if row["name"] != PROJECT["name"]]
    audited = [row for row in rows if "vulns" in row]
    if not audited:
        reasons = {row["skip_reason"] for row in rows} or {"pip-audit found no package"}
        raise NotRunError(f"no database was reached: {min(reasons)}")
    return f"{len(audited)} of {len(rows)} packages audited, none with a known vulnerability"


def workflows(_: Release) -> str:
    """The workflow files that build and publish are checked by `make workflows`; they need the host to run."""
    raise NotRunError("wheels for Linux (x86-64, arm64; glibc, musl) and macOS, and their publication, need the host")


CHECKS: dict[str, Callable[[Release], str]] = {
    check.__name__: check
    for check in (reproducible, small, tags, metadata, abi3, pythons, extras, licences, vulnerabilities, workflows)
}


def main() -> None:
    """Build, check, print, and end with 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="python -m release.check", description="Build a release and check it")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    options = parser.parse_args()
    failed = False
    with TemporaryDirectory() as scratch:
        release = Release(options.out.resolve(), Path(scratch))
        print(f"built     {release.sdist.name}, {release.wheel.name}, {release.pure.name}", flush=True)
        for name in options.only:
            try:
                verdict, said = "ok", CHECKS[name](release)
            except FailedError as error:
                verdict, said, failed = "FAILED", str(error), True
            except NotRunError as error:
                verdict, said = "not run", str(error)
            print(f"{verdict:<9} {name}: {said}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
