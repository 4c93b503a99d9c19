"""Workers, retries and pauses: real requests to the simulator, in time that does not have to be waited for."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from segment_fetch.errors import (
    CredentialsError,
    InputError,
    ProxyError,
    SchemaError,
    SegmentFetchError,
    ServiceError,
    ThrottledError,
    TransientError,
)
from segment_fetch.events import Event, Paused, Retrying, ServiceBack, ServiceDown
from segment_fetch.extraction.worker_pool import WorkerPool
from segment_fetch.query import Window
from segment_fetch.simulator import AtOnce, Bearer, Dataset, Fault, Faults, RateLimit, Simulator
from segment_fetch.throttle.limiter import Limiter
from segment_fetch.throttle.pacer import Pacer
from segment_fetch.throttle.retry_policy import RetryPolicy
from segment_fetch.throttle.retry_queue import Attempt, RetryQueue
from segment_fetch.wire.pages import PageAnswer, PageRequest
from tests.support import ANY_WINDOW, NOW, Asked, http, opened, page_body, raw_server, row, without_waiting

DATASET = Dataset(segments=400, start=ANY_WINDOW.start, end=ANY_WINDOW.end)
STEADY = RetryPolicy(jitter=0.0)


class Pages:
    """A source of pages that do not depend on each other."""

    def __init__(self, offsets: Sequence[int], window: Window = ANY_WINDOW) -> None:
        self.todo = deque(offsets)
        self.open = set(offsets)
        self.unwanted: set[int] = set()
        self.came: Counter[int] = Counter()
        self.lost: dict[int, SegmentFetchError] = {}
        self.refuse: Callable[[int], SegmentFetchError | None] = lambda _: None
        self._window = window

    def next(self) -> PageRequest | None:
        return PageRequest(self._window, self.todo.popleft(), 10) if self.todo else None

    def newest(self) -> PageRequest | None:
        return PageRequest(self._window, self.todo.pop(), 10) if self.todo else None

    def wants(self, request: PageRequest) -> bool:
        return request.offset not in self.unwanted

    def answered(self, request: PageRequest, answer: PageAnswer) -> None:
        if (error := self.refuse(request.offset)) is not None:
            raise error
        assert len(answer.page.segments) == min(10, max(0, 400 - request.offset))
        self.came[request.offset] += 1
        self.open.discard(request.offset)

    def failed(self, request: PageRequest, error: SegmentFetchError) -> None:
        self.lost[request.offset] = error
        self.open.discard(request.offset)

    def finished(self) -> bool:
        return self.open <= self.unwanted


class Told(list[Event]):
    """The events of a run, with the moment of each in seconds since its start."""

    def __init__(self) -> None:
        super().__init__()
        self.start = asyncio.get_running_loop().time()
        self.at: list[float] = []

    def __call__(self, event: Event) -> None:
        self.append(event)
        self.at.append(self.now)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.start

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


def simulator(**options: Any) -> Simulator:
    """A simulator whose clock is that of the loop."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    return Simulator(DATASET, clock=lambda: NOW + loop.time() - start, **options)


def _limiter(rate: float | None) -> Limiter:
    return Limiter(None if rate is None else Pacer(ceiling=rate))


@asynccontextmanager
async def pool(
    url: str,
    source: Pages,
    *,
    connections: int = 4,
    retry: RetryPolicy = STEADY,
    rate: float | None = None,
    served: bool = True,
    **options: Any,
) -> AsyncIterator[tuple[WorkerPool, Told]]:
    """A pool of an API that has served the client before, unless `served` says otherwise."""
    limiter, told, clock = _limiter(rate), Told(), asyncio.get_running_loop().time
    async with opened(url, limiter=limiter, connections=connections, **options) as api:
        api.has_served = served
        run = WorkerPool(
            api, limiter, source, connections=connections, retry=retry, tell=told, chance=lambda: 0.5, clock=clock
        )
        yield run, told


@pytest.mark.parametrize("connections", [1, 4, 16])
@without_waiting
async def test_all_connections_are_busy_and_no_more(connections: int) -> None:
    source = Pages(range(0, 400, 5))
    async with (
        simulator(latency_ms=100) as server,
        pool(server.base_url, source, connections=connections) as (run, told),
    ):
        await run.run()
        assert server.stats.most_in_flight == connections
        assert server.stats.requests == run.counts.requests == 80
    assert source.came == Counter(range(0, 400, 5))
    assert told.now == pytest.approx(80 / connections * 0.1, rel=0.05)


