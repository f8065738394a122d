"""The life of connections in virtual time: backoff, keepalive, idleness, age, drain, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import Code, ConnectionOptions, Endpoint, RpcError
from rpcfw.connection.channel import Channel
from rpcfw.transport import Link
from rpcfw.transport.link import ReceiverFactory
from rpcfw.transport.memory import MemoryTransport
from rpcfw.wire.frames import CHUNK, MAX_STREAM_ID, frame
from tests.calls.contract import Contract, Service, Step
from tests.calls.place import Place, connection_of, in_flight, limits, until
from tests.calls.virtual import START_S, now, virtual_time


async def begin(
    place: Place, server_limits: Any = None, **options: Any
) -> tuple[Service, Contract, rpcfw.Client]:
    service = Service()
    server = await place.serve(service, limits=limits(**(server_limits or {})))
    client = place.connect(server, timeout_s=None, options=ConnectionOptions(**options))
    return service, client.stub(Contract), client


def server_link(place: Place) -> Any:
    (connection,) = place.servers[0]._connections
    return connection.session.link


class Dialling(MemoryTransport):
    """Notes when it is asked to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[float] = []

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        self.dialled.append(now())
        return await super().connect(endpoint, receiver)


# ---------------------------------------------------------------------------------------------- connecting


@virtual_time
async def test_attempts_to_connect_back_off_and_calls_meanwhile_fail_at_once() -> None:
    transport = Dialling()
    client = rpcfw.connect("mem://nobody", transports={"mem": transport}, middleware=[])
    stub = client.stub(Contract)
    (channel,) = client.channels
    ratios = set()
    for attempt in range(15):
        for attempts, complaint in ((attempt + 1, "connection refused"), (attempt + 1, "next attempt in")):
            called = now()
            with pytest.raises(
                RpcError, match="cannot connect to mem://nobody: connection refused"
            ) as caught:
                await stub.nothing()
            assert complaint in caught.value.message
            assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
            assert now() == called
            assert len(transport.dialled) == attempts
            assert isinstance(channel, Channel)
            assert channel.retry_at > asyncio.get_running_loop().time()
        wait_s, nominal_s = cast(Any, channel)._retry_at - START_S - now(), min(10.0, 0.1 * 1.6**attempt)
        ratios.add(wait_s / nominal_s)
        await asyncio.sleep(wait_s)
    assert all(0.799 <= ratio <= 1.201 for ratio in ratios)
    assert len(ratios) == 15, "no jitter"
    await client.close()


@virtual_time
async def test_calls_that_wait_for_a_connection_share_one_attempt() -> None:
    place = Place("mem")
    place.memory = transport = Dialling()
    place.transports["mem"] = transport
    service, stub, _ = await begin(place)
    await asyncio.gather(*(stub.nothing() for _ in range(50)))
    assert transport.dialled == [0.0]
    assert service.diary.counts["nothing"] == 50
    await place.close()


@virtual_time
async def test_a_client_connects_again_when_its_server_is_back() -> None:
    place = Place("mem")
    _, stub, _ = await begin(place)
    await stub.nothing()
    address = place.servers[0].endpoint
    await place.servers[0].close()
    with pytest.raises(RpcError) as caught:
        await stub.nothing()
    assert caught.value.code is Code.UNAVAILABLE
    await place.serve(Service(), listen=address)
    await asyncio.sleep(1)
    await stub.nothing()
    await place.close()


@virtual_time
async def test_a_pool_opens_as_many_connections_and_uses_all() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place, pool_size=3)
    for _ in range(20):
        await stub.nothing()
    assert place.servers[0].connections == 3
    calling = [asyncio.create_task(stub.one(Step.WAIT)) for _ in range(9)]
    await service.diary.until("waiting", 9)
    assert sorted(connection.running for connection in place.servers[0]._connections) == [3, 3, 3]
    service.gate.set()
    await asyncio.gather(*calling)
    await place.close()


@virtual_time
async def test_a_pool_goes_on_with_fewer_connections_when_the_server_grants_no_more() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    place = Place("mem")
    _, stub, _ = await begin(place, {"max_connections": 1}, pool_size=2)
    for _ in range(30):
        await stub.nothing()
        await asyncio.sleep(0.3)
    assert place.servers[0].connections == 1
    assert complaints == []
    await place.close()


