"""Each fault as a client sees it on the wire, byte by byte."""

import asyncio
import gc
import socket
import struct
import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest

from segment_fetch.simulator import Dataset, Fault, Faults, Simulator
from tests.simulator.conftest import Asker, Clock, segments_url, until


class Wire:
    """One connection that is read without an HTTP library."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, path: str, encoding: str = "identity") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n".encode())
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers


async def connect(simulator: Simulator) -> Wire:
    return Wire(*await asyncio.open_connection(simulator.host, simulator.port))


def path(simulator: Simulator, limit: int = 500) -> str:
    data = simulator.dataset
    place = segments_url(simulator).removeprefix(simulator.base_url)
    return f"{place}?source=tests&limit={limit}&fromMillis={data.start}&toMillis={data.end}"


@pytest.fixture
async def simulator(clock: Clock, day: Dataset) -> Any:
    async with Simulator(day, clock=clock, faults=Faults(slow_body_s=0.02, retry_after_s=7)) as made:
        yield made


@pytest.fixture
async def wire(simulator: Simulator) -> Any:
    made = await connect(simulator)
    yield made
    made.writer.close()


async def faulty(simulator: Simulator, wire: Wire, fault: Fault) -> None:
    simulator.fail_next(fault)
    await wire.ask(path(simulator))


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        (Fault.TOO_MANY, 429, ("retry-after", "7")),
        (Fault.TOO_MANY_SILENT, 429, ("retry-after", None)),
        (Fault.ERROR_500, 500, ("content-type", "application/json")),
        (Fault.ERROR_503, 503, ("retry-after", None)),
        (Fault.ERROR_BODY, 200, ("content-type", "application/json")),
        (Fault.HTML, 200, ("content-type", "text/html")),
        (Fault.REDIRECT, 302, ("location", "/maintenance")),
    ],
)
async def test_an_answer_instead_of_the_right_one(
    asker: Asker, simulator: Simulator, fault: Fault, status: int, header: tuple[str, str | None]
) -> None:
    simulator.fail_next(fault)
    answer = await asker.page(simulator)
    assert answer.status == status
    assert answer.headers.get(header[0]) == header[1]
    assert b"segmentId" not in answer.body
    if fault in (Fault.ERROR_500, Fault.ERROR_BODY):
        assert isinstance(answer.json["internalCode"], int)
    assert simulator.stats.faults == {fault: 1}
    assert simulator.stats.answers == {status: 1}
    assert (await asker.page(simulator)).status == 200


async def test_a_dropped_connection_answers_nothing(simulator: Simulator, wire: Wire) -> None:
    await faulty(simulator, wire, Fault.DROP)
    assert await wire.reader.read() == b""
    assert simulator.stats.answers == {}


async def test_a_reset_comes_in_the_middle_of_the_body(simulator: Simulator, wire: Wire) -> None:
    await faulty(simulator, wire, Fault.RESET)
    await wire.head()
    with pytest.raises(ConnectionResetError):
        await wire.reader.read()


async def test_a_truncated_body_is_shorter_than_promised(simulator: Simulator, wire: Wire) -> None:
    await faulty(simulator, wire, Fault.TRUNCATED)
    status, headers = await wire.head()
    body = await wire.reader.read()
    assert status == 200
    assert len(body) == int(headers["content-length"]) // 2
    assert body.startswith(b'{"timeframe"')


@pytest.mark.parametrize(("fault", "starts"), [(Fault.STALL, False), (Fault.STALL_BODY, True)])
async def test_a_stall_ends_when_the_client_leaves(
    simulator: Simulator, wire: Wire, fault: Fault, starts: bool
) -> None:
    await faulty(simulator, wire, fault)
    if starts:
        _, headers = await wire.head()
        half = int(headers["content-length"]) // 2
        assert len(await wire.reader.readexactly(half)) == half
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.reader.read(1), 0.03)
    assert simulator.stats.in_flight == 1
    wire.writer.close()
    await until(lambda: simulator.stats.in_flight == 0)


async def test_stopping_ends_a_stall(clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock) as simulator:
        wire = await connect(simulator)
        await faulty(simulator, wire, Fault.STALL)
        await until(lambda: simulator.stats.in_flight == 1)
    assert await wire.reader.read() == b""
    assert simulator.stats.in_flight == 0
    wire.writer.close()


async def test_a_slow_body_is_whole_and_comes_in_pieces(simulator: Simulator, wire: Wire) -> None:
    await faulty(simulator, wire, Fault.SLOW_BODY)
    _, headers = await wire.head()
    first = await wire.reader.read(10**6)
    rest = await wire.reader.readexactly(int(headers["content-length"]) - len(first))
    assert len(first) <= int(headers["content-length"]) // 2
    assert len(orjson.loads(first + rest)["segments"]) == 500
    await wire.ask(path(simulator, limit=1))
    assert (await wire.head())[0] == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_bad_json_begins_well(asker: Asker, simulator: Simulator, encoding: str) -> None:
    simulator.fail_next(Fault.BAD_JSON)
    answer = await asker.page(simulator, {"Accept-Encoding": encoding})
    assert answer.status == 200
    assert answer.body.startswith(b'{"timeframe"')
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(answer.body)


async def test_a_short_page_has_the_right_count(asker: Asker, simulator: Simulator) -> None:
    simulator.fail_next(Fault.SHORT_PAGE)
    answer = await asker.page(simulator, limit=30)
    assert len(answer.ids) == 20
    assert answer.json["pagination"]["count"] == 1200


async def test_a_short_page_of_one_segment_is_empty(asker: Asker, simulator: Simulator) -> None:
    simulator.fail_next(Fault.SHORT_PAGE)
    assert (await asker.page(simulator, limit=1)).ids == []


async def test_a_stale_count_comes_with_the_right_rows(asker: Asker, simulator: Simulator) -> None:
    simulator.fail_next(Fault.STALE_COUNT)
    stale, right = await asker.page(simulator), await asker.page(simulator)
    assert stale.ids == right.ids
    assert stale.json["pagination"]["count"] < right.json["pagination"]["count"]


async def test_a_huge_body_is_small_on_the_wire_in_gzip(simulator: Simulator, wire: Wire) -> None:
    simulator.fail_next(Fault.HUGE)
    await wire.ask(path(simulator), "gzip")
    _, headers = await wire.head()
    packed = await wire.reader.readexactly(int(headers["content-length"]))
    assert headers["content-encoding"] == "gzip"
    assert len(packed) < 2**20
    assert struct.unpack("<I", packed[-4:])[0] > 64 * 2**20
    assert zlib.decompressobj(wbits=31).decompress(packed, 100).startswith(b'{"segments":[')


async def test_a_huge_body_is_huge_without(simulator: Simulator, wire: Wire) -> None:
    simulator.fail_next(Fault.HUGE)
    await wire.ask(path(simulator))
    _, headers = await wire.head()
    assert int(headers["content-length"]) > 64 * 2**20


async def test_shares_decide_by_number_and_can_be_exchanged(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock, faults=Faults(error_503=0.3, seed=5)) as simulator:
        statuses = [(await asker.page(simulator, limit=1)).status for _ in range(40)]
        assert 5 < statuses.count(503) < 20
        simulator.faults = Faults(error_500=1.0)
        assert (await asker.page(simulator)).status == 500
        assert simulator.faults.error_500 == 1.0
    async with Simulator(day, clock=clock, faults=Faults(error_503=0.3, seed=5)) as again:
        assert [(await asker.page(again, limit=1)).status for _ in range(40)] == statuses


async def test_other_requests_have_faults_of_their_own(asker: Asker, clock: Clock, day: Dataset) -> None:
    async with Simulator(day, clock=clock, domain_faults=Faults(error_503=1.0)) as simulator:
        url = f"{simulator.base_url}/api/account/111111/service/sentinel/baseURI.json?version=1.0"
        token_url = f"{simulator.base_url}/sentinel/api/v2/account/111111/app/token"
        simulator.fail_next("error_500", of="token")
        assert (await asker.get(url)).status == 503
        assert (await asker.get(token_url, method="POST")).status == 500
        assert (await asker.page(simulator)).status == 200


@pytest.mark.parametrize("connections", [1, 8, 30])
def test_connections_that_arrive_while_it_stops_are_closed(connections: int) -> None:
    for _ in range(5):
        with Simulator(Dataset(segments=1, start=0, end=1)).in_thread() as simulator:
            arrived = [socket.create_connection((simulator.host, simulator.port)) for _ in range(connections)]
        for one in arrived:
            one.settimeout(5)
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""
            one.close()
        del simulator
    gc.collect()  # a socket that is still open would be warned of here