@without_waiting
async def test_a_source_that_is_finished_sends_nothing() -> None:
    async with simulator() as server, pool(server.base_url, Pages([])) as (run, _):
        await run.run()
        assert server.stats.requests == 0


@without_waiting
async def test_idle_workers_go_on_when_they_are_woken() -> None:
    source = Pages([0])
    source.open.add(10)
    async with simulator() as server, pool(server.base_url, source) as (run, _):
        running = asyncio.create_task(run.run())
        await asyncio.sleep(5)
        assert source.came == Counter([0])
        assert not running.done()
        source.todo.append(10)
        run.wake()
        await running
    assert source.came == Counter([0, 10])


@pytest.mark.parametrize(
    ("fault", "delays"),
    [(Fault.ERROR_500, [5.0, 10.0, 15.0]), (Fault.ERROR_503, [5.0, 10.0, 15.0]), (Fault.TRUNCATED, [0.5, 1.0, 2.0])],
)
@without_waiting
async def test_a_page_that_failed_is_asked_for_again_after_its_delays(fault: Fault, delays: list[float]) -> None:
    source = Pages([0])
    async with simulator() as server, pool(server.base_url, source) as (run, told):
        server.fail_next(fault, 3)
        await run.run()
        arrivals = [record.at - NOW for record in server.stats.log]
    assert [event.delay for event in told.of(Retrying)] == delays
    assert [event.offset for event in told.of(Retrying)] == [0, 0, 0]
    waited = [later - earlier for earlier, later in pairwise(arrivals)]
    assert waited == [pytest.approx(delay, abs=0.1) for delay in delays]
    assert source.came == Counter([0])
    assert (run.counts.requests, run.counts.retries) == (4, 3)


@without_waiting
async def test_a_page_that_the_source_finds_faulty_is_asked_for_again() -> None:
    source, faulty = Pages([0]), [TransientError("too short", status=200)]
    source.refuse = lambda _: faulty.pop() if faulty else None
    async with simulator() as server, pool(server.base_url, source) as (run, told):
        await run.run()
    assert [(event.delay, event.reason) for event in told.of(Retrying)] == [(0.5, "too short")]
    assert source.came == Counter([0])


@without_waiting
async def test_a_delayed_page_does_not_keep_its_worker() -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=10) as server, pool(server.base_url, source, connections=1) as (run, told):
        server.fail_next(Fault.ERROR_503, 1)
        await run.run()
        order = [record.query.offset for record in server.stats.log if record.query]
    assert order == [*range(10, 400, 10), 0]
    assert told.now == pytest.approx(5.0, abs=0.5)


@without_waiting
async def test_a_delayed_page_that_is_no_longer_wanted_is_dropped() -> None:
    source = Pages([0, 10])
    async with simulator() as server, pool(server.base_url, source, connections=1) as (run, _):
        server.fail_next(Fault.ERROR_503, 1)
        running = asyncio.create_task(run.run())
        await asyncio.sleep(1)
        source.unwanted.add(0)
        run.wake()
        await running
        assert server.stats.requests == 2
    assert source.came == Counter([10])


@without_waiting
async def test_where_nothing_ever_came_through_the_service_is_down() -> None:
    source = Pages([0, 10, 20])
    async with simulator(faults=Faults(error_503=1.0)) as server, pool(server.base_url, source) as (run, told):
        with pytest.raises(ServiceError, match=r"failed with 503.*, 4 times \(window .*, offset 0\)") as caught:
            await run.run()
        assert caught.value.status == 503
        assert caught.value.window == ANY_WINDOW
    assert told.now == pytest.approx(30.0, abs=1.0)
    assert source.lost == {}


