"""Two accounts in an aiohttp program, on one session of its own.

Takes the secrets of both from the environment: LIVEPERSON_BEARER_111111 and LIVEPERSON_BEARER_222222.
"""

from __future__ import annotations

import asyncio
import os

import aiohttp

from segment_fetch import BearerToken, SegmentClient
from segment_fetch.sinks import JsonlSink

ACCOUNTS = ("111111", "222222")


async def sync(account: str, session: aiohttp.ClientSession) -> str:
    """Bring one account's folder up to date."""
    token = BearerToken(os.environ[f"LIVEPERSON_BEARER_{account}"])
    base_url = os.environ.get(f"SEGMENT_FETCH_BASE_URL_{account}")
    async with SegmentClient(account, auth=token, source="two_accounts", session=session, base_url=base_url) as client:
        report = await client.sync(JsonlSink(f"segments/{account}"), "now-7d")
    return f"{account}: {report.segments} segments, {'complete' if report.complete else 'incomplete'}"


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        for line in await asyncio.gather(*(sync(account, session) for account in ACCOUNTS)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main())
