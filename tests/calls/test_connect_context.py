"""A connection outlives the call that happened to open it: it runs in a context of its own and keeps nothing of the
caller's. Seen from a transport, from the log, and from what the garbage collector may take.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import math
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
import pytest_asyncio

import rpcfw
from rpcfw import Client, Endpoint, RpcError
from rpcfw.transport import Link, Listener, MemoryTransport, Transport
from rpcfw.transport.link import ReceiverFactory
from rpcfw.wire.frames import frame
from tests.calls.contract import Contract, Service
from tests.calls.place import Place, until
from tests.calls.virtual import now, virtual_time

TURNS = 20
"""Turns of the loop in which what is under way comes to its end."""

WHO: contextvars.ContextVar[object] = contextvars.ContextVar("who", default="nobody")
"""Whom code runs for, as tracing and logging would have it."""


class Noting:
    """A transport that passes on what another does, and notes for whom each thing is done on the connecting side.

    Attributes:
        seen: by what was done, the callers it was done for.
        far: the accepted links, the server's ends.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.seen: defaultdict[str, set[object]] = defaultdict(set)
        self.far: list[Link] = []

    def note(self, what: str) -> None:
        self.seen[what].add(WHO.get())

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        self.note("connect")
        return await self._transport.connect(endpoint, lambda: Noted(receiver(), self.note))

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        return await self._transport.listen(endpoint, lambda: Noted(receiver(), keep=self.far.append))


class Noted(asyncio.BufferedProtocol):
    """Stands before one end of a link, and tells of what that end is told."""

    def __init__(
        self,
        receiver: asyncio.BufferedProtocol,
        note: Callable[[str], object] = str,
        keep: Callable[[Link], object] = id,
    ) -> None:
        self._receiver = receiver
        self._note = note
        self._keep = keep

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._note("made")
        self._keep(cast(Link, transport))
        self._receiver.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return cast(memoryview, self._receiver.get_buffer(sizehint))

    def buffer_updated(self, nbytes: int) -> None:
        self._note("read")
        self._receiver.buffer_updated(nbytes)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def eof_received(self) -> bool | None:
        return self._receiver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._note("lost")
        self._receiver.connection_lost(exc)


class Asked(Service):
    """Notes for whom it believes to be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.by: set[object] = set()

    async def nothing(self) -> None:
        self.by.add(WHO.get())
        await super().nothing()


@pytest_asyncio.fixture
async def noting(place: Place) -> Noting:
    """Notes every connect of the place."""
    noting = Noting(place.transports[place.scheme])
    place.transports[place.scheme] = noting
    return noting


async def ask(client: Client, who: object) -> None:
    """Make a call for somebody, in a task of its own."""

    async def call() -> None:
        WHO.set(who)
        await client.stub(Contract).nothing()

    await asyncio.create_task(call())


async def collected(reference: weakref.ref[Any]) -> bool:
    """Whether something is gone, after what was under way has come to its end."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
    gc.collect()
    return reference() is None


# ---------------------------------------------------------------------------------------------- for whom it runs


async def test_a_connection_is_opened_for_nobody_and_runs_for_nobody(place: Place, noting: Noting) -> None:
    service = Asked()
    client = place.connect(await place.serve(service))
    for who in ("ada", "bob"):
        await ask(client, who)
    noting.far[-1].abort()
    await until(lambda: noting.seen["lost"])
    await ask(client, "eve")
    assert len(noting.far) == 2
    assert noting.seen == {what: {"nobody"} for what in ("connect", "made", "read", "lost")}
    assert service.by == {"nobody"}


async def test_what_a_connection_logs_is_not_said_to_be_of_the_call_that_opened_it(
    place: Place, noting: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    def name_the_caller(record: logging.LogRecord) -> bool:
        record.who = WHO.get()
        return True

    client = place.connect(await place.serve(Service()))
    await ask(client, "ada")
    caplog.handler.addFilter(name_the_caller)
    noting.far[-1].write(frame(99, 0, 0, 0, 0))
    await until(lambda: caplog.records)
    (record,) = caplog.records
    assert "a frame of an unknown type came" in record.getMessage()
    assert record.__dict__["who"] == "nobody"


@virtual_time
async def test_a_call_that_a_transport_makes_to_connect_has_not_the_deadline_of_the_first_caller() -> None:
    remaining_s: list[float] = []

    @rpcfw.service
    class Names:
        async def look_up(self) -> None:
            remaining_s.append(rpcfw.current_call().remaining_s(asyncio.get_running_loop()))

    @rpcfw.service
    class Front:
        async def pass_on(self) -> None:
            await behind.nothing()

    class Resolving(MemoryTransport):
        async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
            await names.look_up()
            return await place.memory.connect(endpoint, receiver)

    place = Place("mem")
    names = place.connect(await place.serve(Names()), timeout_s=None).stub(Names)
    server = await place.serve(Service())
    front = place.connect(await place.serve(Front())).stub(Front)
    client = rpcfw.connect(server.endpoint, transports={"mem": Resolving()}, timeout_s=None)
    place.clients.append(client)
    behind = client.stub(Contract)
    await rpcfw.with_options(front, timeout_s=5).pass_on()
    assert remaining_s == [math.inf]
    await place.close()


# ---------------------------------------------------------------------------------------------- whose time it takes


class Slow(MemoryTransport):
    """Takes three seconds to connect."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled = 0

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        self.dialled += 1
        await asyncio.sleep(3)
        return await super().connect(endpoint, receiver)


@pytest.mark.parametrize("ending", ["deadline", "cancelled"])
def test_the_end_of_the_call_that_began_to_connect_does_not_end_the_attempt(ending: str) -> None:
    @virtual_time
    async def scenario() -> None:
        place = Place("mem")
        place.memory = slow = Slow()
        place.transports["mem"] = slow
        client = place.connect(await place.serve(Service()), timeout_s=None)
        stub = client.stub(Contract)
        first = asyncio.create_task(rpcfw.with_options(stub, timeout_s=1).nothing())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(stub.nothing())
        if ending == "cancelled":
            first.cancel()
        await second
        assert now() == pytest.approx(3)
        assert slow.dialled == 1
        assert first.cancelled() if ending == "cancelled" else isinstance(first.exception(), RpcError)
        await place.close()

    scenario()


# ---------------------------------------------------------------------------------------------- what it keeps


class Luggage:
    """What a caller carries in its context: a session, a user, a request of some megabytes."""


async def test_a_connection_keeps_nothing_of_the_call_that_opened_it(place: Place) -> None:
    client = place.connect(await place.serve(Service()), timeout_s=None)
    luggage = Luggage()
    reference = weakref.ref(luggage)
    await ask(client, luggage)
    del luggage
    assert await collected(reference)
    await ask(client, "bob")
