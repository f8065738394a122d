"""Deadlines in virtual time: when exactly they end a call, its handler, and whatever a call waits for."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgpack
import pytest

import rpcfw
from rpcfw import CallKind, Code, Endpoint, Origin, RpcError, Settings
from rpcfw.wire.frames import END, HELLO, REQUEST, frame
from rpcfw.wire.handshake import Hello
from tests.calls.contract import KINDS, Contract, Service, Step, call
from tests.calls.place import Place, connection_of, limits, until
from tests.calls.rawpeer import RawPeer
from tests.calls.virtual import now, virtual_time

MB = 1_000_000
TICK_S = 1e-5
"""What a deadline is cut down to on the wire."""


async def begin(place: Place, **options: Any) -> tuple[Service, Contract, rpcfw.Client]:
    service = Service()
    client = place.connect(await place.serve(service), **options)
    stub = client.stub(Contract)
    await stub.nothing()
    return service, stub, client


def within(stub: Contract, timeout_s: float) -> Contract:
    return cast(Contract, cast(Any, stub).with_options(timeout_s=timeout_s))


def server_links(place: Place) -> list[Any]:
    return [connection.session.link for server in place.servers for connection in server._connections]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value.replace(" ", "_"))
def test_a_call_ends_at_its_deadline_on_both_sides(kind: CallKind) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        service, stub, _ = await begin(place)
        with pytest.raises(RpcError, match=r"before the deadline|at its deadline") as caught:
            await call(within(stub, 3.5), kind, Step.WAIT)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert now() == pytest.approx(3.5, abs=2 * TICK_S)
        await service.diary.until("cancelled")
        assert now() == pytest.approx(3.5, abs=2 * TICK_S)
        await place.close()

    scenario()


@virtual_time
async def test_a_one_way_call_ends_at_its_deadline_though_nobody_waits_for_it() -> None:
    place = Place("mem")
    service, stub, client = await begin(place)
    await within(stub, 3).tell_slowly("x")
    await service.diary.until("telling")
    await client.close()
    await service.diary.until("cancelled")
    assert now() == pytest.approx(3, abs=2 * TICK_S)
    await place.close()


async def test_a_server_keeps_the_deadline_of_a_caller_that_does_not(here: Place) -> None:
    server = await here.serve(service := Service())
    peer = await RawPeer.connect(server)
    for name, argument in (("one", "step"), ("out", "step")):
        peer.last_stream += 1
        arguments = msgpack.packb({argument: "wait"})
        peer.write(frame(REQUEST, END, peer.method(name), peer.last_stream, 2000, arguments))
        error = await peer.refusal(peer.last_stream)
        assert (error.code, error.executed) == (Code.DEADLINE_EXCEEDED, True)
        assert "the handler was cancelled at its deadline" in error.message
    assert service.diary.counts["cancelled"] == service.diary.counts["waiting"]
    await peer.close()


@virtual_time
async def test_only_unary_calls_have_the_clients_timeout() -> None:
    place = Place("mem")
    _, stub, _ = await begin(place)
    with pytest.raises(RpcError, match="deadline"):
        await stub.one(Step.WAIT)
    assert now() == pytest.approx(10, abs=0.001)
    for kind in (CallKind.SERVER_STREAM, CallKind.CLIENT_STREAM, CallKind.BIDIRECTIONAL):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await call(stub, kind, Step.WAIT)
    await place.close()


@virtual_time
async def test_the_interfaces_timeout_goes_before_the_clients_and_the_callers_before_both() -> None:
    @rpcfw.service
    class Slow:
        @rpcfw.method(timeout_s=20)
        async def wait(self) -> None:
            await asyncio.sleep(1000)

    place = Place("mem")
    stub = place.connect(await place.serve(Slow()), timeout_s=5).stub(Slow)
    for waiting, expected in ((stub, 20), (within(cast(Any, stub), 2), 2), (within(cast(Any, stub), 30), 30)):
        began = now()
        with pytest.raises(RpcError):
            await cast(Slow, waiting).wait()
        assert now() - began == pytest.approx(expected, abs=0.001)
    await place.close()


@virtual_time
async def test_many_deadlines_each_end_their_own_call() -> None:
    place = Place("mem")
    _, stub, _ = await begin(place)
    ended: list[float] = []

    async def wait(timeout_s: float) -> None:
        with pytest.raises(RpcError):
            await within(stub, timeout_s).one(Step.WAIT)
        ended.append(now() - timeout_s)

    await asyncio.gather(*(wait(1 + number * 0.37) for number in range(300)))
    assert all(-2 * TICK_S < late < 0.005 for late in ended)
    await place.close()


@virtual_time
async def test_a_handler_is_cancelled_once_at_its_deadline_and_may_tidy_up() -> None:
    place = Place("mem")
    service, stub, _ = await begin(place)
    others = [asyncio.create_task(within(stub, 2.0 + n).one(Step.WAIT)) for n in range(3)]
    with pytest.raises(RpcError):
        await within(stub, 1).mend_slowly()
    await asyncio.wait(others)
    service.mending.set()
    await service.diary.until("mended")
    assert service.diary.counts["disturbed"] == 0
    assert [type(other.exception()) for other in others] == [RpcError] * 3
    await place.close()


@virtual_time
async def test_a_deadline_ends_the_wait_for_a_link_that_takes_no_bytes() -> None:
    place = Place("mem")
    _, stub, client = await begin(place)
    (link,) = server_links(place)
    link.pause_reading()
    stuck = [asyncio.create_task(stub.blob(bytes(MB))) for _ in range(2)]
    await until(lambda: connection_of(client).session.outbox.congested)
    began = now()
    with pytest.raises(RpcError, match="took no more bytes before the deadline") as caught:
        await within(stub, 2).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.DEADLINE_EXCEEDED, False)
    assert now() - began == pytest.approx(2, abs=0.001)
    link.resume_reading()
    await asyncio.gather(*stuck)
    await place.close()


@virtual_time
async def test_a_deadline_amid_a_large_item_ends_the_call_and_no_other() -> None:
    place = Place("mem")
    service, stub, client = await begin(place)
    connection = connection_of(client)
    link = cast(Any, connection.session.link)
    reading = asyncio.create_task(call_blobs(within(stub, 2)))
    while not any(c.session.outbox.congested for server in place.servers for c in server._connections):
        link.pause_reading()  # the client stops to read: the item stays on its way
        await asyncio.sleep(0)
    await asyncio.sleep(3)
    assert isinstance(reading.exception(), RpcError)
    waiting = asyncio.create_task(stub.one(Step.WAIT))
    link.resume_reading()
    await service.diary.until("waiting")
    service.gate.set()
    assert await waiting == 3
    assert connection_of(client) is connection
    await place.close()


async def call_blobs(stub: Contract) -> list[bytes]:
    return [blob async for blob in stub.blobs([10 * MB, 10 * MB])]


# ---------------------------------------------------------------------------------------------- while connecting


class Silent(asyncio.BufferedProtocol):
    """Accepts a link and says nothing; or says what it was given, at once."""

    def __init__(self, says: bytes = b"") -> None:
        self._says = says
        self._buffer = memoryview(bytearray(1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._says:
            cast(asyncio.Transport, transport).write(self._says)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        pass


async def stranger(place: Place, says: bytes = b"", **options: Any) -> tuple[rpcfw.Client, Contract]:
    """A client of something that is no server."""
    address = Endpoint.parse(place.address())
    await place.memory.listen(address, lambda: Silent(says))
    client = rpcfw.connect(address, transports=place.transports, middleware=[], **options)
    place.clients.append(client)
    return client, client.stub(Contract)


@virtual_time
async def test_a_listener_that_says_nothing_is_given_up_after_the_handshake_timeout() -> None:
    place = Place("mem")
    _, stub = await stranger(place)
    with pytest.raises(
        RpcError, match=r"did not answer the handshake within 5 s; is it an rpcfw server\?"
    ) as caught:
        await stub.nothing()
    error = caught.value
    assert (error.code, error.origin, error.executed) == (Code.UNAVAILABLE, Origin.CONNECTION, False)
    assert now() == pytest.approx(5)
    await place.close()


@virtual_time
async def test_a_deadline_ends_the_wait_for_a_connection() -> None:
    place = Place("mem")
    _, stub = await stranger(place)
    with pytest.raises(RpcError, match="no connection to mem://0 before the deadline") as caught:
        await within(stub, 1).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.DEADLINE_EXCEEDED, False)
    assert now() == pytest.approx(1)
    await place.close()


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", bytes(16)])
def test_another_protocol_is_told_by_its_first_bytes_and_at_once(says: bytes) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        _, stub = await stranger(place, says)
        with pytest.raises(RpcError, match="does not speak rpcfw: its first bytes are") as caught:
            await stub.nothing()
        assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
        assert repr(says[:16]) in caught.value.message
        assert now() == 0
        await place.close()

    scenario()


@virtual_time
async def test_a_call_that_waits_for_a_connection_fails_when_its_client_closes() -> None:
    place = Place("mem")
    client, stub = await stranger(place)
    calling = [asyncio.create_task(stub.nothing()) for _ in range(3)]
    await asyncio.sleep(1)
    await client.close()
    for error in await asyncio.gather(*calling, return_exceptions=True):
        assert isinstance(error, RpcError)
        assert (error.code, error.executed) == (Code.UNAVAILABLE, False)
        assert "closed" in error.message
    with pytest.raises(RpcError, match="this client is closed"):
        await stub.nothing()
    await place.close()


@virtual_time
async def test_a_call_cancelled_while_it_waits_for_a_connection_leaves_the_attempt_to_others() -> None:
    place = Place("mem")
    _, stub = await stranger(place)
    first, second = (asyncio.create_task(stub.nothing()) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert isinstance(second.exception(), RpcError)
    assert now() == pytest.approx(5)
    await place.close()


@virtual_time
async def test_a_client_that_never_says_hello_is_closed_with_the_reason() -> None:
    place = Place("mem")
    server = await place.serve(Service(), limits=limits(handshake_timeout_s=3))
    heard = bytearray()

    class Mute(Silent):
        def buffer_updated(self, nbytes: int) -> None:
            heard.extend(self._buffer[:nbytes])

    await place.memory.connect(server.endpoint, Mute)
    await asyncio.sleep(1)
    assert server.connections == 1
    await asyncio.sleep(4)
    assert server.connections == 0
    assert b"no HELLO within 3 s" in heard
    await place.close()


@virtual_time
async def test_a_server_that_drains_says_hello_first_to_a_client_that_has_not_yet() -> None:
    place = Place("mem")
    server = await place.serve(Service())
    heard = bytearray()

    class Slow(Silent):
        def buffer_updated(self, nbytes: int) -> None:
            heard.extend(self._buffer[:nbytes])

    link = await place.memory.connect(server.endpoint, Slow)
    await until(lambda: server.connections)
    draining = asyncio.create_task(server.drain(10))
    await asyncio.sleep(1)
    assert not heard
    link.write(Hello(Settings()).pack())
    await until(lambda: b"the server is shutting down" in heard)
    assert heard[4] == HELLO
    link.close()
    await draining
    await place.close()


@virtual_time
async def test_a_server_that_drains_while_a_client_connects_says_so() -> None:
    place = Place("mem")
    server = await place.serve(Service())
    client = place.connect(server, middleware=[])
    calling = asyncio.create_task(client.stub(Contract).nothing())
    await until(lambda: server.connections)
    draining = asyncio.create_task(server.drain(10))
    with pytest.raises(RpcError, match="the server is shutting down") as caught:
        await calling
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
    await draining
    assert now() < 1
    await place.close()
