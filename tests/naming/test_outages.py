"""Registries that are killed, parted and started anew while servers and clients go on, in simulation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import rpcfw
from rpcfw import Limits, naming
from rpcfw.cluster.options import ClusterOptions
from rpcfw.naming import Bounds, NamingRegistry
from rpcfw.registry import Registration
from rpcfw.testing import Host, Simulation, simulate
from rpcfw.testing.host import Main
from rpcfw.testing.registry_contract import registration
from tests.naming.places import QUIET, Shop, serve_names

SEEDS = pytest.mark.parametrize("seed", range(3))
BOTH = "rpcfw://names1,names2"


def shop_at(url: str) -> Main:
    """The main of a host that serves and registers there."""

    async def main(host: Host) -> None:
        server = rpcfw.serve(Shop(host.name), listen=f"tcp://{host.name}:7000", limits=QUIET)
        async with server, rpcfw.register(server, url):
            await server.wait_closed()

    return main


class Watcher:
    """What one watch shows, with the time of each snapshot."""

    def __init__(self, simulation: Simulation, url: str) -> None:
        self._simulation = simulation
        self._registry = NamingRegistry.from_url(url)
        self.seen: list[tuple[float, list[str]]] = []

    async def _watch(self) -> None:
        async for snapshot in self._registry.watch("shop.Orders"):
            hosts = sorted(one.endpoint.host for one in snapshot)
            self.seen.append((self._simulation.elapsed_s, hosts))

    @property
    def now(self) -> list[str]:
        return self.seen[-1][1]

    async def until(self, *hosts: str) -> float:
        """Wait until exactly these are shown; how long that took."""
        begun_at = self._simulation.elapsed_s
        async with asyncio.timeout(120.0):
            while not self.seen or self.now != sorted(hosts):
                await asyncio.sleep(0.01)
        return self._simulation.elapsed_s - begun_at

    async def __aenter__(self) -> Watcher:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._registry.close()
        await self._task


@contextlib.asynccontextmanager
async def calling(url: str) -> AsyncIterator[list[str]]:
    """Calls all the while, by a client that trusts its registry at once; each must be answered."""
    answers: list[str] = []
    async with rpcfw.connect(url, cluster=ClusterOptions(linger_s=0.0)) as client:
        stub = client.stub(Shop)
        await stub.who()

        async def call() -> None:
            while True:
                answers.append(await stub.who())
                await asyncio.sleep(0.2)

        task = asyncio.create_task(call())
        yield answers
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# ------------------------------------------------------------------------------------------------ one registry


@SEEDS
def test_a_restart_takes_nobody_off_any_list(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = simulation.host("names1", serve_names)
        for shop in ("one", "two"):
            simulation.host(shop, shop_at("rpcfw://names1"))
        async with Watcher(simulation, "rpcfw://names1") as watcher, calling("rpcfw://names1") as answers:
            await watcher.until("one", "two")
            before = len(watcher.seen)
            for _ in range(5):
                names.crash()
                await asyncio.sleep(simulation.rng.choice([0.1, 3.0, 40.0]))
                names.restart()
                await asyncio.sleep(simulation.rng.choice([0.1, 3.0, 40.0]))
            await asyncio.sleep(60.0)
            assert len(watcher.seen) == before, watcher.seen
            assert len(answers) > 200

    simulate(scenario, seed=seed)


@SEEDS
def test_servers_are_known_again_within_two_seconds_of_a_restart(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = simulation.host("names1", lambda host: serve_names(host, lease_s=60.0))
        simulation.host("one", shop_at("rpcfw://names1"))
        await asyncio.sleep(5.0)
        names.crash()
        await asyncio.sleep(simulation.rng.uniform(10.0, 30.0))
        names.restart()
        async with rpcfw.connect("rpcfw://names1") as client:
            begun_at = simulation.elapsed_s
            assert await client.stub(Shop).who() == "one"
            assert simulation.elapsed_s - begun_at < 2.0

    simulate(scenario, seed=seed)


@SEEDS
def test_who_died_while_the_registry_was_away_goes_when_it_has_settled(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = simulation.host("names1", serve_names)
        for shop in ("one", "two"):
            simulation.host(shop, shop_at("rpcfw://names1"))
        async with Watcher(simulation, "rpcfw://names1") as watcher:
            await watcher.until("one", "two")
            names.crash()
            simulation.hosts["two"].crash()
            await asyncio.sleep(30.0)
            assert watcher.now == ["one", "two"]
            names.restart()
            assert 9.0 < await watcher.until("one") < 12.0

    simulate(scenario, seed=seed)


def test_a_new_registry_does_not_say_that_nobody_is_there_before_it_can_know() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.host("names1", serve_names)
        async with Watcher(simulation, "rpcfw://names1") as watcher:
            assert 9.0 < await watcher.until() < 11.0
            assert watcher.seen == [(watcher.seen[0][0], [])]

    simulate(scenario)


@SEEDS
def test_a_partition_longer_than_a_lease_costs_no_call(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.host("names1", serve_names)
        for shop in ("one", "two"):
            simulation.host(shop, shop_at("rpcfw://names1"))
        async with Watcher(simulation, "rpcfw://names1") as watcher, calling("rpcfw://names1"):
            await watcher.until("one", "two")
            simulation.partition("names1", ["one", "two", "test"])
            await asyncio.sleep(40.0)
            assert watcher.now == ["one", "two"]
            simulation.heal()
            await asyncio.sleep(40.0)
            assert watcher.now == ["one", "two"]

    simulate(scenario, seed=seed)


def test_a_server_that_dies_is_off_the_list_when_its_lease_has_ended() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.host("names1", lambda host: serve_names(host, lease_s=30.0))
        shop = simulation.host("one", shop_at("rpcfw://names1"))
        simulation.host("two", shop_at("rpcfw://names1"))
        async with Watcher(simulation, "rpcfw://names1") as watcher:
            await watcher.until("one", "two")
            await asyncio.sleep(100.0)
            shop.crash()
            assert 19.0 < await watcher.until("two") < 30.5

    simulate(scenario)


def test_a_server_that_was_paused_longer_than_its_lease_is_listed_again() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.host("names1", serve_names)
        shop = simulation.host("one", shop_at("rpcfw://names1"))
        async with Watcher(simulation, "rpcfw://names1") as watcher:
            await watcher.until("one")
            await asyncio.sleep(20.0)
            shop.pause()
            await watcher.until()
            shop.resume()
            assert await watcher.until("one") < 10.0

    simulate(scenario)


# ------------------------------------------------------------------------------------------------ two registries


@SEEDS
def test_one_of_two_registries_may_be_killed_at_any_time(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = [simulation.host(name, serve_names) for name in ("names1", "names2")]
        for shop in ("one", "two"):
            simulation.host(shop, shop_at(BOTH))
        async with Watcher(simulation, BOTH) as watcher, calling(BOTH) as answers:
            await watcher.until("one", "two")
            before = len(watcher.seen)
            for number in range(6):
                names[number % 2].crash()
                await asyncio.sleep(simulation.rng.choice([0.5, 5.0, 40.0]))
                names[number % 2].restart()
                await asyncio.sleep(simulation.rng.uniform(3.0, 30.0))
            assert len(watcher.seen) == before, watcher.seen
            assert len(answers) > 100

    simulate(scenario, seed=seed)


@SEEDS
def test_with_one_of_two_away_changes_are_seen_and_none_is_late(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        names = [simulation.host(name, serve_names) for name in ("names1", "names2")]
        one = simulation.host("one", shop_at(BOTH))
        async with Watcher(simulation, BOTH) as watcher:
            await watcher.until("one")
            await asyncio.sleep(15.0)
            names[0].crash()
            simulation.host("two", shop_at(BOTH))
            assert await watcher.until("one", "two") < 1.0
            async with rpcfw.connect(BOTH) as client:
                begun_at = simulation.elapsed_s
                assert await client.stub(Shop).who() in ("one", "two")
                assert simulation.elapsed_s - begun_at < 1.0
            one.crash()
            assert (
                await watcher.until("two") < 20.0
            )  # a lease after the registry that listed it went, at most
            names[0].restart()
            await asyncio.sleep(30.0)
            assert watcher.now == ["two"]

    simulate(scenario, seed=seed)


@SEEDS
def test_servers_that_reach_one_registry_are_seen_by_clients_that_reach_both(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        for name in ("names1", "names2"):
            simulation.host(name, serve_names)
        simulation.partition("names1", "one")
        simulation.partition("names2", "two")
        for shop in ("one", "two"):
            simulation.host(shop, shop_at(BOTH))
        async with Watcher(simulation, BOTH) as watcher:
            await watcher.until("one", "two")
            simulation.heal()
            await asyncio.sleep(60.0)
            assert watcher.now == ["one", "two"]

    simulate(scenario, seed=seed)


def test_one_registry_away_is_no_problem_and_both_are() -> None:
    async def scenario(simulation: Simulation) -> None:
        names = [simulation.host(name, serve_names) for name in ("names1", "names2")]
        registry = NamingRegistry.from_url(BOTH)
        async with registry.register(registration()):
            names[0].crash()
            await asyncio.sleep(10.0)
            assert registry.problem == ""
            assert await registry.services() == {"shop.Orders"}
            names[1].crash()
            await asyncio.sleep(10.0)
            assert "names1" in registry.problem
            assert "names2" in registry.problem
            names[1].restart()
            await asyncio.sleep(10.0)
            assert registry.problem == ""
        await registry.close()

    simulate(scenario)


# ------------------------------------------------------------------------------------------------ refusals


def test_a_full_registry_refuses_one_server_and_keeps_the_others() -> None:
    async def scenario(simulation: Simulation) -> None:
        async def full(host: Host) -> None:
            bounds = Bounds(max_registrations=2, per_client=1.0)
            async with naming.serve("tcp://0.0.0.0:7400", bounds=bounds, limits=QUIET) as server:
                await server.wait_closed()

        simulation.host("names1", full)
        registry = NamingRegistry.from_url("rpcfw://names1")
        first, second, third = (registration(port) for port in (7001, 7002, 7003))
        async with registry.register(first):
            leaving = contextlib.AsyncExitStack()
            await leaving.enter_async_context(registry.register(second))
            with pytest.raises(rpcfw.RpcError, match="holds 2 registrations, which is its limit") as caught:
                async with registry.register(third):
                    pass
            assert caught.value.code is rpcfw.Code.UNAVAILABLE
            snapshots = registry.watch("shop.Orders")
            assert await anext(snapshots) == {first, second}
            await asyncio.sleep(60.0)
            assert registry.problem == ""
            await leaving.aclose()
            async with registry.register(third):
                seen: frozenset[Registration] = frozenset()
                while seen != {first, third}:
                    seen = await anext(snapshots)
        await registry.close()

    simulate(scenario)


def test_what_is_no_registry_is_named() -> None:
    async def scenario(simulation: Simulation) -> None:
        async def other(host: Host) -> None:
            limits = Limits(block_threshold_s=None)
            async with rpcfw.serve(Shop(), listen="tcp://0.0.0.0:7400", limits=limits) as server:
                await server.wait_closed()

        simulation.host("names1", other)
        registry = NamingRegistry.from_url("rpcfw://names1")
        with pytest.raises(rpcfw.RpcError, match=r"rpcfw\.Registry") as caught:
            async with registry.register(registration()):
                pass
        assert caught.value.code is rpcfw.Code.UNAVAILABLE
        assert "rpcfw.Registry" in registry.problem
        with pytest.raises(rpcfw.RpcError, match=r"rpcfw\.Registry"):
            await registry.services()
        await registry.close()
        with pytest.raises(rpcfw.RpcError, match="closed") as caught:
            await registry.services()
        assert caught.value.code is rpcfw.Code.FAILED_PRECONDITION

    simulate(scenario)
