"""What `--out` names: a folder, standard output, or by its scheme an object store or a table of a database."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from segment_fetch.errors import InputError

if TYPE_CHECKING:
    from segment_fetch.cli.console import Console
    from segment_fetch.manifest.format import Manifest
    from segment_fetch.manifest.verify import Audit
    from segment_fetch.sinks.files.base import FileSink
    from segment_fetch.sinks.files.formats import FileFormat
    from segment_fetch.sinks.tables.base import TableSink

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(duckdb|postgres|postgresql):", re.IGNORECASE)
_BEGINNING = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:(?://)?)?")
_FILES_ONLY = {
    "format": ("--format", None),
    "compress": ("--compress", None),
    "csv_safe": ("--csv-safe", False),
    "partition": ("--partition", "none"),
}


def table(out: str, console: Console) -> TableSink | None:
    """The sink of a table; None where `--out` names none. InputError where it is a URL of an unknown scheme."""
    found = _SCHEME.match(out)
    if _is_store(out) or (found is None and "://" not in out):
        return None
    make = _TABLES.get(((found and found[1]) or "").lower())
    if make is None:
        raise InputError(f"--out: there is no destination {_scheme(out)}; there are {', '.join(FORMS)}")
    return make(out, console)


def _scheme(url: str) -> str:
    """What may be shown of a URL that is not known: a password can be anywhere behind its scheme."""
    found = _BEGINNING.match(url)
    return (found and found[0]) or "with :// in it and no scheme before that"


def files(out: str, form: FileFormat[Any], compress: str, partition: str) -> FileSink[Any]:
    """The sink of a folder or an object store."""
    from segment_fetch.sinks import FolderSink, ObjectSink  # noqa: PLC0415 - not every command writes

    if _is_store(out):
        return ObjectSink(out, form, compress, partition=partition)
    return FolderSink(out, form, compress, partition=partition)


def _is_store(out: str) -> bool:
    from segment_fetch.sinks.objects.stores import is_store  # noqa: PLC0415 - not every command writes

    return is_store(out)


def refuse_file_options(args: Namespace) -> None:
    """InputError where an option is given that says how files are to be, which a table is not."""
    given = [name for dest, (name, default) in _FILES_ONLY.items() if getattr(args, dest) != default]
    if given:
        raise InputError(f"{' and '.join(given)}: for files only; a table has columns, and packs them as it likes")


def audit(out: str, console: Console) -> Audit:
    """Holds what is there against its manifest."""
    from segment_fetch.manifest import verify  # noqa: PLC0415 - the command that needs it is the only one

    sink = table(out, console)
    if sink is None:
        return verify.audit(out)
    from segment_fetch.manifest import verify_tables  # noqa: PLC0415 - brings pyarrow

    return verify_tables.audit(sink)


def manifest(out: str, console: Console) -> Manifest:
    """The manifest that is there."""
    from segment_fetch.manifest import verify  # noqa: PLC0415

    sink = table(out, console)
    if sink is None:
        return verify.manifest_of(out)
    from segment_fetch.manifest import verify_tables  # noqa: PLC0415 - brings pyarrow

    return verify_tables.manifest_of(sink)


def _duckdb(url: str, _: Console) -> TableSink:
    from segment_fetch.sinks.tables.base import TABLE  # noqa: PLC0415
    from segment_fetch.sinks.tables.duckdb import DuckDbSink  # noqa: PLC0415 - an optional extra

    path, name = duckdb_file(url)
    return DuckDbSink(path, TABLE if name is None else name)


def duckdb_file(url: str) -> tuple[str, str | None]:
    """The path of the file and the name of the table in a URL: duckdb:///here.duckdb, duckdb:////from/the/root.duckdb.

    The table is None where the URL names none.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = unquote(parts.path)[1:]
    if parts.netloc or not path or parts.fragment or query.keys() - {"table"}:
        raise InputError(
            "--out duckdb: write duckdb:///FILE, or duckdb:////FILE from the root on; ?table=NAME names another table"
        )
    return path, query.get("table")


def _postgres(url: str, console: Console) -> TableSink:
    from segment_fetch.sinks.tables.dsn import Dsn  # noqa: PLC0415

    dsn = Dsn(url)
    if dsn.secrets:
        console.hide(dsn.secrets)
        raise InputError(
            f"--out {dsn}: a password is never part of a command, because other users of the machine can read it; "
            "leave it out, and set PGPASSWORD or write it into ~/.pgpass"
        )
    from segment_fetch.sinks.tables.postgres import PostgresSink  # noqa: PLC0415 - an optional extra

    return PostgresSink(url)


_TABLES: Mapping[str, Callable[[str, Console], TableSink]] = MappingProxyType(
    {"duckdb": _duckdb, "postgresql": _postgres, "postgres": _postgres}
)
FORMS = (
    "a folder",
    "- for standard output",
    "s3://BUCKET/PREFIX",
    "gs://BUCKET/PREFIX",
    "az://CONTAINER/PREFIX",
    "duckdb:///FILE",
    "postgresql://USER@HOST/DATABASE",
)
"""What can be written after `--out`, for help and errors."""
