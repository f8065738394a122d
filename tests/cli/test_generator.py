"""A generator in virtual time: how long it goes on with calls that do not end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import rpcfw
from rpcfw.cli.generator import GRACE_S, Generator, Target
from rpcfw.cli.load import Plan
from rpcfw.cli.tally import Tally
from rpcfw.client import DEFAULT_TIMEOUT_S
from rpcfw.interface import service_schema
from rpcfw.testing import Host, Simulation, simulate


@rpcfw.service("tests.Clocks")
class Clocks:
    """Nothing here ends."""

    async def ticks(self) -> AsyncIterator[int]:
        while True:
            await asyncio.sleep(0.1)
            yield 1

    async def silent(self) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    @rpcfw.method(timeout_s=30.0)
    async def brief(self) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        yield 1

    async def never(self) -> None:
        await asyncio.Event().wait()

    @rpcfw.method(timeout_s=30.0)
    async def patient(self) -> None:
        await asyncio.Event().wait()


class LoopClock:
    """The running loop's time, which is virtual here."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def measured(method: str, timeout_s: float | None = None) -> tuple[float, Tally]:
    """Four calls in flight for 2 s after a warm-up of 1 s: how long the warm-up took, and the tally."""

    async def clocks(host: Host) -> None:
        async with rpcfw.serve(Clocks(), listen="tcp://0.0.0.0:7000") as server:
            await server.wait_closed()

    async def scenario(simulation: Simulation) -> tuple[float, Tally]:
        simulation.host("clocks", clocks)
        schema = service_schema(rpcfw.spec_of(Clocks))
        target = Target("tcp://clocks:7000", schema, method, {}, {}, timeout_s)
        clock = LoopClock()
        async with Generator(target, Plan(4, seconds=2), clock) as generator:
            began = clock.now()
            await generator.warm_up(1.0)
            warmed_s = clock.now() - began
            return warmed_s, await generator.measure(lambda _: None, 1.0)

    return simulate(scenario)


@pytest.mark.parametrize(("method", "items"), [("ticks", 4 * 10 * (2 + GRACE_S)), ("silent", 0)])
def test_a_stream_that_does_not_end_is_given_up_and_its_items_count(method: str, items: float) -> None:
    warmed_s, tally = measured(method)
    assert warmed_s == pytest.approx(1.0, abs=0.1)
    assert tally.elapsed_s == pytest.approx(2 + GRACE_S, abs=0.1)
    assert (tally.calls, tally.unfinished) == (0, 4)
    assert tally.items == pytest.approx(items, abs=8)


@pytest.mark.parametrize(
    ("method", "timeout_s", "ends_s"),
    [
        ("never", None, DEFAULT_TIMEOUT_S),
        ("never", 1.5, 3.0),  # the second call of each began at 1.5 s
        ("patient", None, 30.0),
        ("brief", None, 30.0),
        ("ticks", 25.0, 25.0),
    ],
)
def test_a_call_with_a_deadline_ends_by_it_and_is_an_error(
    method: str, timeout_s: float | None, ends_s: float
) -> None:
    warmed_s, tally = measured(method, timeout_s)
    assert warmed_s == pytest.approx(1.0, abs=0.1), "the warm-up waits for nothing"
    assert tally.elapsed_s == pytest.approx(ends_s, abs=0.1)
    assert tally.unfinished == 0
    assert list(tally.errors) == ["DEADLINE_EXCEEDED"]
