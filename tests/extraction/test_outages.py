"""Outages that end a run, and those that it waits out, over real sockets."""

from __future__ import annotations

import pytest

from segment_fetch import BearerToken, ClientCredentials, InputError, RetryPolicy, ServiceError
from segment_fetch.events import Event, PageRead, Paused, ServiceBack, ServiceDown
from segment_fetch.simulator import ClientCredentials as Login
from segment_fetch.simulator import Fault, Faults, Simulator
from tests.support_runs import END, START, client, now, settled

LOGIN = Login(client_id="client", client_secret="a-secret")
QUICK = RetryPolicy(server=(0.0,) * 3, network=(0.0,) * 3, parked=(0.0, 0.0), probe=0.01, patience=60)


def credentials() -> ClientCredentials:
    return ClientCredentials("client", "a-secret", clock=now)


async def test_a_login_service_that_never_answers_ends_the_run_after_one_row_of_attempts() -> None:
    always = Faults(error_503=1.0)
    async with Simulator(settled(6_000), auth=LOGIN, token_faults=always, clock=now) as simulator:
        async with client(simulator, auth=credentials(), retry=QUICK) as one:
            with pytest.raises(ServiceError, match="503"):
                await one.count(START, END)
        assert simulator.stats.token_requests == 4
        assert simulator.stats.requests == 0


async def test_a_login_service_that_is_down_for_a_while_is_waited_out() -> None:
    events: list[Event] = []
    async with Simulator(settled(20_000), auth=LOGIN, clock=now) as simulator:

        def break_login(event: Event) -> None:
            events.append(event)
            if isinstance(event, PageRead) and sum(isinstance(e, PageRead) for e in events) == 10:
                simulator.fail_next(Fault.ERROR_503, 40, of="token")
                simulator.revoke_tokens()

        async with client(simulator, auth=credentials(), retry=QUICK, on_event=break_login) as one:
            rows = [row.segmentId async for batch in one.stream(START, END) for row in batch]
        assert sorted(rows) == sorted(simulator.ids(START, END))
    assert [event for event in events if isinstance(event, ServiceDown)]
    assert [event for event in events if isinstance(event, ServiceBack)]


async def test_a_pause_longer_than_the_patience_is_not_waited_for() -> None:
    refusing = Faults(too_many=1.0, retry_after_s=86_400)
    simulator = Simulator(settled(100), faults=refusing, clock=now)
    async with simulator, client(simulator, auth=BearerToken("x"), retry=QUICK) as one:
        with pytest.raises(ServiceError, match="a pause of 24 h "):
            await one.count(START, END)


async def test_a_login_that_asks_for_a_longer_pause_ends_a_run_that_has_begun() -> None:
    told: list[Event] = []

    def refuse_login(event: Event) -> None:
        told.append(event)
        if isinstance(event, PageRead) and sum(isinstance(one, PageRead) for one in told) == 1:
            simulator.fail_next(Fault.TOO_MANY, 40, of="token")
            simulator.revoke_tokens()

    simulator = Simulator(settled(6_000), auth=LOGIN, token_faults=Faults(retry_after_s=86_400), clock=now)
    async with simulator, client(simulator, auth=credentials(), retry=QUICK, on_event=refuse_login) as one:
        with pytest.raises(ServiceError, match="a pause of 24 h "):
            assert [row async for batch in one.stream(START, END) for row in batch] == []
        assert simulator.stats.token_requests == 2
    assert [86_399 < event.seconds <= 86_400 for event in told if isinstance(event, Paused)] == [True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["patience", "probe", "parked", "server", "network"])
def test_delays_are_numbers_of_seconds(name: str, value: float) -> None:
    given = value if name in ("patience", "probe") else (value,)
    with pytest.raises(InputError, match="seconds"):
        RetryPolicy(**{name: given})  # type: ignore[arg-type]
