"""Heartbeats on a simulated network: how soon a node is known to be gone, and how soon it is back."""

from __future__ import annotations

import asyncio

import pytest

import rpcfw
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.options import ClusterOptions
from rpcfw.testing import Simulation, simulate
from tests.calls.place import QUIET
from tests.cluster.fleet import Desk

HEARTBEAT_S, MISSES = 1.5, 3
ROUND_TRIP_S = 0.1
SERVERS = ("s1", "s2", "s3")
ENDPOINTS = [f"tcp://{name}:7000" for name in SERVERS]


async def serve(name: str) -> None:
    """What a server's host runs."""
    async with rpcfw.serve(Desk(name), listen="tcp://0.0.0.0:7000", limits=QUIET):
        await asyncio.Event().wait()


def open_hosts(simulation: Simulation) -> None:
    """Three servers."""
    for name in SERVERS:
        simulation.host(name, lambda host: serve(host.name))


def connect(events: list[Event]) -> rpcfw.Client:
    """A client of the three."""
    options = ClusterOptions(heartbeat_s=HEARTBEAT_S, misses=MISSES, on_event=events.append)
    return rpcfw.connect(*ENDPOINTS, cluster=options)


def told(events: list[Event], kind: EventKind, of: str) -> list[float]:
    """When it happened to a server."""
    return [event.at for event in events if event.kind is kind and event.endpoint == f"tcp://{of}:7000"]


@pytest.mark.parametrize("fault", ["partition", "pause"])
def test_a_silent_server_is_known_to_be_gone_within_the_missed_heartbeats(fault: str) -> None:
    async def scenario(simulation: Simulation) -> None:
        open_hosts(simulation)
        events: list[Event] = []
        loop = asyncio.get_running_loop()
        async with connect(events) as client:
            desk = client.stub(Desk)
            for _ in range(5):
                await desk.who()
                await asyncio.sleep(1)
            begun = loop.time()
            if fault == "partition":
                simulation.partition("s2", "test")
            else:
                simulation.pause("s2")
            await asyncio.sleep(10)
            (gone,) = told(events, EventKind.DOWN, "s2")
            assert gone - begun <= HEARTBEAT_S * MISSES + ROUND_TRIP_S
            for _ in range(10):
                assert await desk.who() != "s2"
            healed = loop.time()
            if fault == "partition":
                simulation.heal()
            else:
                simulation.resume("s2")
            await asyncio.sleep(5)
            assert told(events, EventKind.UP, "s2")[-1] - healed <= 2.0
            assert "s2" in {await desk.who() for _ in range(30)}

    for seed in range(5):
        simulate(scenario, seed)


def test_a_host_that_lost_its_power_is_found_by_heartbeats_and_back_after_its_start() -> None:
    async def scenario(simulation: Simulation) -> None:
        open_hosts(simulation)
        events: list[Event] = []
        loop = asyncio.get_running_loop()
        async with connect(events) as client:
            desk = client.stub(Desk)
            await desk.who()
            await asyncio.sleep(5)
            begun = loop.time()
            await simulation.crash("s3")
            calls = [asyncio.create_task(rpcfw.with_options(desk, timeout_s=9).who()) for _ in range(30)]
            assert "s3" not in await asyncio.gather(*calls), "what waited there was made again elsewhere"
            assert loop.time() - begun <= HEARTBEAT_S * MISSES + 2.0
            await simulation.restart("s3")
            await asyncio.sleep(3)
            assert told(events, EventKind.UP, "s3")[-1] > begun

    for seed in range(5):
        simulate(scenario, seed)


def test_heartbeats_come_no_more_often_than_a_server_bears() -> None:
    async def scenario(simulation: Simulation) -> None:
        open_hosts(simulation)
        events: list[Event] = []
        options = ClusterOptions(heartbeat_s=0.4, misses=3, on_event=events.append)
        async with rpcfw.connect(*ENDPOINTS, cluster=options) as client:
            desk = client.stub(Desk)
            for _ in range(100):
                await desk.who()
                await asyncio.sleep(1)
        assert not [event for event in events if event.kind is EventKind.DOWN], "nobody was sent away"

    simulate(scenario, 1)
