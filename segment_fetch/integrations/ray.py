"""Fleets on Ray: one task for each shard of accounts, and their segments as a Ray Dataset. Needs the extra `ray`.

The manifests record what is done, not Ray: a task whose worker is lost is run again, and reads what is missing. The
lock of a destination (in an object store, its conditional manifest) excludes a lost worker that is still running.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import threading
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field, structs

from segment_fetch.cli.arguments import client_of
from segment_fetch.errors import InputError, MissingExtraError
from segment_fetch.events import Event, NewFields, PageRead, ServiceBack, ServiceDown, Warned, WindowCommitted
from segment_fetch.fleet.accounts_file import AccountJob, load_accounts
from segment_fetch.fleet.credentials import resolve
from segment_fetch.fleet.run import AccountResult, FleetLimits, OnEvent, failed_result, run_fleet
from segment_fetch.fleet.shards import shard_of
from segment_fetch.sinks.registry import kind_of
from segment_fetch.timerange import TimeLike, parse_time

if TYPE_CHECKING:
    import pyarrow as pa

_HEARD_S = 1.0
"""Seconds between two messages from a task to the driver."""


class _Heard(Struct):
    """A message of a task: the progress of its accounts since the previous one."""

    results: list[AccountResult] = field(default_factory=list)
    pages: dict[str, PageRead] = field(default_factory=dict)
    events: list[tuple[str, Event]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def take(self, account: str, event: Event) -> None:
        """Add an event for the driver; pages are added up."""
        if isinstance(event, PageRead):
            before = self.pages.get(account)
            rows = event.rows + (before.rows if before else 0)
            self.pages[account] = structs.replace(event, rows=rows)
        elif isinstance(event, (WindowCommitted, Warned, NewFields, ServiceDown, ServiceBack)):
            self.events.append((account, event))


async def run_on_ray(
    jobs: Sequence[AccountJob],
    *,
    address: str | None = None,
    shards: int | None = None,
    shared_storage: bool = False,
    weights: Mapping[str, float] | None = None,
    limits: FleetLimits | None = None,
    on_event: OnEvent | None = None,
    on_warning: Callable[[str, str], None] | None = None,
) -> AsyncGenerator[AccountResult, None]:
    """Run the accounts as Ray tasks, on this machine or at `address`, and yield each account's result when it ends.

    `shards` is the number of tasks, by default the number of the cluster's processors; `weights` balances them as in
    `shard_of`. Each task runs its accounts like `run_fleet`, each with its own `limits`, and resolves their credentials
    on its worker. `on_event` gets pages and commits once a second, and warnings and outages. Leaving the generator
    early cancels the tasks. A Ray that is already running is used, and left running.

    Raises InputError for a destination on a local disk if there is an `address`, unless `shared_storage` says that all
    workers see the same disk; MissingExtraError without Ray.
    """
    if address is not None and not shared_storage:
        _refuse_local(jobs)
    ray = _imported()
    with _connected(ray, address):
        count = min(len(jobs), shards or max(1, int(ray.cluster_resources().get("CPU", 1))))
        parts = [shard_of(jobs, index, count, weights=weights) for index in range(count)]
        driver = _Driver(ray, limits or FleetLimits(), on_event, on_warning)
        tasks = [asyncio.create_task(driver.shard(part)) for part in parts if part]
        try:
            for _ in jobs:
                yield await driver.results.get()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Driver:
    """Starts the tasks and handles their messages."""

    def __init__(
        self,
        ray: Any,
        limits: FleetLimits,
        on_event: OnEvent | None,
        on_warning: Callable[[str, str], None] | None,
    ) -> None:
        self.results: asyncio.Queue[AccountResult] = asyncio.Queue()
        self._ray = ray
        self._remote = ray.remote(num_cpus=1, max_retries=-1, num_returns="streaming")(_work)
        self._limits = limits
        self._on_event = on_event
        self._on_warning = on_warning

    async def shard(self, jobs: Sequence[AccountJob]) -> None:
        """Run a shard until each of its accounts has a result.

        A task that Ray runs again sends different messages, of which Ray skips as many as it had delivered, so results
        can be missing at the end. Their accounts are run once more, which takes a small request each.
        """
        missing = {job.account: job for job in jobs}
        while missing:
            stream = self._remote.remote(list(missing.values()), self._limits)
            try:
                async for reference in stream:
                    for result in self._deliver(await reference):
                        if missing.pop(result.account, None) is not None:
                            self.results.put_nowait(result)
            except Exception as error:  # noqa: BLE001 - one shard must not affect another
                for account in missing:
                    self.results.put_nowait(failed_result(account, error, progressed=False, seconds=0.0))
                return
            finally:
                self._ray.cancel(stream, recursive=False)

    def _deliver(self, heard: _Heard) -> Sequence[AccountResult]:
        """Pass a message to the callbacks; return its results."""
        for account, event in (*heard.pages.items(), *heard.events):
            if self._on_event is not None:
                self._on_event(account, event)
        for account, text in heard.warnings:
            if self._on_warning is not None:
                self._on_warning(account, text)
        return heard.results


# In a worker. -----------------------------------------------------------------------------------------------------


def _work(jobs: Sequence[AccountJob], limits: FleetLimits) -> Generator[_Heard, None, None]:
    """Run accounts on a Ray worker; yield one message per second."""
    yield from _stepped(_messages(jobs, limits))


async def _messages(jobs: Sequence[AccountJob], limits: FleetLimits) -> AsyncGenerator[_Heard, None]:
    heard = _Heard()

    async def listen() -> None:
        results = run_fleet(
            jobs,
            limits=limits,
            on_event=lambda account, event: heard.take(account, event),  # noqa: PLW0108 - heard is replaced
            on_warning=lambda account, text: heard.warnings.append((account, f"{_here()}: {text}")),
        )
        async with aclosing(results):
            async for result in results:
                heard.results.append(_placed(result))

    task = asyncio.create_task(listen())
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_HEARD_S)
            message, heard = heard, _Heard()
            yield message
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _placed(result: AccountResult) -> AccountResult:
    """Add the worker's name to an error: credentials may be missing on a single machine."""
    if result.error is None:
        return result
    message = f"{result.error.get('message', '')} (on {_here()})"
    return structs.replace(result, error={**result.error, "message": message})


