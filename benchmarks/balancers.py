"""Balancers beside each other: five servers, one of them slow, simulated in virtual time.

Clients arrive by chance (open loop: they do not wait for each other), each with a balancer and statistics of its own;
servers have a number of workers and a queue. The same seed gives the same arrivals and service times to every policy,
and the same table each time.

    python -m benchmarks.balancers [--calls 20000] [--slow 10] [--seed 1] [--json FILE] [--cost]
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import heapq
import json
import random
import sys
import timeit
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import rpcfw
from rpcfw.balancer import (
    Balancer,
    ConsistentHash,
    LeastInFlight,
    LeastLoaded,
    PowerOfTwo,
    RoundRobin,
    ShortestResponse,
    SmoothWeighted,
    WeightedRandom,
    by_argument,
)
from rpcfw.balancer.statistics import Statistics
from rpcfw.call import Call
from rpcfw.endpoint import Endpoint

NOTHING: Mapping[str, float] = MappingProxyType({})


@rpcfw.service("benchmarks.Keyed")
class Keyed:
    """One method with a key."""

    async def get(self, key: int) -> int:
        return key


GET = rpcfw.spec_of(Keyed).methods["get"]
Clock = Callable[[], float]
Make = Callable[[random.Random, Clock], Balancer]
POLICIES: dict[str, Make] = {
    "round robin": lambda rng, clock: RoundRobin(),
    "smooth weighted": lambda rng, clock: SmoothWeighted(),
    "weighted random": lambda rng, clock: WeightedRandom(rng=rng),
    "consistent hash": lambda rng, clock: ConsistentHash(by_argument("key"), rng=rng),
    "least in flight": lambda rng, clock: LeastInFlight(rng=rng),
    "shortest response": lambda rng, clock: ShortestResponse(rng=rng, clock=clock),
    "least loaded": lambda rng, clock: LeastLoaded(rng=rng),
    "power of two": lambda rng, clock: PowerOfTwo(rng=rng, clock=clock),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is simulated. Times in seconds.

    Attributes:
        servers: how many; the last one is slow.
        slow: so many times longer a call takes there.
        workers: calls that one server works on at once.
        service_s: what a call takes on the average at a fast server, without waiting; exponential.
        calls_per_s: by all clients together.
        heartbeat_s: how old the load that servers report can be.
    """

    servers: int = 5
    slow: float = 10.0
    workers: int = 16
    service_s: float = 0.01
    calls_per_s: float = 500.0
    calls: int = 20_000
    clients: int = 4
    heartbeat_s: float = 3.0
    seed: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How it went: each server's share of calls, the slow one's last, and latencies in milliseconds."""

    policy: str
    shares: list[float]
    p50_ms: float
    p99_ms: float


class Server:
    """Workers and a queue."""

    def __init__(self, service_s: float, workers: int) -> None:
        self.service_s = service_s
        self.free = workers
        self.running = 0
        self.calls = 0
        self.queue: deque[tuple[float, float, SimulatedNode]] = deque()
        self.reported = NOTHING


@dataclasses.dataclass(slots=True, eq=False)
class SimulatedNode:
    """A server as one client sees it."""

    endpoint: Endpoint
    server: Server
    statistics: Statistics = dataclasses.field(default_factory=Statistics)
    weight: float = 100
    version: str = "1.0"
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    available: bool = True

    @property
    def in_flight(self) -> int:
        return self.statistics.in_flight

    @property
    def reported(self) -> Mapping[str, float]:
        return self.server.reported

    def handler(self, call: Call) -> Awaitable[Any]:
        raise NotImplementedError("a simulated node answers by itself")


def simulate(policy: str, make: Make, setting: Setting) -> Result:
    """Run one policy."""
    rng, now = random.Random(setting.seed), 0.0
    servers = [Server(setting.service_s, setting.workers) for _ in range(setting.servers)]
    servers[-1].service_s *= setting.slow
    fleets = [
        tuple(
            SimulatedNode(Endpoint("tcp", "10.0.0.1", 7000 + port), server)
            for port, server in enumerate(servers)
        )
        for _ in range(setting.clients)
    ]
    balancers = [make(random.Random(setting.seed + client), lambda: now) for client in range(setting.clients)]
    ends: list[tuple[float, int, float, Server, SimulatedNode]] = []
    latencies_s: list[float] = []
    beat_at, number = 0.0, 0

    def start(server: Server, at: float, work: float, node: SimulatedNode) -> None:
        nonlocal number
        number += 1
        heapq.heappush(ends, (now + work * server.service_s, number, at, server, node))

    def finish() -> None:
        nonlocal now
        now, _, at, server, node = heapq.heappop(ends)
        latencies_s.append(now - at)
        node.statistics.in_flight -= 1
        node.statistics.succeeded(now, now - at)
        server.running -= 1
        if server.queue:
            start(server, *server.queue.popleft())
        else:
            server.free += 1

    arrival = 0.0
    for _ in range(setting.calls):
        arrival += rng.expovariate(setting.calls_per_s)
        client, work, key = rng.randrange(setting.clients), rng.expovariate(1.0), rng.randrange(10_000)
        while ends and ends[0][0] <= arrival:
            finish()
        now = arrival
        if now >= beat_at:
            beat_at = now + setting.heartbeat_s
            for server in servers:
                server.reported = {"running": server.running, "lag_s": 0.0}
        node = balancers[client].pick(fleets[client], Call(GET, (key,)))
        assert isinstance(node, SimulatedNode)
        server = node.server
        node.statistics.in_flight += 1
        server.calls += 1
        server.running += 1
        if server.free:
            server.free -= 1
            start(server, now, work, node)
        else:
            server.queue.append((now, work, node))
    while ends:
        finish()
    latencies_s.sort()
    return Result(
        policy,
        [server.calls / setting.calls for server in servers],
        latencies_s[len(latencies_s) // 2] * 1000,
        latencies_s[len(latencies_s) * 99 // 100] * 1000,
    )


def cost_us(make: Make, nodes: int) -> float:
    """What one pick takes, in microseconds: the best of five rounds, with the running loop as the clock."""

    async def measure() -> float:
        loop = asyncio.get_running_loop()
        policy = make(random.Random(1), lambda: asyncio.get_running_loop().time())
        fleet = [
            SimulatedNode(Endpoint("tcp", "10.0.0.1", 7000 + port), Server(0.01, 1)) for port in range(nodes)
        ]
        for node in fleet:
            node.statistics.succeeded(loop.time(), 0.01)
        call = Call(GET, (7,))
        count = max(1, 20_000 // nodes)
        return min(timeit.repeat(lambda: policy.pick(fleet, call), number=count, repeat=5)) / count

    return asyncio.run(measure()) * 1e6


def table(results: list[Result]) -> str:
    """The results, aligned."""
    lines = [f"{'policy':<18}{'fast servers':>20}{'slow server':>13}{'p50':>10}{'p99':>11}"]
    for result in results:
        *fast, slow = result.shares
        lines.append(
            f"{result.policy:<18}{min(fast) * 100:>10.1f} to {max(fast) * 100:>4.1f} %{slow * 100:>11.1f} %"
            f"{result.p50_ms:>7.1f} ms{result.p99_ms:>8.1f} ms"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate the balancers with one slow server of five.")
    parser.add_argument("--calls", type=int, default=Setting.calls)
    parser.add_argument("--clients", type=int, default=Setting.clients)
    parser.add_argument("--slow", type=float, default=Setting.slow, help="times longer")
    parser.add_argument("--seed", type=int, default=Setting.seed)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too; - is stdout")
    parser.add_argument("--cost", action="store_true", help="also measure what a pick takes on this machine")
    options = parser.parse_args()
    setting = Setting(calls=options.calls, clients=options.clients, slow=options.slow, seed=options.seed)
    results = [simulate(name, make, setting) for name, make in POLICIES.items()]
    costs = {
        name: {str(nodes): cost_us(make, nodes) for nodes in (3, 10, 100)}
        for name, make in (POLICIES if options.cost else {}).items()
    }
    text = sys.stderr if options.json == Path("-") else sys.stdout
    print(
        f"{setting.servers} servers, one {setting.slow:g} times slower; {setting.clients} clients, "
        f"{setting.calls:,} calls at {setting.calls_per_s:g}/s; shares of calls and latencies",
        file=text,
    )
    print(table(results), file=text)
    if costs:
        print(f"\n{'one pick among':<18}{'3':>10}{'10':>10}{'100 nodes':>13}", file=text)
        for name, by_count in costs.items():
            three, ten, hundred = by_count.values()
            print(f"{name:<18}{three:>7.2f} us{ten:>7.2f} us{hundred:>10.2f} us", file=text)
    if options.json is not None:
        document = json.dumps(
            {
                "setting": dataclasses.asdict(setting),
                "results": [dataclasses.asdict(result) for result in results],
                "pick_us": costs,
            },
            indent=2,
        )
        if options.json == Path("-"):
            print(document)
        else:
            options.json.write_text(document + "\n")


if __name__ == "__main__":
    main()
