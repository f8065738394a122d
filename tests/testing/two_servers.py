"""A small scenario for tests of what plays scenarios: calls to two servers while everything goes wrong at random."""

from __future__ import annotations

import asyncio

import rpcfw
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.host import Host
from rpcfw.testing.nemesis import random_schedule
from rpcfw.testing.simulation import SCENARIO, Simulation

SERVERS = ("s1", "s2")
CALLS = 12
SPAN_S = 10.0
QUIET = rpcfw.Limits(block_threshold_s=None)


@rpcfw.service("test.Words")
class Words:
    async def shout(self, word: str) -> str:
        await asyncio.sleep(0.2)
        return word.upper()


async def serve(host: Host) -> None:
    async with rpcfw.serve(Words(), listen="tcp://0.0.0.0:7000", limits=QUIET):
        await asyncio.Event().wait()


async def scenario(simulation: Simulation) -> None:
    rng = simulation.rng
    simulation.network.default = Conditions(
        Latency(rng.choice((0.001, 0.05)), sigma=0.5), loss=rng.choice((0.0, 0.05))
    )
    for name in SERVERS:
        simulation.host(name, serve)
    nemesis = simulation.inject(random_schedule(rng, SERVERS, SPAN_S, mean_gap_s=2.0))

    async def call(words: Words, number: int) -> None:
        await asyncio.sleep(number * SPAN_S / CALLS)
        try:
            ended = await words.shout(f"word {number}")
            assert ended == f"WORD {number}"
        except rpcfw.RpcError as error:
            ended = error.code.name
        simulation.record("ended", SCENARIO, f"call {number}: {ended}")

    async with rpcfw.connect(*(f"tcp://{name}:7000" for name in SERVERS), timeout_s=2.0) as client:
        words = client.stub(Words)
        tasks = {asyncio.create_task(call(words, number)) for number in range(CALLS)}
        for task in tasks:  # a set: in which order it iterates must not matter to the run
            task.set_name(f"call {simulation.rng.random()}")
        await asyncio.gather(*tasks)
    await nemesis
