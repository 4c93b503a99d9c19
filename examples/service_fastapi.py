"""A FastAPI service: start an extraction on request, follow it as server-sent events, and stream segments.

    uvicorn service_fastapi:app

Credentials come from the environment: LIVEPERSON_ACCOUNT, LIVEPERSON_APP_KEY, LIVEPERSON_APP_SECRET,
LIVEPERSON_ACCESS_TOKEN and LIVEPERSON_ACCESS_TOKEN_SECRET. `SEGMENTS_OUT` names the folder to extract into.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import msgspec
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from segment_fetch import Event, OAuth1Key, SegmentClient, SegmentFetchError
from segment_fetch.sinks import JsonlSink

NAMES = ("APP_KEY", "APP_SECRET", "ACCESS_TOKEN", "ACCESS_TOKEN_SECRET")


class Job:
    """One extraction: its task, and the lines that those who follow it are sent."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def tell(self, kind: str, text: str) -> None:
        """Add a server-sent event and wake the followers, each of which waits for the event that was current."""
        self.lines.append(f"event: {kind}\ndata: {text}\n\n")
        self.changed.set()
        self.changed = asyncio.Event()

    def on_event(self, event: Event) -> None:
        """Take an event of the client."""
        self.tell(type(event).__name__, str(event))


class State:
    """What the service holds while it runs."""

    client: SegmentClient
    job: Job | None = None


state = State()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Hold one client open for all requests. At shutdown the job ends in order: what is committed stays."""
    key = OAuth1Key(*(os.environ[f"LIVEPERSON_{name}"] for name in NAMES))
    base_url = os.environ.get("SEGMENT_FETCH_BASE_URL")

    def on_event(event: Event) -> None:
        if state.job is not None:
            state.job.on_event(event)

    account = os.environ["LIVEPERSON_ACCOUNT"]
    async with SegmentClient(account, auth=key, source="service", base_url=base_url, on_event=on_event) as state.client:
        yield
        if state.job is not None and state.job.task is not None:
            state.job.task.cancel()
            with suppress(asyncio.CancelledError):
                await state.job.task


app = FastAPI(lifespan=lifespan)


@app.post("/runs", status_code=202)
async def start(start: str = "now-1d", end: str = "now") -> dict[str, str]:
    """Start an extraction, one at a time."""
    if state.job is not None and state.job.task is not None and not state.job.task.done():
        raise HTTPException(409, "a run is in progress")
    job = state.job = Job()

    async def work() -> None:
        try:
            report = await state.client.extract(start, end, JsonlSink(os.environ.get("SEGMENTS_OUT", "segments")))
            job.tell("done", f"{report.segments} segments, {'complete' if report.complete else 'incomplete'}")
        except SegmentFetchError as error:
            job.tell("failed", str(error))

    job.task = asyncio.create_task(work())
    return {"progress": "/runs/progress"}


@app.get("/runs/progress")
async def progress() -> StreamingResponse:
    """Send the events of the run from its beginning to its end."""
    if (job := state.job) is None:
        raise HTTPException(404, "no run was started")

    async def lines() -> AsyncIterator[str]:
        sent = 0
        while True:
            changed = job.changed
            while sent < len(job.lines):
                yield job.lines[sent]
                sent += 1
                if job.lines[sent - 1].startswith(("event: done", "event: failed")):
                    return
            if changed is job.changed:
                await changed.wait()

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/segments")
async def segments(start: str = "now-1d", end: str = "now") -> StreamingResponse:
    """Stream segments as JSON lines. A slow reader slows the reading down; one that leaves ends it."""

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(state.client.stream(start, end)) as batches:
            async for batch in batches:
                yield b"".join(msgspec.json.encode(segment) + b"\n" for segment in batch)

    return StreamingResponse(lines(), media_type="application/x-ndjson")
