"""What is too much is refused at once with a named reason, and other calls on the server go on unharmed."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import msgpack
import pytest
import pytest_asyncio

import rpcfw
from rpcfw import Code, ConnectionOptions, RpcError, Settings
from rpcfw.wire import large
from rpcfw.wire.frames import (
    CHUNK,
    CREDIT,
    END,
    HELLO,
    ITEMS,
    MAGIC,
    PING,
    PONG,
    REPLY,
    REQUEST,
    RESET,
    frame,
)
from tests.calls.contract import Contract, Service, Step
from tests.calls.place import Place, assert_idle, limits, until
from tests.calls.rawpeer import RawPeer, header

MB = 1_000_000
U32 = 0xFFFF_FFFF


class Shop:
    """A server under attack: what it serves, a raw peer of it, and a bystander whose call must not be harmed."""

    def __init__(self, place: Place, server: rpcfw.Server, service: Service) -> None:
        self.place = place
        self.server = server
        self.service = service
        self.bystander = place.connect(server, timeout_s=None).stub(Contract)
        self.waiting: asyncio.Task[int] | None = None
        self.peers: list[RawPeer] = []

    async def peer(self, settings: Settings | None = None) -> RawPeer:
        self.peers.append(await RawPeer.connect(self.server, settings))
        return self.peers[-1]

    async def open(self) -> None:
        self.waiting = asyncio.create_task(self.bystander.one(Step.WAIT))
        await self.service.diary.until("waiting")

    async def close(self) -> None:
        """Check that the bystander is unharmed, and that nothing is left of the attack."""
        assert self.waiting is not None
        assert not self.waiting.done()
        for peer in self.peers:
            await peer.close()
        self.service.mending.set()
        self.service.thread_gate.set()
        await until(lambda: self.server.running == 1)
        await self.bystander.nothing()
        self.service.gate.set()
        assert await self.waiting == 3
        await self.place.close()
        assert_idle(self.server)


Opened = Any


@pytest_asyncio.fixture
async def opened(here: Place) -> AsyncIterator[Opened]:
    """Opens shops with limits of one's own."""
    shops: list[Shop] = []

    async def open_shop(**changes: Any) -> Shop:
        service = Service()
        shops.append(Shop(here, await here.serve(service, limits=limits(**changes)), service))
        await shops[-1].open()
        return shops[-1]

    yield open_shop
    for shop in shops:
        await shop.close()


@pytest.fixture
def memory() -> Iterator[Any]:
    """Gives the most memory that Python has held at a time since the test asked first, in bytes."""
    large._allocators()  # a block that is never touched, and for a moment, but counted where it comes first
    tracemalloc.start()
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()


# ---------------------------------------------------------------------------------------------- bombs


def nested(depth: int) -> bytes:
    return b"\x91" * (depth - 1) + b"\x90"


