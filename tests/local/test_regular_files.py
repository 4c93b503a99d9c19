"""Opening what has to be a regular file: nothing waits, nothing is read without end, no planted link is followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from segment_fetch import CredentialsError, DestinationError, InputError
from segment_fetch.analysis.handle_time_sums import HandleTime
from segment_fetch.analysis.names import with_names
from segment_fetch.cli import credentials
from segment_fetch.local.regular_files import (
    NotRegularError,
    create_regular,
    open_lock,
    open_regular,
    read_named,
    read_regular,
    replacing,
)
from segment_fetch.manifest import verify
from segment_fetch.sinks import DuckDbSink, JsonlSink


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


RESULT = HandleTime(pa.table({"skill_id": ["1"]}), 0, 1, "none", ("skill",), "UTC", (), (), None)
IRREGULAR: list[Callable[[Path], None]] = [fifo, zero]


@pytest.mark.parametrize("make", IRREGULAR)
@pytest.mark.parametrize("read", [open_regular, read_regular, read_named])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object]
) -> None:
    make(tmp_path / "x")
    with pytest.raises(NotRegularError, match="not a regular file") as caught:
        read(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


def test_folder_and_missing_file_have_their_own_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")


def test_regular_file_is_read_through_a_link_and_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with pytest.raises(OSError, match="more than 2 bytes") as caught:
        read_named(tmp_path / "link", 2)
    assert caught.value.errno == errno.EFBIG


def test_descriptor_of_the_shell_is_read_to_its_end() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        os.write(writing, b"NAME=")
        os.write(writing, b"value")
        os.close(writing)

    other = Thread(target=write)
    other.start()
    try:
        assert read_named(f"/dev/fd/{reading}") == b"NAME=value"
    finally:
        other.join()
        os.close(reading)


def test_new_file_takes_no_name_that_is_there(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (tmp_path / "planted").symlink_to(victim)
    with pytest.raises(FileExistsError):
        create_regular(tmp_path / "planted")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_lock(tmp_path / "planted", create=True)
    assert not victim.exists()


@pytest.mark.parametrize("make", IRREGULAR)
def test_everything_that_reads_a_file_is_guarded(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    make(folder / "manifest.json")
    for opened in (JsonlSink(folder).open, lambda: verify.audit(folder)):
        with pytest.raises(DestinationError, match="not a regular file"):
            opened()
    make(tmp_path / "names.csv")
    with pytest.raises(InputError, match="not a regular file"):
        with_names(RESULT, tmp_path / "names.csv")
    make(tmp_path / "secrets.env")
    with pytest.raises(CredentialsError, match="not a regular file"):
        credentials.given(str(tmp_path / "secrets.env"), {})
    for name in ("out.duckdb", ".locked.duckdb.lock"):
        make(tmp_path / name)
    for path in ("out.duckdb", "locked.duckdb"):
        with pytest.raises(DestinationError, match=r"cannot be opened"):
            DuckDbSink(tmp_path / path).open()
    with pytest.raises(DestinationError, match="not a regular file"):
        DuckDbSink(tmp_path / "out.duckdb").look()


def test_link_at_the_log_of_duckdb_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "out.duckdb.wal").symlink_to(tmp_path / "victim")
    with pytest.raises(DestinationError, match="cannot be opened"):
        DuckDbSink(tmp_path / "out.duckdb").open()
    assert not (tmp_path / "victim").exists()


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / "report.csv", tmp_path / "link"
    path.write_bytes(b"before")
    path.chmod(0o640)
    link.symlink_to(path)
    with pytest.raises(LookupError), replacing(path) as target:
        raise LookupError(target.write(b"x" * 100_000))
    assert path.read_bytes() == b"before"
    with replacing(link) as target:
        target.write(b"after")
        assert path.read_bytes() == b"before"
    assert (path.read_bytes(), path.stat().st_mode & 0o777, link.is_symlink()) == (b"after", 0o640, True)
    with replacing(tmp_path / "new") as target:
        target.write(b"new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "new", "report.csv"]


def test_draft_of_a_replaced_file_has_a_name_that_nobody_can_plant(tmp_path: Path) -> None:
    path, victim = tmp_path / "report.csv", tmp_path / "victim"
    planted = tmp_path / f".report.csv.{os.getpid()}.partial"  # also left by a killed run that had the same number
    planted.symlink_to(victim)
    for data in (b"first", b"second"):
        with replacing(path) as target:
            target.write(data)
    assert path.read_bytes() == b"second"
    assert planted.is_symlink()
    assert not victim.exists()


def test_links_in_a_circle_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with replacing(tmp_path / "one") as target:
        target.write(b"whole")
    assert (tmp_path / "one").read_bytes() == b"whole"


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    found: list[bytes] = []
    fifo(tmp_path / "pipe")
    reader = Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with replacing(tmp_path / "pipe") as target:
        target.write(b"through")
    reader.join()
    assert found == [b"through"]
    with replacing(Path("/dev/null")) as target:
        target.write(b"away")
    with pytest.raises(IsADirectoryError), replacing(tmp_path) as target:
        target.write(b"nowhere")
