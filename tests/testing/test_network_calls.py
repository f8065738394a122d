"""rpcfw's own transports on the simulated network, unchanged: their contract, then calls through loss and faults."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

import pytest

import rpcfw
from rpcfw import CallKind, Code, ConnectionOptions, Endpoint, Limits, RpcError
from rpcfw.connection.datagram import DatagramChannel
from rpcfw.testing.conditions import Conditions, Latency
from rpcfw.testing.trace import LOST
from rpcfw.transport import TcpTransport
from tests.calls.contract import KINDS, SUCCESS, Contract, Service, Step, call
from tests.calls.place import assert_idle, assert_unused
from tests.testing.world import SEED, World, simulate
from tests.transport import test_contract as transports
from tests.transport.recorder import Meeting

ROUGH = Conditions(Latency(0.01, 0.5), loss=0.05, segment_bytes=1_000)
"""Every connection loses and delays something."""
QUIET = Limits(block_threshold_s=None, spin_turns=0)
KEEPALIVE_S, KEEPALIVE_TIMEOUT_S = 15.0, 5.0
PROMISES = [
    promise for name, promise in vars(transports).items() if name.startswith("test_") and callable(promise)
]


@pytest.mark.parametrize("conditions", [Conditions(), ROUGH], ids=["smooth", "rough"])
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_tcp_keeps_every_promise_of_a_transport_here(
    promise: Callable[..., Coroutine[Any, Any, None]], conditions: Conditions
) -> None:
    async def scenario(world: World) -> None:
        world.network.set("outside", "outside", conditions)
        for vectored in (False, True) if "vectored" in inspect.signature(promise).parameters else (None,):
            meeting = Meeting(TcpTransport(connect_timeout_s=30), Endpoint.parse("tcp://127.0.0.1:0"))
            given = {"meeting": meeting, "rng": random.Random(SEED), "vectored": vectored}
            wanted = {name: given[name] for name in inspect.signature(promise).parameters}
            await promise(**wanted)
            await meeting.close()
        await asyncio.sleep(300)
        assert world.network.open_ends() == 0

    simulate(scenario)


class Cluster:
    """A server on the host orders, and a client of it on the host client."""

    def __init__(self, world: World, listen: str = "tcp://orders:7000") -> None:
        self.world = world
        self.service = Service()
        self.listen = listen
        self.server: rpcfw.Server
        self.client: rpcfw.Client
        self.stub: Contract

    async def start(self) -> None:
        """Start both, each on its host."""

        async def serve() -> None:
            self.server = rpcfw.serve(self.service, listen=self.listen, limits=QUIET)
            await self.server.start()

        async def connect() -> None:
            options = ConnectionOptions(
                keepalive_s=KEEPALIVE_S, keepalive_timeout_s=KEEPALIVE_TIMEOUT_S, spin_turns=0
            )
            transports = {"tcp": TcpTransport(connect_timeout_s=30)}  # two lost SYNs take 3 s
            self.client = rpcfw.connect(
                self.listen, options=options, middleware=[], timeout_s=60, transports=transports
            )
            self.stub = self.client.stub(Contract)

        await self.world.on("orders", serve())
        await self.world.on("client", connect())

    async def call(self, kind: CallKind, step: Step = Step.SUCCEED, **options: Any) -> list[int]:
        """Make a call of that kind on the client's host."""
        stub = rpcfw.with_options(self.stub, **options) if options else self.stub
        return cast("list[int]", await self.world.on("client", call(stub, kind, step)))

    async def close(self) -> None:
        """End both, and see that nothing is left."""
        await self.world.on("client", self.client.close())
        await self.world.on("orders", self.server.close())
        assert_idle(self.server)
        assert_unused(self.client)
        await asyncio.sleep(300)
        assert self.world.network.open_ends() == 0


def served(
    scenario: Callable[[Cluster], Coroutine[Any, Any, None]],
    conditions: Conditions = ROUGH,
    *,
    listen: str = "tcp://orders:7000",
    seed: int = SEED,
) -> World:
    """Play a scenario with a cluster that is up, and end it."""

    async def play(world: World) -> None:
        cluster = Cluster(world, listen)
        await cluster.start()
        await scenario(cluster)
        await cluster.close()

    return simulate(play, conditions, seed=seed)


