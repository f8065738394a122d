"""A refusal by a middleware arrives as one: the handler surely never ran, so the call goes elsewhere, and only then."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import rpcfw
from rpcfw import Call, Code, Handler, Middleware, RpcError
from rpcfw.limiter import Gradient
from rpcfw.middleware import Retry
from rpcfw.middleware.adaptive import AdaptiveLimit
from rpcfw.middleware.bulkhead import Bulkhead
from rpcfw.middleware.concurrency import ConcurrencyLimit
from rpcfw.middleware.rate import RateLimit
from tests.calls.place import until
from tests.calls.virtual import virtual_time
from tests.overload.shop import Scene, Shop, first_of


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConcurrencyLimit(1),
        lambda: Bulkhead(2),
        lambda: AdaptiveLimit(Gradient(1, max_limit=1)),
        lambda: RateLimit(0.5, 1),
    ],
    ids=["concurrency", "bulkhead", "adaptive", "rate"],
)
def test_a_refused_call_is_made_again_on_another_server(make: Any) -> None:
    @virtual_time
    async def scenario() -> None:
        async with Scene(make()) as scene:
            other = Shop()
            second = await scene.place.serve(other)
            client = scene.place.connect(
                scene.place.servers[0],
                second,
                middleware=[Retry(attempts=3, max_wait_s=3.0, rng=random.Random(3))],
            )
            tasks = await scene.fill(1)
            shop = client.stub(Shop)
            for number in range(6):
                assert await shop.work(0.0, str(number)) == str(number)
            for _ in range(4):
                assert await first_of(shop.count(1)) == 1
            assert len(other.began) >= 6  # round robin gave half of them to the full one first
            scene.service.gate.set()
            await asyncio.gather(*tasks)

    scenario()


def test_an_error_that_a_handler_passes_on_is_no_refusal_of_its_own() -> None:
    @virtual_time
    async def scenario() -> None:
        async with Scene(ConcurrencyLimit(5)) as scene:
            with pytest.raises(RpcError, match="the one below is full") as failed:
                await scene.shop.downstream()
            assert failed.value.executed is True
        async with Scene() as scene:
            with pytest.raises(RpcError, match="the one below is full") as failed:
                await scene.shop.downstream()
            assert failed.value.executed is True

    scenario()


def refuse_after(handler: Handler) -> Handler:
    async def refusing(call: Call) -> Any:
        await handler(call)
        raise RpcError(Code.RESOURCE_EXHAUSTED, "too late", executed=False)

    return refusing


def refuse_before(handler: Handler) -> Handler:
    async def refusing(call: Call) -> Any:
        raise RpcError(Code.UNAUTHENTICATED, "who are you", {"realm": "shop"}, executed=False)

    return refusing


def fail_before(handler: Handler) -> Handler:
    async def failing(call: Call) -> Any:
        raise RpcError(Code.INTERNAL, "broken")

    return failing


@pytest.mark.parametrize(
    ("middleware", "executed"), [(refuse_after, True), (refuse_before, False), (fail_before, True)]
)
def test_a_middleware_that_says_so_refuses_only_what_has_not_reached_the_handler(
    middleware: Middleware, *, executed: bool
) -> None:
    @virtual_time
    async def scenario() -> None:
        async with Scene(middleware) as scene:
            with pytest.raises(RpcError) as failed:
                await scene.shop.work(0.0)
            assert failed.value.executed is executed
            if not executed:
                assert failed.value.details == {"realm": "shop"}
            await until(lambda: scene.place.servers[0].running == 0)

    scenario()


@virtual_time
async def test_reply_metadata_of_a_refusal_arrive() -> None:
    def tell(handler: Handler) -> Handler:
        async def telling(call: Call) -> Any:
            rpcfw.set_reply_metadata({"limit": "7"})
            raise RpcError(Code.RESOURCE_EXHAUSTED, "full", executed=False)

        return telling

    async with Scene(tell) as scene:
        got: dict[str, str | bytes] = {}
        with pytest.raises(RpcError, match="full") as refused:
            await rpcfw.with_options(scene.shop, reply_metadata=got).work(0.0)
        assert (refused.value.executed, got) == (False, {"limit": "7"})
