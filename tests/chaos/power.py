"""Loses power at every call to the disk, and again while recovering, and holds what is there in the end against an
undisturbed run, byte for byte.

    python -m tests.chaos.power --again 100

The disk of this test forgets what a real one may forget: data that was written but not synced is torn off anywhere; in
each folder, names that were made, changed or removed since that very folder was last synced may be as before, from any
of them on; and a folder whose own name is forgotten takes along all that is in it. The destination is a new folder in a
new folder. After each loss, every window that a run was told is committed has to be there: reading it again would hide
that it was not.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from segment_fetch import BearerToken, DestinationError, RetryPolicy, SegmentClient, Window
from segment_fetch.manifest.format import WindowEntry, parse_manifest, parse_record
from segment_fetch.manifest.verify import audit, manifest_of
from segment_fetch.simulator import Dataset, Simulator
from segment_fetch.sinks import CsvSink, FolderSink, JsonlSink, ParquetSink
from segment_fetch.sinks.files.disk import Disk
from segment_fetch.windows.planning import missing

NOW = 1_795_000_000.0
DAY_MS = 86_400_000
END = int(NOW * 1000) - 2 * DAY_MS

SINKS: dict[str, Callable[[Path, Disk], FolderSink[Any]]] = {
    "jsonl": lambda folder, disk: JsonlSink(folder, disk=disk),
    "jsonl, zstd": lambda folder, disk: JsonlSink(folder, "zstd", disk=disk),
    "csv, gzip": lambda folder, disk: CsvSink(folder, "gzip", disk=disk),
    "parquet, days": lambda folder, disk: ParquetSink(folder, partition="day", disk=disk),
}


def files(folder: Path) -> list[Path]:
    """All files of a folder, and of the folders in it."""
    return [path for path in folder.rglob("*") if path.is_file()]


class PowerLossError(BaseException):
    """The machine is gone."""


class QuickDisk(Disk):
    """A disk that does not wait for the medium; nothing here really loses power."""

    def sync(self, file: BinaryIO) -> None:
        """Nothing."""

    def sync_folder(self, folder: Path) -> None:
        """Nothing."""


class FrailFile:
    """A file's data, whatever its name is: `safe` is on the medium, of what was written behind it any part may be."""

    def __init__(self, safe: bytes = b"") -> None:
        self.safe = safe
        self.written = safe

    def torn(self, chance: random.Random) -> bytes:
        """Return what is left of it after a loss of power."""
        return self.written[: chance.randint(len(self.safe), len(self.written))]


Entry: TypeAlias = FrailFile | Literal["folder"]


class Change(NamedTuple):
    """Names that changed at once in a folder; None where one is gone."""

    folder: str
    names: dict[str, Entry | None]


