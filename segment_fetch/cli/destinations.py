"""The destination that `--out` and the file options describe; the library's registry maps URLs to sinks.

This module refuses, in terms of the options, a password in a URL and options that exclude each other.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from segment_fetch.errors import InputError
from segment_fetch.sinks import FORMATS

if TYPE_CHECKING:
    from segment_fetch.cli.console import Console
    from segment_fetch.manifest.format import Manifest
    from segment_fetch.manifest.verify import Audit
    from segment_fetch.sinks import Sink
    from segment_fetch.sinks.tables.base import TableSink


def check(out: str, console: Console) -> None:
    """Raise InputError if there is no such destination, or if its URL contains a password."""
    from segment_fetch.sinks.registry import kind_of  # noqa: PLC0415 - not every command writes

    if kind_of(out) == "table" and out.lower().startswith("postgres"):
        from segment_fetch.sinks.tables.dsn import Dsn  # noqa: PLC0415

        dsn = Dsn(out)
        if dsn.secrets:
            console.hide(dsn.secrets)
            raise InputError(
                f"--out {dsn}: a password is never part of a command, because other users of the machine can read it; "
                "leave it out, and set PGPASSWORD or write it into ~/.pgpass"
            )


def sink(args: Namespace, console: Console) -> Sink[Any]:
    """Return the sink that the options describe."""
    from segment_fetch.sinks import open_sink  # noqa: PLC0415 - not every command writes

    if not args.out.strip():
        raise InputError("--out is empty: name a folder, or - for standard output")
    check(args.out, console)
    _check_file_options(args)
    if args.out == "-":
        return _stream(args, console)
    return open_sink(
        args.out,
        format=args.format,
        compress=args.compress,
        partition=args.partition,
        csv_safe=args.csv_safe,
        excel=args.excel,
        local_times=args.local_times,
    )


def _check_file_options(args: Namespace) -> None:
    from segment_fetch.sinks.registry import kind_of, takes  # noqa: PLC0415 - not every command writes

    given = {
        "--format": args.format,
        "--compress": args.compress,
        "--csv-safe": args.csv_safe,
        "--excel": args.excel,
        "--local-times": args.local_times,
    }
    names = [name for name, value in given.items() if value] + ["--partition"] * (args.partition != "none")
    if names and kind_of(args.out) == "table":
        raise InputError(f"{' and '.join(names)}: for files only; omit it for a table")
    for option in ("csv_safe", "excel", "local_times"):
        if given[name := "--" + option.replace("_", "-")] and not takes(args.format, option):
            formats = " and ".join(form for form in FORMATS if takes(form, option))
            raise InputError(f"{name} applies to --format {formats} only: add that, or leave {name} out")


def _stream(args: Namespace, console: Console) -> Sink[Any]:
    from segment_fetch.sinks import Format, StreamSink  # noqa: PLC0415
    from segment_fetch.sinks.registry import file_format  # noqa: PLC0415

    form = file_format(args.format or "jsonl", csv_safe=args.csv_safe, excel=args.excel, local_times=args.local_times)
    if not isinstance(form, Format):
        raise InputError(f"--format {args.format} cannot be written to standard output: name a folder with --out")
    if args.partition != "none":
        raise InputError("--partition makes folders, which standard output does not have: name a folder with --out")
    return StreamSink(console.data(), form, args.compress or form.usual)


def table(out: str, console: Console) -> TableSink | None:
    """Return the sink of a table; None if `--out` does not name one."""
    from segment_fetch.sinks.registry import table_sink  # noqa: PLC0415 - not every command writes

    check(out, console)
    return table_sink(out)


def audit(out: str, console: Console) -> Audit:
    """Check a destination against its manifest."""
    from segment_fetch.manifest import verify  # noqa: PLC0415 - only one command needs it

    check(out, console)
    return verify.audit(out)


def manifest(out: str, console: Console) -> Manifest:
    """Return the manifest of a destination."""
    from segment_fetch.manifest import verify  # noqa: PLC0415

    check(out, console)
    return verify.manifest_of(out)
