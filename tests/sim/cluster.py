"""A cluster under faults, in simulation: `make sim-cluster` plays it with many seeds.

First single faults, each with its bounds: a node that cannot be reached is known to be gone within interval x misses
and a round trip, and is used again within two seconds of the end of the fault. Then a total outage: what is tried again
stays under a fifth of what was offered. Last, faults on top of each other, after which nothing may be left.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import rpcfw
from rpcfw import Client, Code, RpcError, Server
from rpcfw.balancer import Balancer, LeastInFlight, Node, PowerOfTwo, RoundRobin, SmoothWeighted
from rpcfw.breaker import ConsecutiveFailures, State
from rpcfw.cluster.events import Event, EventKind
from rpcfw.cluster.node import Node as ClusterNode
from rpcfw.cluster.options import ClusterOptions
from rpcfw.middleware import Retry
from rpcfw.registry import MemoryRegistry, MemoryStore
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.schedule import Fault, Kind, Schedule, random_schedule
from rpcfw.testing.simulation import SCENARIO, Simulation
from tests.calls.place import QUIET, assert_idle, assert_unused

HEARTBEAT_S, MISSES = 1.5, 3
DETECTED_S = HEARTBEAT_S * MISSES
RECOVERED_S = 2.0
DRIFT = 0.05
"""So much faster or slower a clock may go here; bounds that a host keeps by its own clock stretch with it."""
ROUND_TRIP_S = 0.1
QUIET_S = 6.0
FAULTS = 4
CHAOS_S = 30.0
SETTLE_S = 40.0
PER_S = 10.0
OUTAGE_S = 15.0
OUTAGE_CALLS = 1200
MOST_TRIES = 1.2
TIMEOUT_S = 3.0
IN_TIME_S = 0.5


@rpcfw.service("sim.Echo")
class Echo:
    """Gives back what it was given."""

    @rpcfw.idempotent
    async def echo(self, text: str) -> str:
        """The same."""
        await asyncio.sleep(0.002)
        return text

    async def once(self, text: str) -> str:
        """The same; must not run twice."""
        RAN[text] += 1
        return text


RAN: Counter[str] = Counter()
"""How often each call of `once` ran, on all hosts of the run; they share this process."""


class Witness:
    """A balancer that passes what it is asked on, and looks whether the nodes are all worth trying."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    def pick(self, nodes: Sequence[Node], call: rpcfw.Call) -> Node:
        """What the balancer picks."""
        for node in nodes:
            assert isinstance(node, ClusterNode)
            assert node.peer.up, f"{node.address} is known to be gone, and was to be chosen for a call"
        return self._balancer.pick(nodes, call)


class Tries:
    """Middleware below the retry: counts what is tried."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, handler: rpcfw.Handler) -> rpcfw.Handler:
        """Wrap a handler."""

        def counted(call: rpcfw.Call) -> Awaitable[Any]:
            self.count += 1
            return handler(call)

        return counted


class Caller:
    """One client on a host of its own, what it calls, and what it was told."""

    def __init__(self, simulation: Simulation, name: str, source: Any, balancer: Balancer) -> None:
        self.simulation = simulation
        self.name = name
        self.events: list[tuple[float, Event]] = []
        self.tries = Tries()
        self.ends: Counter[str] = Counter()
        self.client: Client | None = None
        self._source = source
        self._balancer = balancer
        self._rng = random.Random(simulation.rng.getrandbits(64))
        self._numbers = 0

    async def open(self) -> None:
        """Make the client; on its host."""
        source: Any = self._source() if callable(self._source) else self._source
        options = ClusterOptions(
            heartbeat_s=HEARTBEAT_S,
            misses=MISSES,
            breaker=ConsecutiveFailures if self._rng.random() < 0.5 else None,
            on_event=self._on_event,
        )
        servers: list[Any] = source if isinstance(source, list) else [source]
        self.client = rpcfw.connect(
            *servers,
            balancer=Witness(self._balancer),
            middleware=[Retry(), self.tries],
            timeout_s=TIMEOUT_S,
            cluster=options,
        )
        self.client.watch(Echo)

    async def call(self) -> None:
        """One call, which has to end in one of the ways that there are, and in time."""
        assert self.client is not None
        loop = asyncio.get_running_loop()
        echo = self.client.stub(Echo)
        self._numbers += 1
        token, once = f"{self.name}-{self._numbers}", self._rng.random() < 0.3
        begun = loop.time()
        (end,) = await asyncio.gather(echo.once(token) if once else echo.echo(token), return_exceptions=True)
        if isinstance(end, RpcError):
            assert end.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED), f"{token} ended with {end!r}"
            assert not (once and end.executed is False and RAN[token]), f"{token} ran, and says it did not"
            self.ends[end.code.name] += 1
        else:
            assert end == token, f"{token} got the reply {end!r}"
            assert not once or RAN[token] == 1, f"{token} was answered and ran {RAN[token]} times"
            self.ends["reply"] += 1
        assert RAN[token] <= 1, f"{token} ran {RAN[token]} times"
        took_s = loop.time() - begun
        assert took_s <= TIMEOUT_S + IN_TIME_S, f"{token} took {took_s:.3f} s; its deadline was {TIMEOUT_S} s"

    async def calls(self, lasts_s: float, per_s: float) -> None:
        """Calls at random times."""
        made = []
        loop = asyncio.get_running_loop()
        end = loop.time() + lasts_s
        while loop.time() < end:
            await asyncio.sleep(self._rng.expovariate(per_s))
            made.append(asyncio.ensure_future(self.call()))
        await asyncio.gather(*made)

    def on_host(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run something on the client's host."""
        return self.simulation.host(self.name).call(function)

    def start(self, lasts_s: float, per_s: float) -> asyncio.Future[Any]:
        """Calls at random times, on the client's host."""
        return self.on_host(lambda: self.calls(lasts_s, per_s))

    def told(self, kind: EventKind, server: str, since: float) -> list[float]:
        """When it was told of a server, in true time from then on."""
        address = f"tcp://{server}:7000"
        return [
            at
            for at, event in self.events
            if event.kind is kind and event.endpoint == address and at >= since
        ]

    def nodes(self) -> list[ClusterNode]:
        """All its nodes."""
        assert self.client is not None
        return [node for node in self.client.nodes if isinstance(node, ClusterNode)]

    def _on_event(self, event: Event) -> None:
        self.events.append((self.simulation.loop.global_time(), event))
        self.simulation.record("cluster", self.name, str(event))


