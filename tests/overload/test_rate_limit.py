"""`RateLimit`: so many a second and no more, for each key on its own, and the caller is told when to come again."""

from __future__ import annotations

import asyncio
import random
import types
from typing import Any

import pytest

import rpcfw
from rpcfw import Call, RpcError
from rpcfw.middleware import Retry
from rpcfw.middleware.rate import RateLimit, per_caller, per_method, per_service
from tests.calls.virtual import now, virtual_time
from tests.overload.shop import Quiet, Scene, Shop, refusal_of

METHODS = rpcfw.spec_of(Shop).methods


@virtual_time
async def test_the_rate_and_the_burst_hold_exactly() -> None:
    async with Scene(RateLimit(10, 5)) as scene:
        passed: list[float] = []
        while now() < 10.0:
            try:
                await scene.shop.work(0)
                passed.append(now())
            except RpcError:
                pass
            await asyncio.sleep(0.01)
        assert len(passed) == pytest.approx(5 + 100, abs=1)
        for start in passed:
            assert sum(start <= at < start + 1.0 for at in passed) <= 5 + 10


@virtual_time
async def test_a_refusal_says_when_there_is_room_and_retry_heeds_it() -> None:
    async with Scene(RateLimit(2, 1)) as scene:
        await scene.shop.work(0)
        error = await refusal_of(scene.shop.work(0))
        assert error.details["retry_after_s"] == pytest.approx(0.5)
        assert "2 calls a second" in error.message
        assert "try again in 0.5 s" in error.message
        patient = scene.place.connect(scene.place.servers[0], middleware=[Retry(rng=random.Random(1))])
        began = now()
        await patient.stub(Shop).work(0)
        assert 0.5 <= now() - began < 0.6


@virtual_time
async def test_streams_are_limited_where_they_begin() -> None:
    async with Scene(RateLimit(1, 1)) as scene:
        scene.service.gate.set()
        assert [item async for item in scene.shop.count(1)] == [1, 2]
        await refusal_of(anext(scene.shop.count(1)))


@virtual_time
async def test_keys_do_not_share_a_limit() -> None:
    async with Scene(RateLimit(1, 1, key=per_method)) as scene:
        await scene.shop.work(0)
        error = await refusal_of(scene.shop.work(0))
        assert "'tests.Shop/work'" in error.message
        scene.service.gate.set()
        await scene.shop.wait()
        await scene.client.stub(Quiet).ping()
    async with Scene(RateLimit(1, 1, key=per_service)) as scene:
        await scene.shop.work(0)
        scene.service.gate.set()
        await refusal_of(scene.shop.wait())
        await scene.client.stub(Quiet).ping()


@virtual_time
async def test_keys_without_end_take_no_memory_without_end_and_those_in_use_stay() -> None:
    limit = RateLimit(1, 1, key=lambda call: call.argument("name"), max_keys=100)
    async with Scene(limit) as scene:
        await scene.shop.work(0, "busy")
        for number in range(500):
            await scene.shop.work(0, str(number))
            await refusal_of(scene.shop.work(0, "busy"))
        assert limit.keys == 100


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("10.0.0.7:51234", "10.0.0.7"),
        ("::1:51234", "::1"),
        ("10.0.0.7:51234 (CN=ada)", "CN=ada"),
        ("a local peer", "a local peer"),
        ("", ""),
    ],
)
def test_a_caller_is_its_certificate_or_its_host_over_all_connections(peer: str, key: str) -> None:
    exchange: Any = types.SimpleNamespace(peer=peer)
    assert per_caller(Call(METHODS["work"], (), exchange=exchange)) == key


def test_a_number_of_keys_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_keys"):
        RateLimit(1, max_keys=0)
