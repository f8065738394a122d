"""Large messages as the other end of the link sees them: in turn, within their credit, and with an end of their own."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest
import pytest_asyncio

import rpcfw
from rpcfw import Code, ConnectionOptions, Origin, RpcError, Settings
from rpcfw.wire.frames import CHUNK, END, GOAWAY, ITEMS, ONEWAY, REPLY, REQUEST, RESET, frame
from tests.calls.contract import Contract, Service
from tests.calls.handpeer import Hands, Message, Peer
from tests.calls.place import Place, connection_of, in_flight, limits
from tests.calls.virtual import now, virtual_time

MB = 1_000_000
FRAME_BYTES = 16 * 1024
LINK_BYTES = 256 * 1024
"""What may lie in a link unread before its writer is asked to wait."""
PLENTY = 1 << 30
"""Credit that is never used up."""
TURNS = 20
"""Turns of the loop in which a sender does all that it can do without news."""


@pytest_asyncio.fixture
async def hands() -> AsyncIterator[Hands]:
    hands = Hands()
    yield hands
    await hands.close()


class Pausing(Service):
    """Lets the loop turn after each blob."""

    async def blobs(self, sizes: list[int]) -> AsyncIterator[bytes]:
        async for blob in blobs(sizes):
            yield blob


async def blobs(sizes: list[int], pauses: list[int] | None = None) -> AsyncIterator[bytes]:
    """Blobs that differ, with turns of the loop after each."""
    for number, (size, turns) in enumerate(zip(sizes, pauses or itertools.cycle((1, 2, 3)), strict=False)):
        yield bytes([number % 256]) * size
        await turn(turns)


async def turn(turns: int = TURNS) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def blobs_of(sizes: list[int]) -> list[bytes]:
    return [bytes([number % 256]) * size for number, size in enumerate(sizes)]


# ---------------------------------------------------------------------------------------------- in turn

SIZES = [20_000, 30_000, 25_000, 10, 100_000, 17_000, 40_000, 70_000, 20_001]
"""Below a frame, two frames that wait for a turn of the loop, and more, which are sent at once."""


def traffic(stub: Contract) -> list[asyncio.Task[None]]:
    """Large messages on the same link, which hold each other up."""
    return [asyncio.create_task(stub.send(bytes(200_000))) for _ in range(7)]


async def test_large_messages_of_a_callers_stream_go_out_one_after_the_other(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    others = traffic(stub)
    uploading = asyncio.create_task(stub.upload(b"", blobs(SIZES)))
    stream = (await peer.message(lambda m: m.is_end(ITEMS))).stream
    assert peer.items(stream) == blobs_of(SIZES)
    peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
    assert await uploading == 7
    await asyncio.gather(*others)


async def test_large_messages_of_a_handlers_stream_go_out_one_after_the_other(hands: Hands) -> None:
    server = await hands.place.serve(Pausing())
    peer = await hands.connect(server, max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    for stream in range(1, 9):
        peer.call("blobs", {"sizes": SIZES}, stream)
    await peer.until(lambda: sum(m.is_end(REPLY) for m in peer.messages) == 8)
    for stream in range(1, 9):
        assert peer.items(stream) == blobs_of(SIZES)


async def test_items_wait_for_the_large_request_that_their_stream_begins_with(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    for sizes in ([40_000], [20_000], [10], []):
        uploading = asyncio.create_task(stub.upload(bytes(MB), blobs(sizes)))
        stream = (await peer.message(lambda m: m.is_end(ITEMS))).stream
        assert peer.items(stream) == blobs_of(sizes)
        assert next(m.kind for m in peer.messages if m.stream == stream) == REQUEST
        peer.messages.clear()
        peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
        assert await uploading == 7


@pytest.mark.parametrize("last", [20_000, 400_000])
async def test_the_end_of_a_stream_waits_for_its_last_large_message(hands: Hands, last: int) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    uploading = asyncio.create_task(stub.upload(b"", blobs([last], [0])))
    stream = (await peer.message(lambda m: m.is_end(ITEMS))).stream
    assert peer.items(stream) == blobs_of([last])
    peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
    assert await uploading == 7

    caller = await hands.connect(await hands.place.serve(Service()), max_frame_bytes=FRAME_BYTES)
    caller.call("blobs", {"sizes": [last]}, 1)
    await caller.message(lambda m: m.is_end(REPLY))
    assert caller.items(1) == blobs_of([last])


@pytest.mark.parametrize("seed", range(2))
async def test_streams_of_large_messages_both_ways_arrive_whole_and_in_order(place: Place, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    small = Settings(max_frame_bytes=FRAME_BYTES)
    server = await place.serve(Service(), limits=limits(connection=small))
    client = place.connect(server, options=ConnectionOptions(settings=small))
    stub = client.stub(Contract)
    await stub.nothing()
    connection = connection_of(client)

    async def mirror() -> None:
        sizes = [rng.choice((10, 5_000, 17_000, 32_000, 50_000, 150_000)) for _ in range(15)]
        pauses = [rng.randrange(4) for _ in sizes]
        assert [blob async for blob in stub.mirror(blobs(sizes, pauses))] == blobs_of(sizes)

    await asyncio.gather(*(mirror() for _ in range(10)))
    assert connection_of(client) is connection


# ---------------------------------------------------------------------------------------------- credit


async def feed(peer: Peer, stream: int, credit: int) -> None:
    """Give credit in small portions until the stream ends, each once the sender has done all that it can."""
    while not any(m.is_end(kind, stream) for m in peer.messages for kind in (ITEMS, REPLY)):
        await turn()
        peer.grant(stream, credit)


async def test_a_caller_that_makes_room_in_a_message_obeys_the_credit_that_is_left_then(hands: Hands) -> None:
    peer, stub = await hands.serve(window_bytes=5_000, max_message_bytes=10_000)
    sizes = [8_000, 8_000, 1_000, 9_900, 100, 5_000, 5_000]
    uploading = asyncio.create_task(stub.upload(b"", blobs(sizes, [0] * len(sizes))))
    stream = (await peer.message(lambda m: m.kind == ITEMS)).stream
    await feed(peer, stream, 1_500)
    assert peer.items(stream) == blobs_of(sizes)
    peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
    assert await uploading == 7


async def test_a_handler_that_makes_room_in_a_message_obeys_the_credit_that_is_left_then(
    hands: Hands,
) -> None:
    sizes = [8_000, 8_000, 1_000, 9_900, 100, 5_000, 5_000]
    peer = await hands.connect(
        await hands.place.serve(Service()), window_bytes=5_000, max_message_bytes=10_000
    )
    peer.call("blobs", {"sizes": sizes}, 1)
    await feed(peer, 1, 1_500)
    assert peer.items(1) == blobs_of(sizes)


async def test_a_caller_with_credit_stops_where_the_link_takes_no_more(hands: Hands) -> None:
    size, yielded = 10_000, 0
    peer, stub = await hands.serve(window_bytes=PLENTY)
    peer.hold()

    async def many() -> AsyncIterator[bytes]:
        nonlocal yielded
        while yielded < 1_000:
            yielded += 1
            yield bytes(size)
            await asyncio.sleep(0)

    uploading = asyncio.create_task(stub.upload(b"", many()))
    await turn(500)
    assert LINK_BYTES / size < yielded < LINK_BYTES / size + 10
    peer.read_on()
    stream = (await peer.message(lambda m: m.is_end(ITEMS))).stream
    assert len(peer.items(stream)) == 1_000
    peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
    assert await uploading == 7


@pytest.mark.parametrize("turns", range(4))
async def test_who_has_waited_for_the_link_obeys_the_credit_that_is_left_then(
    hands: Hands, turns: int
) -> None:
    frame_bytes, sizes = 20_000, [30_000, 2_000, 2_000, 2_000]
    peer, stub = await hands.serve(window_bytes=31_000, max_frame_bytes=frame_bytes)
    peer.hold()
    others: list[asyncio.Task[None]] = []

    async def fill_the_link() -> None:
        await turn(turns)
        await stub.send(bytes(frame_bytes - 100))

    async def pieces() -> AsyncIterator[bytes]:
        others.extend(asyncio.create_task(fill_the_link()) for _ in range(20))
        async for blob in blobs(sizes, [1, 3, 1, 1]):
            yield blob

    uploading = asyncio.create_task(stub.upload(b"", pieces()))
    await turn()
    peer.read_on()
    stream = (await peer.message(lambda m: m.kind == ITEMS)).stream
    await feed(peer, stream, 500)
    assert peer.items(stream) == blobs_of(sizes)
    peer.say(frame(REPLY, END, 0, stream, 0, b"\x07"))
    assert await uploading == 7
    await asyncio.gather(*others)


@pytest.mark.parametrize("seed", range(10))
async def test_many_streams_on_a_slow_link_with_little_credit_break_no_rule(hands: Hands, seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    few: dict[str, Any] = {"max_frame_bytes": FRAME_BYTES, "max_message_bytes": 50_000, "window_bytes": 3_000}
    peer, stub = await hands.serve(max_assemblies=2, **few)
    server = await hands.place.serve(Pausing())
    caller = await hands.connect(server, max_assemblies=3, **few)
    plans = [[rng.choice((50, 2_000, 17_000, 49_000)) for _ in range(rng.randrange(1, 12))] for _ in range(6)]
    for stream, sizes in enumerate(plans, 1):
        caller.call("blobs", {"sizes": sizes}, stream)
    uploads = [
        asyncio.create_task(stub.upload(bytes(rng.choice((10, 40_000))), blobs(sizes))) for sizes in plans
    ]

    for end, kind in ((caller, REPLY), (peer, ITEMS)):
        while sum(m.is_end(kind) for m in end.messages) < len(plans):
            end.read_on(rng.randrange(1, 8))
            await turn(rng.randrange(8))
            needy = [stream for stream, credit in end.credit.items() if credit <= 0]
            for stream in rng.sample(needy, min(2, len(needy))):
                end.grant(stream, rng.randrange(1, 20_000))
    first = min(m.stream for m in peer.messages if m.is_end(ITEMS))
    for stream, sizes in enumerate(plans):
        assert caller.items(1 + stream) == blobs_of(sizes)
        assert peer.items(first + stream) == blobs_of(sizes)
        peer.say(frame(REPLY, END, 0, first + stream, 0, b"\x07"))
    assert await asyncio.gather(*uploads) == [7] * len(plans)


# ---------------------------------------------------------------------------------------------- one-way calls

SIZE = 5 * MB


async def stuck(peer: Peer, stub: Contract, timeout_s: float | None = None) -> asyncio.Task[None]:
    """A one-way call whose first parts have come, and whose others wait for a peer that does not read."""
    timed = stub if timeout_s is None else rpcfw.with_options(stub, timeout_s=timeout_s)
    sending = asyncio.create_task(timed.send(bytes(SIZE)))
    await peer.until(lambda: any(kind == CHUNK for kind, _ in peer.came))
    peer.hold()
    await turn()
    assert not sending.done()
    return sending


def sent(message: Message) -> bool:
    """Whether it is the one-way call, whole."""
    return message.kind == REQUEST and bool(message.flags & ONEWAY) and len(message.body) > SIZE


async def test_a_large_one_way_call_returns_once_it_is_out_and_counts_until_then(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    (client,) = hands.place.clients
    sending = await stuck(peer, stub)
    assert in_flight(client) == 1
    peer.read_on()
    await sending
    assert in_flight(client) == 0
    assert msgpack.unpackb((await peer.message(sent)).body) == {"data": bytes(SIZE)}


async def test_a_small_call_passes_a_large_one_way_call(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    sending = asyncio.create_task(stub.send(bytes(SIZE)))
    await peer.until(lambda: any(kind == CHUNK for kind, _ in peer.came))
    for _ in range(3):
        await stub.nothing()
    assert not sending.done()
    assert not any(map(sent, peer.messages))
    await sending


@virtual_time
async def test_a_deadline_ends_a_large_one_way_call_and_no_other() -> None:
    hands = Hands()
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    began = now()
    sending = await stuck(peer, stub, 2.0)
    with pytest.raises(RpcError, match="before the deadline") as caught:
        await sending
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert now() - began == pytest.approx(2, abs=0.001)
    peer.read_on()
    reset = await peer.message(lambda m: m.kind == RESET)
    assert (reset.stream, reset.extra) == (peer.came[-1][1], Code.DEADLINE_EXCEEDED)
    await stub.nothing()
    assert not any(map(sent, peer.messages))
    await hands.close()


@virtual_time
async def test_a_deadline_ends_a_large_one_way_call_that_waits_for_another_to_make_way() -> None:
    hands = Hands()
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    first = await stuck(peer, stub)
    began = now()
    with pytest.raises(RpcError, match="took no more bytes before the deadline") as caught:
        await rpcfw.with_options(stub, timeout_s=2.0).send(bytes(SIZE))
    assert (caught.value.code, caught.value.executed) == (Code.DEADLINE_EXCEEDED, False)
    assert now() - began == pytest.approx(2, abs=0.001)
    peer.read_on()
    await first
    await hands.close()


async def test_a_large_one_way_call_that_its_caller_gives_up_is_reset(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    sending = await stuck(peer, stub)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    peer.read_on()
    assert (await peer.message(lambda m: m.kind == RESET)).extra == Code.CANCELLED
    await stub.nothing()
    assert not any(map(sent, peer.messages))


async def test_a_lost_link_fails_the_large_one_way_calls_that_were_not_out(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    begun = await stuck(peer, stub)
    waiting = asyncio.create_task(stub.send(bytes(SIZE)))
    await turn()
    peer.link.abort()
    errors = await asyncio.gather(begun, waiting, return_exceptions=True)
    for error, executed in zip(errors, (None, False), strict=True):
        assert isinstance(error, RpcError)
        assert (error.code, error.origin, error.executed) == (
            Code.UNAVAILABLE,
            Origin.CONNECTION,
            executed,
        )
    assert "the connection to mem://0 was lost" in str(errors[0])


@virtual_time
async def test_closing_a_client_fails_its_large_one_way_calls() -> None:
    hands = Hands()
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES)
    (client,) = hands.place.clients
    begun = await stuck(peer, stub)
    waiting = asyncio.create_task(stub.send(bytes(SIZE)))
    await turn()
    closing = asyncio.create_task(client.close())
    for error in await asyncio.gather(begun, waiting, return_exceptions=True):
        assert isinstance(error, RpcError)
        assert error.code is Code.UNAVAILABLE
    assert "this client was closed" in str(begun.exception())
    await closing
    assert now() < 10
    await hands.close()


@pytest.mark.parametrize("who", ["server", "client"])
def test_a_connection_that_is_replaced_sends_its_large_one_way_call_to_the_end(who: str) -> None:
    @virtual_time
    async def scenario() -> None:
        hands = Hands()
        options = ConnectionOptions(keepalive_s=None, idle_s=None, max_age_s=100 if who == "client" else None)
        peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, options=options)
        sending = await stuck(peer, stub)
        if who == "server":
            peer.say(frame(GOAWAY, 0, 0, 0, int(Code.UNAVAILABLE), b"the test asks for it"))
        await asyncio.sleep(200)
        assert not sending.done()
        await stub.nothing()  # over another connection
        assert len(hands.peers) == 2
        peer.read_on()
        await sending
        await peer.message(sent)
        await peer.lost.wait()
        await hands.close()

    scenario()


@virtual_time
async def test_a_connection_that_sends_a_large_one_way_call_is_not_idle() -> None:
    hands = Hands()
    options = ConnectionOptions(keepalive_s=None, idle_s=10)
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, options=options)
    sending = await stuck(peer, stub)
    await asyncio.sleep(100)
    peer.read_on()
    await sending
    await peer.message(sent)
    assert not peer.lost.is_set()
    await asyncio.sleep(20)
    assert peer.lost.is_set()
    await hands.close()


@virtual_time
async def test_a_peer_that_never_reads_on_fails_a_large_one_way_call_by_its_silence() -> None:
    hands = Hands()
    options = ConnectionOptions(keepalive_s=15, keepalive_timeout_s=5)
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, options=options)
    sending = await stuck(peer, stub)
    with pytest.raises(RpcError, match="no sign of life for 20 s") as caught:
        await sending
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, None)
    await hands.close()


async def test_a_server_that_drains_still_gets_the_large_one_way_call_that_is_on_its_way(
    place: Place,
) -> None:
    service = Service()
    server = await place.serve(service, limits=limits(connection=Settings(max_frame_bytes=FRAME_BYTES)))
    stub = place.connect(server).stub(Contract)
    await stub.nothing()
    sending = asyncio.create_task(stub.send(bytes(SIZE)))
    await turn(2)
    draining = asyncio.create_task(server.drain(60))
    await sending
    await service.diary.until("told")
    assert service.told == [f"{SIZE} bytes"]
    await draining
