"""The contract of calls on the simulated network: `make sim` runs it over many seeds.

A seed plays three parts. First the contract suite, every test of it as it is, between two hosts with the delay and loss
of that seed. Then its share of the other suites of calls, dealt out so that each test has its turn as often as any
other. Then clients and servers under faults: every call must end once, in time, in one of the ways it may.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from _pytest.mark.structures import ParameterSet

import rpcfw
from rpcfw import Client, Code, RpcError, Server
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.host import Host
from rpcfw.testing.schedule import Kind, Schedule, random_schedule
from rpcfw.testing.simulation import SCENARIO, Simulation
from tests.calls import (
    test_contract,
    test_hops,
    test_large_messages,
    test_slow_links,
    test_streams,
    test_unread_streams,
    test_versions,
)
from tests.calls.conftest import Served
from tests.calls.contract import KINDS, OUT_OF_STOCK, SUCCESS, Contract, OutOfStock, Service, Step, call
from tests.calls.place import QUIET, Place, assert_idle, assert_unused

SHARE = 5
"""How many tests of the other suites a seed plays."""
CLIENTS, SERVERS = ("c1", "c2"), ("s1", "s2")
CALLS_PER_CLIENT = 40
CHAOS_S = 40.0
SETTLE_S = 60.0
IN_TIME_S = 0.5
"""How long after its deadline a call may end: a paused host hears of it when it goes on."""
OTHERS = (test_streams, test_unread_streams, test_large_messages, test_slow_links, test_hops, test_versions)
NOT_HERE = {
    # a function that waits for the loop cannot run within it, and that is where executors run here
    "test_blocking_code_runs_in_a_thread_with_the_call_in_its_context",
    "test_a_call_whose_thread_has_not_ended_counts_as_running",
    # its answers are to come from other processes
    "test_computing_code_runs_in_a_process_of_its_own",
    # TLS is not simulated
    "test_with_mutual_tls_a_handler_knows_its_callers_name",
}
IN_ORDER = {
    # handlers begin in the order of their calls because tasks do, unless their order is drawn from the seed
    "test_one_way_calls_do_not_wait_and_are_done_in_order",
}
Case = Callable[[Simulation], Awaitable[None]]


class SimPlace(Place):
    """Servers on one host, clients on the scenario's."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__("tcp")
        self._host = simulation.host("server")

    def address(self) -> str:
        """The server's host, any port."""
        return "tcp://server:0"

    async def serve(self, *implementations: Any, **options: Any) -> Server:
        """A server on that host."""
        serve = super().serve
        return await self._host.call(lambda: serve(*implementations, **options))


async def scenario(simulation: Simulation) -> None:
    """All parts."""
    rng = simulation.rng
    simulation.network.default = _conditions(rng, (1, 4, 15))
    for name, case in [*_cases(test_contract), *_share(simulation.seed)]:
        simulation.record("test", SCENARIO, name)
        await _play(simulation, case)
    simulation.network.default = _conditions(rng, (1, 1, 1))
    await _chaos(simulation)
    OUT_OF_STOCK.with_traceback(None)  # which is one for all seeds, and would keep all that ever raised it


def _conditions(rng: random.Random, sizes: Sequence[int]) -> Conditions:
    """Draw the delay and loss of a seed; `sizes` weighs the sizes of segments, of which the smallest takes longest."""
    (segment_bytes,) = rng.choices((1448, 9000, 65_536), sizes)
    # each loss costs a retransmission of 0.2 s, and the large messages of the suite have 10 s
    losses = (0.0, 0.0001) if segment_bytes == 1448 else (0.0, 0.001, 0.003)
    return Conditions(
        latency_s=Latency(rng.choice((0.0001, 0.001, 0.003)), sigma=rng.uniform(0.1, 1.0)),
        bandwidth_bytes_s=rng.choice((None, 100e6)),
        loss=rng.choice(losses),
        segment_bytes=segment_bytes,
    )


# -------------------------------------------------------------------------------------------- the suites, unchanged


def _cases(*suites: ModuleType) -> list[tuple[str, Case]]:
    """Every test of the suites that needs nothing but a place, with each of its parameters."""
    cases: list[tuple[str, Case]] = []
    for suite in suites:
        for name, test in vars(suite).items():
            if not name.startswith("test_") or name in NOT_HERE or not inspect.iscoroutinefunction(test):
                continue
            for number, given in enumerate(_parameters(test)):
                left = set(inspect.signature(test).parameters) - set(given)
                if left <= {"place", "served", "here"}:
                    cases.append((f"{name}[{number}]", _case(test, given, left)))
    return cases


