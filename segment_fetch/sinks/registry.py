"""Destinations by URL, and file formats by name; new sinks and formats are registered here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from segment_fetch.errors import InputError, check_type
from segment_fetch.sinks.base import Sink
from segment_fetch.sinks.files.formats import Csv, FileFormat, JsonLines

if TYPE_CHECKING:
    from segment_fetch.sinks.files.base import FileSink
    from segment_fetch.sinks.tables.base import TableSink

Kind: TypeAlias = Literal["folder", "objects", "table"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(duckdb|postgres|postgresql):", re.IGNORECASE)
_BEGINNING = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:(?://)?)?")


def _parquet(settings: Mapping[str, str]) -> FileFormat[Any]:
    from segment_fetch.sinks.files.parquet import Parquet  # noqa: PLC0415 - an optional extra

    form = Parquet(account_id=settings.get("account_id"), local_times=settings.get("local_times"))
    here = form.settings()["schema_version"]
    if not form.migrates("schema_version", version := settings.get("schema_version", here)):
        raise InputError(f"its Parquet files have schema version {version}; this release reads {here} and older ones")
    return form


def _csv(settings: Mapping[str, str]) -> FileFormat[Any]:
    safe = settings.get("csv_safe") == "true"
    return Csv(safe=safe, excel=settings.get("excel"), local_times=settings.get("local_times"))


class RegisteredFormat(NamedTuple):
    """A file format: `make` returns it from the settings that a manifest keeps; `options` are those it takes of
    `open_sink`'s csv_safe, excel, local_times and account_id.
    """

    make: Callable[[Mapping[str, str]], FileFormat[Any]]
    options: frozenset[str] = frozenset()


FORMATS: Mapping[str, RegisteredFormat] = MappingProxyType(
    {
        "jsonl": RegisteredFormat(lambda settings: JsonLines()),
        "csv": RegisteredFormat(_csv, frozenset({"csv_safe", "excel", "local_times"})),
        "parquet": RegisteredFormat(_parquet, frozenset({"local_times", "account_id"})),
    }
)
"""The file formats by name."""


def _duckdb(url: str, account_id: str | None) -> TableSink:
    path, named = duckdb_file(url)
    from segment_fetch.sinks.tables.base import TABLE  # noqa: PLC0415 - an optional extra
    from segment_fetch.sinks.tables.duckdb import DuckDbSink  # noqa: PLC0415 - an optional extra

    return DuckDbSink(path, named.get("table", TABLE), account_id=account_id or named.get("account_id"))


def _postgres(url: str, account_id: str | None) -> TableSink:
    from segment_fetch.sinks.tables.dsn import Dsn  # noqa: PLC0415

    Dsn(url)  # refuse an invalid URL before a missing extra
    from segment_fetch.sinks.tables.postgres import PostgresSink  # noqa: PLC0415 - an optional extra

    return PostgresSink(url, account_id=account_id)


_STORES = ("s3", "gs", "az")
_TABLES: Mapping[str, Callable[[str, str | None], TableSink]] = MappingProxyType(
    {"duckdb": _duckdb, "postgresql": _postgres, "postgres": _postgres}
)
URL_FORMS = (
    "s3://BUCKET/PREFIX",
    "gs://BUCKET/PREFIX",
    "az://CONTAINER/PREFIX",
    "duckdb:///FILE",
    "postgresql://USER@HOST/DATABASE",
)
"""The forms of destination URLs, for help and messages; a path without a scheme is a folder."""


def kind_of(url: str | Path) -> Kind:
    """Return the kind of a destination: a folder, a place in an object store, or a table of a database.

    Raises InputError for an unknown scheme; the message shows nothing after the scheme, which may hold a password.
    """
    text = str(url)
    scheme = _scheme(text)
    if isinstance(url, Path) or (scheme is None and "://" not in text):
        return "folder"
    if scheme in _STORES:
        return "objects"
    if scheme in _TABLES:
        return "table"
    found = _BEGINNING.match(text)
    shown = (found and found[0]) or "the part before ://"
    raise InputError(f"{shown} is not a known destination; use a folder or one of {', '.join(URL_FORMS)}")


def _scheme(text: str) -> str | None:
    """Return a URL's scheme, without the driver that SQLAlchemy adds to it; "" if the two slashes are missing."""
    found = _SCHEME.match(text)
    if found is None:
        return None
    scheme = (found[1] or "").lower()
    name = scheme.partition("+")[0]
    return name if name in ("postgresql", "postgres") else scheme


