"""The API over HTTP: routes, order of checks, headers, limits, credentials, counters."""

import asyncio
import ssl
from itertools import count as count_from
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
import trustme
from oauthlib.oauth1 import Client
from yarl import URL

from segment_fetch.simulator import (
    AtOnce,
    Bearer,
    ClientCredentials,
    Dataset,
    Drift,
    Faults,
    OAuth1,
    RateLimit,
    Simulator,
    SlidingWindow,
    service,
)
from segment_fetch.simulator.limits import RetryAfter
from segment_fetch.simulator.rows import RowWriter
from segment_fetch.simulator.service import Service
from tests.simulator.conftest import DAY_MS, NOON_MS, Asker, Clock, segments_url, until


async def test_pages_hold_every_segment_once(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        ids = await asker.all_ids(simulator)
        page = await asker.page(simulator, limit=2)
    assert ids[::-1] == list(day.ids())
    assert page.json["segments"] == [day.row(1199), day.row(1198)]
    assert page.json["pagination"]["count"] == 1200
    assert page.headers["Content-Type"] == "application/json"
    assert [link["rel"] for link in page.json["pagination"]["references"]] == ["self", "next", "last", "first"]
    assert page.json["pagination"]["references"][0]["href"].startswith(f"{segments_url(simulator)}?")
    assert simulator.stats.requests == 4
    assert simulator.stats.answers == {200: 4}
    assert simulator.stats.rows == 1202


async def test_the_links_lead_through_all_pages(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        page = await asker.page(simulator, limit=500)
        ids = page.ids
        while following := [one["href"] for one in page.json["pagination"]["references"] if one["rel"] == "next"]:
            page = await asker.get(following[0])
            ids += page.ids
    assert ids[::-1] == list(day.ids())


async def test_a_wrong_request_is_told_why(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        refused = await asker.page(simulator, limit=501, source="a-b")
    assert refused.status == 400
    assert refused.json["causes"] == [
        'source: must match "^[a-zA-Z0-9_]+$"',
        "limit: must be less than or equal to 500",
    ]
    assert refused.json["message"]
    assert simulator.stats.answers == {400: 1}


async def test_the_month_is_that_of_the_servers_clock(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        assert (await asker.page(simulator)).status == 200
        clock.now += 30 * 86_400
        refused = await asker.page(simulator)
    assert refused.json["causes"] == ["from: must be no more than 1 month in the past"]


async def test_a_plus_sign_in_an_offset_must_be_escaped(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        url = f"{segments_url(simulator)}?source=tests&from=2026-11-20T00:00:00"
        async with asker.session.get(URL(f"{url}+03:00", encoded=True)) as answer:
            assert answer.status == 400
        async with asker.session.get(URL(f"{url}%2B03:00", encoded=True)) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("HEAD", "/api/account/111111/agent-segments?source=tests"),
        ("POST", "/api/account/111111/agent-segments?source=tests"),
        ("GET", "/api/account/111111/agent-segments/"),
        ("GET", "/"),
        ("GET", "/maintenance"),
        ("GET", "/sentinel/api/v2/account/111111/app/token"),
        ("POST", "/sentinel/api/v2/account/111111/app/token"),
        ("GET", "/api/account/222222/service/sentinel/baseURI.json?version=1.0"),
        ("GET", "/api/account/111111/service/other/baseURI.json?version=1.0"),
    ],
)
async def test_there_is_nothing_else(asker: Asker, clock: Clock, day: Dataset, method: str, path: str) -> None:
    async with Simulator(day, clock=clock) as simulator:
        assert (await asker.get(f"{simulator.base_url}{path}", method=method)).status == 404
    assert simulator.stats.requests == 0


async def test_another_account_is_refused(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        url = f"{simulator.base_url}/api/account/222222/agent-segments?source=tests"
        refused = await asker.get(url)
    assert (refused.status, refused.json["reason"]) == (401, "account_mismatch")


async def test_every_answer_has_the_date_of_the_clock(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        answers = [await asker.page(simulator), await asker.get(simulator.base_url)]
    assert [answer.headers["Date"] for answer in answers] == ["Fri, 20 Nov 2026 12:00:00 GMT"] * 2


@pytest.mark.parametrize(
    ("gzip", "accepted", "encoding"),
    [(True, "gzip, deflate", "gzip"), (True, "identity", None), (False, "gzip", None)],
)
async def test_pages_are_compressed_if_both_sides_want(
    asker: Asker, day: Dataset, gzip: bool, accepted: str, encoding: str | None
) -> None:
    async with Simulator(day, clock=Clock(), gzip=gzip) as simulator:
        page = await asker.page(simulator, {"Accept-Encoding": accepted}, limit=500)
    assert page.headers.get("Content-Encoding") == encoding
    assert len(page.ids) == 500
    assert (int(page.headers["Content-Length"]) < len(page.body) / 2) == (encoding == "gzip")


async def test_the_domain_api_answers_the_simulator_itself(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock, auth=Bearer("secret")) as simulator:
        for name in ("agentActivityDomain", "sentinel"):
            url = f"{simulator.base_url}/api/account/111111/service/{name}/baseURI.json?version=1.0"
            assert (await asker.get(url)).json == {
                "service": name,
                "account": "111111",
                "baseURI": f"127.0.0.1:{simulator.port}",
            }
    assert simulator.stats.domain_requests == 2


async def test_the_domain_api_answers_another_host_if_told(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock, domain_host="other.test") as simulator:
        url = f"{simulator.base_url}/api/account/111111/service/sentinel/baseURI.json?version=1.0"
        assert (await asker.get(url)).json["baseURI"] == "other.test"


async def test_tls(clock: Clock, day: Dataset) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with (
        Simulator(day, clock=clock, ssl_context=server_context) as simulator,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client_context)) as session,
        session.get(f"{segments_url(simulator)}?source=tests") as answer,
    ):
        assert simulator.base_url.startswith("https://127.0.0.1:")
        assert answer.status == 200
        assert (await answer.json())["pagination"]["references"][0]["href"].startswith(simulator.base_url)


class TestLimits:
    async def test_over_a_limit_is_429(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, limit=RateLimit(0.4, burst=2)) as simulator:
            answers = [await asker.page(simulator) for _ in range(3)]
            clock.now += 2.5
            answers.append(await asker.page(simulator))
        assert [answer.status for answer in answers] == [200, 200, 429, 200]
        assert answers[2].headers["Retry-After"] == "3"
        assert simulator.stats.limited == 1

    @pytest.mark.parametrize(
        ("spelled", "told"), [("seconds", "10"), ("date", "Fri, 20 Nov 2026 12:00:10 GMT"), ("none", None)]
    )
    async def test_the_wait_is_told_by_choice(
        self, asker: Asker, clock: Clock, day: Dataset, spelled: RetryAfter, told: str | None
    ) -> None:
        limit = SlidingWindow(1, 10.0, retry_after=spelled)
        async with Simulator(day, clock=clock, limit=limit) as simulator:
            await asker.page(simulator)
            assert (await asker.page(simulator)).headers.get("Retry-After") == told

    async def test_a_limit_can_be_exchanged(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, limit=SlidingWindow(1, 10.0)) as simulator:
            statuses = [(await asker.page(simulator)).status for _ in range(2)]
            simulator.set_limit(SlidingWindow(2, 10.0))
            statuses += [(await asker.page(simulator)).status for _ in range(3)]
            simulator.set_limit(None)
            statuses += [(await asker.page(simulator)).status for _ in range(3)]
        assert statuses == [200, 429, 200, 200, 429, 200, 200, 200]

    async def test_at_once_counts_requests_in_service(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, limit=AtOnce(2)) as simulator:
            simulator.fail_next("stall", 2)
            stalled = [asyncio.create_task(asker.page(simulator)) for _ in range(2)]
            await until(lambda: simulator.stats.in_flight == 2)
            assert (await asker.page(simulator)).status == 429
            for task in stalled:
                task.cancel()
            await until(lambda: simulator.stats.in_flight == 0)
            assert (await asker.page(simulator)).status == 200
        assert simulator.stats.most_in_flight == 3

    async def test_of_several_limits_all_hold(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        limits = (AtOnce(1), SlidingWindow(2, 10.0))
        async with Simulator(day, clock=clock, limit=limits) as simulator:
            statuses = [(await asker.page(simulator)).status for _ in range(4)]
            clock.now += 10
            statuses.append((await asker.page(simulator)).status)
        assert statuses == [200, 200, 429, 429, 200]


class TestCredentials:
    async def test_a_signed_request_is_answered(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        auth = OAuth1()
        client = Client(auth.app_key, auth.app_secret, auth.access_token, auth.access_token_secret)
        client.timestamp = str(int(clock.now))
        async with Simulator(day, clock=clock, auth=auth) as simulator:
            url = f"{segments_url(simulator)}?source=tests&EmployeeId=Zo%C3%AB-3%20"
            _, headers, _ = client.sign(url)
            statuses = []
            unsigned: dict[str, str] = {}
            for sent in (unsigned, headers, headers):
                async with asker.session.get(URL(url, encoded=True), headers=sent) as answer:
                    statuses.append((answer.status, (await answer.json()).get("reason")))
        assert statuses == [(401, "unauthorized"), (200, None), (401, "nonce_used")]
        assert len(simulator.stats.nonces) == 1
        assert simulator.stats.refusals == {"unauthorized": 1, "nonce_used": 1}

    async def test_a_token_is_issued_used_and_revoked(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, auth=ClientCredentials()) as simulator:
            token_url = f"{simulator.base_url}/sentinel/api/v2/account/111111/app/token"
            form = {"grant_type": "client_credentials", "client_id": "client", "client_secret": "client-secret"}
            async with asker.session.post(token_url, data=form) as answer:
                token = (await answer.json())["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            before = await asker.page(simulator, headers)
            simulator.revoke_tokens()
            after = await asker.page(simulator, headers)
            async with asker.session.post(token_url.replace("111111", "222222"), data=form) as answer:
                assert answer.status == 401
        assert (before.status, after.status, after.json["reason"]) == (200, 401, "invalid_token")
        assert simulator.stats.token_requests == 2

    async def test_a_key_without_the_permission_is_refused(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, permitted=False) as simulator:
            refused = await asker.page(simulator)
        assert (refused.status, refused.json["reason"]) == (401, "no_permission")
        assert "Agent Activity API" in refused.json["message"]


class TestDrift:
    async def test_segments_come_and_go_while_it_runs(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock) as simulator:
            since = simulator.mark()
            added = simulator.insert(NOON_MS - 1)
            gone = day.row(0)["segmentId"]
            simulator.remove(gone)
            ids = await asker.all_ids(simulator)
            assert ids[::-1] == simulator.ids(day.start, day.end)
            assert set(ids) == set(day.ids()) - {gone} | {added}
            assert simulator.ids_throughout(day.start, day.end, since=since) == set(day.ids()) - {gone}

    async def test_drift_follows_the_clock(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, drift=Drift(inserts_per_s=2)) as simulator:
            clock.now += 5
            assert (await asker.page(simulator)).json["pagination"]["count"] == 1210

    async def test_ties_are_shuffled_for_each_request(self, asker: Asker, clock: Clock) -> None:
        data = Dataset(segments=100, start=NOON_MS - DAY_MS, end=NOON_MS, burst=100)
        async with Simulator(data, clock=clock, drift=Drift(shuffle_ties=True), keep_bytes=10**6) as simulator:
            first, second = await asker.page(simulator), await asker.page(simulator)
        assert first.ids != second.ids
        assert set(first.ids) == set(second.ids)


class TestKeptPages:
    async def test_a_kept_page_is_the_same_until_something_changes(
        self, asker: Asker, clock: Clock, day: Dataset
    ) -> None:
        async with Simulator(day, clock=clock, keep_bytes=10**7) as simulator:
            first, second = await asker.page(simulator), await asker.page(simulator)
            added = simulator.insert(NOON_MS - 1)
            third = await asker.page(simulator)
        assert first.body == second.body
        assert added in third.ids
        assert simulator.stats.rows == 300

    async def test_a_kept_page_is_not_rendered_again(
        self, asker: Asker, clock: Clock, day: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with Simulator(day, clock=clock, keep_bytes=10**7) as simulator:
            first = await asker.page(simulator)
            monkeypatch.setattr(type(day.writer), "row", None)
            assert (await asker.page(simulator)).body == first.body

    @pytest.mark.parametrize(("room", "least", "most"), [(10**7, 3, 3), (50_000, 600, 1000), (0, 1200, 1300)])
    async def test_where_pages_change_their_rows_are_kept(
        self,
        asker: Asker,
        clock: Clock,
        day: Dataset,
        monkeypatch: pytest.MonkeyPatch,
        room: int,
        least: int,
        most: int,
    ) -> None:
        rendered, row = list[int](), RowWriter.row

        def noted(writer: RowWriter, number: int, close: int) -> bytes:
            rendered.append(number)
            return row(writer, number, close)

        monkeypatch.setattr(RowWriter, "row", noted)
        async with Simulator(day, clock=clock, drift=Drift(inserts_per_s=1), keep_bytes=room) as simulator:
            await asker.all_ids(simulator)
            rendered.clear()
            clock.now += 3
            assert (await asker.all_ids(simulator))[::-1] == simulator.ids(day.start, day.end)
        assert least <= len(rendered) <= most

    async def test_only_so_many_bytes_are_kept(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock, gzip=False, keep_bytes=100_000) as simulator:
            for _ in range(2):
                assert (await asker.all_ids(simulator, limit=100))[::-1] == list(day.ids())
            prepared = simulator._pages._prepared
            assert prepared is not None
            kept = [len(answer.answer.body) for answer in prepared._answers.values()]
        assert len(kept) == 2
        assert sum(kept) == prepared._bytes <= 100_000


class TestLatency:
    @pytest.fixture
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The seconds that answers would have taken."""
        seconds_of_each: list[float] = []

        async def note(seconds: float) -> None:
            if seconds:
                seconds_of_each.append(seconds)

        monkeypatch.setattr(service, "sleep", note)
        return seconds_of_each

    async def test_each_answer_takes_its_time(self, asker: Asker, day: Dataset, slept: list[float]) -> None:
        async with Simulator(day, clock=Clock(), latency_ms=(30, 120)) as simulator:
            for _ in range(20):
                await asker.page(simulator, limit=1)
        assert len(set(slept)) == 20
        assert all(0.03 <= seconds <= 0.12 for seconds in slept)
        assert max(slept) - min(slept) > 0.04

    async def test_every_answer_may_take_the_same_time(self, asker: Asker, day: Dataset, slept: list[float]) -> None:
        async with Simulator(day, clock=Clock(), latency_ms=40, limit=RateLimit(1)) as simulator:
            await asker.page(simulator)
            await asker.page(simulator)
            await asker.get(f"{simulator.base_url}/api/account/111111/service/sentinel/baseURI.json")
        assert slept == [0.04, 0.04, 0.04]

    async def test_between_two_answers_that_are_due_requests_can_arrive(
        self, asker: Asker, day: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rounds, answered, checked = count_from(), list[int](), Service._checked

        async def tick() -> None:
            while True:
                await asyncio.sleep(0)
                next(rounds)

        def noted(*given: Any) -> Any:
            answered.append(next(rounds))
            return checked(*given)

        monkeypatch.setattr(Service, "_checked", noted)
        ticking = asyncio.create_task(tick())
        async with Simulator(day, clock=Clock(), latency_ms=30) as simulator:
            await asyncio.gather(*(asker.page(simulator, offset=offset) for offset in range(8)))
        ticking.cancel()
        assert len(answered) == 8
        assert min(later - earlier for earlier, later in pairwise(answered)) > 1

    @pytest.mark.parametrize("latency", [-1, (5, 1), float("nan")])
    def test_a_wrong_latency_is_refused(self, day: Dataset, latency: Any) -> None:
        with pytest.raises(ValueError, match=r"^latency_ms must"):
            Simulator(day, latency_ms=latency)


class TestStats:
    async def test_requests_are_logged(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        faults = Faults(short_page=1.0)
        async with Simulator(day, clock=clock, faults=faults, log_size=2) as simulator:
            for offset in (0, 30, 60):
                await asker.page(simulator, limit=30, offset=offset)
        log = list(simulator.stats.log)
        asked = [one.query for one in log if one.query]
        assert [(one.offset, one.limit) for one in asked] == [(30, 30), (60, 30)]
        assert [one.number for one in log] == [2, 3]
        assert [(one.status, one.rows, one.fault) for one in log] == [(200, 20, "short_page")] * 2
        assert (log[0].at, asked[0].start, asked[0].end) == (clock.now, day.start, day.end)

    async def test_the_busiest_second_is_known(self, asker: Asker, clock: Clock, day: Dataset) -> None:
        async with Simulator(day, clock=clock) as simulator:
            for pause in (0, 0.5, 0.4, 0.2, 2, 0.9):
                clock.now += pause
                await asker.page(simulator, limit=1)
        assert simulator.stats.most_per_second == 3


async def test_a_port_can_be_chosen_and_must_be_free(clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        with pytest.raises(OSError, match="address already in use"):
            async with Simulator(day, clock=clock, port=simulator.port):
                pass
    async with Simulator(day, clock=clock, port=simulator.port) as again:
        assert again.port == simulator.port
