"""Build the sdist and the wheel so that the same commit always gives the same bytes.

    python -m release.build [--out dist]

The sources are those of the commit, without its history: what is not committed is not in a release, and the build shows
that it needs no git. The wheel is built from the sdist. The commit's time stands for every file's. Both are packed
again: the sdist with fixed times and owners, the wheel by a compressor that is slow and thorough.
"""

import argparse
import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import zopfli

ROOT = Path(__file__).parent.parent


def commit_time() -> int:
    """Return the time of the current commit in epoch seconds."""
    shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True)
    return int(shown.stdout)


def build(out: Path, **environ: str) -> tuple[Path, Path]:
    """Build into `out`, with these variables in the environment; return sdist and wheel."""
    epoch = commit_time()
    with TemporaryDirectory() as folder:
        sources = Path(folder, "sources")
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(sources, filter="data")
        sdist = repack(run_build(sources, Path(folder), epoch, "--sdist"), out, epoch)
        with tarfile.open(sdist) as tar:
            tar.extractall(Path(folder, "unpacked"), filter="data")
        [unpacked] = Path(folder, "unpacked").iterdir()
        return sdist, smaller(run_build(unpacked, out, epoch, "--wheel", **environ))


def run_build(sources: Path, out: Path, epoch: int, kind: str, **environ: str) -> Path:
    """Run the build front end in its isolated environment; return the file that it made."""
    variables = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), **environ}
    with TemporaryDirectory() as made:
        command = [sys.executable, "-m", "build", kind, "--outdir", made, str(sources)]
        done = subprocess.run(command, env=variables, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        [path] = Path(made).iterdir()
        out.mkdir(parents=True, exist_ok=True)
        (out / path.name).write_bytes(path.read_bytes())
        return out / path.name


def repack(sdist: Path, out: Path, epoch: int) -> Path:
    """Write an sdist again with its members in order, and with fixed times, owners and modes; return the new file."""
    out.mkdir(parents=True, exist_ok=True)
    target = out / sdist.name
    with (
        tarfile.open(sdist) as old,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda entry: entry.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    return target


def smaller(wheel: Path) -> Path:
    """Compress a wheel again with zopfli, which saves some 3 percent; the files in it stay as they are."""
    target = wheel.with_suffix(".smaller")
    with zipfile.ZipFile(wheel) as old, zopfli.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member, old.read(member))
    return target.replace(wheel)


def main() -> None:
    """Build, and print the files."""
    parser = argparse.ArgumentParser(prog="python -m release.build", description="The sdist and the wheel of HEAD")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    for path in build(parser.parse_args().out.resolve(), SEGMENT_FETCH_SCANNER="require"):
        print(path)


if __name__ == "__main__":
    main()
