"""Slow links, resets, age limits, failed connects: nothing waits, goes on or is kept that should not."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import msgpack
import pytest

import rpcfw
from rpcfw import Code, RpcError
from rpcfw.wire.frames import CHUNK, END, GOAWAY, ITEMS, REPLY, REQUEST, RESET, frame
from tests.calls.contract import Contract, Service
from tests.calls.handpeer import Hands
from tests.calls.place import Place, limits
from tests.calls.test_connect_context import Luggage, ask, collected
from tests.calls.test_large_messages import (
    FRAME_BYTES,
    LINK_BYTES,
    MB,
    PLENTY,
    blobs,
    hands,
    sent,
    stuck,
    traffic,
    turn,
)
from tests.calls.virtual import virtual_time

__all__ = ["hands"]  # a fixture


# small calls on a slow link


@pytest.mark.parametrize("frame_bytes", [FRAME_BYTES, LINK_BYTES])
async def test_a_small_call_passes_a_large_one_way_call_on_a_slow_link(
    hands: Hands, frame_bytes: int
) -> None:
    peer, stub = await hands.serve(max_frame_bytes=frame_bytes)
    sending = await stuck(peer, stub)
    calling = asyncio.create_task(stub.nothing())
    while not calling.done():
        peer.read_on(1)
        await turn()
        assert not any(map(sent, peer.messages))
    assert not sending.done()
    peer.read_on()
    await sending


# nothing follows a reset


@virtual_time
async def test_a_stream_that_its_deadline_has_ended_is_sent_no_more() -> None:
    hands = Hands()
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    yielded = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal yielded
        while True:
            yielded += 1
            yield bytes(20_000)
            await asyncio.sleep(0.1)

    stream = rpcfw.with_options(stub, timeout_s=2.05).mirror(endless())
    beginning = asyncio.ensure_future(anext(stream))
    begun = await peer.message(lambda m: m.kind == ITEMS)
    peer.say(frame(ITEMS, 0, 0, begun.stream, 1, msgpack.packb([b"x"])))
    await beginning
    await asyncio.sleep(10)  # whoever reads the stream is busy with other things
    assert yielded == 21
    assert peer.messages[-1].kind == RESET
    await cast(Any, stream).aclose()
    await hands.close()


async def test_a_stream_that_its_caller_has_left_is_sent_no_more(hands: Hands) -> None:
    peer, stub = await hands.serve(max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY)
    for turns in range(10, 30):
        others = traffic(stub)
        uploading = asyncio.create_task(stub.upload(b"", blobs([20_000] * 40, [1] * 40)))
        await turn(turns)
        uploading.cancel()
        await asyncio.wait([uploading])
        await asyncio.gather(*others)
        await stub.nothing()
        assert peer.breaches == []


async def test_a_stream_that_its_reader_has_reset_is_sent_no_more(hands: Hands) -> None:
    class Slowly(Service):
        async def blobs(self, sizes: list[int]) -> AsyncIterator[bytes]:
            async for blob in blobs(sizes, [1] * len(sizes)):
                yield blob

    peer = await hands.connect(
        await hands.place.serve(Slowly()), max_frame_bytes=FRAME_BYTES, window_bytes=PLENTY
    )
    for round_ in range(20):
        streams = range(8 * round_ + 1, 8 * round_ + 9)
        for stream in streams:
            peer.call("blobs", {"sizes": [20_000] * 40}, stream)
        await turn(round_ + 3)
        for stream in streams:
            peer.say(frame(RESET, 0, 0, stream, int(Code.CANCELLED)))
        await turn(100)
        assert peer.breaches == []


async def test_what_a_callers_stream_does_at_its_end_is_not_cut_short(hands: Hands) -> None:
    peer, stub = await hands.serve()
    tidied: list[str] = []

    async def tidy() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            tidied.append("up")

    uploading = asyncio.create_task(stub.upload(b"", tidy()))
    begun = await peer.message(lambda m: m.kind == ITEMS)
    peer.say(frame(REPLY, END, 0, begun.stream, 0, b"\x07"))
    assert await uploading == 7
    assert tidied == ["up"]
    peer.messages.clear()
    stream = stub.mirror(tidy())
    beginning = asyncio.ensure_future(anext(stream))
    begun = await peer.message(lambda m: m.kind == ITEMS)
    peer.say(frame(ITEMS, 0, 0, begun.stream, 1, msgpack.packb([b"x"])))
    await beginning
    peer.say(frame(REPLY, END, 0, begun.stream, 0, b""))
    await turn(3)
    assert [item async for item in stream] == []
    assert tidied == ["up", "up"]


# age and idle limits


@pytest.mark.parametrize("limit", ["max_age_s", "idle_s"])
def test_a_large_message_that_is_still_arriving_keeps_its_connection(limit: str) -> None:
    @virtual_time
    async def scenario() -> None:
        hands = Hands()
        peer = await hands.connect(await hands.place.serve(Service(), limits=limits(**{limit: 10})))
        body = msgpack.packb({"data": bytes(3 * MB)})
        parts = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]
        for part in parts[:-1]:
            peer.say(frame(CHUNK, 0, 0, 1, len(body), part))
            await asyncio.sleep(1)
        peer.say(frame(REQUEST, END, peer.methods["blob"], 1, 0, parts[-1]))
        await peer.message(lambda m: m.kind == REPLY)
        assert any(m.kind == GOAWAY for m in peer.messages) == (limit == "max_age_s")
        await hands.close()

    scenario()


# failed connects


async def test_an_attempt_that_fails_keeps_nothing_of_the_call_that_made_it(place: Place) -> None:
    server = await place.serve(Service())
    client = place.connect(server, timeout_s=None, middleware=[])
    await server.close()
    luggage = Luggage()
    reference = weakref.ref(luggage)
    with pytest.raises(RpcError):
        await ask(client, luggage)
    del luggage
    assert await collected(reference)


async def test_each_call_that_waits_for_a_connection_gets_an_error_of_its_own(place: Place) -> None:
    server = await place.serve(Service())
    client = place.connect(server, timeout_s=None, middleware=[])
    await server.close()
    errors = await asyncio.gather(*(ask(client, n) for n in range(5)), return_exceptions=True)
    assert len({id(error) for error in errors}) == 5
    assert len({str(error) for error in errors}) == 1
    for error in errors:
        assert isinstance(error, RpcError)
        assert error.executed is False


# deadlines


async def test_a_connection_keeps_nothing_of_the_call_whose_deadline_it_watches(place: Place) -> None:
    client = place.connect(await place.serve(Service()), timeout_s=60)
    assert [len(blob) async for blob in client.stub(Contract).blobs([7])] == [
        7
    ]  # connects, without a deadline
    luggage = Luggage()
    reference = weakref.ref(luggage)
    await ask(client, luggage)
    del luggage
    assert await collected(reference)
