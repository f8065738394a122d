"""Streams over every transport: who stops whom, who ends first, and what is left afterwards."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import CallKind, Code, ConnectionOptions, RpcError, Settings
from rpcfw.wire.frames import END, REPLY, frame
from tests.calls.conftest import Served
from tests.calls.contract import Contract, Service, Step, call
from tests.calls.place import Place, connection_of, limits, until

WINDOW_BYTES = Settings().window_bytes
BATCH_ITEMS = 64
QUIET_CALLS = 30


async def standing_still(served: Served, what: str) -> int:
    """How often something has happened, once it has stopped happening while other calls go on."""
    before = -1
    while served.service.diary.counts[what] != before:
        before = served.service.diary.counts[what]
        for _ in range(QUIET_CALLS):
            await served.stub.nothing()
    return before


async def test_a_slow_consumer_stops_the_producer_and_no_other_call(served: Served) -> None:
    size = 1000
    stream = served.stub.flood(size)
    taken = 0
    async for _ in stream:
        taken += 1
        if taken in (1, 400):
            produced = await standing_still(served, "produced")
            most = (taken + BATCH_ITEMS) + WINDOW_BYTES // size + BATCH_ITEMS
            assert taken + 50 < produced < most
        if taken == 400:
            break
    await cast(Any, stream).aclose()
    await served.service.diary.until("closed")


async def test_many_tiny_items_stop_as_well(served: Served) -> None:
    stream = served.stub.flood(0)
    async for _ in stream:
        break
    assert await standing_still(served, "produced") < WINDOW_BYTES / 64 + BATCH_ITEMS
    await cast(Any, stream).aclose()


async def test_a_slow_handler_stops_its_caller_and_no_other_call(served: Served) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            served.service.diary.note("sent")
            yield bytes(1000)

    swallowing = asyncio.create_task(served.stub.swallow(1, chunks()))
    await served.service.diary.until("waiting")
    assert 50 < await standing_still(served, "sent") < WINDOW_BYTES / 1000 + 2 * BATCH_ITEMS
    served.service.gate.set()
    assert await swallowing == 1_000_000


async def test_a_small_window_still_lets_every_item_pass(place: Place) -> None:
    small = Settings(window_bytes=100)
    server = await place.serve(Service(), limits=limits(connection=small))
    stub = place.connect(server, options=ConnectionOptions(settings=small)).stub(Contract)
    sizes = [0, 1, 99, 100, 101, 5000, 400_000, 0, 7]
    assert [len(blob) async for blob in stub.blobs(sizes)] == sizes
    assert [len(blob) async for blob in stub.mirror(_blobs(sizes))] == sizes


async def _blobs(sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


# ---------------------------------------------------------------------------------------------- early ends


async def test_a_handler_may_end_before_its_callers_stream(served: Served) -> None:
    sent = 0
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield sent
                await asyncio.sleep(0)
        finally:
            closed.set()

    assert await served.stub.first(3, endless()) == [1, 2, 3]
    await closed.wait()
    assert sent < WINDOW_BYTES / 64 + BATCH_ITEMS


async def test_a_stream_whose_call_is_over_ends_for_whoever_still_reads_it(place: Place) -> None:
    @rpcfw.service
    class Careless:
        def __init__(self) -> None:
            self.reading: asyncio.Task[int] | None = None

        async def keep(self, numbers: AsyncIterator[int]) -> int:
            async def count() -> int:
                return len([number async for number in numbers])

            self.reading = asyncio.create_task(count())
            await asyncio.sleep(0)
            return 7

    async def endless() -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(0)

    careless = Careless()
    stub = place.connect(await place.serve(careless)).stub(Careless)
    assert await stub.keep(endless()) == 7
    assert careless.reading is not None
    with pytest.raises(
        RpcError, match="the call ended before its stream did"
    ):  # not the end of an ordinary stream
        await careless.reading


async def test_a_caller_that_leaves_a_stream_closes_it_in_the_handler(served: Served) -> None:
    stream = served.stub.flood(10)
    async for _ in stream:
        break
    await cast(Any, stream).aclose()
    await served.service.diary.until("closed")


async def test_a_stream_that_its_handler_still_holds_is_closed_all_the_same(place: Place) -> None:
    @rpcfw.service
    class Holding:
        def __init__(self) -> None:
            self.held: list[AsyncIterator[bytes]] = []
            self.closed = asyncio.Event()

        def items(self) -> AsyncIterator[bytes]:
            self.held.append(self._items())
            return self.held[-1]

        async def _items(self) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(WINDOW_BYTES)
            finally:
                self.closed.set()

    holding = Holding()
    stream = place.connect(await place.serve(holding)).stub(Holding).items()
    await anext(stream)
    await cast(Any, stream).aclose()
    await holding.closed.wait()


async def test_a_stream_left_to_the_garbage_collector_is_closed_in_the_handler(served: Served) -> None:
    async for _ in served.stub.flood(10):
        break
    gc.collect()
    await served.service.diary.until("closed")


async def test_a_stream_never_begun_makes_no_call(served: Served) -> None:
    stream = served.stub.flood(10)
    await cast(Any, stream).aclose()
    await served.stub.nothing()
    assert not served.service.diary.counts["produced"]


async def test_leaving_a_stream_both_ways_closes_the_callers_own(served: Served) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0)
        finally:
            closed.set()

    stream = served.stub.mirror(endless())
    async for _ in stream:
        break
    await cast(Any, stream).aclose()
    assert closed.is_set()


async def test_a_stream_left_amid_a_large_item_harms_no_other_call(served: Served) -> None:
    await served.stub.nothing()
    connection = connection_of(served.client)
    for _ in range(5):
        async for _ in served.stub.blobs([1, 5_000_000, 5_000_000]):
            break
        await served.stub.nothing()
    assert connection_of(served.client) is connection


# ---------------------------------------------------------------------------------------------- the caller's errors


@pytest.mark.parametrize("kind", [CallKind.CLIENT_STREAM, CallKind.BIDIRECTIONAL], ids=["into", "both"])
@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "later"])
async def test_an_error_in_the_callers_own_stream_is_the_callers(
    served: Served, kind: CallKind, wait: bool
) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        yield 2
        if wait:
            await served.service.diary.until("started")
        raise ZeroDivisionError("of the caller")

    with pytest.raises(ZeroDivisionError, match="of the caller"):
        await call(served.stub, kind, Step.WAIT, source=broken())
    await served.stub.nothing()


# ---------------------------------------------------------------------------------------------- cancellation

KIND = pytest.mark.parametrize("kind", list(CallKind), ids=lambda kind: kind.value.replace(" ", "_"))


@KIND
async def test_cancelling_a_call_cancels_its_handler(served: Served, kind: CallKind) -> None:
    calling = asyncio.create_task(call(served.stub, kind, Step.WAIT))
    await served.service.diary.until("waiting")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await served.service.diary.until("cancelled")
    if kind.streams_out:
        await served.service.diary.until("closed")


@KIND
async def test_a_timeout_of_asyncio_cancels_the_handler(served: Served, kind: CallKind) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(None) as limit:
            waiting = asyncio.create_task(served.service.diary.until("waiting"))
            waiting.add_done_callback(lambda _: limit.reschedule(0))
            await call(served.stub, kind, Step.WAIT)

    with pytest.raises(TimeoutError):
        await bounded()
    await served.service.diary.until("cancelled")


@KIND
async def test_a_deadline_ends_the_call_and_its_handler(served: Served, kind: CallKind) -> None:
    stub = cast(Any, served.stub).with_options(timeout_s=0.02)
    with pytest.raises(RpcError, match="deadline") as caught:
        await call(stub, kind, Step.WAIT)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    # Under load the deadline may pass before the handler waits: then it is never asked to.
    if served.service.diary.counts["waiting"]:
        await served.service.diary.until("cancelled")


@KIND
async def test_a_call_cancelled_at_any_turn_leaves_nothing_and_keeps_the_connection(
    served: Served, kind: CallKind
) -> None:
    await served.stub.nothing()
    connection = connection_of(served.client)
    for turns in range(25):
        calling = asyncio.create_task(call(served.stub, kind, Step.WAIT))
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    await served.stub.nothing()
    assert connection_of(served.client) is connection


@pytest.mark.parametrize("way", ["up", "down", "items_up", "items_down"])
async def test_a_large_message_cancelled_at_any_turn_keeps_the_connection(served: Served, way: str) -> None:
    size = 3_000_000

    async def large() -> Any:
        if way == "up":
            return await served.stub.upload(bytes(size), _blobs([1]))
        if way == "down":
            return await served.stub.blob(bytes(size))
        if way == "items_up":
            return await served.stub.upload(b"", _blobs([size, size]))
        return [blob async for blob in served.stub.blobs([size, size])]

    await served.stub.nothing()
    connection = connection_of(served.client)
    for turns in range(0, 60, 3):
        calling = asyncio.create_task(large())
        for _ in range(turns):
            await asyncio.sleep(0)
        if calling.cancel():
            with pytest.raises(asyncio.CancelledError):
                await calling
        await served.stub.nothing()
    assert connection_of(served.client) is connection


@pytest.mark.parametrize("side", ["client", "server"])
async def test_links_closed_amid_much_traffic_make_no_complaint(served: Served, side: str) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    for turns in range(0, 40, 4):
        await served.stub.nothing()
        (far,) = (connection for connection in served.server._connections if not connection.session.closed)
        near = connection_of(served.client).session
        traffic = [asyncio.create_task(served.stub.blob(bytes(200_000 + n))) for n in range(30)]
        for _ in range(turns):
            await asyncio.sleep(0)
        if side == "client":
            near.close("the test closes it")
        else:
            far.cut_off("the test closes it")
        await asyncio.wait(traffic)
        assert all(task.exception() is None or isinstance(task.exception(), RpcError) for task in traffic)
        for session in (near, far.session):
            if not session._gone:
                session.link.abort()  # not to wait until the linger is over, where both sides' buffers are full
        await asyncio.gather(near.wait_closed(), far.session.wait_closed())
    assert complaints == []


async def test_bytes_that_arrive_after_the_end_are_passed_over(served: Served) -> None:
    await served.stub.nothing()
    session = connection_of(served.client).session
    session.close("the test closes it")
    late = frame(REPLY, END, 0, 1, 0) * 3
    session.get_buffer(-1)[: len(late)] = late  # as asyncio's TLS does while it shuts down
    session.buffer_updated(len(late))


async def test_closing_the_client_fails_its_calls(served: Served) -> None:
    calling = [asyncio.create_task(call(served.stub, kind, Step.WAIT)) for kind in CallKind]
    await served.service.diary.until("waiting", 4)
    await served.client.close()
    for error in await asyncio.gather(*calling, return_exceptions=True):
        assert isinstance(error, RpcError)
        assert (error.code, error.executed) == (Code.UNAVAILABLE, None)
        assert "this client was closed" in error.message
    await served.service.diary.until("cancelled", 4)


async def test_closing_the_server_fails_its_calls(served: Served) -> None:
    calling = [asyncio.create_task(call(served.stub, kind, Step.WAIT)) for kind in CallKind]
    await served.service.diary.until("waiting", 4)
    await served.server.close()
    for error in await asyncio.gather(*calling, return_exceptions=True):
        assert isinstance(error, RpcError)
        assert error.code is Code.UNAVAILABLE
        assert "shut" in error.message
    await served.service.diary.until("cancelled", 4)


async def test_draining_the_server_lets_calls_end(served: Served) -> None:
    calling = [asyncio.create_task(call(served.stub, kind, Step.WAIT)) for kind in CallKind]
    await served.stub.tell_slowly("one-way")
    await served.service.diary.until("waiting", 4)
    await served.service.diary.until("telling")
    draining = asyncio.create_task(served.server.drain(60))
    (channel,) = served.client.channels
    await until(lambda: cast(Any, channel)._draining)
    served.service.gate.set()
    assert await asyncio.gather(*calling) == [[3], [1, 2, 3], [6], [2, 4, 6]]
    await draining
    assert served.service.told == ["one-way"]
