"""Large messages count against the budget for as long as they are held, on either side, and no longer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import msgpack
import pytest
import pytest_asyncio

import rpcfw
from rpcfw import Code, ConnectionOptions, RpcError, Server, Settings
from rpcfw.wire.frames import CHUNK, CREDIT, END, GOAWAY, HEADER, HELLO, ITEMS, MAGIC, REQUEST, RESET, frame
from tests.calls.place import Diary, Place, limits, until
from tests.calls.rawpeer import RawPeer, header

MB = 1_000_000
CANCEL = int(Code.CANCELLED)
ITEM_BYTES = 200_000
"""Fits one frame, so that the budget is not asked while it arrives, only once it is here."""


@rpcfw.service("tests.Contract")
class Warehouse:
    """Gives what is large, and takes it, or leaves it lying until the gate opens."""

    def __init__(self) -> None:
        self.diary = Diary()
        self.gate = asyncio.Event()

    async def nothing(self) -> None:
        pass

    async def give(self, size: int) -> bytes:
        return bytes(size)

    async def give_all(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)
            await asyncio.sleep(0)  # so that each leaves on its own

    async def take_later(self, items: AsyncIterator[bytes]) -> int:
        await self._wait()
        return sum([len(item) async for item in items])

    async def take_one(self, items: AsyncIterator[bytes]) -> int:
        size = len(await anext(items))
        await self._wait()
        return size

    async def take_none(self, items: AsyncIterator[bytes]) -> int:
        await self._wait()
        return 0

    async def _wait(self) -> None:
        self.diary.note("waiting")
        try:
            await self.gate.wait()
        finally:
            self.diary.note("ended")


class Yard:
    """A server of little memory, raw peers of it, and somebody whose calls must go on whatever those do."""

    def __init__(self, place: Place, server: Server, service: Warehouse) -> None:
        self.server = server
        self.service = service
        self.stub = place.connect(server).stub(Warehouse)
        self.peers: list[RawPeer] = []

    async def peer(self) -> RawPeer:
        self.peers.append(await RawPeer.connect(self.server))
        return self.peers[-1]

    async def is_free(self) -> bool:
        """Whether one reply may have all the memory; small calls go on in any case."""
        await self.stub.nothing()
        size = self.server.limits.max_memory_bytes - 10
        try:
            return len(await self.stub.give(size)) == size
        except RpcError as error:
            if error.code is not Code.RESOURCE_EXHAUSTED:
                raise
            return False


class Open(Protocol):
    async def __call__(self, max_memory_bytes: int, connection: Settings | None = None) -> Yard: ...


@pytest_asyncio.fixture
async def opened(here: Place) -> AsyncIterator[Open]:
    """Opens yards of so much memory."""
    yards: list[Yard] = []

    async def open_yard(max_memory_bytes: int, connection: Settings | None = None) -> Yard:
        service = Warehouse()
        allowed = limits(max_memory_bytes=max_memory_bytes, connection=connection or Settings())
        server = await here.serve(service, limits=allowed)
        yards.append(Yard(here, server, service))
        return yards[-1]

    yield open_yard
    for yard in yards:
        for peer in yard.peers:
            await peer.close()


async def outcomes(peer: RawPeer, streams: Iterable[int]) -> tuple[list[Any], list[RpcError]]:
    """What calls have given, and the errors of those that failed."""
    given, errors = [], []
    for stream in streams:
        try:
            given.append(await peer.reply(stream))
        except RpcError as error:
            errors.append(error)
    return given, errors


def items_frame(stream: int, *items: Any, flags: int = 0, count: int | None = None) -> bytes:
    return frame(ITEMS, flags, 0, stream, len(items) if count is None else count, msgpack.packb(items))


# ---------------------------------------------------------------------------------------------- large replies

BUDGET = 12 * MB
ASKED = 40


async def unread_replies(yard: Yard) -> RawPeer:
    """A peer that has asked for much more than the budget, and reads nothing of it."""
    peer = await yard.peer()
    peer.write(b"".join(peer.request("give", {"size": MB}) for _ in range(ASKED)))
    await until(lambda: yard.server.running)
    for _ in range(3):
        await yard.stub.nothing()
    return peer


async def test_large_replies_that_nobody_reads_are_refused_beyond_the_budget(opened: Open) -> None:
    yard = await opened(BUDGET)
    peer = await unread_replies(yard)
    assert not await yard.is_free()
    given, errors = await outcomes(peer, range(1, ASKED + 1))
    assert BUDGET // MB - 1 <= len(given) < ASKED / 2
    assert all(len(blob) == MB for blob in given)
    assert {(error.code, error.executed) for error in errors} == {(Code.RESOURCE_EXHAUSTED, True)}
    assert "of the 12,000,000 bytes this server gives them; try again later" in errors[0].message


@pytest.mark.parametrize("ending", ["read", "closed"])
async def test_the_memory_of_large_replies_is_free_once_they_are_sent_or_given_up(
    opened: Open, ending: str
) -> None:
    yard = await opened(BUDGET)
    peer = await unread_replies(yard)
    assert not await yard.is_free()
    if ending == "read":
        await outcomes(peer, range(1, ASKED + 1))
    else:
        await peer.close()
        await until(lambda: yard.server.running == 0)
    assert await yard.is_free()


async def test_a_request_and_its_reply_do_not_count_at_the_same_time(here: Place) -> None:
    @rpcfw.service("tests.Echo")
    class Echo:
        async def double(self, data: bytes) -> bytes:
            return data + data

    server = await here.serve(Echo(), limits=limits(max_memory_bytes=5 * MB))
    stub = here.connect(server).stub(Echo)
    assert len(await stub.double(bytes(2 * MB))) == 4 * MB
    with pytest.raises(RpcError, match="large messages hold 0 of the 5,000,000 bytes") as caught:
        await stub.double(bytes(3 * MB))
    assert (caught.value.code, caught.value.executed) == (Code.RESOURCE_EXHAUSTED, True)


# ---------------------------------------------------------------------------------------------- items received


async def unread_items(yard: Yard, method: str, calls: int, *items: Any, flags: int = 0) -> RawPeer:
    """A peer that has opened so many streams and sent the same items on each."""
    peer = await yard.peer()
    for _ in range(calls):
        peer.write(peer.request(method, {}, flags=0))
        peer.write(items_frame(peer.last_stream, *items, flags=flags))
    await yard.service.diary.until("waiting", calls)
    peer.write(peer.request("nothing", {}))
    assert await peer.reply(peer.last_stream) is None  # so all before it has arrived
    return peer


async def test_items_that_no_handler_takes_are_refused_beyond_the_budget(opened: Open) -> None:
    yard = await opened(MB)
    peer = await unread_items(yard, "take_later", 20, bytes(ITEM_BYTES), flags=END)
    assert not await yard.is_free()
    yard.service.gate.set()
    given, errors = await outcomes(peer, range(1, 21))
    assert given == [ITEM_BYTES] * 4
    assert {error.code for error in errors} == {Code.RESOURCE_EXHAUSTED}
    hold = "an item found no memory; large messages hold 800,024 of the 1,000,000 bytes of max_memory_bytes"
    assert hold in errors[0].message
    assert await yard.is_free()


async def test_items_for_which_the_reader_had_no_memory_leave_no_trace(opened: Open) -> None:
    yard = await opened(MB // 10)
    peer = await yard.peer()
    peer.write(peer.request("take_later", {}, flags=0))
    data = msgpack.packb([bytes(ITEM_BYTES)])
    for _ in range(2):  # the second comes to a stream that has failed already
        peer.write(
            frame(CHUNK, 0, 0, 1, len(data), data[:150_000]) + frame(ITEMS, 0, 0, 1, 1, data[150_000:])
        )
    peer.write(peer.request("nothing", {}))
    assert await peer.reply(2) is None
    yard.service.gate.set()
    with pytest.raises(RpcError, match="an item found no memory"):
        await peer.reply(1)


async def test_credit_comes_back_when_a_handler_takes_items_and_not_before(opened: Open) -> None:
    yard = await opened(MB)
    peer = await unread_items(yard, "take_later", 1, bytes(ITEM_BYTES))
    assert not [found for found in peer.frames if found[0] == CREDIT]
    yard.service.gate.set()
    *_, credit, _ = await peer.until(lambda f: f[0] == CREDIT)
    assert credit == ITEM_BYTES + 64 + 6
    peer.write(items_frame(1, b"", flags=END))
    assert await peer.reply(1) == ITEM_BYTES


async def test_the_memory_of_items_is_free_when_the_handler_has_taken_them(opened: Open) -> None:
    yard = await opened(MB)
    peer = await unread_items(yard, "take_one", 1, bytes(ITEM_BYTES))
    assert yard.server.running == 1
    assert await yard.is_free()
    yard.service.gate.set()
    assert await peer.reply(1) == ITEM_BYTES


@pytest.mark.parametrize("ending", ["handler_ends", "reset", "closed"])
async def test_the_memory_of_items_never_taken_is_free_when_their_call_is_over(
    opened: Open, ending: str
) -> None:
    yard = await opened(MB)
    peer = await unread_items(yard, "take_none", 3, bytes(ITEM_BYTES))
    assert not await yard.is_free()
    if ending == "handler_ends":
        yard.service.gate.set()
    elif ending == "reset":
        peer.write(b"".join(frame(RESET, 0, 0, stream, CANCEL) for stream in (1, 2, 3)))
    else:
        await peer.close()
    await yard.service.diary.until("ended", 3)
    await until(lambda: yard.server.running == 0)
    assert await yard.is_free()


async def test_large_items_that_do_not_fit_their_type_give_their_memory_back(opened: Open) -> None:
    yard = await opened(MB)
    peer = await unread_items(yard, "take_later", 10, "text" * 50_000)
    assert await yard.is_free()
    yard.service.gate.set()
    _, errors = await outcomes(peer, range(1, 11))
    assert [error.code for error in errors] == [Code.INVALID_ARGUMENT] * 10
    assert "an item does not fit" in errors[0].message


async def test_a_large_batch_that_lies_about_its_count_gives_its_memory_back(opened: Open) -> None:
    yard = await opened(MB)
    for _ in range(6):
        peer = await yard.peer()
        peer.write(peer.request("take_later", {}, flags=0))
        peer.write(items_frame(1, bytes(ITEM_BYTES), b"", count=1))
        _, reason = await peer.farewell()
        assert "a batch of 2 items says that it has 1" in reason
        await until(lambda: yard.server.running == 0)
    assert await yard.is_free()


async def test_a_client_refuses_items_it_does_not_take_beyond_its_budget(here: Place) -> None:
    server = await here.serve(Warehouse())
    client = here.connect(server, options=ConnectionOptions(max_memory_bytes=500_000))
    stub = client.stub(Warehouse)
    streams = []
    for _ in range(3):
        streams.append(stub.give_all([1, ITEM_BYTES]))
        assert len(await anext(streams[-1])) == 1
        for _ in range(3):
            await stub.nothing()  # meanwhile the large item comes
    with pytest.raises(RpcError, match="an item found no memory; large messages hold 400,012") as caught:
        await anext(streams[2])
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert len(await anext(streams[1])) == ITEM_BYTES
    assert len(await stub.give(299_000)) == 299_000
    await cast(Any, streams[0]).aclose()  # never taken
    assert len(await stub.give(499_000)) == 499_000
    assert [item async for item in streams[1]] == []


# ---------------------------------------------------------------------------------------------- announced, not sent


def resident_bytes() -> int:
    """What this process has of the machine's memory; buffers that the system has yet to fill are not in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("kind", [CHUNK, REQUEST])