@without_waiting
async def test_a_page_that_cannot_be_had_while_others_come_is_told_to_the_source() -> None:
    source = Pages(range(0, 400, 10))
    source.refuse = lambda offset: TransientError("always faulty", status=200) if offset == 50 else None
    async with simulator() as server, pool(server.base_url, source, rate=0.2) as (run, told):
        await run.run()
        assert server.stats.requests == run.counts.requests
    assert set(source.came) == set(range(0, 400, 10)) - {50}
    assert list(source.lost) == [50]
    assert isinstance(source.lost[50], ServiceError)
    assert source.lost[50].offset == 50
    assert "always faulty" in str(source.lost[50])
    assert {event.offset for event in told.of(Retrying)} == {50}


@without_waiting
async def test_an_outage_in_the_middle_is_waited_out() -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=100) as server, pool(server.base_url, source) as (run, told):
        loop = asyncio.get_running_loop()
        loop.call_later(0.45, setattr, server, "faults", Faults(error_503=1.0))
        loop.call_later(400.0, setattr, server, "faults", Faults())
        await run.run()
        assert server.stats.requests < 120
    assert source.came == Counter(range(0, 400, 10))
    assert source.lost == {}
    assert told.of(ServiceDown)
    assert [event.seconds for event in told.of(ServiceBack)] == [pytest.approx(405, abs=20)]


@without_waiting
async def test_an_outage_that_does_not_end_ends_the_run() -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=100) as server, pool(server.base_url, source) as (run, told):
        asyncio.get_running_loop().call_later(0.45, setattr, server, "faults", Faults(error_503=1.0))
        with pytest.raises(ServiceError, match="failed with 503"):
            await run.run()
    assert told.now == pytest.approx(STEADY.patience, abs=60)
    assert source.lost == {}


@pytest.mark.parametrize(("fault", "pause"), [(Fault.TOO_MANY, 7.0), (Fault.TOO_MANY_SILENT, 1.0)])
@without_waiting
async def test_a_429_pauses_all_requests_and_is_no_failure_of_the_page(fault: Fault, pause: float) -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(faults=Faults(retry_after_s=7), latency_ms=50) as server:
        async with pool(server.base_url, source) as (run, told):
            server.fail_next(fault, 1)
            await run.run()
        arrivals = sorted(record.at - NOW for record in server.stats.log)
        refused = next(record.at - NOW for record in server.stats.log if record.status == 429)
    assert [event.seconds for event in told.of(Paused)] == [pause]
    assert not [at for at in arrivals if refused + 0.1 < at < refused + pause - 0.1]
    assert [at for at in arrivals if at > refused + pause - 0.1]
    assert source.came == Counter(range(0, 400, 10))
    assert run.counts.throttled == 1
    assert told.of(Retrying) == []


@without_waiting
async def test_a_limited_service_is_read_to_the_end() -> None:
    source = Pages(range(0, 400, 5))
    limits = [RateLimit(rate=10.0, burst=2), AtOnce(requests=3, retry_after="none")]
    async with simulator(limit=limits, latency_ms=50) as server, pool(server.base_url, source) as (run, _):
        await run.run()
        assert server.stats.limited == run.counts.throttled > 0
    assert source.came == Counter(range(0, 400, 5))
    assert source.lost == {}


@without_waiting
async def test_a_rate_below_the_limit_is_never_refused() -> None:
    source = Pages(range(0, 400, 5))
    async with simulator(limit=RateLimit(rate=10.5, burst=2), latency_ms=50) as server:
        async with pool(server.base_url, source, rate=10.0) as (run, told):
            await run.run()
        assert server.stats.limited == 0
        assert server.stats.most_per_second <= 11
    assert told.now == pytest.approx(8.0, rel=0.1)


@without_waiting
async def test_a_429_that_comes_after_its_pause_is_counted_and_no_pause() -> None:
    source = Pages([0])
    async with simulator() as server, pool(server.base_url, source, rate=10.0) as (run, told):
        run._throttled(Attempt(source.next()), ThrottledError(None))
        assert (run.counts.throttled, told.of(Paused)) == (1, [])


@without_waiting
async def test_nothing_but_429_for_long_ends_the_run() -> None:
    async with simulator(limit=AtOnce(requests=0)) as server, pool(server.base_url, Pages([0])) as (run, told):
        with pytest.raises(ServiceError, match=r"returned only 429 for 15 min$") as caught:
            await run.run()
    assert caught.value.status == 429
    assert told.now == pytest.approx(STEADY.patience, abs=10)


