"""One of five servers is twenty times slower for a while: what its clients notice of it, in virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

import rpcfw
from rpcfw.balancer import Balancer, PowerOfTwo, RoundRobin
from tests.calls.place import Place
from tests.calls.virtual import virtual_time

SERVERS = 5
PER_S = 200
USUAL_S = 0.010
SLOWER = 20
WINDOW_S = 10.0


@rpcfw.service("tests.Work")
class Work:
    """Takes some time."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.slower = 1.0
        self.calls = 0

    @rpcfw.idempotent
    async def do(self) -> None:
        """Some milliseconds of it."""
        self.calls += 1
        await asyncio.sleep(self._rng.uniform(0.5, 1.5) * USUAL_S * self.slower)


class Town:
    """Five servers, a client, and calls at a steady rate."""

    def __init__(self, balancer: Balancer, seed: int) -> None:
        self.place = Place("mem")
        self.rng = random.Random(seed)
        self.works = [Work(random.Random(self.rng.getrandbits(64))) for _ in range(SERVERS)]
        self._balancer = balancer

    async def open(self) -> None:
        servers = [await self.place.serve(work) for work in self.works]
        self.client = self.place.connect(*servers, balancer=self._balancer)
        self.stub = self.client.stub(Work)

    async def p99_s(self, lasts_s: float) -> float:
        """The 99th percentile of calls made for so long."""
        took: list[float] = []
        loop = asyncio.get_running_loop()
        end, calls = loop.time() + lasts_s, []

        async def call() -> None:
            begun = loop.time()
            await self.stub.do()
            took.append(loop.time() - begun)

        while loop.time() < end:
            calls.append(asyncio.ensure_future(call()))
            await asyncio.sleep(self.rng.expovariate(PER_S))
        await asyncio.gather(*calls)
        return sorted(took)[int(len(took) * 0.99)]

    async def share(self, lasts_s: float) -> float:
        """The share of the first server in the calls made for so long."""
        before = [work.calls for work in self.works]
        await self.p99_s(lasts_s)
        made = [work.calls - earlier for work, earlier in zip(self.works, before, strict=True)]
        return made[0] / sum(made)


@pytest.mark.parametrize("seed", range(2))
@virtual_time
async def test_p99_is_back_in_ten_seconds_and_the_slow_server_has_its_share_when_it_is_well(
    seed: int,
) -> None:
    town = Town(PowerOfTwo(rng=random.Random(seed)), seed)
    await town.open()
    await town.p99_s(3)
    normal_s = await town.p99_s(WINDOW_S)
    town.works[0].slower = SLOWER
    slow_s = await town.p99_s(WINDOW_S)
    after_s = await town.p99_s(WINDOW_S)
    town.works[0].slower = 1.0
    await town.p99_s(30)
    share = await town.share(20)
    print(
        f"seed {seed}: p99 {normal_s * 1000:.1f} ms, in the first 10 s of the fault {slow_s * 1000:.1f}, "
        f"then {after_s * 1000:.1f}; its share when it is well again {share:.1%}"
    )
    assert after_s <= 2 * normal_s
    assert 0.15 <= share <= 0.25
    await town.place.close()


@virtual_time
async def test_plain_round_robin_does_not_notice() -> None:
    town = Town(RoundRobin(), 0)
    await town.open()
    normal_s = await town.p99_s(WINDOW_S)
    town.works[0].slower = SLOWER
    await town.p99_s(WINDOW_S)
    assert await town.p99_s(WINDOW_S) > 10 * normal_s, "or the other tests would show nothing"
    await town.place.close()
