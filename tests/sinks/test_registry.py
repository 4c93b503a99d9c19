"""Destinations by URL: which sink each gets, and what is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segment_fetch import InputError, sinks
from segment_fetch.cli import arguments
from segment_fetch.sinks import FolderSink, ObjectSink, ParquetSink, open_sink
from segment_fetch.sinks.registry import FORMATS, URL_FORMS, file_sink, kind_of, table_sink
from segment_fetch.sinks.tables.duckdb import DuckDbSink
from segment_fetch.sinks.tables.postgres import PostgresSink


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("folder", "folder"),
        ("/a/s3", "folder"),
        ("s3", "folder"),
        ("s3:/bucket", "folder"),
        (Path("s3://bucket"), "folder"),
        ("s3://bucket/prefix", "objects"),
        ("S3://bucket/prefix", "objects"),
        ("gs://bucket", "objects"),
        ("az://container/prefix", "objects"),
        ("duckdb:///a", "table"),
        ("postgres://host/db", "table"),
        ("postgresql+psycopg2://host/db", "table"),
        ("PostgreSQL+asyncpg://host/db", "table"),
    ],
)
def test_kind(url: str | Path, kind: str) -> None:
    assert kind_of(url) == kind


@pytest.mark.parametrize("url", ["./s3://bucket", "mysql://host/db", "s3+http://bucket", "duckdb+x:///a"])
def test_unknown_scheme_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(InputError) as caught:
        open_sink(url)
    assert all(form in caught.value.message for form in URL_FORMS)


def test_each_url_gets_its_sink(tmp_path: Path) -> None:
    folder = open_sink(tmp_path / "out")
    assert (type(folder), folder.settings()) == (FolderSink, {"format": "jsonl", "compress": "none"})
    assert isinstance(open_sink("s3://bucket/prefix", format="csv"), ObjectSink)
    database = open_sink(f"duckdb:///{tmp_path}/a%20b.duckdb?table=mine")
    assert isinstance(database, DuckDbSink)
    assert (database.path, database.table_name) == (tmp_path / "a b.duckdb", "mine")
    assert list(tmp_path.iterdir()) == []


def test_url_of_sqlalchemy_names_the_same_server() -> None:
    plain, other = (open_sink(f"{scheme}://me@host/db?table=mine") for scheme in ("postgresql", "postgresql+psycopg2"))
    assert isinstance(other, PostgresSink)
    assert isinstance(plain, PostgresSink)
    assert (other.place, other.table_name) == (plain.place, "mine") == ("postgresql://me@host/db", "mine")


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"format": "csv", "csv_safe": True}, {"format": "csv", "csv_safe": "true", "compress": "none"}),
        ({"format": "parquet"}, ParquetSink("x").settings()),
        ({"format": "parquet", "compress": "none"}, ParquetSink("x", "none").settings()),
        ({"compress": "zstd", "partition": "day"}, {"format": "jsonl", "compress": "zstd", "partition": "day"}),
    ],
)
def test_options_are_the_settings_and_are_found_again_from_them(
    options: dict[str, Any], settings: dict[str, str], tmp_path: Path
) -> None:
    assert open_sink(tmp_path, **options).settings() == settings
    assert file_sink(tmp_path, settings).settings() == settings


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("out", {"format": "xml"}, "format 'xml' is unknown: choose one of jsonl, csv, parquet"),
        ("out", {"csv_safe": True}, "csv_safe goes with the format csv"),
        ("out", {"compress": "lz4"}, "compression 'lz4'"),
        ("out", {"partition": "hour"}, "partition 'hour'"),
        ("-", {}, "use StreamSink"),
        (" ", {}, "the destination is empty"),
        ("duckdb:///x", {"format": "csv", "csv_safe": True}, "format and csv_safe: for files only"),
        ("postgresql://host/db", {"partition": "day"}, "partition: for files only"),
        ("duckdb:///x?tabel=y", {}, "write duckdb:///FILE"),
    ],
)
def test_options_that_cannot_be(url: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        open_sink(url, **options)
    assert "--" not in caught.value.message


@pytest.mark.parametrize("settings", [{"format": "xml"}, {}, {"format": "parquet", "schema_version": "999"}])
def test_settings_of_another_release(settings: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        file_sink(tmp_path, settings)


def test_table_sink(tmp_path: Path) -> None:
    assert table_sink(tmp_path) is None
    assert isinstance(table_sink("duckdb:///x"), DuckDbSink)


def test_command_offers_every_format_and_names_every_kind_of_url() -> None:
    assert tuple(FORMATS) == sinks.FORMATS
    for url in URL_FORMS:
        scheme, _, _ = url.partition("://")
        assert scheme in arguments.PLACES