@pytest.mark.parametrize(
    ("options", "window", "kind"),
    [
        ({"auth": Bearer("another")}, ANY_WINDOW, CredentialsError),
        ({}, Window(0, 1000), InputError),
    ],
)
@without_waiting
async def test_what_another_try_would_not_mend_ends_the_run_at_once(
    options: dict[str, Any], window: Window, kind: type[SegmentFetchError]
) -> None:
    source = Pages(range(0, 400, 10), window)
    async with simulator(latency_ms=50, **options) as server, pool(server.base_url, source, served=False) as (run, _):
        with pytest.raises(kind, match=r"\(window .*, offset \d+\)"):
            await run.run()
        assert server.stats.requests == (1 if kind is CredentialsError else 2)  # the newest window decides on a 400
    assert len(asyncio.all_tasks()) == 1


REFUSALS = [301, 302, 307, 400, 404, 405, 409, 410, 413, 418, 421, 423, 425]


@pytest.mark.parametrize("status", REFUSALS)
@without_waiting
async def test_one_refusal_of_a_run_that_has_been_served_is_asked_for_again_and_costs_nothing(status: int) -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=10) as server, pool(server.base_url, source) as (run, told):
        server.answer_next(status)
        await run.run()
    assert source.came == Counter(range(0, 400, 10))
    assert source.lost == {}
    assert [event.delay for event in told.of(Retrying)] == [5.0]


def _refusing(status: int, offset: int) -> Callable[[Asked], bytes]:
    def respond(asked: Asked) -> bytes:
        at = int(asked.path.partition("&offset=")[2].partition("&")[0])
        return http(status) if at == offset else http(200, page_body(*(row(at + n) for n in range(10)), count=400))

    return respond


@pytest.mark.parametrize("status", REFUSALS)
@without_waiting
async def test_a_page_that_is_always_refused_is_lost_alone_with_what_was_said(status: int) -> None:
    source = Pages(range(0, 400, 10))
    async with raw_server(_refusing(status, offset=50)) as server, pool(server.url, source, rate=0.2) as (run, _):
        await run.run()
    assert set(source.came) == set(range(0, 400, 10)) - {50}
    assert str(status) in str(source.lost[50])
    assert "check the account" not in str(source.lost[50])


@without_waiting
async def test_what_the_api_itself_refuses_with_its_causes_is_not_asked_for_again() -> None:
    source = Pages([0, 10])
    async with simulator() as server, pool(server.base_url, source, connections=1) as (run, _):
        server.answer_next(400, body=b'{"causes":["from: too old"]}')
        await run.run()
        assert server.stats.requests == 2
    assert "(400): from: too old" in str(source.lost[0])


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("times", [1, 2, 3])
@without_waiting
async def test_refused_credentials_are_probed_one_at_a_time_and_the_run_goes_on(status: int, times: int) -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=10) as server, pool(server.base_url, source, connections=1) as (run, told):
        server.answer_next(status, times)
        await run.run()
        arrivals = [record.at - NOW for record in server.stats.log]
    assert source.came == Counter(range(0, 400, 10))
    waited = [later - earlier for earlier, later in pairwise(arrivals[: times + 1])]
    assert waited == [pytest.approx(delay, abs=0.1) for delay in (5.0, 10.0, 15.0)[:times]]
    assert [event.delay for event in told.of(Retrying)] == [5.0, 10.0, 15.0][:times]


@pytest.mark.parametrize("rate", [None, 50.0])
@without_waiting
async def test_a_key_that_is_revoked_ends_the_run_after_three_probes(rate: float | None) -> None:
    """No more than were in flight and three probes are sent, however many wait for their turn at the limiter."""
    source = Pages(range(0, 400, 2))
    async with simulator(latency_ms=100) as server:
        async with pool(server.base_url, source, connections=100, rate=rate) as (run, _):
            asyncio.get_running_loop().call_later(0.15, setattr, server, "faults", Faults(unauthorized=1))
            with pytest.raises(CredentialsError, match=r"\(401\)"):
                await run.run()
        served, refused = server.stats.answers[200], server.stats.answers[401]
    assert served > 0
    assert 4 <= refused <= (100 if rate is None else 10) + 3
    assert source.lost == {}