async def scenario(simulation: Simulation) -> None:
    """All three parts, with the sort of cluster that the seed says."""
    RAN.clear()
    rng = simulation.rng
    simulation.network.default = Conditions(Latency(rng.choice((0.0005, 0.002)), sigma=rng.uniform(0.1, 0.6)))
    names = [f"s{number}" for number in range(1, rng.randrange(3, 6))]
    before = set(simulation.loop.tasks())
    servers: dict[str, Server] = {}
    store = MemoryStore() if rng.random() < 0.5 else None
    for name in names:
        simulation.host(name, lambda host: _serve(host.name, servers, store))
    endpoints = [f"tcp://{name}:7000" for name in names]
    source: Any = endpoints if store is None else lambda: MemoryRegistry(store)
    balancers = (RoundRobin, PowerOfTwo, LeastInFlight, SmoothWeighted)
    callers = [Caller(simulation, name, source, rng.choice(balancers)()) for name in ("c1", "c2")]
    for caller in callers:
        simulation.host(caller.name).drift(1 + rng.uniform(-DRIFT, DRIFT))
        await caller.on_host(caller.open)
    await asyncio.sleep(QUIET_S)
    await _single_faults(simulation, names, callers)
    await _total_outage(simulation, names, callers)
    await _chaos(simulation, names, callers)
    for caller in callers:
        _check_at_rest(caller, names)
        await caller.on_host(caller.client.close)  # type: ignore[union-attr]  # it is open
        assert_unused(caller.client)  # type: ignore[arg-type]
    for server in servers.values():
        assert_idle(server)
    for name in names:
        await simulation.host(name).stop()
    await asyncio.sleep(SETTLE_S)
    left = [task for task in simulation.loop.tasks() if task not in before]
    assert not left, f"tasks left behind: {left}"
    ends = sum((caller.ends for caller in callers), Counter[str]())
    simulation.record("ends", SCENARIO, ", ".join(f"{how} {count}" for how, count in sorted(ends.items())))


async def _serve(name: str, servers: dict[str, Server], store: MemoryStore | None) -> None:
    server = servers[name] = rpcfw.serve(Echo(), listen="tcp://0.0.0.0:7000", limits=QUIET)
    async with server:
        if store is None:
            await asyncio.Event().wait()
        async with rpcfw.register(server, MemoryRegistry(store), advertise=f"tcp://{name}:7000"):
            await asyncio.Event().wait()


# ----------------------------------------------------------------------------------------------- single faults


