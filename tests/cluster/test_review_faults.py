"""What a review of the cluster found to go wrong on a network that takes time and fails."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

import rpcfw
from rpcfw import Limits, RpcError
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.options import ClusterOptions
from rpcfw.connection.channel import ConnectionOptions
from rpcfw.middleware import Broadcast
from rpcfw.testing import Simulation, simulate
from tests.calls.place import QUIET

SERVERS = ("s1", "s2", "s3")
HEARTBEAT_S, MISSES = 1.5, 3


@rpcfw.service("tests.Pace")
class Pace:
    """Takes its time."""

    def __init__(self, name: str) -> None:
        self.name = name

    @rpcfw.idempotent
    async def go(self, takes_s: float) -> str:
        """Its name, after so long."""
        await asyncio.sleep(takes_s)
        return self.name


async def serve(name: str, limits: Limits) -> None:
    """What a server's host runs."""
    async with rpcfw.serve(Pace(name), listen="tcp://0.0.0.0:7000", limits=limits):
        await asyncio.Event().wait()


async def hang_up() -> None:
    """A server that greets each client and breaks the connection."""
    async with rpcfw.serve(Pace(""), listen="tcp://0.0.0.0:7000", limits=QUIET) as server:
        while True:
            await asyncio.sleep(0.001)
            for connection in list(server._connections):
                if connection.greeted:
                    connection.session.abort("not you")


class World:
    """Servers of a simulation, a client of them, and what happens to its nodes."""

    def __init__(self, simulation: Simulation, servers: int = 3, **limits: float) -> None:
        self.simulation = simulation
        self.names = SERVERS[:servers]
        self.events: list[Event] = []
        its = dataclasses.replace(QUIET, **limits)  # type: ignore[arg-type]  # of any of the limits' types
        for name in self.names:
            simulation.host(name, lambda host: serve(host.name, its))

    def connect(self, *, wait_s: float = 2.0, broadcast: bool = False, pool_size: int = 1) -> rpcfw.Client:
        """A client that remembers."""
        return rpcfw.connect(
            *(f"tcp://{name}:7000" for name in self.names),
            middleware=[Broadcast(result="all")] if broadcast else None,
            options=ConnectionOptions(pool_size=pool_size),
            cluster=ClusterOptions(
                heartbeat_s=HEARTBEAT_S, misses=MISSES, wait_s=wait_s, on_event=self.events.append
            ),
        )

    def told(self, kind: EventKind, of: str) -> list[float]:
        """When it happened to a server."""
        return [
            event.at
            for event in self.events
            if event.kind is kind and event.endpoint.startswith(f"tcp://{of}:")
        ]


@pytest.mark.parametrize("timeout_s", [30.0, 1.0])
def test_a_busy_server_that_was_cut_off_gets_calls_again_within_two_seconds(timeout_s: float) -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation)
        loop = asyncio.get_running_loop()
        healed, back = loop.time() + 1e9, loop.create_future()

        async def work() -> None:
            while not back.done():
                try:
                    name = await rpcfw.with_options(pace, timeout_s=timeout_s).go(0.1)
                except RpcError:
                    continue
                if name == "s2" and loop.time() > healed and not back.done():
                    back.set_result(loop.time())

        async with world.connect() as client:
            pace = client.stub(Pace)
            await pace.go(0.0)
            await asyncio.sleep(1)
            workers = [asyncio.create_task(work()) for _ in range(20)]
            await asyncio.sleep(1)
            simulation.partition("s2", "test")
            await asyncio.sleep(10)
            simulation.heal()
            healed = loop.time()
            assert await back - healed <= 2.5
            await asyncio.gather(*workers)

    for seed in range(2):
        simulate(scenario, seed)


def test_with_several_connections_a_silent_server_is_gone_as_soon_as_with_one() -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation)
        loop = asyncio.get_running_loop()
        async with world.connect(pool_size=3) as client:
            pace = client.stub(Pace)
            for _ in range(30):
                await pace.go(0.0)
            await asyncio.sleep(4)
            begun = loop.time()
            simulation.partition("s2", "test")
            await asyncio.sleep(10)
            assert world.told(EventKind.DOWN, "s2")[0] - begun <= HEARTBEAT_S * MISSES + 0.1

    for seed in range(3):
        simulate(scenario, seed)


def test_a_server_that_refuses_connections_is_asked_ever_more_slowly() -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation, servers=1, max_connections=1)
        async with rpcfw.connect("tcp://s1:7000") as first:
            await first.stub(Pace).go(0.0)
            async with world.connect() as client:
                client.watch(Pace)
                await asyncio.sleep(20)
                assert len(world.told(EventKind.UP, "s1")) <= 40
                await first.close()
                await asyncio.sleep(2)
                assert await client.stub(Pace).go(0.0) == "s1"

    for seed in range(5):
        simulate(scenario, seed)


def test_a_server_that_breaks_what_it_has_accepted_is_asked_ever_more_slowly() -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation, servers=0)
        world.names = ("s1",)
        simulation.host("s1", lambda host: hang_up())
        async with world.connect() as client:
            client.watch(Pace)
            await asyncio.sleep(20)
            assert 10 <= len(world.told(EventKind.UP, "s1")) <= 40

    simulate(scenario, 0)


def test_the_first_call_to_every_node_waits_until_each_has_been_tried() -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation)
        async with world.connect(broadcast=True) as client:
            assert len(await client.stub(Pace).go(0.0)) == 3

        simulation.host("s2").crash()
        async with world.connect(broadcast=True) as client:
            with pytest.raises(RpcError, match="failed at 1 of 3 nodes: tcp://s2:7000: UNAVAILABLE"):
                await client.stub(Pace).go(0.0)

    for seed in range(5):
        simulate(scenario, seed)


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("limits", [{"max_age_s": 3.0}, {"idle_s": 1.0}])
@pytest.mark.parametrize("pool_size", [1, 2])
def test_limits_on_age_and_idleness_cost_no_call(
    servers: int, limits: dict[str, float], pool_size: int
) -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation, servers, **limits)
        loop = asyncio.get_running_loop()
        async with world.connect(pool_size=pool_size) as client:
            pace = client.stub(Pace)
            calls, end = [], loop.time() + 15
            while loop.time() < end:
                calls.append(asyncio.create_task(pace.go(0.02)))
                rate_s = 0.03 if "max_age_s" in limits else 0.5
                await asyncio.sleep(simulation.rng.expovariate(1 / rate_s))
            assert all(name in SERVERS for name in await asyncio.gather(*calls))
            assert pool_size > 1 or world.told(EventKind.DOWN, "s1")

    for seed in range(2):
        simulate(scenario, seed)


@pytest.mark.parametrize("rate", [0.99, 1.01])
def test_clocks_that_drift_lose_no_node(rate: float) -> None:
    async def scenario(simulation: Simulation) -> None:
        world = World(simulation)
        async with world.connect() as client:
            client.watch(Pace)
            simulation.drift("s1", rate)
            simulation.drift("test", 1 / rate)
            await asyncio.sleep(400)
            assert not any(world.told(EventKind.DOWN, name) for name in SERVERS)

    simulate(scenario, 0)
