"""Memory links: names, who owns the bytes, and fairness, where sockets leave it to the system."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rpcfw.endpoint import Endpoint
from rpcfw.errors import Code, RpcError
from rpcfw.transport import MemoryTransport
from rpcfw.transport.memory import MAX_TURN_BYTES
from tests.transport.recorder import Meet, Recorder, link_of

SHOP = Endpoint.parse("mem://shop")


async def test_names_belong_to_the_transport_object(meet: Meet) -> None:
    here, there = MemoryTransport(), MemoryTransport()
    await meet(here, "mem://shop").listen()
    await meet(there, "mem://shop").listen()
    with pytest.raises(RpcError, match="mem://shop: connection refused; listen first, and through the same"):
        await MemoryTransport().connect(SHOP, Recorder)


async def test_a_taken_name_says_what_to_do(meet: Meet) -> None:
    transport = MemoryTransport()
    await meet(transport, "mem://shop").listen()
    with pytest.raises(OSError, match="close the listener of that name, or choose another name"):
        await transport.listen(SHOP, Recorder)


async def test_a_buffer_may_be_used_again_after_writing_it(meet: Meet) -> None:
    client, server = await meet(MemoryTransport(), "mem://shop").pair()
    buffer = bytearray(b"first")
    link_of(client).write(buffer)
    link_of(client).write(memoryview(buffer)[::-1])
    link_of(client).write(memoryview(buffer)[:2])
    buffer[:] = b"later"
    assert await server.until_received(12) == b"firsttsriffi"


async def test_one_turn_of_the_loop_delivers_a_bounded_number_of_bytes(meet: Meet) -> None:
    client, server = await meet(MemoryTransport(), "mem://shop").pair(lambda: MAX_TURN_BYTES * 4)
    link_of(client).write(bytes(MAX_TURN_BYTES * 3))
    amounts = []
    for _ in range(4):
        await asyncio.sleep(0)
        amounts.append(len(server.received) // MAX_TURN_BYTES)
    assert amounts == [1, 2, 3, 3]


async def test_the_write_buffer_is_what_the_peer_has_not_taken(meet: Meet) -> None:
    client, server = await meet(MemoryTransport(), "mem://shop").pair()
    link = link_of(client)
    link.set_write_buffer_limits(low=10)
    link_of(server).pause_reading()
    link.write(bytes(40))
    assert not client.writing_paused
    link.write(bytes(1))
    assert client.writing_paused
    assert link.get_write_buffer_size() == 41
    link_of(server).resume_reading()
    await client.until(lambda: not client.writing_paused)
    assert link.get_write_buffer_size() == 0


async def test_an_empty_buffer_breaks_the_link_as_with_sockets(meet: Meet) -> None:
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
    client, server = await meet(MemoryTransport(), "mem://shop").pair(lambda: 0)
    link_of(client).write(b"x")
    assert isinstance(await server.lost, RuntimeError)
    assert isinstance(await client.lost, ConnectionResetError)
    assert reports == ["the receiver of a link failed"]


async def test_an_abort_is_a_reset_for_the_peer(meet: Meet) -> None:
    client, server = await meet(MemoryTransport(), "mem://shop").pair()
    link_of(client).write(b"never arrives")
    link_of(client).abort()
    assert link_of(client).get_write_buffer_size() == 0
    assert await client.lost is None
    assert isinstance(await server.lost, ConnectionResetError)
    assert not server.received


async def test_a_server_whose_receiver_cannot_be_made_resets_the_client() -> None:
    def fail() -> Recorder:
        raise ZeroDivisionError("of the test")

    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
    transport = MemoryTransport()
    listener = await transport.listen(SHOP, fail)
    client = Recorder()
    await transport.connect(SHOP, lambda: client)
    assert isinstance(await client.lost, ConnectionResetError)
    assert reports == ["the receiver of an accepted link failed"]
    listener.close()


async def test_a_receiver_that_keeps_its_side_open_may_answer_until_it_closes(meet: Meet) -> None:
    class Lingering(Recorder):
        def eof_received(self) -> bool:  # type: ignore[override]  # asyncio allows None as well as a bool
            super().eof_received()
            return True

    transport = MemoryTransport()
    server = Lingering()
    listener = await transport.listen(SHOP, lambda: server)
    client = Recorder()
    link = await transport.connect(SHOP, lambda: client)
    link.write(b"x")
    link.close()
    assert await client.lost is None
    await server.until(lambda: server.ends == 1)
    assert not link_of(server).is_closing()
    link_of(server).write(b"into the void")
    link_of(server).close()
    assert await server.lost is None
    assert server.ends == 1
    listener.close()


async def test_a_pause_that_fails_is_reported_and_harms_nobody(meet: Meet) -> None:
    class Fragile(Recorder):
        def pause_writing(self) -> None:
            super().pause_writing()
            raise ZeroDivisionError("of the test")

    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["message"]))
    meeting = meet(MemoryTransport(), "mem://shop")
    endpoint = await meeting.listen()
    client = Fragile()
    link = await meeting.transport.connect(endpoint, lambda: client)
    meeting.clients.append(client)
    server = await meeting.accept()
    link.set_write_buffer_limits(high=1)
    link.write(b"all of it")
    assert await server.until_received(9) == b"all of it"
    assert reports == ["pause_writing() of a link's receiver failed"]


async def test_a_link_between_two_loops_is_refused(meet: Meet) -> None:
    transport = MemoryTransport()
    await meet(transport, "mem://shop").listen()
    errors: list[RpcError] = []

    def connect_from_another_loop() -> None:
        with pytest.raises(RpcError, match="another event loop: use tcp:// or unix://") as caught:
            asyncio.run(transport.connect(SHOP, asyncio.BufferedProtocol))
        errors.append(caught.value)

    thread = threading.Thread(target=connect_from_another_loop)
    thread.start()
    thread.join()
    assert [error.code for error in errors] == [Code.FAILED_PRECONDITION]
