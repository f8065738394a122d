"""A day of a small cluster: a client that calls now and then, three servers, heartbeats, and faults all day long.

It asks what is left of it: when all faults are healed, there is as much of everything at the end of the day as there
was after its first hour. `python -m tests.sim.day` plays a whole day and says what it took.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import random
import resource
import sys
import time
from collections import Counter

import rpcfw
from rpcfw import Client, Code, ConnectionOptions, RpcError, Server
from rpcfw.connection.client import ClientConnection
from rpcfw.connection.server import ServerConnection
from rpcfw.connection.session import Session
from rpcfw.testing.host import Host, Life
from rpcfw.testing.link import SimLink
from rpcfw.testing.schedule import random_schedule
from rpcfw.testing.simulation import SCENARIO, Simulation
from rpcfw.testing.tasks import SimTask
from rpcfw.testing.tcp import TcpSocket
from tests.calls.contract import KINDS, SUCCESS, Contract, OutOfStock, Service, Step, call
from tests.calls.place import QUIET, assert_idle, assert_unused, in_flight

HOUR_S = 3600.0
HOURS = 24
CLIENT, SERVERS = "client", ("s1", "s2", "s3")
KEEPALIVE_S = 15.0
CALL_EVERY_S = 5.0
FAULT_EVERY_S = 90.0
STILL_S = 11.0
"""So long after a call its deadline has passed, and no heartbeat is on its way yet."""
SETTLE_S = 300.0
"""After the last fault of a span: the slowest to notice one are servers, which ping a silent client every 60 s."""
LIFE = (ServerConnection, ClientConnection, Session, SimTask, SimLink, TcpSocket, Life)
"""What piles up where something is not let go."""


@dataclasses.dataclass(frozen=True)
class Census:
    """What there is at one moment.

    Attributes:
        tasks: not ended, of all hosts.
        timers: set, of all hosts; those of the network come and go with heartbeats, and end with their sockets.
        handlers: running.
        calls: in progress at the client.
        connections: at the servers.
        open_ends: of links.
        objects: alive, of each type of `LIFE`.
        all_objects: alive, of any type; Python keeps more or fewer of its own, so it is not compared.
    """

    tasks: int
    timers: int
    handlers: int
    calls: int
    connections: int
    open_ends: int
    objects: dict[str, int]
    all_objects: int = dataclasses.field(compare=False)


class Shop(Service):
    """Plays the steps of a call; its declared error is a new one each time, as an error keeps where it was raised."""

    async def _play(self, step: Step) -> None:
        if step is Step.DECLARED:
            raise OutOfStock("pen", 2)
        await super()._play(step)


class Day:
    """A client, its servers, and what they live through.

    Attributes:
        ends: how calls ended.
        counts: what there was at the end of each span.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.ends: Counter[str] = Counter()
        self.counts: list[Census] = []
        self._simulation = simulation
        self._client: Client
        self._servers: dict[str, Server] = {}
        self._open = asyncio.Event()
        for name in SERVERS:
            simulation.host(name, self._serve)
        simulation.host(CLIENT, self._call_now_and_then)

    async def live(self, until_s: float) -> None:
        """Calls and faults until some time of the day, of which the end is quiet; then count."""
        simulation = self._simulation
        span_s = until_s - SETTLE_S - simulation.elapsed_s
        hosts = [CLIENT, *SERVERS]
        self._open.set()
        await simulation.inject(
            random_schedule(simulation.rng, hosts, span_s, mean_gap_s=FAULT_EVERY_S, at_most=2)
        )
        await self._sleep_until(until_s - SETTLE_S)
        self._open.clear()
        await self._sleep_until(until_s - KEEPALIVE_S)
        await simulation.host(CLIENT).call(self._call_each)
        await asyncio.sleep(STILL_S)
        for server in self._servers.values():
            assert_idle(server)
        assert_unused(self._client)
        for _ in range(3):  # an asynchronous generator is garbage twice: in between it is closed by a task
            gc.collect()
            await asyncio.sleep(STILL_S / 10)
        self._count()

    async def _sleep_until(self, elapsed_s: float) -> None:
        await asyncio.sleep(elapsed_s - self._simulation.elapsed_s)

    def _count(self) -> None:
        servers = self._servers.values()
        everything = gc.get_objects()
        types = Counter(map(type, everything))
        census = Census(
            tasks=len(self._simulation.loop.tasks()),
            timers=self._simulation.loop._timers.of_hosts(),
            handlers=sum(server.running for server in servers),
            calls=in_flight(self._client),
            connections=sum(server.connections for server in servers),
            open_ends=self._simulation.network.open_ends(),
            objects={kind.__name__: types[kind] for kind in LIFE},
            all_objects=len(everything),
        )
        self._simulation.record("census", SCENARIO, f"{census.tasks} tasks, {census.open_ends} open ends")
        self.counts.append(census)

    # ------------------------------------------------------------------------------------------ what hosts run

    async def _serve(self, host: Host) -> None:
        server = rpcfw.serve(Shop(), listen="tcp://0.0.0.0:7000", limits=QUIET)
        self._servers[host.name] = server
        async with server:
            await asyncio.Event().wait()

    async def _call_now_and_then(self, host: Host) -> None:
        rng = random.Random(self._simulation.rng.getrandbits(64))
        options = ConnectionOptions(keepalive_s=KEEPALIVE_S, idle_s=None)
        async with rpcfw.connect(*(f"tcp://{name}:7000" for name in SERVERS), options=options) as client:
            self._client = client
            async with asyncio.TaskGroup() as calls:  # which keeps those in progress, and no other
                while True:
                    await asyncio.sleep(rng.expovariate(1 / CALL_EVERY_S))
                    await self._open.wait()
                    calls.create_task(self._call(client.stub(Contract), rng))

    async def _call(self, stub: Contract, rng: random.Random) -> None:
        """One call of any kind, which may fail, wait for its deadline, or be given up before."""
        kind, timeout_s = rng.choice(KINDS), rng.uniform(0.2, 20.0)
        step = rng.choice((Step.SUCCEED, Step.SUCCEED, Step.SUCCEED, Step.WAIT, Step.DECLARED))
        patience_s = rng.uniform(0.0, timeout_s) if rng.random() < 0.2 else None
        try:
            async with asyncio.timeout(patience_s):
                result = await call(rpcfw.with_options(stub, timeout_s=timeout_s), kind, step)
        except TimeoutError:
            self.ends["given up"] += 1
        except OutOfStock:
            assert step is Step.DECLARED
            self.ends["declared error"] += 1
        except RpcError as error:
            if error.code not in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
                raise
            self.ends[error.code.name] += 1
        else:
            assert result == SUCCESS[kind]
            self.ends["reply"] += 1

    async def _call_each(self) -> None:
        """A call over each of the connections, and before that over new ones where there are none."""
        stub = self._client.stub(Contract)
        while sum(server.connections for server in self._servers.values()) < len(SERVERS):
            await stub.nothing()
        for _ in SERVERS:
            await stub.nothing()


async def scenario(simulation: Simulation, hours: int = HOURS) -> Day:
    """A day, or some hours of it: at the end there must be what there was after the first hour."""
    day = Day(simulation)
    await day.live(HOUR_S)
    await day.live(hours * HOUR_S)
    first, last = day.counts
    assert first == last, f"at the end there is not what there was after the first hour:\n{first}\n{last}"
    return day


def main(seed: int) -> None:
    """Play a whole day and say what it took."""
    began_s = time.monotonic()
    simulation = Simulation(seed, keep_events=1000)
    day = simulation.run(scenario)
    took_s = time.monotonic() - began_s
    print(f"seed {seed}: {HOURS} simulated hours in {took_s:.1f} s, {simulation.trace.recorded:,} events")
    crashes = sum(host.crashes for host in simulation.hosts.values())
    print(f"{crashes} crashes; calls: {day.ends}")
    print(f"after the first hour: {day.counts[0]}")
    print(f"at the end:           {day.counts[1]}")
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024:,} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
