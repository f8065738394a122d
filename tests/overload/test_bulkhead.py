"""`Bulkhead`: a noisy service fills its own part of the server, and the others do not notice."""

from __future__ import annotations

import asyncio

import pytest

from rpcfw import RpcError
from rpcfw.middleware.bulkhead import Bulkhead
from rpcfw.middleware.concurrency import ConcurrencyLimit
from tests.calls.virtual import virtual_time
from tests.overload.shop import Quiet, Scene, refusal_of


@virtual_time
async def test_a_noisy_service_does_not_starve_another() -> None:
    async with Scene(Bulkhead(10, share=0.6), ConcurrencyLimit(10)) as scene:
        noise = [asyncio.ensure_future(scene.shop.work(1.0)) for _ in range(500)]
        quiet, pings = scene.client.stub(Quiet), 0
        for _ in range(50):
            await asyncio.sleep(0.01)
            pings += await quiet.ping()
        results = await asyncio.gather(*noise, return_exceptions=True)
        assert pings == 50
        assert scene.service.most == 6
        assert sum(isinstance(result, RpcError) for result in results) == 494


@virtual_time
async def test_a_service_can_have_a_share_of_its_own_and_its_refusal_names_it() -> None:
    limit = Bulkhead(10, shares={"tests.Shop": 0.15})
    async with Scene(limit) as scene:
        tasks = await scene.fill(2)  # rounded up
        error = await refusal_of(scene.shop.wait())
        assert "2 calls of tests.Shop run, and its share of 10 is 2" in error.message
        assert (limit.running("tests.Shop"), limit.running("tests.Quiet")) == (2, 0)
        scene.service.gate.set()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"max_running": 0}, "max_running"),
        ({"share": 0.0}, "share"),
        ({"share": 1.1}, "share"),
        ({"shares": {"shop.Reports": -1.0}}, "shop.Reports"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Bulkhead(**{"max_running": 1, **options})  # type: ignore[arg-type]
