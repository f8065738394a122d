"""What the scenarios of planted bugs have in common: a small service, who serves it, who calls it, and what goes wrong.

A violation is told to the trace before it is raised, so that the timeline of a run ends in it.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import rpcfw
from rpcfw import ConnectionOptions, Server
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.schedule import Kind, Schedule, random_schedule
from rpcfw.testing.simulation import Simulation
from tests.calls.place import QUIET

CLIENT, SERVER = "client", "s1"
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S = 15.0, 5.0
OPTIONS = ConnectionOptions(keepalive_s=KEEPALIVE_S, keepalive_timeout_s=KEEPALIVE_TIMEOUT_S)
Work = Callable[[rpcfw.Client, random.Random], Coroutine[Any, Any, None]]


def violation(simulation: Simulation, host: str, what: str) -> AssertionError:
    """The error of a run that is not as it should be, which the trace is told as well."""
    simulation.saw("violation", host, what.partition("\n")[0])
    return AssertionError(what)


async def serve(implementation: Any, servers: list[Server]) -> None:
    """What a server's host runs; the latest server is the last of `servers`."""
    servers.append(rpcfw.serve(implementation, listen="tcp://0.0.0.0:7000", limits=QUIET))
    async with servers[-1]:
        await asyncio.Event().wait()


def calling(simulation: Simulation, name: str, work: Work) -> Awaitable[None]:
    """Run a client of the server on a host; no call is retried, and a deadline has who says so."""
    rng = random.Random(simulation.rng.getrandbits(64))

    async def client() -> None:
        address = f"tcp://{SERVER}:7000"
        async with rpcfw.connect(address, options=OPTIONS, middleware=[], timeout_s=None) as client:
            await work(client, rng)

    return simulation.host(name).call(client)


def unreliable(simulation: Simulation, kinds: tuple[Kind, ...], span_s: float) -> Schedule:
    """Draw delay, loss, and faults, some ten of them; only the server crashes."""
    rng = simulation.rng
    simulation.network.default = Conditions(
        Latency(rng.uniform(0.001, 0.05), sigma=rng.uniform(0.1, 1.0)), loss=rng.choice((0.0, 0.01, 0.05))
    )
    schedule = random_schedule(rng, (CLIENT, SERVER), span_s, kinds=kinds, mean_gap_s=span_s / 10)
    return Schedule(tuple(fault for fault in schedule if fault.kind != "crash" or CLIENT not in fault.hosts))


@rpcfw.service("planted.Desk")
class Desk(Protocol):
    """Answers late, or never."""

    async def echo(self, token: str, after_s: float) -> str: ...

    async def hold(self, token: str) -> None: ...


class Clerk(Desk):
    """Tells the trace which calls it holds."""

    def __init__(self, simulation: Simulation) -> None:
        self.held: set[str] = set()
        self._saw = functools.partial(simulation.saw, "handler", SERVER)

    async def echo(self, token: str, after_s: float) -> str:
        await asyncio.sleep(after_s)
        return token

    async def hold(self, token: str) -> None:
        self.held.add(token)
        self._saw(f"{token} begins")
        try:
            await asyncio.Event().wait()
        finally:
            self.held.discard(token)
            self._saw(f"{token} ends")