def _here() -> str:
    return f"worker {socket.gethostname()}"


def _stepped(messages: AsyncGenerator[Any, None]) -> Iterator[Any]:
    """Yield the items of an async generator from synchronous code; it is always closed cleanly."""

    async def step() -> Any:
        return await anext(messages, None)

    with asyncio.Runner() as runner:
        try:
            while (message := runner.run(step())) is not None:
                yield message
        finally:
            runner.run(messages.aclose())


# A Dataset. -------------------------------------------------------------------------------------------------------


def read_segments(
    accounts: str | Path | Sequence[AccountJob], start: TimeLike, end: TimeLike, *, clamp: bool = False
) -> Any:
    """Return the proven segments of accounts as a Ray Dataset of Arrow blocks; nothing is read until it is consumed.

    `accounts` is an accounts file, or jobs from one, of which the connection options and the filters are used. The
    columns are those of `segment_fetch.arrow`, with `account_id`. A window that cannot be proven ends the Dataset with
    IncompleteError. Needs the extra `ray` and Ray's own extra `data`.
    """
    _imported()
    try:
        import ray.data as ray_data  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("Ray Datasets need an extra of Ray: pip install 'ray[data]'") from None

    now = int(time.time() * 1000)
    span = [parse_time(each, now) for each in (start, end)]  # "now" is the same on every worker
    jobs = load_accounts(accounts) if isinstance(accounts, (str, Path)) else accounts
    items = [{"job": pickle.dumps((job, *span, clamp))} for job in jobs]
    # Functions over batches are stable between releases of Ray; its interface for data sources is not.
    return ray_data.from_items(items, override_num_blocks=len(items)).map_batches(
        _blocks, batch_size=1, batch_format="pyarrow", num_cpus=1
    )


def _blocks(batch: pa.Table) -> Iterator[pa.Table]:
    """Yield the Arrow blocks of the account that a batch of one row describes."""
    import pyarrow as pa  # noqa: PLC0415 - an optional extra

    from segment_fetch import arrow  # noqa: PLC0415

    job, start, end, clamp = pickle.loads(batch["job"][0].as_py())  # noqa: S301 - made by read_segments
    yield arrow.schema(account=True).empty_table()
    for rows in _stepped(_read(job, start, end, clamp)):
        yield pa.Table.from_batches([arrow.with_account(rows, job.account)])


async def _read(job: AccountJob, start: TimeLike, end: TimeLike, clamp: bool) -> AsyncGenerator[pa.RecordBatch, None]:
    credentials, _ = await resolve(job.account, job.credentials, os.environ)
    client = client_of(Namespace(**job.options), credentials, os.environ, on_event=lambda event: None)
    async with client, aclosing(client.stream_arrow(start, end, clamp=clamp)) as batches:
        async for batch in batches:
            yield batch


# Ray itself. ------------------------------------------------------------------------------------------------------


def _refuse_local(jobs: Sequence[AccountJob]) -> None:
    for job in jobs:
        if kind_of(job.out) == "folder" or job.out.lower().startswith("duckdb:"):
            raise InputError(
                f"account {job.account}: {job.out} is on a local disk, which other machines cannot see: use an object "
                "store or PostgreSQL, or declare shared storage if all of them see the same disk"
            )


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent unless enabled
    try:
        import ray  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise MissingExtraError("Ray needs an extra: pip install 'segment-fetch[ray]'") from None
    return ray


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to Ray, or start it on this machine; leave a Ray that was already running."""
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", include_dashboard=None if address else False, log_to_driver=False,
                 logging_level="error")  # fmt: skip
    except (ConnectionError, ValueError) as error:
        raise InputError(f"no Ray answers at {address}: {error}") from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray installs its own handler, which ends the process at once
        yield
    finally:
        ray.shutdown()
