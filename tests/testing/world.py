"""A simulated loop and network with three hosts, and a way to play a scenario on them and see what is left."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any

from rpcfw.testing.clock import START_S, context_on
from rpcfw.testing.conditions import Conditions
from rpcfw.testing.loop import SimLoop
from rpcfw.testing.network import Network
from rpcfw.testing.trace import Trace

SEED = int(os.environ.get("RPCFW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
STEADY = Conditions(latency_s=0.01)


class At:
    """A host for the loop: a name, and a clock that counts `rate` seconds in each true one."""

    def __init__(self, name: str, rate: float = 1.0) -> None:
        self.name = name
        self.rate = rate
        self.dead = False

    def local(self, true_s: float, /) -> float:
        return true_s * self.rate

    def true(self, local_s: float, /) -> float:
        return local_s / self.rate


class World:
    """A loop, a network and its trace."""

    def __init__(self, seed: int, conditions: Conditions, *, permute: bool) -> None:
        self.loop = SimLoop(seed, permute=permute, limit_s=100_000)
        self.trace = Trace(self.loop.global_time)
        self.network = Network(random.Random(f"{seed}/network"), trace=self.trace, default=conditions)
        self.loop.network = self.network
        self.writers: list[asyncio.StreamWriter] = []
        for name in ("client", "orders", "third"):
            self.network.host(name)

    def on(self, host: str, work: Coroutine[Any, Any, Any], rate: float = 1.0) -> asyncio.Task[Any]:
        """Run a coroutine on a host."""
        return self.loop.create_task(work, context=context_on(At(host, rate)))

    async def echo(self, host: str = "orders", port: int = 7000) -> asyncio.AbstractServer:
        """A server that sends everything back."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(1000):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()

        return await self.on(host, asyncio.start_server(serve, host, port))  # type: ignore[no-any-return]

    async def connect(
        self, host: str = "orders", port: int = 7000
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.on("client", asyncio.open_connection(host, port))
        self.writers.append(writer)
        return reader, writer

    async def play(self, scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario, and close what it leaves open."""
        try:
            await scenario(self)
        finally:
            for writer in self.writers:
                writer.close()
            await asyncio.sleep(1)

    def now(self) -> float:
        return self.loop.global_time() - START_S

    def kinds(self, kind: str) -> list[str]:
        return [event.text for event in self.trace if event.kind == kind]


def simulate(
    scenario: Callable[[World], Coroutine[Any, Any, None]],
    conditions: Conditions = STEADY,
    *,
    seed: int = SEED,
    permute: bool = True,
) -> World:
    print(f"replay with RPCFW_TEST_SEED={seed}")
    world = World(seed, conditions, permute=permute)
    try:
        world.loop.run_until_complete(world.play(scenario))
    finally:
        world.loop.finish()
    return world