@virtual_time
async def test_used_up_stream_ids_lead_to_another_connection_while_calls_go_on() -> None:
    place = Place("mem")
    service, stub, client = await begin(place)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    used = connection_of(client)
    used._next_stream = MAX_STREAM_ID
    for _ in range(3):
        await stub.nothing()
    assert connection_of(client) is not used
    service.gate.set()
    assert await waiting == 3
    await asyncio.sleep(1)
    assert place.servers[0].connections == 1
    await place.close()


# ---------------------------------------------------------------------------------------------- keepalive


@virtual_time
async def test_a_server_that_has_vanished_is_noticed_and_its_calls_fail() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    calling = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    server_link(place).pause_reading()
    began = now()
    with pytest.raises(RpcError, match="no sign of life") as caught:
        await calling
    assert caught.value.code is Code.UNAVAILABLE
    assert caught.value.executed is None
    assert now() - began == pytest.approx(15 + 5, abs=0.001)
    await place.close()


@virtual_time
async def test_a_client_that_has_vanished_is_noticed_and_its_handlers_are_cancelled() -> None:
    place = Place("mem")
    service, stub, client = await begin(place, keepalive_s=None)
    calling = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    cast(Any, connection_of(client).session.link).pause_reading()
    began = now()
    await service.diary.until("cancelled")
    assert now() - began == pytest.approx(60 + 20, abs=0.001)
    await asyncio.wait([calling])
    await place.close()


@virtual_time
async def test_quiet_connections_live_on_as_long_as_pings_are_answered() -> None:
    place = Place("mem")
    service, stub, client = await begin(place)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    connection = connection_of(client)
    await asyncio.sleep(3600)
    assert connection_of(client) is connection
    load = connection.session.peer_load
    assert (load["running"], load["draining"]) == (1, False)
    service.gate.set()
    assert await waiting == 3
    await place.close()


@virtual_time
async def test_a_client_that_pings_too_often_is_sent_away_with_the_reason() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place, keepalive_s=0.2, keepalive_timeout_s=0.2)
    with pytest.raises(RpcError, match="too many pings: at most one every 1 s is allowed"):
        await stub.one(Step.WAIT)
    assert now() < 6
    await service.diary.until("cancelled")
    await place.close()


@virtual_time
async def test_a_round_trip_can_be_measured_and_fails_when_the_link_is_gone() -> None:
    place = Place("mem")
    _, stub, client = await begin(place)
    await stub.nothing()
    session = connection_of(client).session
    assert await session.ping() == 0
    server_link(place).pause_reading()
    pinging = asyncio.create_task(session.ping())
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(ConnectionError):
        await pinging
    with pytest.raises(ConnectionError):
        await session.ping()
    await place.close()


# ---------------------------------------------------------------------------------------------- idle and old


@virtual_time
async def test_an_unused_connection_is_closed_and_opened_again_by_the_next_call() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place, idle_s=100)
    await stub.nothing()
    await asyncio.sleep(90)
    await stub.nothing()
    await asyncio.sleep(90)
    assert place.servers[0].connections == 1
    await asyncio.sleep(30)
    assert place.servers[0].connections == 0
    await stub.nothing()
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await asyncio.sleep(1000)
    assert not waiting.done()
    service.gate.set()
    assert await waiting == 3
    await place.close()


@virtual_time
async def test_one_way_calls_are_use() -> None:
    place = Place("mem")
    _, stub, client = await begin(place, idle_s=100)
    await stub.tell("x")
    connection = connection_of(client)
    for _ in range(10):
        await asyncio.sleep(60)
        await stub.tell("x")
    assert connection_of(client) is connection
    await place.close()


@virtual_time
async def test_a_server_sends_unused_connections_away() -> None:
    place = Place("mem")
    _, stub, _ = await begin(place, {"idle_s": 50}, idle_s=None)
    await stub.nothing()
    await asyncio.sleep(45)
    assert place.servers[0].connections == 1
    await asyncio.sleep(10)
    assert place.servers[0].connections == 0
    await stub.nothing()
    await place.close()


@pytest.mark.parametrize("side", ["client", "server"])
def test_an_old_connection_is_replaced_while_its_calls_end_on_it(side: str) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        if side == "client":
            service, stub, client = await begin(place, max_age_s=100)
        else:
            service, stub, client = await begin(place, {"max_age_s": 100})
        waiting = asyncio.create_task(stub.one(Step.WAIT))
        await service.diary.until("waiting")
        old = connection_of(client)
        await asyncio.sleep(115)
        await stub.nothing()
        assert connection_of(client) is not old
        assert place.servers[0].connections == 2
        service.gate.set()
        assert await waiting == 3
        await asyncio.sleep(0.1)
        assert place.servers[0].connections == 1
        assert old.session.closed
        await place.close()

    scenario()


