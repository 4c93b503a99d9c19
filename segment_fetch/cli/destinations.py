"""What `--out` names, as the library's registry has it; only a password in it is refused here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segment_fetch.errors import InputError

if TYPE_CHECKING:
    from segment_fetch.cli.console import Console
    from segment_fetch.manifest.format import Manifest
    from segment_fetch.manifest.verify import Audit
    from segment_fetch.sinks import Sink
    from segment_fetch.sinks.tables.base import TableSink


def check(out: str, console: Console) -> None:
    """Raise InputError where there is no such destination, or where a password is in its URL."""
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


def sink(out: str, console: Console, **options: Any) -> Sink[Any]:
    """Return the sink of a destination; `options` are those of `open_sink`."""
    from segment_fetch.sinks import open_sink  # noqa: PLC0415 - not every command writes

    check(out, console)
    return open_sink(out, **options)


def table(out: str, console: Console) -> TableSink | None:
    """Return the sink of a table; None where `--out` names none."""
    from segment_fetch.sinks.registry import table_sink  # noqa: PLC0415 - not every command writes

    check(out, console)
    return table_sink(out)


def audit(out: str, console: Console) -> Audit:
    """Hold what is there against its manifest."""
    from segment_fetch.manifest import verify  # noqa: PLC0415 - the command that needs it is the only one

    sink = table(out, console)
    if sink is None:
        return verify.audit(out)
    from segment_fetch.manifest import verify_tables  # noqa: PLC0415 - brings pyarrow

    return verify_tables.audit(sink)


def manifest(out: str, console: Console) -> Manifest:
    """Return the manifest that is there."""
    from segment_fetch.manifest import verify  # noqa: PLC0415

    sink = table(out, console)
    if sink is None:
        return verify.manifest_of(out)
    from segment_fetch.manifest import verify_tables  # noqa: PLC0415 - brings pyarrow

    return verify_tables.manifest_of(sink)
