"""The registry in memory: the contract in virtual time, and what only it has."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from rpcfw.errors import Code, RpcError
from rpcfw.registry import MemoryRegistry, MemoryStore, Registration, Registry
from rpcfw.testing import Host, Simulation, registry_contract
from rpcfw.testing.registry_contract import Check, Store, registration
from rpcfw.testing.virtual_clock import VirtualClock


class MemoryPlace:
    """A store in memory. Its outages lose what was registered, when they are to."""

    patience_s = 20.0

    def __init__(self, *, forgets: bool) -> None:
        self._store = MemoryStore(lease_s=10.0)
        self._forgets = forgets

    def open(self) -> Registry:
        return MemoryRegistry(self._store)

    async def crash(self, registry: Registry) -> None:
        assert isinstance(registry, MemoryRegistry)
        registry._stop_timer()
        registry.store = MemoryStore()  # what it still does goes elsewhere

    async def stop_backend(self) -> None:
        self._store.stop(forget=self._forgets)

    async def start_backend(self) -> None:
        self._store.start()


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps", "forgets"])
@pytest.mark.parametrize("check", registry_contract.ALL, ids=registry_contract.name_of)
async def test_contract(check: Check[Store], forgets: bool, virtual_clock: VirtualClock) -> None:
    await check(MemoryPlace(forgets=forgets))


async def test_registries_without_a_store_of_others_do_not_see_each_other() -> None:
    one, other = MemoryRegistry(), MemoryRegistry()
    async with one.register(registration()):
        assert await one.services() == {"shop.Orders"}
        assert await other.services() == frozenset()
    await one.close()
    await other.close()


async def test_an_unused_registry_has_no_timer_after_its_last_registration(
    virtual_clock: VirtualClock,
) -> None:
    registry = MemoryRegistry()
    async with registry.register(registration()):
        assert len(virtual_clock.loop._timers) == 2  # its lease, and the renewal of it
    assert len(virtual_clock.loop._timers) == 0


async def test_renewals_keep_a_registration_for_hours_and_tell_nobody(virtual_clock: VirtualClock) -> None:
    registry = MemoryRegistry(MemoryStore(lease_s=3.0))
    seen: list[frozenset[Registration]] = []

    async def watch() -> None:
        async for snapshot in registry.watch("shop.Orders"):
            seen.append(snapshot)  # noqa: PERF401  # looked at while it goes on

    async with registry.register(registration()):
        watching = asyncio.create_task(watch())
        await asyncio.sleep(7200.0)
        assert seen == [{registration()}]
    await asyncio.sleep(0)
    await registry.close()
    await watching
    assert len(seen) == 2


async def test_the_older_of_two_registrations_of_an_endpoint_does_not_come_back(
    virtual_clock: VirtualClock,
) -> None:
    store = MemoryStore(lease_s=3.0)
    old, new = MemoryRegistry(store), MemoryRegistry(store)
    async with old.register(registration(weight=1)):
        await asyncio.sleep(0.5)  # so that their renewals are not due at once
        async with new.register(registration(weight=2)):
            watch = old.watch("shop.Orders")
            assert await anext(watch) == {registration(weight=2)}
            again = asyncio.ensure_future(anext(watch, None))
            await asyncio.sleep(60.0)
            assert not again.done()
            await old.close()
            assert await again is None


async def test_what_is_closed_is_taken_back_at_once() -> None:
    store = MemoryStore()
    server = MemoryRegistry(store)
    async with server.register(registration()):
        await server.close()
        assert store.services() == frozenset()


async def test_a_closed_registry_refuses_a_registration_and_says_why() -> None:
    registry = MemoryRegistry()
    await registry.close()
    with pytest.raises(RpcError, match="this registry is closed") as caught:
        async with registry.register(registration()):
            pass
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_a_lease_must_last() -> None:
    with pytest.raises(ValueError, match="lease_s=0 must be above 0"):
        MemoryStore(lease_s=0)


async def test_no_watcher_sees_a_gap_when_a_forgetful_store_comes_back(virtual_clock: VirtualClock) -> None:
    store = MemoryStore()
    servers, client = [MemoryRegistry(store) for _ in range(3)], MemoryRegistry(store)
    entries = [registration(7000 + number) for number in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for server, entry in zip(servers, entries, strict=True):
            await stack.enter_async_context(server.register(entry))
        watch = client.watch("shop.Orders")
        assert await anext(watch) == {*entries}
        store.stop(forget=True)
        store.start()
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        waiting.cancel()
    for registry in (*servers, client):
        await registry.close()


# ------------------------------------------------------------------------------------------- simulated hosts


async def test_a_host_that_crashes_is_gone_when_its_lease_ends(simulation: Simulation) -> None:
    store = MemoryStore(lease_s=10.0)

    async def serve(host: Host) -> None:
        registry = MemoryRegistry(store)
        try:
            async with registry.register(registration()):
                await asyncio.get_running_loop().create_future()
        finally:
            await registry.close()

    client = MemoryRegistry(store)
    watch = client.watch("shop.Orders")
    host = simulation.host("shop", serve)
    while not await anext(watch):
        pass
    crashed_at = simulation.elapsed_s
    host.crash()
    await asyncio.sleep(0)
    assert await client.services() == {"shop.Orders"}  # nobody knows yet
    assert await anext(watch) == frozenset()
    assert 10.0 * 2 / 3 <= simulation.elapsed_s - crashed_at <= 10.0
    host.restart()
    assert await anext(watch) == {registration()}
    await watch.aclose()
    await client.close()


async def test_a_host_that_pauses_for_longer_than_its_lease_comes_back(simulation: Simulation) -> None:
    store = MemoryStore(lease_s=10.0)

    async def serve(host: Host) -> None:
        async with MemoryRegistry(store).register(registration()):
            await asyncio.get_running_loop().create_future()

    client = MemoryRegistry(store)
    watch = client.watch("shop.Orders")
    host = simulation.host("shop", serve)
    while not await anext(watch):
        pass
    host.pause()
    assert await anext(watch) == frozenset()
    host.resume()
    assert await anext(watch) == {registration()}
    await watch.aclose()
    await client.close()
