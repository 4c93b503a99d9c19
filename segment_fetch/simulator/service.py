"""The endpoints of the API: routing, and the order in which a request is checked and answered."""

import random
import re
from asyncio import Lock, sleep
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web

from segment_fetch.simulator.answers import (
    Answer,
    bad_request,
    fault_answer,
    json_answer,
    not_found,
    too_many,
    unauthorized,
)
from segment_fetch.simulator.auth import Call, Refusal, TokenIssuer, Verifier
from segment_fetch.simulator.delivery import deliver
from segment_fetch.simulator.faults import Fault, FaultPlan
from segment_fetch.simulator.limits import Limit, LimitCounter
from segment_fetch.simulator.page_renderer import PageRenderer
from segment_fetch.simulator.query import RefusedQueryError, SegmentQuery, parse_query
from segment_fetch.simulator.stats import RequestRecord, Stats

NO_PERMISSION = Refusal(
    "no_permission",
    "The API key lacks the permission Data > Workforce Management > Agent Activity API",
)
_WRONG_ACCOUNT = Refusal("account_mismatch", "The credentials are not for this account")
_SEGMENTS = re.compile(r"/api/account/([^/]+)/agent-segments")
_DOMAIN = re.compile(r"/api/account/([^/]+)/service/([^/]+)/baseURI\.json")
_TOKEN = re.compile(r"/sentinel/api/v2/account/([^/]+)/app/token")
_UNANSWERED = (Fault.DROP, Fault.STALL)
_SERVICES = ("agentActivityDomain", "sentinel")


class Settings(NamedTuple):
    """Settings that are fixed while the simulator runs. `latency_ms` is the minimum and the maximum."""

    account: str
    clock: Callable[[], float]
    gzip: bool
    permitted: bool
    latency_ms: tuple[float, float]
    latency_seed: int


class _Served(NamedTuple):
    """An answer, its fault, and the details for the log."""

    answer: Answer
    fault: Fault | None = None
    query: SegmentQuery | None = None
    rows: int = 0


