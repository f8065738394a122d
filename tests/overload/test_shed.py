"""`Shed`: what cannot end in time is not begun, once that is known, and the knowledge is put to the test."""

from __future__ import annotations

import asyncio

import pytest

import rpcfw
from rpcfw import Code, RpcError
from rpcfw.middleware.concurrency import ConcurrencyLimit
from rpcfw.middleware.shed import Shed
from tests.calls.virtual import now, virtual_time
from tests.overload.shop import Scene, Shop, refusal_of


async def learn(scene: Scene, seconds: float, times: int = 20) -> None:
    """Have the method take that long."""
    for _ in range(times):
        await scene.shop.work(seconds)


def hasty(scene: Scene, timeout_s: float) -> Shop:
    return rpcfw.with_options(scene.shop, timeout_s=timeout_s)


@virtual_time
async def test_a_call_that_cannot_end_in_time_is_refused_at_once_and_never_begins() -> None:
    async with Scene(Shed()) as scene:
        await learn(scene, 1.0)
        await probe(scene)
        began, runs = now(), len(scene.service.began)
        error = await refusal_of(hasty(scene, 0.5).work(1.0))
        assert (now(), len(scene.service.began)) == (began, runs)
        assert "0.5 s are left" in error.message
        assert "took 1 s" in error.message
        assert await hasty(scene, 1.5).work(1.0, "enough") == "enough"


async def probe(scene: Scene) -> None:
    """The first that is to be refused passes, to see."""
    with pytest.raises(RpcError) as late:
        await hasty(scene, 0.5).work(1.0)
    assert late.value.code is Code.DEADLINE_EXCEEDED


@virtual_time
async def test_nothing_is_refused_before_enough_is_known_nor_of_another_method() -> None:
    async with Scene(Shed()) as scene:
        await learn(scene, 1.0, times=19)
        for _ in range(2):  # the first of these makes twenty, the second is the probe
            with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
                await hasty(scene, 0.5).work(1.0)
        await refusal_of(hasty(scene, 0.5).work(1.0))
        scene.service.gate.set()
        assert await hasty(scene, 0.5).wait("other") == "other"


@virtual_time
async def test_one_in_a_hundred_passes_and_one_a_second() -> None:
    async with Scene(Shed()) as scene:
        await learn(scene, 1.0)
        runs = len(scene.service.began)
        for _ in range(300):
            with pytest.raises(RpcError):
                await hasty(scene, 0.001).work(1.0)
        assert len(scene.service.began) - runs == 1 + 2  # the first, then each hundredth
        runs, began = len(scene.service.began), now()
        while now() - began < 10.0:
            with pytest.raises(RpcError):
                await hasty(scene, 0.05).work(1.0)
            await asyncio.sleep(0.2)
        assert len(scene.service.began) - runs == pytest.approx(9, abs=2)


@virtual_time
async def test_a_method_that_is_fast_again_is_refused_no_more_after_one_probe() -> None:
    async with Scene(Shed()) as scene:
        await learn(scene, 1.0, times=60)
        await probe(scene)
        await refusal_of(hasty(scene, 0.5).work(0.0))
        await asyncio.sleep(1.0)
        for number in range(50):
            assert await hasty(scene, 0.5).work(0.0, str(number)) == str(number)


@virtual_time
async def test_what_is_cut_off_at_its_deadline_counts_as_that_long_so_survivors_do_not_lie() -> None:
    async with Scene(Shed()) as scene:
        for _ in range(20):
            with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
                await hasty(scene, 2.0).work(60.0)
        await scene.place.settle()
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await hasty(scene, 0.5).work(60.0)
        await scene.place.settle()
        await refusal_of(hasty(scene, 0.5).work(60.0))


@virtual_time
async def test_outside_of_a_queue_the_wait_counts() -> None:
    async with Scene(Shed(), ConcurrencyLimit(1, queue=50, max_wait_s=60.0)) as scene:
        patient = rpcfw.with_options(scene.shop, timeout_s=60.0)
        for _ in range(2):  # each works for a tenth of a second, and half of them wait for more than one
            await asyncio.gather(*(patient.work(0.1) for _ in range(20)))
        with pytest.raises(RpcError):
            await hasty(scene, 0.5).work(1.0)
        error = await refusal_of(hasty(scene, 0.5).work(0.1))
        assert "took 1 s" in error.message


@virtual_time
async def test_calls_without_a_deadline_and_streams_pass() -> None:
    async with Scene(Shed()) as scene:
        await learn(scene, 1.0)
        client = scene.place.connect(scene.place.servers[0], middleware=[], timeout_s=None)
        for _ in range(3):
            await client.stub(Shop).work(1.0)
        scene.service.gate.set()
        for _ in range(30):
            assert [item async for item in hasty(scene, 0.5).count(1)] == [1, 2]