BOMBS = {
    "nested_lists": nested(4 * MB),
    "nested_maps": b"\x81\xa1a" * (4 * MB // 3) + b"\x80",
    "empty_lists": b"\xdd" + (4 * MB).to_bytes(4, "big") + b"\x90" * (4 * MB),
    "empty_maps": b"\xdd" + (4 * MB).to_bytes(4, "big") + b"\x80" * (4 * MB),
    "claimed_list": b"\xdd\xff\xff\xff\xff",
    "claimed_map": b"\xdf\xff\xff\xff\xff",
    "claimed_text": b"\xdb\xff\xff\xff\xff",
    "claimed_blob": b"\xc6\xff\xff\xff\xff",
}


@rpcfw.service("tests.Contract")
class Anything:
    """Takes what may hold many containers."""

    async def anything(self, value: Any) -> int:
        return 1

    async def lists(self, value: list[list[int]]) -> int:
        return 1

    async def flat(self, value: list[int]) -> int:
        return 1


@pytest.mark.one_loop
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("method", ["anything", "lists"])
async def test_a_bomb_is_refused_at_little_cost(here: Place, memory: Any, method: str, bomb: str) -> None:
    server = await here.serve(Anything())
    peer = await RawPeer.connect(server)
    body = b"\x81\xa5value" + BOMBS[bomb]
    peer.write(peer.chunks(method, body) if len(body) > 100_000 else peer.request(method, body))
    error = await peer.refusal(1)
    assert (error.code, error.executed) == (Code.INVALID_ARGUMENT, False)
    assert f"{method}: " in error.message
    assert memory() < 40 * MB
    peer.write(peer.request("flat", {"value": [1]}))
    assert await peer.reply(2) == 1
    await peer.close()


async def test_a_bomb_in_metadata_is_the_callers_error(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    for metadata in (
        nested(10_000),
        b"\x81\xa1a" + nested(10_000),
        b"\xdf\xff\xff\xff\xff",
        b"\x90",
        b"\xc1",
    ):
        peer.write(peer.request("metadata", {}, metadata=metadata))
        error = await peer.refusal(peer.last_stream)
        assert error.code is Code.INVALID_ARGUMENT
        assert "metadata cannot be read" in error.message


async def test_a_bomb_among_items_is_refused(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(peer.request("into", {"step": "succeed"}, flags=0))
    peer.write(frame(ITEMS, 0, 0, 1, 1, nested(3000)))
    error = await peer.refusal(1)
    assert error.code is Code.INVALID_ARGUMENT
    assert "an item does not fit" in error.message


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("kind", [REQUEST, CHUNK, PING, 0, 77])
async def test_a_length_of_four_gigabytes_is_refused_at_its_header(
    opened: Opened, memory: Any, kind: int
) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(header(U32, kind, stream=1, extra=U32))
    code, reason = await peer.farewell()
    assert code is Code.INVALID_ARGUMENT
    assert "a frame of 4,294,967,295 bytes is over the limit of 262,144" in reason
    assert memory() < 5 * MB


async def test_a_message_of_four_gigabytes_is_refused_at_its_first_chunk(opened: Opened, memory: Any) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(frame(CHUNK, 0, 0, 1, U32, bytes(10)))
    _, reason = await peer.farewell()
    assert "a message of 4,294,967,295 bytes is over the limit of 16,777,216" in reason
    assert memory() < 5 * MB


async def test_a_hello_of_four_gigabytes_is_refused(here: Place) -> None:
    server = await here.serve(Service())
    peer = RawPeer(*await asyncio.open_connection(server.endpoint.host, server.endpoint.port))
    peer.write(header(U32, HELLO, extra=MAGIC))
    with pytest.raises(EOFError):
        await peer.until(lambda f: f[0] == REPLY)
    await peer.close()


async def test_too_many_chunked_messages_are_refused(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    for stream in range(1, 20):
        peer.write(frame(CHUNK, 0, 0, stream, MB, bytes(10)))
    _, reason = await peer.farewell()
    assert "more than 8 chunked messages at a time" in reason


@pytest.mark.parametrize("extra", ["too_much", "too_little"])
async def test_chunks_that_do_not_add_up_are_refused(opened: Opened, extra: str) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(frame(CHUNK, 0, 0, 1, 1000, bytes(500)))
    kind, size = (CHUNK, 501) if extra == "too_much" else (REQUEST, 1)
    peer.write(frame(kind, 0, 1, 1, 1000, bytes(size)))
    _, reason = await peer.farewell()
    assert "where 500 bytes of the message were left" in reason


async def test_endless_metadata_is_refused_with_its_size(opened: Opened, memory: Any) -> None:
    shop = await opened()
    peer = await shop.peer()
    big = msgpack.packb({f"name-{number}": "x" * 100 for number in range(2000)})
    peer.write(peer.request("metadata", {}, metadata=big))
    error = await peer.refusal(1)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert "metadata of 2" in error.message
    assert "over the limit of 16,384" in error.message
    # A length that the body does not hold, and one that says four gigabytes.
    peer.write(frame(REQUEST, END | 0x02, peer.method("metadata"), 9, 0, b"\xff\xff\xff\xff"))
    assert "metadata of 4,294,967,295 bytes" in (await peer.refusal(9)).message
    peer.write(frame(REQUEST, END | 0x02, peer.method("metadata"), 11, 0, b"\x10\0\0\0x"))
    assert "metadata of 16 bytes does not fit" in (await peer.refusal(11)).message
    assert memory() < 5 * MB


async def test_memory_for_large_messages_is_refused_beyond_the_budget_and_given_back(opened: Opened) -> None:
    shop = await opened(max_memory_bytes=5 * MB)
    peer = await shop.peer()
    blob = bytes(msgpack.packb({"data": bytes(3 * MB)}))
    for _ in range(3):  # what is given back can be taken again
        peer.write(peer.chunks("blob", blob))
        assert len(await peer.reply(peer.last_stream)) == 3 * MB
    begun = b"".join(
        frame(CHUNK, 0, 0, 77, len(blob), blob[at : at + 250_000]) for at in range(0, 2_750_000, 250_000)
    )
    peer.write(begun + peer.chunks("blob", blob))
    error = await peer.refusal(peer.last_stream)
    assert (error.code, error.executed) == (Code.RESOURCE_EXHAUSTED, False)
    assert "of the 5,000,000 bytes this server gives them" in error.message
    assert shop.server._resources.budget.used == 2_750_000  # what has come of the other message
    peer.write(frame(RESET, 0, 0, 77, int(Code.CANCELLED)) + peer.chunks("blob", blob))
    assert len(await peer.reply(peer.last_stream)) == 3 * MB
    assert shop.server._resources.budget.used == 0
    peer.write(frame(CHUNK, 0, 0, 88, 4 * MB, bytes(200_000)) + peer.request("nothing", {}))
    await peer.reply(peer.last_stream)
    assert shop.server._resources.budget.used == 200_000
    await peer.close()
    await until(lambda: not shop.server._resources.budget.used)


async def test_large_requests_that_are_refused_give_their_memory_back(opened: Opened) -> None:
    shop = await opened(max_memory_bytes=5 * MB)
    peer = await shop.peer()
    wrong = bytes(msgpack.packb({"data": [1] * 2 * MB}))
    for _ in range(7):
        peer.write(peer.chunks("blob", wrong))
        assert (await peer.refusal(peer.last_stream)).code is Code.INVALID_ARGUMENT
    assert shop.server._resources.budget.used == 0


async def test_a_large_item_without_memory_for_it_is_refused_by_name(opened: Opened) -> None:
    shop = await opened(max_memory_bytes=1 * MB)
    with pytest.raises(RpcError, match=r"found no memory.*of the 1,000,000 bytes") as caught:
        await shop.bystander.upload(b"", _items(2 * MB))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert await shop.bystander.upload(b"", _items(500_000, 500_000)) == MB


async def test_a_large_reply_without_memory_for_it_is_refused_by_the_client(here: Place) -> None:
    server = await here.serve(Service())
    stub = here.connect(server, options=ConnectionOptions(max_memory_bytes=MB)).stub(Contract)
    with pytest.raises(RpcError, match=r"found no memory.*max_memory_bytes") as caught:
        await stub.blob(bytes(2 * MB))
    assert (caught.value.code, caught.value.executed) == (Code.RESOURCE_EXHAUSTED, True)
    with pytest.raises(RpcError, match=r"found no memory.*max_memory_bytes") as caught:
        async for _ in stub.blobs([10, 2 * MB]):
            pass
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert await stub.blob(bytes(500_000)) == bytes(500_000)


async def _items(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


# ---------------------------------------------------------------------------------------------- counts


async def test_ten_thousand_open_streams_are_refused_beyond_the_limit(opened: Opened, memory: Any) -> None:
    shop = await opened()
    peer = await shop.peer()
    await peer.write_all(b"".join(peer.request("one", {"step": "wait"}) for _ in range(10_000)))
    refused = 0
    while refused < 10_000 - 2048:
        *_, body = await peer.until(lambda f: f[0] == REPLY)
        assert b"2,048 calls are open on this connection, which is its limit" in bytes(body)
        refused += 1
    assert shop.server.running == 2048 + 1
    assert memory() < 60 * MB
    await peer.close()
    await shop.service.diary.until("cancelled", 2048)


async def test_running_handlers_are_limited_over_all_connections(opened: Opened) -> None:
    shop = await opened(max_running=11)
    peers = [await shop.peer() for _ in range(3)]
    for peer in peers:
        for _ in range(5):
            await peer.write_all(peer.request("one", {"step": "wait"}))
    errors = [await asyncio.wait_for(peers[2].refusal(stream), 5) for stream in (1, 2, 3, 4, 5)]
    assert {error.code for error in errors} == {Code.RESOURCE_EXHAUSTED}
    assert "11 handlers run on this server, which is its limit" in errors[0].message
    await peers[0].close()
    await shop.service.diary.until("cancelled", 5)


async def test_connections_beyond_the_limit_are_refused_with_the_reason(opened: Opened) -> None:
    shop = await opened(max_connections=2)
    await shop.peer()
    client = shop.place.connect(shop.server, middleware=[])
    with pytest.raises(
        RpcError, match="this server has 2 connections, which is its limit; call another"
    ) as caught:
        await client.stub(Contract).nothing()
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
    await shop.peers[0].close()
    await client.close()
    await until(lambda: shop.server.connections == 1)
    await shop.place.connect(shop.server).stub(Contract).nothing()


@pytest.mark.parametrize("together", [True, False], ids=["in_one_read", "after_they_began"])
async def test_rapid_resets_run_no_more_handlers_than_the_limit(
    opened: Opened, memory: Any, together: bool
) -> None:
    shop = await opened(max_running=500)
    peer = await shop.peer()
    most = 0
    for _ in range(200):
        requests, resets = [], []
        for _ in range(100):
            requests.append(peer.request("mend_slowly", {}))
            resets.append(frame(RESET, 0, 0, peer.last_stream, int(Code.CANCELLED)))
        if together:
            pairs = zip(requests, resets, strict=True)
            await peer.write_all(b"".join(part for pair in pairs for part in pair))
        else:
            await peer.write_all(b"".join(requests))
            await shop.service.diary.until("waiting", min(shop.service.diary.counts["waiting"] + 1, 500))
            await peer.write_all(b"".join(resets))
        most = max(most, shop.server.running)
    peer.write(peer.request("nothing", {}))
    await peer.until(lambda f: f[0] == REPLY and f[3] == peer.last_stream)
    assert most <= 500
    assert memory() < 40 * MB


async def test_a_reset_handler_counts_until_it_has_ended(opened: Opened) -> None:
    shop = await opened(max_running=6)
    peer = await shop.peer()
    peer.write(b"".join(peer.request("mend_slowly", {}) for _ in range(5)))
    await shop.service.diary.until("waiting", 6)
    peer.write(b"".join(frame(RESET, 0, 0, stream, int(Code.CANCELLED)) for stream in range(1, 6)))
    await shop.service.diary.until("mending", 5)
    assert shop.server.running == 6
    peer.write(peer.request("nothing", {}))
    assert "6 handlers run on this server" in (await peer.refusal(6)).message
    shop.service.mending.set()
    await shop.service.diary.until("mended", 5)


async def test_threads_of_cancelled_calls_do_not_pile_up(opened: Opened) -> None:
    shop = await opened(max_running=40, threads=2)
    peer = await shop.peer()
    for _ in range(300):
        calling = peer.request("in_thread", {"word": "x"})
        calling += frame(RESET, 0, 0, peer.last_stream, int(Code.CANCELLED))
        peer.write(calling + peer.request("nothing", {}))
        await peer.until(lambda f: f[0] == REPLY and f[3] == peer.last_stream)
    assert shop.server.running <= 40
    shop.service.thread_gate.set()
    assert shop.service.diary.counts["in thread"] <= 2


async def test_a_flood_of_pings_is_sent_away(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(b"".join(frame(PING, 0, 0, 0, number) for number in range(10_000)))
    _, reason = await peer.farewell()
    assert "too many pings: at most one every 1 s is allowed" in reason
    assert sum(kind == PONG for kind, *_ in peer.frames) <= 11


async def test_a_client_that_reads_no_replies_is_read_no_more(opened: Opened, memory: Any) -> None:
    shop = await opened()
    peer = await shop.peer()
    reply_bytes = 20_000
    body = bytes(msgpack.packb({"data": bytes(reply_bytes)}))
    sent = 0
    while sent < 100 * MB:
        batch = b"".join(peer.request("blob", body) for _ in range(50))
        writing = asyncio.create_task(peer.write_all(batch))
        for _ in range(20):
            await shop.bystander.nothing()
        if not writing.done():
            writing.cancel()
            break
        sent += 50 * reply_bytes
    assert sent < 60 * MB, "the server reads on, and its replies pile up"
    assert memory() < 60 * MB


# ---------------------------------------------------------------------------------------------- the rules of frames

RULES = {
    "a second HELLO": (lambda peer: frame(HELLO, 0, 0, 0, MAGIC, b"\x80"), "a second HELLO"),
    "an unknown type": (lambda peer: frame(99, 0, 0, 1, 0), "unknown type"),
    "a REPLY": (lambda peer: frame(REPLY, END, 0, 1, 0), "a client may not send"),
    "a stream in use": (
        lambda peer: frame(REQUEST, END, peer.method("one"), 5, 0, b"\x81\xa4step\xa4wait") * 2,
        "stream 5 is in use",
    ),
    "an absurd credit": (
        lambda peer: (
            frame(REQUEST, END, peer.method("flood"), 5, 0, b"\x81\xa4size\x05") + frame(CREDIT, 0, 0, 5, U32)
        ),
        "at most 2,147,483,648 is allowed",
    ),
    "no credit left": (
        lambda peer: (
            frame(REQUEST, 0, peer.method("swallow"), 5, 0, b"\x81\xa5taken\x01")
            + frame(ITEMS, 0, 0, 5, 1, b"\x91\xc5\xff\xff" + bytes(65535)) * 6
        ),
        "without credit",
    ),
}


@pytest.mark.parametrize("rule", RULES)
async def test_a_peer_that_breaks_a_rule_is_told_which_and_sent_away(opened: Opened, rule: str) -> None:
    shop = await opened()
    peer = await shop.peer()
    data, expected = RULES[rule]
    peer.write(cast(Any, data)(peer))
    code, reason = await peer.farewell()
    assert code is Code.INVALID_ARGUMENT
    assert expected in reason


async def test_credit_for_the_other_way_may_come_amid_a_large_item(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    peer.write(peer.request("mirror", {}, flags=0))
    batch = bytes(msgpack.packb([bytes(MB)]))
    parts = [batch[start : start + 200_000] for start in range(0, len(batch), 200_000)]
    for part in parts[:-1]:
        peer.write(frame(CHUNK, 0, 0, 1, len(batch), part) + frame(CREDIT, 0, 0, 1, MB))
    peer.write(frame(ITEMS, END, 0, 1, 1, parts[-1]))
    found = await peer.until(lambda f: f[0] == ITEMS)
    assert bytes(found[5]) == batch


async def test_frames_of_calls_that_are_over_are_passed_over(opened: Opened) -> None:
    shop = await opened()
    peer = await shop.peer()
    late = [frame(RESET, 0, 0, 77, 1), frame(CREDIT, 0, 0, 77, 5), frame(ITEMS, END, 0, 77, 1, b"\x91\x01")]
    peer.write(b"".join(late) + peer.request("nothing", {}))
    assert await peer.reply(1) is None
