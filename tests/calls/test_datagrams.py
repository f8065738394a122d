"""Calls over udp://: one-way calls and heartbeats work, anything else is refused with the mend."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

import rpcfw
from rpcfw import CallKind, Client, Code, RpcError, Server
from rpcfw.connection.datagram import DatagramChannel
from tests.calls.contract import KINDS, Contract, Service, Step, call
from tests.calls.place import QUIET

Datagrams = tuple[Service, Server, Client, Contract]


@pytest_asyncio.fixture
async def datagrams() -> AsyncIterator[Datagrams]:
    service = Service()
    server = rpcfw.serve(service, listen="udp://127.0.0.1:0", limits=QUIET)
    await server.start()
    client = rpcfw.connect(server.endpoint)
    yield service, server, client, client.stub(Contract)
    await client.close()
    await server.close()
    assert server.running == 0


async def test_a_one_way_call_arrives_with_metadata_and_deadline() -> None:
    calls: list[rpcfw.Call] = []

    class Noting(Service):
        async def tell(self, text: str) -> None:
            calls.append(rpcfw.current_call())
            await super().tell(text)

    noting = Noting()
    async with (
        rpcfw.serve(noting, listen="udp://127.0.0.1:0", limits=QUIET) as server,
        rpcfw.connect(server.endpoint) as client,
    ):
        told = cast(Any, client.stub(Contract)).with_options(metadata={"who": "ada"}, timeout_s=30)
        await told.tell("hello")
        await noting.diary.until("told")
    assert noting.told == ["hello"]
    assert calls[0].metadata["who"] == "ada"
    assert 0 < calls[0].remaining_s(asyncio.get_running_loop()) <= 30
    assert calls[0].peer.startswith("127.0.0.1:")


async def test_heartbeats_are_answered(datagrams: Datagrams) -> None:
    (channel,) = datagrams[2].channels
    assert isinstance(channel, DatagramChannel)
    for _ in range(3):
        assert await channel.ping() >= 0


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value.replace(" ", "_"))
async def test_a_call_that_wants_a_reply_is_refused_with_the_mend(
    datagrams: Datagrams, kind: CallKind
) -> None:
    with pytest.raises(
        RpcError, match=r"wants a reply, and udp://.* one-way calls only; use tcp://"
    ) as caught:
        await call(datagrams[3], kind, Step.SUCCEED)
    assert (caught.value.code, caught.value.executed) == (Code.UNIMPLEMENTED, False)


async def test_a_call_too_large_for_a_datagram_is_refused_with_the_mend(datagrams: Datagrams) -> None:
    with pytest.raises(RpcError, match=r"at most 65507 bytes.*use tcp://") as caught:
        await datagrams[3].send(bytes(70_000))
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_first_calls_at_the_same_time_share_one_socket(datagrams: Datagrams) -> None:
    service, _, _, stub = datagrams
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(stub.tell(str(number)) for number in range(10)))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    await service.diary.until("told", 10)


async def test_a_closed_client_sends_nothing_more(datagrams: Datagrams) -> None:
    service, _, client, stub = datagrams
    await stub.tell("first")
    await client.close()
    with pytest.raises(RpcError, match="closed") as caught:
        await stub.tell("second")
    assert (caught.value.code, caught.value.executed) == (Code.UNAVAILABLE, False)
    await service.diary.until("told")


async def test_datagrams_that_are_no_calls_are_passed_over(datagrams: Datagrams) -> None:
    service, server, _, stub = datagrams
    loop = asyncio.get_running_loop()
    where = (server.endpoint.host, server.endpoint.port)
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=where)
    for junk in (
        b"",
        b"x",
        bytes(16),
        b"\xff" * 16,
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(1000),
        bytes(60_000),
    ):
        transport.sendto(junk)
    await stub.tell("still here")
    await service.diary.until("told")
    transport.close()