async def test_a_message_that_is_announced_and_never_sent_costs_next_to_nothing(
    opened: Open, kind: int
) -> None:
    size = 100 * MB
    yard = await opened(10 * MB, Settings(max_message_bytes=size, max_frame_bytes=size))
    peers = [await yard.peer() for _ in range(5)]
    before = resident_bytes()
    for peer in peers:
        if kind == CHUNK:
            peer.write(frame(CHUNK, 0, 0, 1, size, bytes(10)))
        else:
            peer.write(header(size, REQUEST, method=1, stream=1) + bytes(10))
    await yard.stub.nothing()
    await yard.stub.nothing()
    assert resident_bytes() - before < size / 10
    assert len(await yard.stub.give(10 * MB - 100)) == 10 * MB - 100


async def test_a_stranger_gets_no_memory_for_a_long_hello_and_is_told_so(opened: Open) -> None:
    yard = await opened(MB)
    reader, writer = await asyncio.open_connection(yard.server.endpoint.host, yard.server.endpoint.port)
    writer.write(header(4097, HELLO, extra=MAGIC))
    said = await reader.read()
    writer.close()
    _, kind, _, _, _, code = HEADER.unpack_from(said)
    assert (kind, code) == (GOAWAY, Code.INVALID_ARGUMENT)
    assert b"a HELLO of 4,097 bytes is over the limit of 4,096" in said


async def test_a_server_may_say_more_in_its_hello_than_a_stranger(here: Place) -> None:
    async def nothing(self: Any) -> None:
        pass

    methods = {f"method_with_a_long_name_{number:04}": nothing for number in range(500)}
    many = rpcfw.service("tests.Many")(type("Many", (), methods))
    stub: Any = here.connect(await here.serve(many())).stub(many)
    assert await stub.method_with_a_long_name_0499() is None
