"""Options become the library's objects."""

from __future__ import annotations

from argparse import Namespace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from segment_fetch.cli import destinations, speed, state
from segment_fetch.client import Rate, SegmentClient
from segment_fetch.errors import InputError
from segment_fetch.query import Filters
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.windows.planning import SPLIT_ABOVE

if TYPE_CHECKING:
    from segment_fetch.api.transport import Timeouts
    from segment_fetch.cli.console import Console
    from segment_fetch.cli.credentials import Credentials
    from segment_fetch.sinks import Sink


def rate(args: Namespace) -> Rate:
    """Requests a second at most, "auto", or None for no limit."""
    return None if args.rate == "none" else args.rate


def retry(args: Namespace) -> RetryPolicy:
    """How long to wait before another attempt."""
    return RetryPolicy(
        server=args.retry_delays,
        network=args.network_retry_delays,
        parked=args.later_retry_delays,
        patience=args.patience.total_seconds(),
    )


def timeouts(args: Namespace) -> Timeouts:
    """How long one attempt may take."""
    from segment_fetch.api.transport import Timeouts  # noqa: PLC0415 - brings aiohttp

    return Timeouts(connect=args.connect_timeout, read=args.read_timeout, total=args.timeout)


def filters(args: Namespace) -> Filters:
    """Which segments, beside the range."""
    return Filters(**{name: getattr(args, name, None) for name in Filters.__struct_fields__})


def client(args: Namespace, credentials: Credentials, console: Console) -> SegmentClient:
    """The client, which reports its events to the console."""
    speed.quicken_gzip()
    return SegmentClient(
        credentials.account,
        auth=credentials.auth,
        source=args.source,
        filters=filters(args),
        base_url=args.base_url,
        rate=rate(args),
        connections=args.connections,
        pace=state.pace(args.state, console.environ),
        window=getattr(args, "window", timedelta(days=7)),
        split_above=getattr(args, "split_above", SPLIT_ABOVE),
        retry=retry(args),
        timeouts=timeouts(args),
        on_event=console.watch,
    )


def sink(args: Namespace, console: Console) -> Sink[Any]:
    """The destination."""
    if args.out == "-":
        return _stream(args, console)
    options = {"format": args.format, "compress": args.compress, "partition": args.partition}
    return destinations.sink(args.out, console, csv_safe=args.csv_safe, **options)


def _stream(args: Namespace, console: Console) -> Sink[Any]:
    from segment_fetch.sinks import Format, StreamSink  # noqa: PLC0415
    from segment_fetch.sinks.registry import file_format  # noqa: PLC0415

    form = file_format(args.format or "jsonl", csv_safe=args.csv_safe)
    if not isinstance(form, Format):
        raise InputError(f"--format {args.format} makes files, which standard output is not: name a folder with --out")
    if args.partition != "none":
        raise InputError("--partition makes folders, which standard output has not: name a folder with --out")
    return StreamSink(console.data(), form, args.compress or form.usual)
