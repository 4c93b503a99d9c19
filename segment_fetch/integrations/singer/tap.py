"""One run of the tap: the records of proven windows, and after each window a state that covers no more than these."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from segment_fetch.blocking import in_thread
from segment_fetch.cli import exit_codes
from segment_fetch.cli.console import Console
from segment_fetch.cli.failures import OutputError, can_pass, lasting_advice
from segment_fetch.cli.formatting import plural
from segment_fetch.client import SegmentClient
from segment_fetch.errors import InputError, printable
from segment_fetch.events import Event, NewFields
from segment_fetch.integrations.bookmark import Step, steps
from segment_fetch.integrations.singer.catalog import EXTRAS, Selection
from segment_fetch.integrations.singer.config import TapConfig, Who
from segment_fetch.integrations.singer.messages import Records, schema_message, state_message
from segment_fetch.integrations.singer.state import State
from segment_fetch.timerange import CLAMP_MARGIN_MS, format_time, oldest_start, parse_time
from segment_fetch.windows.reader import WindowRead


class Job(Struct, frozen=True):
    """The job of one run."""

    settings: TapConfig
    who: Who
    selection: Selection
    state: State

    def __repr__(self) -> str:
        return f"Job({self.who!r})"


def run(job: Job, console: Console, write: Callable[[bytes], None], **options: Any) -> int:
    """Emit the segments closed since the bookmark; return the exit code. `options` go to the client."""
    client = _client(job, console, options)
    _check_start(job, client.now_ms())
    records = Records(job.selection, client.now_ms)
    unproven: list[WindowRead[bytes]] = []
    write(schema_message(job.selection))
    step: Step[bytes] | None = None
    start, clamp = job.settings.start_date, job.settings.clamp
    for step in in_thread(lambda: steps(client, job.state.bookmark, start, records, clamp=clamp)):
        unproven += [step.read] if step.read.status == "unproven" else []
        for part in step.read.parts:
            write(part)
        write(state_message(job.state.behind(step.bookmark)))
    return _report(step, unproven, console)


def _client(job: Job, console: Console, options: dict[str, Any]) -> SegmentClient:
    def watch(event: Event) -> None:
        if isinstance(event, NewFields):
            console.say("warning", "new_fields", new_fields(event.names, job.selection))
        else:
            console.watch(event)

    settings = job.settings
    return SegmentClient(
        job.who.account,
        auth=job.who.auth,
        source=settings.source,
        filters=settings.filters,
        base_url=settings.base_url,
        rate=settings.requests_a_second(),
        settle_after=settings.settle_margin(),
        on_event=watch,
        **options,
    )


def _check_start(job: Job, now_ms: int) -> None:
    """Raise InputError, in terms of the settings, for a start that the API does not serve."""
    try:
        start = parse_time(job.settings.start_date, now_ms)
    except InputError as error:
        raise InputError(f"start_date: {error}") from None
    begin, what = (start, "start_date") if job.state.bookmark is None else (job.state.bookmark, "the state's bookmark")
    if begin >= now_ms:
        raise InputError(f"{what} {format_time(begin)}: is in the future; now it is {format_time(now_ms)}")
    oldest = oldest_start(now_ms) + CLAMP_MARGIN_MS
    if job.state.bookmark is None and start < oldest and not job.settings.clamp:
        raise InputError(
            f"start_date {format_time(start)}: the API serves only the last month; the oldest possible start is "
            f"{format_time(oldest)}; set that, or `clamp` to true to begin there"
        )


def new_fields(names: tuple[str, ...], selection: Selection) -> str:
    """Return a message about fields that this release does not know, and where they go."""
    others = [name for name in names if name not in selection.named]
    text = f"the API sends fields that this version does not know: {_listed(names)}"
    if others and not selection.extras:
        return f"{text}; {_listed(others)}: not emitted, because {EXTRAS} is not selected"
    return f"{text}; {_listed(others)}: emitted in {EXTRAS}" if others else f"{text}; the catalog selects them"


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names), 500)


def _report(step: Step[bytes] | None, unproven: list[WindowRead[bytes]], console: Console) -> int:
    if step is not None and step.lost is not None:
        console.say("error", "lost", f"{step.lost} was not read in time: the API serves only the last month")
    if step is not None and unproven:
        codes = [read.code for read in unproven]
        advice = lasting_advice(codes)
        again = "; run it again" if can_pass(codes) else ""
        stays = f"the bookmark stays at {format_time(step.bookmark)}{again}" + (f". {advice}" if advice else "")
        console.say("error", "incomplete", f"{plural(len(unproven), 'window')} could not be proven complete: {stays}")
    if not unproven:
        return exit_codes.INCOMPLETE if step is not None and step.lost is not None else exit_codes.OK
    return exit_codes.INCOMPLETE if console.progress.pages else exit_codes.SERVICE


def output(handle: int) -> Callable[[bytes], None]:
    """Return a function that writes to a file or pipe without a buffer, and raises OutputError."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError as error:
            raise OutputError(error) from None

    return write