async def _single_faults(simulation: Simulation, names: list[str], callers: list[Caller]) -> None:
    rng = simulation.rng
    for _ in range(FAULTS):
        victim = rng.choice(names)
        kind: Kind = rng.choice(("crash", "partition", "one_way", "pause"))
        lasts_s = rng.uniform(1.0, 12.0)
        if kind == "partition":
            targets: Any = ((victim,), tuple(caller.name for caller in callers))
        elif kind == "one_way":
            pair = ((victim,), tuple(caller.name for caller in callers))
            targets = pair if rng.random() < 0.5 else pair[::-1]
        else:
            targets = (victim,)
        calling = [caller.start(lasts_s + QUIET_S, PER_S) for caller in callers]
        begun = simulation.loop.global_time()
        await simulation.inject(Schedule((Fault(0.0, kind, targets, round(lasts_s, 3)),)))
        ended = simulation.loop.global_time()
        for caller in callers:
            _check_detected(caller, kind, victim, begun, ended)
        await asyncio.sleep((RECOVERED_S + ROUND_TRIP_S) * (1 + DRIFT))
        for caller in callers:
            _check_recovered(caller, kind, names)
        await asyncio.gather(*calling)


def _check_detected(caller: Caller, kind: str, victim: str, begun: float, ended: float) -> None:
    within_s = (DETECTED_S + ROUND_TRIP_S) / (1 - DRIFT)
    if ended - begun < within_s:
        return
    gone = caller.told(EventKind.DOWN, victim, begun)
    assert gone, f"{caller.name} never noticed that {victim} was gone: {kind} of {ended - begun:.3f} s"
    assert gone[0] - begun <= within_s, (
        f"{caller.name} noticed after {gone[0] - begun:.3f} s that {victim} was gone ({kind}); "
        f"{within_s:.3f} s are allowed"
    )


def _check_recovered(caller: Caller, kind: str, names: list[str]) -> None:
    up = {node.address for node in caller.nodes() if node.peer.up}
    missing = [name for name in names if f"tcp://{name}:7000" not in up]
    reasons = "; ".join(node.peer.reason for node in caller.nodes() if not node.peer.up)
    assert not missing, f"{caller.name} does not use {missing} {RECOVERED_S} s after the {kind}: {reasons}"


# ---------------------------------------------------------------------------------------------- total outage


async def _total_outage(simulation: Simulation, names: list[str], callers: list[Caller]) -> None:
    clients = [caller.name for caller in callers]
    simulation.partition(names, clients)
    per_s = OUTAGE_CALLS / OUTAGE_S
    before = [(caller.tries.count, sum(caller.ends.values())) for caller in callers]
    await asyncio.gather(*(caller.start(OUTAGE_S, per_s) for caller in callers))
    for caller, (tries, calls) in zip(callers, before, strict=True):
        tried, offered = caller.tries.count - tries, sum(caller.ends.values()) - calls
        assert tried <= MOST_TRIES * offered, (
            f"{caller.name} tried {tried} times what it was asked {offered} times, all servers being out of reach"
        )
    simulation.heal(names, clients)
    await asyncio.sleep((RECOVERED_S + ROUND_TRIP_S) * (1 + DRIFT))
    for caller in callers:
        _check_recovered(caller, "total outage", names)
    await asyncio.sleep(QUIET_S)


# ----------------------------------------------------------------------------------------------------- chaos


async def _chaos(simulation: Simulation, names: list[str], callers: list[Caller]) -> None:
    rng = simulation.rng
    kinds: tuple[Kind, ...] = ("crash", "partition", "one_way", "pause", "slow", "drift", "lossy")
    victims = [*names, *(caller.name for caller in callers)]
    schedule = random_schedule(rng, victims, CHAOS_S, kinds=kinds, mean_gap_s=rng.uniform(2.0, 6.0))
    schedule = Schedule(
        tuple(
            fault
            for fault in schedule
            if fault.kind not in ("crash", "pause", "drift") or set(fault.hosts) <= set(names)
        )
    )
    nemesis = simulation.inject(schedule)
    await asyncio.gather(*(caller.start(CHAOS_S, PER_S) for caller in callers))
    await nemesis
    await asyncio.sleep(SETTLE_S)


def _check_at_rest(caller: Caller, names: list[str]) -> None:
    """Nothing is in progress, everything is in reach, and no breaker stays open for ever."""
    _check_recovered(caller, "chaos", names)
    now = asyncio.get_running_loop().time()
    for node in caller.nodes():
        assert node.in_flight == 0, f"{node} has {node.in_flight} calls in flight, and none was made"
        if node.breaker is not None and node.breaker.state(now) is State.OPEN:
            assert node.breaker.retry_at(now) < now + 400, f"the breaker of {node} opens no more"
    assert caller.client is not None
    cluster = caller.client._cluster
    assert cluster is not None
    assert all(not pool._waiting for pool in cluster._pools.values())
