"""A call that passes four servers: its time only shrinks, its cancellation goes all the way, nothing stays behind."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from rpcfw import CallKind, Code, RpcError
from tests.calls.hops import HOPS, Chain, Hop, TappedTransport
from tests.calls.place import Place, assert_idle, assert_unused
from tests.calls.virtual import now, turns, virtual_time

KIND = pytest.mark.parametrize("kind", list(CallKind), ids=lambda kind: kind.value.replace(" ", "_"))
TURNS_OF_A_HOP = 6
"""Turns of the loop in which a RESET comes in, cancels a handler, and goes out: one to deliver, two for the tasks,
and as many again where a stream of the handler is closed on the way."""


async def texts(gate: asyncio.Event) -> AsyncIterator[str]:
    yield "a"
    await gate.wait()
    yield "b"


async def call(stub: Hop, kind: CallKind, gate: asyncio.Event) -> Any:
    if kind is CallKind.UNARY:
        return await stub.one("x")
    if kind is CallKind.CLIENT_STREAM:
        return await stub.into(texts(gate))
    stream = stub.out("x") if kind is CallKind.SERVER_STREAM else stub.both(texts(gate))
    return [item async for item in stream]


RESULTS = {
    CallKind.UNARY: "x+++",
    CallKind.SERVER_STREAM: ["x+++", "x+++"],
    CallKind.CLIENT_STREAM: "ab",
    CallKind.BIDIRECTIONAL: ["a", "b"],
}


def assert_nothing_left(chain: Chain, tasks: int) -> None:
    assert len(asyncio.all_tasks()) == tasks
    for server in chain.servers:
        assert_idle(server)
    for client in chain.clients:
        assert_unused(client)


@KIND
async def test_calls_pass_over_four_hops(place: Place, kind: CallKind) -> None:
    chain = Chain(place)
    stub = await chain.build()
    chain.gate.set()
    assert await call(stub, kind, chain.gate) == RESULTS[kind]


async def test_the_remaining_time_never_grows_from_hop_to_hop(place: Place) -> None:
    chain = Chain(place)
    stub = await chain.build()
    chain.gate.set()
    await cast(Any, stub).with_options(timeout_s=7.0).one("x")
    remaining = [hop.remaining_s[0] for hop in chain.hops]
    assert [7.0, *remaining] == sorted([7.0, *remaining], reverse=True)
    assert remaining[-1] > 0
    assert [item async for item in cast(Any, stub).with_options(timeout_s=7.0).out("x")]
    streamed = [hop.remaining_s[1] for hop in chain.hops]
    assert [7.0, *streamed] == sorted([7.0, *streamed], reverse=True)


@virtual_time
async def test_time_spent_on_the_way_is_gone_for_the_hops_below() -> None:
    place = Place("mem")
    chain = Chain(place)
    stub = await chain.build()
    chain.gate.set()
    await stub.one("x")
    assert [hop.remaining_s for hop in chain.hops] == [[math.inf]] * HOPS

    async def slowly(text: str) -> str:
        await asyncio.sleep(2)
        following = chain.hops[0].following
        assert following is not None
        return await following.one(text)

    chain.hops[0].one = slowly  # type: ignore[method-assign]
    chain.hops[1].remaining_s.clear()
    server = await place.serve(chain.hops[0])
    head = cast(Any, place.connect(server).stub(Hop))
    await head.with_options(timeout_s=5).one("x")
    assert chain.hops[1].remaining_s[0] == pytest.approx(3, abs=1e-4)
    assert chain.hops[1].remaining_s[0] <= 3
    with pytest.raises(RpcError) as caught:
        await head.with_options(timeout_s=1.5).one("x")
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert len(chain.hops[1].remaining_s) == 1
    await place.close()


@KIND
async def test_cancelling_at_the_head_reaches_the_leaf_and_leaves_nothing(
    place: Place, kind: CallKind
) -> None:
    chain = Chain(place)
    stub = await chain.build()
    warm = asyncio.create_task(call(stub, kind, chain.gate))
    await chain.diary.until("leaf")
    assert chain.running == HOPS
    chain.gate.set()
    await warm
    chain.gate.clear()
    await place.settle()
    tasks = len(asyncio.all_tasks())

    calling = asyncio.create_task(call(stub, kind, chain.gate))
    await chain.diary.until("leaf", 2 if kind is not CallKind.BIDIRECTIONAL else 3)
    assert chain.running == HOPS
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    await chain.diary.until("leaf cancelled")
    await chain.diary.until("ended", 2 * HOPS)
    await place.settle()
    for _ in range(5):
        await asyncio.sleep(0)
    assert_nothing_left(chain, tasks)


@KIND
def test_cancelling_at_the_head_reaches_the_leaf_in_one_round_of_messages(kind: CallKind) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        place.memory = tapped = TappedTransport()
        place.transports["mem"] = tapped
        chain = Chain(place)
        stub = await chain.build()
        calling = asyncio.create_task(call(stub, kind, chain.gate))
        await chain.diary.until("leaf")
        for _ in range(20):
            await asyncio.sleep(0)
        began_at, began_turn = now(), turns()
        tapped.frames.clear()
        calling.cancel()
        await chain.diary.until("leaf cancelled")
        assert now() == began_at
        assert turns() - began_turn <= HOPS * TURNS_OF_A_HOP
        # One message a hop, each in the direction of the leaf: nobody waited for an answer.
        names = [server.endpoint.host for server in chain.servers]
        assert tapped.frames == [(f"{name}>", "RESET") for name in names]
        await asyncio.wait([calling])
        await place.settle()
        assert [frame for frame in tapped.frames if frame[1] != "RESET"] == []
        await place.close()

    scenario()


@KIND
def test_a_deadline_ends_all_hops_and_leaves_nothing(kind: CallKind) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        chain = Chain(place)
        stub = await chain.build()
        with pytest.raises(RpcError) as caught:
            await call(cast(Any, stub).with_options(timeout_s=3), kind, chain.gate)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert now() == pytest.approx(3, abs=0.01)
        await place.settle()
        assert now() == pytest.approx(3, abs=0.01)
        assert chain.diary.counts["leaf cancelled"] == 1
        assert chain.diary.counts["ended"] == HOPS
        await place.close()

    scenario()


async def test_an_error_of_the_leaf_reaches_the_head(place: Place) -> None:
    chain = Chain(place)
    stub = await chain.build()
    await place.servers[0].close()
    with pytest.raises(RpcError, match="cannot connect") as caught:
        await stub.one("x")
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, True)
