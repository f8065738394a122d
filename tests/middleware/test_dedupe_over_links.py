"""DedupeKeys, Retry and Dedupe through real clients and servers, over a network that parts and servers that crash."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import rpcfw
from rpcfw import Client, Code, Middleware, RpcError
from rpcfw.middleware import Dedupe, DedupeKeys, Retry
from rpcfw.testing import Host, Simulation, simulate
from rpcfw.transport import MemoryTransport
from tests.calls.place import QUIET
from tests.calls.virtual import virtual_time

IMPATIENT = rpcfw.ConnectionOptions(keepalive_s=1.0, keepalive_timeout_s=1.0)


@rpcfw.service("tests.Till")
class Till:
    """Counts how often each payment was taken."""

    def __init__(self, taken: Counter[int]) -> None:
        self.taken = taken

    async def take(self, number: int) -> int:
        self.taken[number] += 1
        await asyncio.sleep(0.5)
        return number * 10


def till(simulation: Simulation, name: str, taken: Counter[int], *middleware: type[Dedupe]) -> Host:
    async def main(host: Host) -> None:
        made: list[Middleware] = [make() for make in middleware]
        server = rpcfw.serve(Till(taken), listen="tcp://0.0.0.0:7000", limits=QUIET, middleware=made)
        async with server:
            await server.wait_closed()

    return simulation.host(name, main)


def client_of(*names: str) -> Client:
    keyed: list[Middleware] = [DedupeKeys(), Retry(10, max_wait_s=3.0)]
    endpoints = [f"tcp://{name}:7000" for name in names]
    return rpcfw.connect(*endpoints, timeout_s=30.0, middleware=keyed, options=IMPATIENT)


@pytest.mark.parametrize("seed", range(5))
def test_calls_that_a_partition_cut_off_are_answered_when_it_is_over_and_have_run_once(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        for name in ("one", "two"):
            till(simulation, name, taken, Dedupe)
        async with client_of("one", "two") as client:
            stub = client.stub(Till)
            await asyncio.gather(*(stub.take(number) for number in range(10)))
            calls = [asyncio.ensure_future(stub.take(number)) for number in range(100, 120)]
            await asyncio.sleep(0.1)
            simulation.partition("one", "test")
            await asyncio.sleep(4)
            simulation.heal()
            assert await asyncio.gather(*calls) == [number * 10 for number in range(100, 120)]
        assert set(taken.values()) == {1}

    simulate(scenario, seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_call_that_a_crash_cut_off_is_not_run_by_the_next_server(seed: int) -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        host = till(simulation, "shop", taken, Dedupe)
        async with client_of("shop") as client:
            stub = client.stub(Till)
            await stub.take(1)
            calling = asyncio.ensure_future(stub.take(2))
            await asyncio.sleep(0.1)
            host.crash()
            await asyncio.sleep(0.1)
            host.restart()
            with pytest.raises(RpcError, match="has been restarted since") as caught:
                await calling
            assert (caught.value.code, caught.value.executed) == (Code.ABORTED, None)
            assert await stub.take(3) == 30
        assert set(taken.values()) == {1}

    simulate(scenario, seed=seed)


def test_a_server_that_does_not_remember_is_not_asked_again() -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        till(simulation, "shop", taken)
        async with client_of("shop") as client:
            calling = asyncio.ensure_future(client.stub(Till).take(1))
            await asyncio.sleep(0.1)
            simulation.partition("shop", "test")
            with pytest.raises(RpcError) as caught:
                await calling
            assert (caught.value.code, taken[1]) == (Code.UNAVAILABLE, 1)

    simulate(scenario, seed=1)


@virtual_time
async def test_a_drain_ends_what_still_runs_for_a_caller_whose_connection_broke() -> None:
    transports = {"mem": MemoryTransport()}

    @rpcfw.service("tests.Slow")
    class Slow:
        async def wait(self) -> int:
            await asyncio.sleep(1000)
            return 1

    server = rpcfw.serve(
        Slow(), listen="mem://x", transports=transports, limits=QUIET, middleware=[Dedupe()], grace_s=3.0
    )
    async with server:
        client = rpcfw.connect("mem://x", transports=transports, timeout_s=None, middleware=[DedupeKeys()])
        calling = asyncio.ensure_future(client.stub(Slow).wait())
        await asyncio.sleep(1)
        await client.close()
        with pytest.raises(RpcError):
            await calling
        await asyncio.sleep(1)
        assert server.running == 1
        began = asyncio.get_running_loop().time()
    assert server.running == 0
    assert asyncio.get_running_loop().time() - began < 4.1


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_an_outage_as_long_as_the_deadline_allows_is_outlasted_by_a_call_with_a_key(
    names: tuple[str, ...],
) -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        for name in names:
            till(simulation, name, taken, Dedupe)
        keyed: list[Middleware] = [DedupeKeys(), Retry()]
        endpoints = [f"tcp://{name}:7000" for name in names]
        async with rpcfw.connect(*endpoints, timeout_s=120.0, middleware=keyed) as client:
            calling = asyncio.ensure_future(client.stub(Till).take(1))
            await asyncio.sleep(0.1)
            for name in names:
                simulation.partition(name, "test")
            await asyncio.sleep(90)
            simulation.heal()
            assert await calling == 10
        assert taken == {1: 1}

    simulate(scenario, seed=1)


def test_a_key_of_ones_own_is_refused_to_another_call_through_a_real_server() -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        till(simulation, "shop", taken, Dedupe)
        async with rpcfw.connect("tcp://shop:7000") as client:
            stub = rpcfw.with_options(client.stub(Till), metadata={":key": "order 4711"})
            assert [await stub.take(1), await stub.take(1)] == [10, 10]
            with pytest.raises(
                RpcError, match="'order 4711' belongs to a call with other arguments"
            ) as caught:
                await stub.take(2)
            assert (caught.value.code, caught.value.executed) == (Code.INVALID_ARGUMENT, False)
        assert taken == {1: 1}

    simulate(scenario, seed=1)


def test_a_key_of_ones_own_is_not_sent_to_a_server_that_remembers_nothing() -> None:
    async def scenario(simulation: Simulation) -> None:
        taken: Counter[int] = Counter()
        till(simulation, "shop", taken)
        async with rpcfw.connect("tcp://shop:7000") as client:
            stub = rpcfw.with_options(client.stub(Till), metadata={":key": "order 4711"})
            with pytest.raises(RpcError, match="does not remember calls, so the key 'order 4711'") as caught:
                await stub.take(1)
            assert (caught.value.code, caught.value.executed) == (Code.FAILED_PRECONDITION, False)
        assert not taken

    simulate(scenario, seed=1)
