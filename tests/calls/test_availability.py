"""Which endpoints a client prefers: those in reach, before those it has just lost or is connecting to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import Endpoint
from rpcfw.connection.channel import Channel
from rpcfw.errors import InterfaceError
from rpcfw.transport.link import Link, Listener, ReceiverFactory
from tests.calls.contract import Contract, Service
from tests.calls.place import Place
from tests.calls.virtual import virtual_time


class Hanging:
    """A transport whose links are never there."""

    def __init__(self) -> None:
        self.dialled = 0

    async def connect(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Link:
        """Wait for ever."""
        self.dialled += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def listen(self, endpoint: Endpoint, receiver: ReceiverFactory) -> Listener:
        """Nobody listens here."""
        raise NotImplementedError


@virtual_time
async def test_an_endpoint_that_was_just_lost_is_avoided_for_a_moment() -> None:
    place = Place("mem")
    servers = [await place.serve(Service()) for _ in range(2)]
    client = place.connect(*servers)
    stub = client.stub(Contract)
    for _ in range(4):
        await stub.nothing()
    lost, kept = (cast(Channel, node) for node in client.nodes)
    (connection,) = lost.connections
    cast(Any, connection.session.link).abort()
    await asyncio.sleep(0)
    assert not lost.available
    assert kept.available
    before = servers[1]._load.served
    for _ in range(10):
        await stub.nothing()
    assert servers[1]._load.served == before + 10
    await asyncio.sleep(0.1)
    assert lost.available
    for _ in range(4):
        await stub.nothing()
    assert lost.connections, "it is used again"
    await place.close()


@virtual_time
async def test_one_call_at_the_most_waits_for_an_endpoint_that_does_not_answer() -> None:
    place, hanging = Place("mem"), Hanging()
    server = await place.serve(Service())
    endpoints = (server.endpoint, "unix:///nobody")
    client = rpcfw.connect(*endpoints, transports={**place.transports, "unix": hanging})
    stub = client.stub(Contract)
    await stub.nothing()
    calls = [asyncio.create_task(stub.nothing()) for _ in range(20)]
    await asyncio.sleep(1)
    assert hanging.dialled == 1
    assert [call.done() for call in calls].count(False) == 1
    await client.close()
    await asyncio.wait(calls)
    assert sum(call.exception() is not None for call in calls) <= 1
    await place.close()


def test_endpoints_given_as_a_list_and_stubs_of_instances_are_told_how_to_be_given() -> None:
    with pytest.raises(ValueError, match="give each URL as an argument of its own"):
        rpcfw.connect(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"])  # type: ignore[arg-type]  # on purpose
    client = rpcfw.connect("tcp://127.0.0.1:1")
    with pytest.raises(InterfaceError, match=r"say stub\(Service\), without parentheses"):
        client.stub(Service())  # type: ignore[arg-type]  # on purpose
