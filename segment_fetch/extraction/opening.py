"""Open a client: import and build everything it needs. The first time takes about 200 ms, mostly to import aiohttp."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from segment_fetch.api.auth import Auth, OAuth1Key
from segment_fetch.api.endpoints import SegmentApi
from segment_fetch.api.timeouts import Timeouts
from segment_fetch.api.transport import Transport, checked_base
from segment_fetch.errors import InputError
from segment_fetch.events import Event
from segment_fetch.extraction import run, stream, sync  # noqa: F401 - imported here so that methods need not
from segment_fetch.extraction.context import ReadOptions, RunContext
from segment_fetch.extraction.event_log import EventLog
from segment_fetch.extraction.loop_turns import turns_of
from segment_fetch.extraction.row_budget import budget_of
from segment_fetch.extraction.telemetry import telemetry_of
from segment_fetch.query import Query
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.pacer import Pacer
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.windows import counting  # noqa: F401 - as above

if TYPE_CHECKING:
    import aiohttp


class Opened:
    """An open client. May be created in any thread; belongs to the event loop `loop`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        query: Query,
        auth: Auth,
        session: aiohttp.ClientSession | None,
        base_url: str | None,
        pacer: Pacer | None,
        connections: int,
        width: int,
        split_above: int,
        settle_after_ms: int,
        retry: RetryPolicy,
        timeouts: Timeouts | None,
        tell: Callable[[Event], None],
        telemetry: bool,
        clock: Callable[[], float],
    ) -> None:
        if isinstance(auth, OAuth1Key):
            import_module("oauthlib.oauth1")
        base_url = None if base_url is None else checked_base(base_url)
        turns = turns_of(loop)
        self._loop = loop
        self._transport = Transport(session=session, connections=connections, timeouts=timeouts, turn=turns.take)
        if base_url is None or base_url.startswith("https:"):
            self._transport.load_certificates()
        measured = telemetry_of(query, connections, enabled=telemetry)

        log = EventLog(query.account)

        def tell_all(event: Event, run_id: str | None = None) -> None:
            measured.take(event)
            log.take(event, run_id)
            tell(event)

        limiter = Limiter(pacer, tell=tell_all, clock=loop.time)
        api = SegmentApi(
            query, auth, self._transport, limiter, login_pause=retry.login_pause, base_url=base_url, clock=clock
        )
        self.context = RunContext(
            api=api,
            limiter=limiter,
            retry=retry,
            connections=connections,
            options=ReadOptions(query.limit, split_above, settle_after_ms),
            width=width,
            tell=tell_all,
            tell_of_run=tell_all,
            clock=clock,
            turns=turns,
            telemetry=measured,
            rows=budget_of(loop),
        )

    def check_loop(self) -> None:
        """Raise InputError in any other event loop."""
        if asyncio.get_running_loop() is not self._loop:
            raise InputError("the client was opened in another event loop: use it there, or create another client here")

    async def close(self) -> None:
        """Close the client's own connections."""
        await self._transport.close()
