"""Answers that are recorded once and then given again, in every process of a run: no server takes part in what is
measured then.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from segment_fetch import BearerToken
from segment_fetch.api.auth import Authorizer, TokenRequest
from segment_fetch.api.transport import Reply, Transport

_page = Transport.page


class Replayed(BearerToken):
    """A token that brings its recording along: where it authorises, answers come from the folder. One that is not there
    yet is fetched, and kept; the folder had better be in memory.
    """

    def __init__(self, token: str, folder: str) -> None:
        super().__init__(token)
        self._folder = Path(folder)

    def authorizer(self, request_token: TokenRequest) -> Authorizer:
        """Replaces `Transport.page` in this process, for good."""
        setattr(Transport, "page", replayed(self._folder))  # noqa: B010 - types do not know it as an attribute
        return super().authorizer(request_token)


def replayed(folder: Path) -> Callable[..., Awaitable[Any]]:
    """In place of `Transport.page`: a file an answer; its first line is what is not the body."""

    async def page(transport: Transport, url: str, sign: Any, take: Callable[[Reply], Any]) -> Any:
        file = folder / hashlib.sha256(url.encode()).hexdigest()
        if not file.exists():
            file.write_bytes(await _page(transport, url, sign, _stored))
        await sign()
        await asyncio.sleep(0)
        data = file.read_bytes()
        head, body = data.index(b"\n"), memoryview(data)
        status, headers = json.loads(data[:head])
        return take(Reply(status, headers, body[head + 1 :]))

    return page


def _stored(reply: Reply) -> bytes:
    assert reply.status == 200, reply.status
    return json.dumps([reply.status, dict(reply.headers)]).encode() + b"\n" + bytes(reply.body)