def open_sink(
    url: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the established name of the option
    compress: str | None = None,
    partition: str = "none",
    csv_safe: bool = False,
    excel: str | None = None,
    local_times: str | None = None,
    account_id: str | None = None,
) -> Sink[Any]:
    """Return the sink of a destination; nothing is opened or created until a run uses it.

    `url` is a folder, or a URL: `s3://bucket/prefix`, `gs://…`, `az://…`, `duckdb:///file.duckdb` (a path relative to
    the working directory; four slashes for an absolute one), `postgresql://user@host/database`. The last two take
    `?table=NAME`.

    `account_id`, the account whose segments are stored, is for destinations of several accounts: tables and Parquet
    files get a column `account_id`, and each account has a separate manifest. Parquet files of each account are in a
    folder of its name. In the URL of a table it can be written `?account_id=ID`.

    The other options are for files only: `format` is "jsonl" (the default), "csv" or "parquet"; `compress` is "none",
    "gzip" or "zstd", with a default for each format; `partition` is "none" or "day", a folder for each UTC day;
    `csv_safe` keeps spreadsheets from evaluating text as a formula; `excel`, such as "en" or "de", writes CSV for a
    country's spreadsheets; `local_times`, an IANA name, adds columns with local times to CSV and Parquet.

    Raises InputError for an invalid URL or option, and MissingExtraError if an extra is not installed.
    """
    check_type("url", url, (str, Path), "a folder or a URL")
    check_type("partition", partition, str, "text")
    check_type("csv_safe", csv_safe, bool, "True or False")
    texts = {"format": format, "compress": compress, "excel": excel, "local_times": local_times}
    for name, value in (texts | {"account_id": account_id}).items():
        if value is not None:
            check_type(name, value, str, "text or None")
    text = str(url)
    if kind_of(url) == "table":
        given = texts | {"csv_safe": csv_safe, "partition": partition != "none"}
        if names := [name for name, value in given.items() if value]:
            raise InputError(f"{' and '.join(names)}: for files only, not for tables")
        return _TABLES[str(_scheme(text))](text, account_id)
    if text == "-":
        raise InputError("- is not a folder; to write to standard output use StreamSink(sys.stdout.buffer)")
    if not text.strip():
        raise InputError("the destination is empty: name a folder, or give a URL")
    form = file_format(
        format or "jsonl", csv_safe=csv_safe, excel=excel, local_times=local_times, account_id=account_id
    )
    place: str | Path = url
    if account_id is not None:
        place = url / account_id if isinstance(url, Path) else f"{url.rstrip('/')}/{account_id}"
    return _file_sink(place, form, compress or form.usual, partition)


def file_format(
    name: str,
    *,
    csv_safe: bool = False,
    excel: str | None = None,
    local_times: str | None = None,
    account_id: str | None = None,
) -> FileFormat[Any]:
    """Return the format with a name, for new files. Raises InputError if there is none with that name."""
    if name not in FORMATS:
        raise InputError(f"format {name!r} is unknown: choose one of {', '.join(FORMATS)}")
    options = {
        "csv_safe": "true" if csv_safe else None,
        "excel": excel,
        "local_times": local_times,
        "account_id": account_id,
    }
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - FORMATS[name].options:
        raise InputError(f"{option} goes with {_takers(option)}; files of format {name} do not take it")
    return FORMATS[name].make(given)


def takes(name: str | None, option: str) -> bool:
    """Return True if files of a format (None for the default) take an option of `open_sink`."""
    return option in FORMATS[name or "jsonl"].options


def _takers(option: str) -> str:
    names = [name for name, each in FORMATS.items() if option in each.options]
    formats = f"the format{'s' * (len(names) > 1)} {' and '.join(names)}"
    return f"tables and {formats}" if option == "account_id" else formats


def file_sink(place: str | Path, settings: Mapping[str, Any] | None = None) -> FileSink[Any]:
    """Return the sink that wrote the files in a folder or object store, from the settings in its manifest.

    Without settings, return a sink that can list the files and read the manifest. Raises InputError if the settings
    name a format that this release does not know.
    """
    if settings is None:
        return _file_sink(place, JsonLines(), "none", "none")
    name, texts = str(settings.get("format")), {key: str(value) for key, value in settings.items()}
    if name not in FORMATS:
        raise InputError(f"the manifest names the format {name!r}, which this release does not know")
    return _file_sink(place, FORMATS[name].make(texts), texts.get("compress", "None"), texts.get("partition", "none"))


def table_sink(url: str | Path) -> TableSink | None:
    """Return the sink of a table, None if the destination consists of files."""
    return cast("TableSink", open_sink(url)) if kind_of(url) == "table" else None


def _file_sink(place: str | Path, form: FileFormat[Any], compress: str, partition: str) -> FileSink[Any]:
    if kind_of(place) == "objects":
        from segment_fetch.sinks.objects.sink import ObjectSink  # noqa: PLC0415 - not needed for a folder

        return ObjectSink(str(place), form, compress, partition=partition)
    from segment_fetch.sinks.files.folder import FolderSink  # noqa: PLC0415 - not needed for an object store

    return FolderSink(place, form, compress, partition=partition)


def duckdb_file(url: str) -> tuple[str, dict[str, str]]:
    """Return the path of the file in a DuckDB URL, and its parameters: `table` and `account_id`, if given."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = unquote(parts.path)[1:]
    if parts.netloc or not path or parts.fragment or query.keys() - {"table", "account_id"}:
        raise InputError(
            "the URL of the DuckDB file is invalid: write duckdb:///FILE, or duckdb:////FILE for an absolute path; "
            "?table=NAME names another table"
        )
    return path, query