@pytest.mark.parametrize("seconds", ["6.0", "6, 6", "0000000006"])
@pytest.mark.parametrize("status", [403, 408, 413, 429, 503])
@without_waiting
async def test_no_request_comes_earlier_than_retry_after_says(status: int, seconds: str) -> None:
    source = Pages([0])
    async with simulator() as server, pool(server.base_url, source) as (run, _):
        server.answer_next(status, headers=[("Retry-After", seconds)])
        await run.run()
        first, second = (record.at for record in server.stats.log)
    assert second - first == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("status", [302, 403, 404, 421])
@without_waiting
async def test_a_first_request_that_is_refused_counts_as_one_of_many_if_the_newest_window_is_served(
    status: int,
) -> None:
    source = Pages(range(0, 400, 10))
    async with simulator() as server, pool(server.base_url, source, served=False) as (run, _):
        server.answer_next(status)
        await run.run()
        order = [record.query.offset for record in server.stats.log if record.query]
    assert order[0] == 390
    assert source.came == Counter(range(0, 400, 10))


@pytest.mark.parametrize(("status", "requests"), [(302, 2), (401, 1), (403, 2), (404, 2), (409, 2), (423, 2), (451, 2)])
@without_waiting
async def test_what_is_refused_from_the_start_ends_the_run_at_once(status: int, requests: int) -> None:
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=10) as server, pool(server.base_url, source, served=False) as (run, told):
        server.answer_next(status, 1_000)
        with pytest.raises(SegmentFetchError, match=str(status)):
            await run.run()
        assert server.stats.requests == requests
    assert told.now < 1
    assert source.lost == {}


@without_waiting
async def test_a_proxys_own_refusal_ends_the_run_and_is_never_repeated() -> None:
    async with simulator() as server, pool(server.base_url, Pages(range(0, 400, 10))) as (run, _):
        server.answer_next(407, 100)
        with pytest.raises(ProxyError):
            await run.run()
        assert server.stats.requests <= 4


@without_waiting
async def test_an_answer_wakes_nobody_who_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    take = RetryQueue.take

    def counting(self: RetryQueue, *args: Any, **options: Any) -> Attempt | None:
        nonlocal looks
        looks += 1
        return take(self, *args, **options)

    monkeypatch.setattr(RetryQueue, "take", counting)
    source = Pages(range(0, 400, 10))
    async with simulator(latency_ms=10) as server, pool(server.base_url, source, connections=1_000) as (run, _):
        await run.run()
    assert sum(source.came.values()) == 40
    assert looks <= 3 * 40


@without_waiting
async def test_a_page_of_another_schema_is_told_to_the_source_with_its_place() -> None:
    source, body = Pages([500]), page_body(row(agentId="x"))
    async with raw_server(lambda _: http(200, body)) as server, pool(server.url, source) as (run, _):
        await run.run()
    error = source.lost[500]
    assert isinstance(error, SchemaError)
    assert error.path == "$.segments[0].agentId"
    assert str(error).endswith(f"(window {ANY_WINDOW}, offset 500)")


@without_waiting
async def test_an_error_of_the_source_stops_all_workers() -> None:
    source = Pages(range(0, 400, 10))

    def refuse(offset: int) -> None:
        if offset == 100:
            raise LookupError("a bug of the source")

    source.refuse = refuse
    async with simulator(latency_ms=50) as server, pool(server.base_url, source) as (run, _):
        with pytest.raises(LookupError):
            await run.run()
        assert len([task for task in asyncio.all_tasks() if "_work" in repr(task)]) == 0
        assert server.stats.requests < 20


@pytest.mark.parametrize("seconds", [0.0, 0.01, 2.0, 8.0])
@pytest.mark.parametrize("faults", [Faults(stall=1.0), Faults(error_503=1.0), Faults(too_many=1.0, retry_after_s=60)])
@without_waiting
async def test_a_cancelled_run_leaves_no_task(seconds: float, faults: Faults) -> None:
    async with simulator(faults=faults) as server, pool(server.base_url, Pages(range(0, 400, 10))) as (run, _):
        before = asyncio.all_tasks()
        running = asyncio.create_task(run.run())
        await asyncio.sleep(seconds)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not [task for task in asyncio.all_tasks() - before if "_work" in repr(task)]
        sent = server.stats.requests
        await asyncio.sleep(100)
        assert server.stats.requests == sent