class FrailDisk(QuickDisk):
    """Loses power at its `at`-th call, and then all that was not yet safe, as far as `chance` has it.

    `root` is there for certain; every name is relative to it, and its own is ".".
    """

    def __init__(self, root: Path, at: int | None, seed: int) -> None:
        self._root = root
        self._at = at
        self._chance = random.Random(seed)
        self._open: dict[int, FrailFile] = {}
        self._live: dict[str, Entry] = {}
        for path in root.rglob("*"):
            self._live[self._name(path)] = FrailFile(path.read_bytes()) if path.is_file() else "folder"
        self._safe = dict(self._live)
        self._changes: list[Change] = []
        self.calls = 0
        self.dead = False

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _tick(self) -> None:
        if self.dead:
            raise PowerLossError
        self.calls += 1
        if self.calls == self._at:
            self.dead = True
            raise PowerLossError

    def _change(self, folder: Path, names: dict[str, Entry | None]) -> None:
        self._changes.append(Change(self._name(folder), names))
        _apply(self._changes[-1], self._live)

    def make_folder(self, folder: Path) -> None:
        self._tick()
        there = folder.is_dir()
        super().make_folder(folder)
        if not there:
            self._change(folder.parent, {self._name(folder): "folder"})

    def create(self, path: Path) -> BinaryIO:
        self._tick()
        file = super().create(path)
        self._open[file.fileno()] = made = FrailFile()
        self._change(path.parent, {self._name(path): made})
        return file

    def write(self, file: BinaryIO, data: bytes) -> None:
        self._tick()
        super().write(file, data)
        self._open[file.fileno()].written += data

    def sync(self, file: BinaryIO) -> None:
        self._tick()
        synced = self._open[file.fileno()]
        synced.safe = synced.written

    def replace(self, source: Path, target: Path) -> None:
        self._tick()
        super().replace(source, target)
        moved = self._live[self._name(source)]
        if source.parent == target.parent:
            self._change(target.parent, {self._name(source): None, self._name(target): moved})
        else:  # two folders, each of which may forget its part
            self._change(target.parent, {self._name(target): moved})
            self._change(source.parent, {self._name(source): None})

    def sync_folder(self, folder: Path) -> None:
        self._tick()
        for change in [each for each in self._changes if each.folder == self._name(folder)]:
            _apply(change, self._safe)
            self._changes.remove(change)

    def remove(self, path: Path) -> None:
        self._tick()
        super().remove(path)
        self._change(path.parent, {self._name(path): None})

    def lose(self) -> None:
        """Leave the root as a restarted machine would find it."""
        for folder in sorted({change.folder for change in self._changes}):
            changes = [change for change in self._changes if change.folder == folder]
            for change in changes[: self._chance.randrange(len(changes) + 1)]:
                _apply(change, self._safe)
        for path in self._root.iterdir():
            shutil.rmtree(path)
        for name in sorted(self._safe, key=lambda name: name.count("/")):
            path, entry = self._root / name, self._safe[name]
            if not path.parent.is_dir():
                continue  # its folder is lost
            if isinstance(entry, FrailFile):
                path.write_bytes(entry.torn(self._chance))
            else:
                path.mkdir()


def _apply(change: Change, state: dict[str, Entry]) -> None:
    for name, entry in change.names.items():
        if entry is None:
            state.pop(name, None)
        else:
            state[name] = entry


class Told:
    """The windows of which a run was told that they are committed."""

    def __init__(self, sink: FolderSink[Any]) -> None:
        self._windows: set[Window] = set()
        publish, append = sink.publish, sink.append

        def published(manifest: bytes, obsolete: Sequence[str]) -> None:
            publish(manifest, obsolete)
            self._note(parse_manifest(manifest).windows)

        def appended(record: bytes, obsolete: Sequence[str]) -> None:
            append(record, obsolete)
            self._note(parse_record(record).windows)

        sink.publish, sink.append = published, appended  # type: ignore[method-assign]

    def _note(self, entries: Iterable[WindowEntry]) -> None:
        self._windows |= {entry.window for entry in entries if entry.status != "unproven"}

    def lost(self, folder: Path) -> int:
        """Return how many of them the folder does not have, as themselves or in others that took their place."""
        if not self._windows:
            return 0
        try:
            entries = manifest_of(folder).windows
        except DestinationError:  # no manifest, or no folder
            return len(self._windows)
        there = [entry.window for entry in entries if entry.file is not None and (folder / entry.file).is_file()]
        return sum(bool(missing(window.start, window.end, there)) for window in self._windows)


class World:
    """A simulator, its clock, and extractions from it."""

    def __init__(self, dataset: Dataset, sink: Callable[[Path, Disk], FolderSink[Any]]) -> None:
        self.now = NOW
        self.simulator = Simulator(dataset, clock=lambda: self.now)
        self._sink = sink

    async def extract(self, sink: FolderSink[Any]) -> None:
        """One run over three days in windows of one; the last of them is provisional on the first night."""
        client = SegmentClient(
            self.simulator.account,
            auth=BearerToken("power"),
            source="power",
            base_url=self.simulator.base_url,
            rate=None,
            connections=4,
            window=timedelta(days=1),
            retry=RetryPolicy(server=(0.0,), network=(0.0,)),
            clock=lambda: self.now,
        )
        async with client:
            report = await client.extract(END - 2 * DAY_MS, END + DAY_MS, sink)
        assert report.complete

    async def undisturbed(self, folder: Path) -> None:
        """A run that gets through."""
        await self.extract(self._sink(folder, QuickDisk()))

    async def disturbed(self, folder: Path, at: int, seed: int) -> int | None:
        """A run that loses power at a call. Returns how many committed windows that cost; None if it got through."""
        disk = FrailDisk(folder.parent.parent, at, seed)
        sink = self._sink(folder, disk)
        told = Told(sink)
        try:
            await self.extract(sink)
        except PowerLossError:
            disk.lose()
            return told.lost(folder)
        return None


