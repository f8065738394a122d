"""The registry as a service: watches, bounds, its time, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

import rpcfw
from rpcfw import Code, RpcError, naming
from rpcfw.naming import Bounds, NameServer, NameService
from rpcfw.naming.interface import Claim, Snapshot
from rpcfw.naming.server import MAX_AT_ONCE
from rpcfw.registry import Registration
from rpcfw.testing.memory import in_memory
from rpcfw.testing.registry_places import ORDERS, STOCK, registration
from rpcfw.testing.virtual_clock import VirtualClock


def text(port: int = 7001, **more: Any) -> str:
    return registration(port, **more).to_json().decode()


def ports(snapshot: Snapshot) -> list[int]:
    assert snapshot.registrations is not None
    return sorted(
        Registration.from_json(listed.registration).endpoint.port for listed in snapshot.registrations
    )


@contextlib.asynccontextmanager
async def watching(server: NameService, *args: Any) -> AsyncIterator[AsyncIterator[Snapshot]]:
    async with contextlib.aclosing(server.watch(*args)) as stream:  # type: ignore[type-var]
        yield stream


async def test_a_watch_shows_the_state_at_once_and_each_change(virtual_clock: VirtualClock) -> None:
    async with in_memory(NameServer()) as client:
        stub = client.stub(NameService)
        async with watching(stub, ORDERS) as snapshots:
            assert ports(await anext(snapshots)) == []
            await stub.register("a", 1, [text(7001)], [])
            assert ports(await anext(snapshots)) == [7001]
            await stub.register("b", 1, [text(7002)], [])
            assert ports(await anext(snapshots)) == [7001, 7002]
            await stub.withdraw("a", 2)
            assert ports(await anext(snapshots)) == [7002]
            assert await stub.services() == [ORDERS]


async def test_a_registration_goes_by_itself_and_watchers_hear_of_it(virtual_clock: VirtualClock) -> None:
    async with in_memory(NameServer(lease_s=4.0)) as client:
        stub = client.stub(NameService)
        await stub.register("a", 1, [text(7001)], [])
        await stub.register("b", 1, [text(7002)], [])
        async with watching(stub, ORDERS) as snapshots:
            assert ports(await anext(snapshots)) == [7001, 7002]
            before_s = virtual_clock.elapsed_s
            await asyncio.sleep(3.0)
            assert await stub.renew("a", 1) is not None
            assert ports(await anext(snapshots)) == [7001]
            assert 3.9 < virtual_clock.elapsed_s - before_s < 4.1
            assert ports(await anext(snapshots)) == []
            assert 6.9 < virtual_clock.elapsed_s - before_s < 7.1
            assert await stub.renew("a", 1) is None


async def test_changes_that_come_quickly_come_as_one(virtual_clock: VirtualClock) -> None:
    async with in_memory(NameServer()) as client:
        stub = client.stub(NameService)
        async with watching(stub, ORDERS) as snapshots:
            await anext(snapshots)
            for number in range(100):
                await stub.register(str(number), 1, [text(7000 + number)], [])
            await asyncio.sleep(0.2)
            seen = [await anext(snapshots)]
            while len(ports(seen[-1])) < 100:
                seen.append(await anext(snapshots))
            assert len(seen) <= 3


async def test_a_slow_watcher_is_owed_a_few_snapshots_only_and_the_last_is_true(
    virtual_clock: VirtualClock,
) -> None:
    async with in_memory(NameServer(lease_s=1000.0)) as client:
        stub = client.stub(NameService)
        crowd = [text(port) for port in range(7001, 7301)]  # some 50 KiB
        await stub.register("crowd", 1, crowd, [])
        async with watching(stub, ORDERS) as snapshots:
            await anext(snapshots)
            for number in range(1, 301):
                await stub.register("a", number, [text(8000 + number)], [])
                await asyncio.sleep(0.1)
            seen = 0
            while (last := ports(await anext(snapshots))[-1]) != 8300:
                seen += 1
            assert seen < 20
            assert last == 8300


async def test_who_comes_back_is_not_told_again_what_it_knows(virtual_clock: VirtualClock) -> None:
    async with in_memory(NameServer()) as client:
        stub = client.stub(NameService)
        async with contextlib.aclosing(stub.session()) as session:  # type: ignore[type-var]
            run = (await anext(session)).run
        await stub.register("a", 1, [text(7001)], [])
        async with watching(stub, ORDERS) as snapshots:
            revision = (await anext(snapshots)).revision
        async with watching(stub, ORDERS, run, revision) as snapshots:
            assert (await anext(snapshots)).registrations is None
            await stub.register("b", 1, [text(7002)], [])
            assert ports(await anext(snapshots)) == [7001, 7002]
        for other in (("another run", revision), (run, revision - 1)):
            async with watching(stub, ORDERS, *other) as snapshots:
                assert ports(await anext(snapshots)) == [7001, 7002]


async def test_a_registry_says_for_how_long_it_may_not_know_all(virtual_clock: VirtualClock) -> None:
    async with in_memory(NameServer(lease_s=8.0)) as client:
        stub = client.stub(NameService)
        assert 7.9 < (await stub.find("x")).settling_s <= 8.0
        await asyncio.sleep(5.0)
        async with watching(stub, ORDERS) as snapshots:
            assert 2.8 < (await anext(snapshots)).settling_s < 3.1
        await asyncio.sleep(5.0)
        assert (await stub.find("x")).settling_s == 0.0


async def test_a_flood_of_watches_leaves_room_for_others(virtual_clock: VirtualClock) -> None:
    server = NameServer(bounds=Bounds(max_streams=8, per_client=0.5))
    async with in_memory(server) as client, contextlib.AsyncExitStack() as stack:
        stub = client.stub(NameService)
        for number in range(4):
            await anext(await stack.enter_async_context(watching(stub, f"service {number}")))
        for stream in (stub.watch("one more"), stub.session()):
            with pytest.raises(RpcError, match="4 watches and sessions of mem://test are open") as caught:
                await anext(stream)
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert await stub.services() == []
        await stack.aclose()
        for _ in range(5):
            await asyncio.sleep(0)
        async with watching(stub, ORDERS) as snapshots:
            await anext(snapshots)
    assert not server._streams
    assert not server._waiting


async def test_what_is_not_known_any_more_is_not_remembered(virtual_clock: VirtualClock) -> None:
    server = NameServer(lease_s=5.0)
    async with in_memory(server) as client:
        stub = client.stub(NameService)
        for number in range(300):
            async with watching(stub, f"service {number}") as snapshots:
                await anext(snapshots)
            await stub.register(str(number), 1, [text(7001, service=f"service {number}")], [])
        await asyncio.sleep(6.0)
        assert await stub.services() == []
        assert not server._table._leases
        assert not server._table._shelves
        assert not server._waiting
        assert server._timer is None


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("a", 1, ["{}"], []), Code.INVALID_ARGUMENT, "not a registration"),
        (("a", 1, ["x" * 5000], []), Code.INVALID_ARGUMENT, "5,000 bytes is over 4,096"),
        (("", 1, [], []), Code.INVALID_ARGUMENT, "lease '' must be printable text of 1 to 64"),
        (("x" * 65, 1, [], []), Code.INVALID_ARGUMENT, "must be printable text"),
        (("a", 1, [], [Claim("a\nb", 1, text())]), Code.INVALID_ARGUMENT, r"name 'a\\nb' must be printable"),
        (("a", 1, [], [Claim("a", 1, "{}")]), Code.INVALID_ARGUMENT, "not a registration"),
        (("a", 1, [text(service="x" * 201)], []), Code.INVALID_ARGUMENT, "service 'x+' must be printable"),
        (("a", 1, [text()] * (MAX_AT_ONCE + 1), []), Code.RESOURCE_EXHAUSTED, "1,001 registrations"),
        (
            ("a", 1, ['{"service": "shop.Orders", "endpoint": "unix:///run/x"}'], []),
            Code.INVALID_ARGUMENT,
            "not an address on a network",
        ),
    ],
)
async def test_what_is_none_is_refused_and_changes_nothing(
    arguments: tuple[Any, ...], code: Code, why: str, virtual_clock: VirtualClock
) -> None:
    async with in_memory(NameServer()) as client:
        stub = client.stub(NameService)
        await stub.register("a", 1, [text(7001)], [])
        with pytest.raises(RpcError, match=why) as caught:
            await stub.register(*arguments)
        assert caught.value.code is code
        assert await stub.services() == [ORDERS]
        assert await stub.renew("a", 1) is not None


async def test_a_drain_ends_watches_and_sessions_at_once() -> None:
    server = naming.serve("tcp://127.0.0.1:0")
    async with server, rpcfw.connect(server.endpoint, middleware=[]) as client:
        stub = client.stub(NameService)
        async with contextlib.aclosing(stub.session()) as session, watching(stub, STOCK) as snapshots:  # type: ignore[type-var]
            await anext(session)
            await anext(snapshots)
            async with asyncio.timeout(5.0):  # the grace is 10 s
                draining = asyncio.create_task(server.drain())
                for stream in (session, snapshots):
                    with pytest.raises(StopAsyncIteration):
                        await anext(stream)
                await draining


@pytest.mark.parametrize("lease_s", [0.0, -1.0, float("nan"), 1e6])
def test_a_lease_that_cannot_be_is_refused(lease_s: float) -> None:
    with pytest.raises(ValueError, match="to 86400 seconds"):
        NameServer(lease_s=lease_s)


@pytest.mark.parametrize(("name", "value"), [("max_names", 0), ("per_client", 0.0), ("per_client", 1.5)])
def test_bounds_that_cannot_be_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Bounds(**{name: value})  # type: ignore[arg-type]
