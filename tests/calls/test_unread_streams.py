"""Streams that were asked for and then left lying: begun or not, their calls end, and nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from rpcfw import Call, CallKind, Client, ConnectionOptions, Handler, RpcError, spec_of
from tests.calls.conftest import Served
from tests.calls.contract import Contract, Service, Step
from tests.calls.place import Place, assert_idle, assert_unused, connection_of, in_flight, until

LARGE_BYTES = 100_000
METHODS = spec_of(Contract).methods
WAY = pytest.mark.parametrize("kind", [CallKind.SERVER_STREAM, CallKind.BIDIRECTIONAL], ids=["out", "both"])


class Source:
    """An endless stream of a caller, of items that count against the budget."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def items(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(LARGE_BYTES)
        finally:
            self.closed.set()


async def ask(client: Client, method: str, *arguments: Any) -> AsyncIterator[Any]:
    """What a middleware gets: a stream that has been asked for, and that nobody has begun to read."""
    stream: AsyncIterator[Any] = await client.handler(Call(METHODS[method], arguments))
    return stream


async def assert_nothing_left(served: Served, client: Client) -> None:
    await until(lambda: served.server.running == 0)
    await until(lambda: in_flight(client) == 0)
    await client.stub(Contract).nothing()  # what was said before it has been heard
    assert_idle(served.server)
    assert_unused(client)


async def collect() -> None:
    """Let go of what nobody holds, and of what that held."""
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- never begun


@WAY
async def test_a_stream_dropped_before_it_was_begun_is_given_up_on_both_sides(
    served: Served, place: Place, kind: CallKind
) -> None:
    client = place.connect(served.server, middleware=[])
    source = Source()
    if kind is CallKind.SERVER_STREAM:
        stream = await ask(client, "flood", LARGE_BYTES)
        await served.service.diary.until("produced", 3)
    else:
        stream = await ask(client, "mirror", source.items())
        await until(lambda: served.server.running)
    assert in_flight(client) == 1
    del stream
    await collect()
    if kind is CallKind.SERVER_STREAM:
        await served.service.diary.until("closed")
    else:
        await source.closed.wait()
    await assert_nothing_left(served, client)


async def test_a_middleware_may_ask_for_more_streams_than_it_reads(served: Served, place: Place) -> None:
    def doubling(handler: Handler) -> Handler:
        async def handle(call: Call) -> Any:
            if call.method.kind.streams_out:
                await handler(call)  # to warm something up, say
            return await handler(call)

        return handle

    client = place.connect(served.server, middleware=[doubling])
    assert [number async for number in client.stub(Contract).out(Step.SUCCEED)] == [1, 2, 3]
    await collect()
    await assert_nothing_left(served, client)


@pytest.mark.parametrize("step", [Step.SUCCEED, Step.REFUSE], ids=lambda step: step.value)
async def test_a_stream_never_begun_whose_call_has_ended_leaves_nothing(
    served: Served, place: Place, step: Step
) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    client = place.connect(served.server, middleware=[])
    stream = await ask(client, "out", step)
    await served.service.diary.until("closed")
    await until(lambda: in_flight(client) == 0)
    del stream
    await collect()
    await assert_nothing_left(served, client)
    assert complaints == []  # nor of an error that nobody has seen


async def test_a_stream_may_be_begun_long_after_it_was_asked_for(served: Served, place: Place) -> None:
    client = place.connect(served.server, middleware=[])
    stream = await ask(client, "out", Step.SUCCEED)
    await served.service.diary.until("closed")
    await until(lambda: in_flight(client) == 0)
    await collect()
    assert [number async for number in stream] == [1, 2, 3]
    await assert_nothing_left(served, client)


async def test_a_stream_never_begun_does_not_outlive_its_client(served: Served, place: Place) -> None:
    client = place.connect(served.server, middleware=[])
    source = Source()
    stream = await ask(client, "mirror", source.items())
    await until(lambda: served.server.running)
    await client.close()
    await until(lambda: served.server.running == 0)
    with pytest.raises(RpcError, match="this client was closed"):
        async for _ in stream:
            pass
    await source.closed.wait()


def test_a_stream_dropped_after_the_end_of_its_loop_makes_no_complaint() -> None:
    async def ask_and_leave() -> AsyncIterator[Any]:
        # the program closes neither the client nor the stream
        place = Place("mem")
        client = place.connect(await place.serve(Service()), middleware=[])
        stream = await ask(client, "out", Step.WAIT)
        await until(lambda: place.servers[0].running)
        cast(Any, connection_of(client).session.link).pause_reading()  # nor does it hear how its call ends
        return stream

    with asyncio.Runner() as runner:
        stream = runner.run(ask_and_leave())
    del stream
    gc.collect()  # what a finalizer raises here fails the test


def test_a_stream_dropped_between_two_runs_of_its_loop_is_given_up_on_both_sides() -> None:
    place = Place("tcp")

    async def ask_and_pause() -> AsyncIterator[Any]:
        server = await place.serve(Service())
        client = place.connect(server, middleware=[], options=ConnectionOptions(spin_turns=10))
        stream = await ask(client, "out", Step.WAIT)
        for _ in range(3):
            await client.stub(Contract).nothing()
        client._shared.resources.spin._record.pause = 0  # the next write would begin to look out for frames
        return stream

    with asyncio.Runner() as runner:
        stream = runner.run(ask_and_pause())
        del stream
        gc.collect()
        runner.run(until(lambda: place.servers[0].running == 0))
        runner.run(place.close())


# ---------------------------------------------------------------------------------------------- half read


@WAY
async def test_a_stream_dropped_half_read_is_given_up_on_both_sides(served: Served, kind: CallKind) -> None:
    source = Source()
    if kind is CallKind.SERVER_STREAM:
        stream = served.stub.flood(LARGE_BYTES)
    else:
        stream = served.stub.mirror(source.items())
    assert len(await anext(stream)) == LARGE_BYTES
    assert in_flight(served.client) == 1
    del stream
    await collect()
    if kind is CallKind.SERVER_STREAM:
        await served.service.diary.until("closed")
    else:
        await source.closed.wait()
    await assert_nothing_left(served, served.client)


async def test_the_error_of_a_stream_is_not_kept_when_the_stream_is_gone(served: Served) -> None:
    async def fail() -> weakref.ref[RpcError]:
        with pytest.raises(RpcError, match="not you") as caught:
            async for _ in served.stub.out(Step.REFUSE):
                pass
        return weakref.ref(caught.value)

    left = await fail()
    await collect()
    assert left() is None
    await assert_nothing_left(served, served.client)