# ---------------------------------------------------------------------------------------------- the end of a server


@virtual_time
async def test_a_drain_ends_with_the_last_call() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    asyncio.get_running_loop().call_later(7, service.gate.set)
    await place.servers[0].drain(60)
    assert now() == pytest.approx(7, abs=0.1)
    assert await waiting == 3
    await place.close()


@pytest.mark.parametrize("ending", ["error_of_the_source", "cancelled", "wrong_item", "deadline"])
def test_a_drain_ends_however_the_last_call_does(ending: str) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        service, stub, client = await begin(place)
        go_on = asyncio.Event()

        async def source() -> AsyncIterator[int]:
            yield 1
            yield 2
            await go_on.wait()
            raise ZeroDivisionError

        async def wrong_items() -> None:
            async for _ in stub.wrong_items():
                await go_on.wait()

        timed = cast(Any, stub).with_options(timeout_s=5 if ending == "deadline" else None)
        calling = asyncio.create_task(
            wrong_items() if ending == "wrong_item" else timed.into(Step.WAIT, source())
        )
        await until(lambda: in_flight(client))
        await asyncio.sleep(1)
        draining = asyncio.create_task(place.servers[0].drain(60))
        await asyncio.sleep(1)
        if ending == "cancelled":
            calling.cancel()
        elif ending != "deadline":
            go_on.set()
        await draining
        assert now() == pytest.approx(5 if ending == "deadline" else 2, abs=0.01)
        await asyncio.wait([calling])
        assert calling.cancelled() or calling.exception()
        await place.close()

    scenario()


@virtual_time
async def test_a_drain_cuts_off_at_the_end_of_the_grace() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await stub.tell_slowly("never")
    await service.diary.until("waiting", 2)
    await place.servers[0].drain(7)
    assert now() == pytest.approx(7, abs=0.1)
    assert service.diary.counts["cancelled"] == 2
    assert place.servers[0].running == 0
    with pytest.raises(RpcError) as caught:
        await waiting
    assert caught.value.code is Code.UNAVAILABLE
    await place.close()


@virtual_time
async def test_cancelling_a_drain_ends_it_at_once() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    await service.diary.until("waiting")
    draining = asyncio.create_task(place.servers[0].drain(60))
    await asyncio.sleep(1)
    draining.cancel()
    await asyncio.wait([draining])
    await place.servers[0].wait_closed()
    assert now() < 3
    await asyncio.wait([waiting])
    await place.close()


@virtual_time
async def test_a_handler_that_does_not_end_does_not_hold_up_the_server_for_ever() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    waiting = asyncio.create_task(stub.mend_slowly())
    await service.diary.until("waiting")
    await place.servers[0].drain(5)
    assert now() == pytest.approx(6, abs=0.1)
    assert place.servers[0].running == 1
    service.mending.set()
    await service.diary.until("mended")
    await asyncio.wait([waiting])
    await place.close()


@virtual_time
async def test_a_peer_that_reads_nothing_does_not_hold_up_the_end() -> None:
    place = Place("mem")
    _, stub, client = await begin(place, keepalive_s=None)
    await stub.nothing()
    cast(Any, connection_of(client).session.link).pause_reading()
    link = server_link(place)
    reading = asyncio.create_task(stub.blob(bytes(10_000_000)))
    await until(link.get_write_buffer_size)
    await place.servers[0].drain(3)
    assert now() < 5
    await asyncio.sleep(10)
    assert link.get_write_buffer_size() == 0
    assert link.is_closing()
    await client.close()
    await asyncio.wait([reading])
    await place.close()


@virtual_time
async def test_a_message_that_comes_to_a_stand_ends_its_connection_and_gives_its_memory_back() -> None:
    place = Place("mem")
    _, stub, client = await begin(place)
    await stub.nothing()
    link = connection_of(client).session.link
    budget = place.servers[0]._resources.budget
    link.write(frame(CHUNK, 0, 0, 99, 4_000_000, bytes(200_000)))
    await asyncio.sleep(20)
    assert budget.used == 200_000
    link.write(frame(CHUNK, 0, 0, 99, 4_000_000, bytes(200_000)))  # it goes on, so it may go on
    await asyncio.sleep(20)
    assert budget.used == 400_000
    assert not connection_of(client).session.closed
    old = connection_of(client)
    await asyncio.sleep(15)
    assert old.session.closed
    assert budget.used == 0
    await stub.nothing()  # over a new connection
    await place.close()