def digest(folder: Path) -> dict[str, str]:
    """Every file's contents; of the manifest all but when it was read, and by how many requests and commits."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files(folder) if path.name != ".lock"}
    stored = next(name for name in found if name.endswith("manifest.json"))
    manifest = json.loads(found[stored])
    del manifest["commits"]
    for window in manifest["windows"]:
        for name in ("read_at", "requests", "pages", "duplicates"):
            del window[name]
    found[stored] = json.dumps(manifest, sort_keys=True).encode()
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.items())}


class Outcome(Struct):
    """Points at which power was lost, once and twice; those after which the result was another one; windows that were
    committed, and lost nevertheless."""

    points: int = 0
    again: int = 0
    different: int = 0
    lost: int = 0


class Night:
    """One run that is disturbed at every point: what the folder holds before it, and what it must hold in the end."""

    def __init__(self, world: World, root: Path, before: Path | None) -> None:
        self._world = world
        self._root = root
        self._before = before
        self._folders = 0
        self._truth: dict[str, str] = {}

    def _folder(self) -> Path:
        self._folders += 1
        root = self._root / str(self._folders)
        root.mkdir(parents=True)
        folder = root / "new" / "out"
        if self._before is not None:
            shutil.copytree(self._before, folder)
        return folder

    async def undisturbed(self) -> Path:
        """Finds out what must be there in the end."""
        folder = self._folder()
        await self._world.undisturbed(folder)
        self._truth = digest(folder)
        return folder

    async def each_point(self, outcome: Outcome, seed: int) -> int:
        """Loses power once, at each call in turn."""
        at = 1
        while (lost := await self._world.disturbed(folder := self._folder(), at, seed + at)) is not None:
            outcome.points += 1
            outcome.lost += lost
            await self._recover(folder, outcome)
            at += 1
        return at - 1

    async def twice(self, outcome: Outcome, points: int, again: int, seed: int) -> None:
        """Loses power at a point by chance, and at another one while recovering."""
        chance = random.Random(seed)
        for number in range(again):
            folder = self._folder()
            for each in (number, number + 1):
                outcome.lost += await self._world.disturbed(folder, chance.randint(1, points), each) or 0
            outcome.again += 1
            await self._recover(folder, outcome)

    async def _recover(self, folder: Path, outcome: Outcome) -> None:
        await self._world.undisturbed(folder)
        outcome.different += digest(folder) != self._truth or not audit(folder).sound
        shutil.rmtree(folder.parent.parent)


async def run_kind(sink: Callable[[Path, Disk], FolderSink[Any]], again: int, seed: int = 1) -> Outcome:
    """Every point of a first night, and of a second one that replaces what the first had provisionally."""
    outcome = Outcome()
    dataset = Dataset(segments=300, start=END - 2 * DAY_MS, end=END + DAY_MS, seed=3)
    world = World(dataset, sink)
    with tempfile.TemporaryDirectory() as name:
        before = None
        async with world.simulator:
            for night in ("first", "second"):
                disturbed = Night(world, Path(name) / night, before)
                before = await disturbed.undisturbed()
                points = await disturbed.each_point(outcome, seed)
                await disturbed.twice(outcome, points, again // 2, seed)
                world.now += 86_400
                world.simulator.insert(END + DAY_MS // 2)
    return outcome


def main() -> int:
    """Prints a table; exit code 1 if any result was another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", type=int, default=100, help="points at which power is lost a second time")
    options = parser.parse_args()
    started, failed = time.monotonic(), 0
    print(f"{'destination':14} {'power lost':>11} {'and again':>10} {'different':>10} {'committed and lost':>19}")
    for name, sink in SINKS.items():
        seen = asyncio.run(run_kind(sink, options.again))
        failed += bool(seen.different or seen.lost)
        print(f"{name:14} {seen.points:11} {seen.again:10} {seen.different:10} {seen.lost:19}", flush=True)
    print(f"{time.monotonic() - started:.0f} s; {'all the same, byte for byte' if not failed else 'FAILED'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