def _share(seed: int) -> list[tuple[str, Case]]:
    """This seed's tests of the other suites: so many seeds on end as it takes play each of them, in a drawn order."""
    cases = _cases(*OTHERS)
    shares = -(-len(cases) // SHARE)
    random.Random(f"shares {seed // shares}").shuffle(cases)
    return cases[seed % shares :: shares]


def _case(test: Any, given: dict[str, Any], fixtures: set[str]) -> Case:
    async def case(simulation: Simulation) -> None:
        place = SimPlace(simulation)
        fitted: dict[str, Any] = {name: place for name in ("place", "here") if name in fixtures}
        if "served" in fixtures:
            service = Service()
            server = await place.serve(service)
            client = place.connect(server)
            fitted["served"] = Served(client.stub(Contract), server, client, service)
        with simulation.loop.in_order() if test.__name__ in IN_ORDER else contextlib.nullcontext():
            await test(**fitted, **given)
        await place.close()

    return case


def _parameters(test: Any) -> Iterator[dict[str, Any]]:
    """What the parametrize marks of a test would give it."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    choices = []
    for mark in marks:
        names = mark.args[0]
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        values = [value.values if isinstance(value, ParameterSet) else value for value in mark.args[1]]
        choices.append(
            [
                dict(zip(names, value if isinstance(value, tuple) else (value,), strict=True))
                if len(names) > 1 or isinstance(value, tuple)
                else {names[0]: value}
                for value in values
            ]
        )
    for chosen in itertools.product(*choices):
        yield {name: value for part in chosen for name, value in part.items()}


async def _play(simulation: Simulation, case: Case) -> None:
    loop = simulation.loop
    before = set(loop.tasks())
    async with asyncio.timeout(600):
        await case(simulation)
    await asyncio.sleep(SETTLE_S)
    left = [task for task in loop.tasks() if task not in before]
    assert not left, f"tasks left behind: {left}"


# ------------------------------------------------------------------------------------------------ under faults


class Ends(Counter[str]):
    """How calls ended. Each has to end in exactly one way that is allowed."""

    async def watch(
        self, token: str, deadline_s: float, made: Awaitable[Any], right: Callable[[Any], bool]
    ) -> None:
        """Wait for the end of a call and judge it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        ended: tuple[Any, ...] = tuple(await asyncio.gather(made, return_exceptions=True))
        end = ended[0]
        if isinstance(end, RpcError) and end.code in (Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE):
            self[end.code.name] += 1
        elif isinstance(end, OutOfStock):
            assert vars(end) == vars(OUT_OF_STOCK), f"{token} got the error of another call: {end!r}"
            self["declared error"] += 1
        else:
            assert right(end), f"{token} got the reply of another call, or no end it may have: {end!r:.200}"
            self["reply"] += 1
        took_s = loop.time() - started
        assert took_s <= deadline_s + IN_TIME_S, (
            f"{token} took {took_s:.3f} s, its deadline was {deadline_s:.3f}"
        )


async def _serve(host: Host, servers: dict[str, Server]) -> None:
    server = rpcfw.serve(Service(), listen="tcp://0.0.0.0:7000", limits=QUIET)
    servers[host.name] = server
    async with server:
        await asyncio.Event().wait()


async def _calls(name: str, rng: random.Random, ends: Ends, clients: list[Client]) -> None:
    client = rpcfw.connect(*(f"tcp://{server}:7000" for server in SERVERS))
    clients.append(client)
    contract = client.stub(Contract)
    calls = []
    for number in range(CALLS_PER_CLIENT):
        await asyncio.sleep(rng.expovariate(CALLS_PER_CLIENT / CHAOS_S))
        token, deadline_s = f"{name}-{number}", rng.uniform(0.2, 5.0)
        stub = rpcfw.with_options(contract, timeout_s=deadline_s)
        made, right = _some_call(stub, token, rng)
        calls.append(asyncio.ensure_future(ends.watch(token, deadline_s, made, right)))
    await asyncio.gather(*calls)


def _some_call(
    stub: Contract, token: str, rng: random.Random
) -> tuple[Awaitable[Any], Callable[[Any], bool]]:
    what = rng.randrange(4)
    if what == 0:
        return stub.blob(token.encode()), lambda reply: bool(reply == token.encode())
    if what == 1:
        data = token.encode() * rng.randrange(1, 40_000)
        return stub.blob(data), lambda reply: bool(reply == data)
    kind = rng.choice(KINDS)
    if what == 2:
        return call(stub, kind, Step.SUCCEED), lambda reply: bool(reply == SUCCESS[kind])
    return call(stub, kind, Step.DECLARED), lambda reply: False


async def _chaos(simulation: Simulation) -> None:
    rng, loop = simulation.rng, simulation.loop
    before = set(loop.tasks())
    servers: dict[str, Server] = {}
    clients: list[Client] = []
    ends = Ends()
    for name in SERVERS:
        simulation.host(name, lambda host: _serve(host, servers))
    for name in CLIENTS:
        simulation.host(name)
    kinds: tuple[Kind, ...] = ("crash", "partition", "one_way", "pause", "slow", "lossy")
    victims = [*SERVERS, *CLIENTS]
    schedule = random_schedule(rng, victims, CHAOS_S, kinds=kinds, mean_gap_s=rng.uniform(2.0, 8.0))
    schedule = Schedule(
        tuple(f for f in schedule if f.kind not in ("crash", "pause") or set(f.hosts) <= set(SERVERS))
    )
    nemesis = simulation.inject(schedule)
    seeds = [rng.getrandbits(64) for _ in CLIENTS]
    calling = [
        simulation.host(name).call(
            lambda name=name, seed=seed: _calls(name, random.Random(seed), ends, clients)  # type: ignore[misc]
        )
        for name, seed in zip(CLIENTS, seeds, strict=True)
    ]
    await asyncio.gather(*calling)
    await nemesis
    assert sum(ends.values()) == len(CLIENTS) * CALLS_PER_CLIENT, ends
    await asyncio.sleep(SETTLE_S)
    for client in clients:
        assert_unused(client)
    for server in servers.values():
        assert_idle(server)
    for client in clients:
        await client.close()
    for name in SERVERS:
        await simulation.host(name).stop()
    await asyncio.sleep(SETTLE_S)
    left = [task for task in loop.tasks() if task not in before]
    assert not left, f"tasks left behind: {left}"
    simulation.record("ends", SCENARIO, ", ".join(f"{how} {count}" for how, count in sorted(ends.items())))