@pytest.mark.parametrize("number", range(10))
def test_calls_of_every_kind_succeed_through_loss_and_delay(number: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(5):
            results = await asyncio.gather(*(cluster.call(kind) for kind in KINDS))
            assert results == [SUCCESS[kind] for kind in KINDS]

        async def mirror() -> list[bytes]:
            return [blob async for blob in cluster.stub.mirror(blobs())]

        blob = random.Random(number).randbytes(100_000)

        async def blobs() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield blob

        assert await cluster.world.on("client", mirror()) == [blob] * 3

    world = served(scenario, seed=SEED + number)
    assert "loss" in world.kinds(LOST)


@pytest.mark.parametrize("ways", [("client", "orders"), ("orders", "client")], ids=" to ".join)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value.replace(" ", "_"))
def test_a_one_way_partition_ends_calls_at_their_deadline(kind: CallKind, ways: tuple[str, str]) -> None:
    async def scenario(cluster: Cluster) -> None:
        world = cluster.world
        await cluster.call(CallKind.UNARY)
        world.network.partition(*ways, one_way=True)
        started = world.now()
        with pytest.raises(RpcError) as caught:
            await cluster.call(kind, timeout_s=2)
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        assert world.now() - started == pytest.approx(2, abs=0.1)
        world.network.heal()
        assert await cluster.call(kind) == SUCCESS[kind]

    served(scenario)


def test_a_server_without_power_fails_pending_calls_by_keepalive() -> None:
    async def scenario(cluster: Cluster) -> None:
        world = cluster.world
        await cluster.call(CallKind.UNARY)
        calls = [asyncio.ensure_future(cluster.call(kind, Step.WAIT)) for kind in KINDS]
        await cluster.service.diary.until("waiting", len(calls))
        started = world.now()
        world.network.cut("orders")
        for ended in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(ended, RpcError)
            assert (ended.code, ended.executed) == (Code.UNAVAILABLE, None)
        # It looks every 15 s whether something came; what comes just after a look is counted at the next one.
        assert KEEPALIVE_TIMEOUT_S < world.now() - started <= 2 * KEEPALIVE_S + KEEPALIVE_TIMEOUT_S
        world.network.restore("orders")
        await world.on("orders", cluster.server.close())
        await cluster.start()
        assert await cluster.call(CallKind.UNARY) == [3]

    served(scenario)


def test_a_server_that_has_restarted_is_known_by_the_reset_of_the_old_link() -> None:
    async def scenario(cluster: Cluster) -> None:
        world = cluster.world
        waiting = asyncio.ensure_future(cluster.call(CallKind.UNARY, Step.WAIT))
        await cluster.service.diary.until("waiting")
        world.network.cut("orders")
        await world.on("orders", cluster.server.close())
        world.network.restore("orders")
        started = world.now()
        with pytest.raises(RpcError) as caught:  # the next call's request is what the reset answers
            await cluster.call(CallKind.UNARY)
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(RpcError, match="reset"):
            await waiting
        assert world.now() - started < 2
        await world.on("client", cluster.client.close())
        await cluster.start()
        assert await cluster.call(CallKind.UNARY) == [3]

    served(scenario)


def test_one_way_calls_over_datagrams_arrive_or_are_lost() -> None:
    async def scenario(cluster: Cluster) -> None:
        async def tell() -> None:
            for number in range(200):
                await cluster.stub.tell(str(number))
                await asyncio.sleep(0.01)
            (channel,) = cluster.client.channels
            assert isinstance(channel, DatagramChannel)
            pings = [asyncio.ensure_future(channel.ping()) for _ in range(60)]
            done, lost = await asyncio.wait(pings, timeout=5)
            assert done
            assert lost
            for ping in lost:
                ping.cancel()

        await cluster.world.on("client", tell())
        await asyncio.sleep(1)
        told = cluster.service.told
        assert 120 < len(set(told)) < 200
        assert len(told) > len(set(told))
        assert told != sorted(told, key=int)

    served(scenario, Conditions(Latency(0.05), loss=0.2, duplicate=0.1), listen="udp://orders:7000")


def test_calls_have_one_trace_for_one_seed() -> None:
    async def scenario(cluster: Cluster) -> None:
        for kind in itertools.islice(itertools.cycle(KINDS), 20):
            await cluster.call(kind)

    traces = [served(scenario, seed=seed).trace for seed in (SEED, SEED, SEED + 1)]
    assert traces[0].digest() == traces[1].digest()
    assert traces[0].digest() != traces[2].digest()
