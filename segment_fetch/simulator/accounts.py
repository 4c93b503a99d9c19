"""Many accounts behind one address, each a separate `Simulator` with its limits, size, faults and credentials."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from aiohttp import web

from segment_fetch.simulator.background import running_loop
from segment_fetch.simulator.server import Simulator

_ACCOUNT = re.compile(r"/(?:sentinel/)?api/(?:v2/)?account/([^/]+)/")
_SHUTDOWN_S = 0.05


class AccountsSimulator:
    """The API of several accounts on 127.0.0.1, in the running loop (`async with`) or in a thread (`in_thread`).

    The simulators must not be started themselves; `simulators` maps each account to its own. A request for any other
    account gets 404.
    """

    host = "127.0.0.1"

    def __init__(self, simulators: Sequence[Simulator], *, port: int = 0) -> None:
        self.simulators: Mapping[str, Simulator] = {simulator.account: simulator for simulator in simulators}
        if len(self.simulators) != len(simulators):
            raise ValueError("each simulator must have a different account")
        self.port = port
        self._runner: web.ServerRunner | None = None

    @property
    def base_url(self) -> str:
        """Scheme, host and port, without a trailing slash."""
        return f"http://{self.host}:{self.port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        match = _ACCOUNT.match(request.raw_path)
        simulator = self.simulators.get(match[1]) if match else None
        if simulator is None:
            return web.json_response({"message": "Account not found"}, status=404)
        return await simulator.handle(request)

    async def start(self) -> None:
        """Start to listen; `port` and `base_url` are known afterwards. Raises `OSError` if the port is taken."""
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, backlog=4096).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = runner.addresses[0][1]
        for simulator in self.simulators.values():
            simulator.serve_at(self.base_url)

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a separate thread until the block ends, for synchronous code."""
        with running_loop() as loop:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.stop(), loop).result()