class Service:
    """Handles all requests. `domain` is the answer of the Domain API; faults and limits may change at any time."""

    def __init__(self, settings: Settings, *, pages: PageRenderer, verifier: Verifier | None, stats: Stats) -> None:
        self.domain = ""
        self.segment_faults = FaultPlan()
        self.token_faults = FaultPlan()
        self.domain_faults = FaultPlan()
        self._limits: list[tuple[Limit, LimitCounter]] = []
        self._settings = settings
        self._pages = pages
        self._verifier = verifier
        self._stats = stats
        self._turn = Lock()
        self._random = random.Random(settings.latency_seed)  # noqa: S311

    def set_limits(self, limits: Sequence[Limit]) -> None:
        """Replace the limits; the counters of the new ones start at zero."""
        self._limits = [(limit, limit.counter()) for limit in limits]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of any kind."""
        path = request.raw_path.partition("?")[0]
        if request.method == "GET" and (match := _SEGMENTS.fullmatch(path)):
            return await self._segments(request, match[1])
        if request.method == "GET" and (match := _DOMAIN.fullmatch(path)):
            return await self._domain(request, match[1], match[2])
        if request.method == "POST" and (match := _TOKEN.fullmatch(path)):
            return await self._token(request, match[1])
        return await self._send(request, not_found(path), None, self.segment_faults)

    async def _segments(self, request: web.BaseRequest, account: str) -> web.StreamResponse:
        arrived = self._settings.clock()
        number = self._stats.arrive(arrived)
        refused, held = self._admit(arrived)
        try:
            await self._wait()
            served = refused or self._checked(request, account, number)
            status = None if served.fault in _UNANSWERED else served.answer.status
            record = RequestRecord(number, arrived, served.query, status, served.rows, served.fault)
            self._stats.record(record)
            return await self._send(request, served.answer, served.fault, self.segment_faults)
        finally:
            for counter in held:
                counter.leave()
            self._stats.leave()

    def _admit(self, now: float) -> tuple[_Served | None, list[LimitCounter]]:
        """Apply all limits. Return the 429 of the first that refuses, or the counters to release after the answer."""
        held: list[LimitCounter] = []
        for limit, counter in self._limits:
            if wait := counter.admit(now):
                for passed in held:
                    passed.leave()
                self._stats.limited += 1
                return _Served(too_many(wait, limit.retry_after, now)), []
            held.append(counter)
        return None, held

    def _checked(self, request: web.BaseRequest, account: str, number: int) -> _Served:
        now = self._settings.clock()
        refusal = self._refusal(request, account, now)
        if refusal:
            self._stats.refusals[refusal.reason] += 1
            return _Served(unauthorized(*refusal))
        fault, instead = self._choose(self.segment_faults)
        return _Served(instead, fault) if instead else self._page(request, number, now, fault)

    def _page(self, request: web.BaseRequest, number: int, now: float, fault: Fault | None) -> _Served:
        parameters = dict(parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True))
        try:
            query = parse_query(parameters, now)
        except RefusedQueryError as refused:
            return _Served(bad_request(refused.causes), fault)
        accepted = request.headers.get("Accept-Encoding", "")
        gzipped = self._settings.gzip and fault is not Fault.ZSTD and "gzip" in accepted
        answer, rows = self._pages.answer(query, number, fault, gzipped=gzipped)
        return _Served(answer, fault, query, rows)

    def _refusal(self, request: web.BaseRequest, account: str, now: float) -> Refusal | None:
        if self._verifier is not None:
            refusal = self._verifier.refuse(_call(request), now)
            if refusal:
                return refusal
        if account != self._settings.account:
            return _WRONG_ACCOUNT
        return None if self._settings.permitted else NO_PERMISSION

    async def _domain(self, request: web.BaseRequest, account: str, service: str) -> web.StreamResponse:
        self._stats.domain_requests += 1
        await self._wait()
        fault, instead = self._choose(self.domain_faults)
        answer = instead or self._domain_answer(account, service)
        return await self._send(request, answer, fault, self.domain_faults)

    def _domain_answer(self, account: str, service: str) -> Answer:
        if account != self._settings.account or service not in _SERVICES:
            return not_found(f"service {service} of account {account}")
        return json_answer(200, {"service": service, "account": account, "baseURI": self.domain})

    async def _token(self, request: web.BaseRequest, account: str) -> web.StreamResponse:
        self._stats.token_requests += 1
        form = dict(parse_qsl((await request.read()).decode(errors="replace")))
        await self._wait()
        fault, instead = self._choose(self.token_faults)
        answer = instead or self._token_answer(account, form)
        return await self._send(request, answer, fault, self.token_faults)

    def _token_answer(self, account: str, form: dict[str, str]) -> Answer:
        if not isinstance(self._verifier, TokenIssuer):
            return not_found("the token endpoint")
        if account != self._settings.account:
            return unauthorized(*_WRONG_ACCOUNT)
        return self._verifier.issue(form, self._settings.clock())

    def _choose(self, plan: FaultPlan) -> tuple[Fault | None, Answer | None]:
        """Return the fault of a request, and the answer that replaces the correct one, if any."""
        fault = plan.choose()
        if fault is None:
            return None, None
        if isinstance(fault, Answer):
            return None, fault
        self._stats.faults[fault] += 1
        return fault, fault_answer(fault, plan.faults.retry_after_s, self._settings.clock())

    async def _wait(self) -> None:
        """Wait for the latency of an answer.

        Answers due at the same time are sent one by one, so that requests can arrive in between and their latency
        starts, as on a server with more processors.
        """
        least, most = self._settings.latency_ms
        if most:
            await sleep(self._random.uniform(least, most) / 1000)
            async with self._turn:
                await sleep(0)

    async def _send(
        self, request: web.BaseRequest, answer: Answer, fault: Fault | None, plan: FaultPlan
    ) -> web.StreamResponse:
        headers = {"Date": _http_date(int(self._settings.clock()))}
        return await deliver(request, answer, headers, fault, plan.faults.slow_body_s)


def _call(request: web.BaseRequest) -> Call:
    path, _, query = request.raw_path.partition("?")
    return Call(
        method=request.method,
        scheme=request.scheme,
        host=request.headers.get("Host", ""),
        path=path,
        query=query,
        authorization=request.headers.get("Authorization", ""),
    )


@lru_cache(maxsize=4)
def _http_date(now: int) -> str:
    return formatdate(now, usegmt=True)
