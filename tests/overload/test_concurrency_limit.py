"""The queue of `ConcurrencyLimit`: in order, no longer than it pays, and nobody is left in it."""

from __future__ import annotations

import asyncio

import pytest

import rpcfw
from rpcfw import Code, RpcError
from rpcfw.limiter import Priority
from rpcfw.middleware.concurrency import ConcurrencyLimit
from tests.calls.place import until
from tests.calls.virtual import now, virtual_time
from tests.overload.shop import Scene, Shop, cancel, refusal_of


@virtual_time
async def test_those_that_wait_are_served_in_the_order_they_came() -> None:
    limit = ConcurrencyLimit(1, queue=5, max_wait_s=10.0)
    async with Scene(limit) as scene:
        names = [str(number) for number in range(6)]
        assert await asyncio.gather(*(scene.shop.work(0.1, name) for name in names)) == names
        assert scene.service.began == names
        assert scene.service.most == 1
        assert (limit.running, limit.waiting) == (0, 0)


@virtual_time
async def test_those_of_a_higher_priority_are_served_first_and_take_the_place_of_lower_ones() -> None:
    limit = ConcurrencyLimit(1, queue=3, max_wait_s=10.0)
    async with Scene(limit) as scene:
        (running,) = await scene.fill(1)
        waiting = {
            name: asyncio.ensure_future(rpcfw.with_options(scene.shop, metadata=priority.metadata).wait(name))
            for name, priority in [
                ("low", Priority.SHEDDABLE),
                ("late low", Priority.SHEDDABLE),
                ("middle", Priority.NORMAL),
                ("high", Priority.CRITICAL),
            ]
        }
        error = await refusal_of(waiting.pop("late low"))
        assert "higher priority" in error.message
        scene.service.gate.set()
        await asyncio.gather(running, *waiting.values())
        assert scene.service.began == ["0", "high", "middle", "low"]


@virtual_time
async def test_a_call_waits_no_longer_than_it_may() -> None:
    limit = ConcurrencyLimit(1, queue=5, max_wait_s=0.3)
    async with Scene(limit) as scene:
        tasks = await scene.fill(1)
        began = now()
        error = await refusal_of(scene.shop.wait())
        assert now() - began == pytest.approx(0.3, abs=0.01)
        assert "0.3 s" in error.message
        assert limit.waiting == 0
        await cancel(tasks)
        await scene.place.settle()


@virtual_time
async def test_a_call_waits_for_half_of_its_time_at_the_most_so_that_another_server_can_still_take_it() -> (
    None
):
    async with Scene(ConcurrencyLimit(1, queue=5, max_wait_s=60.0)) as scene:
        tasks = await scene.fill(1)
        began = now()
        await refusal_of(rpcfw.with_options(scene.shop, timeout_s=1.0).wait())
        assert now() - began == pytest.approx(0.5, abs=0.01)
        await cancel(tasks)
        await scene.place.settle()


@virtual_time
async def test_a_call_that_cannot_get_a_slot_in_time_is_refused_at_once() -> None:
    async with Scene(ConcurrencyLimit(1, queue=50, max_wait_s=60.0)) as scene:
        tasks = [asyncio.ensure_future(scene.shop.work(0.5, str(number))) for number in range(10)]
        await asyncio.sleep(2.1)  # four have ended, in two seconds
        began = now()
        error = await refusal_of(rpcfw.with_options(scene.shop, timeout_s=4.0).work(0.0))
        assert now() == began
        assert "takes about 3 s" in error.message
        assert await rpcfw.with_options(scene.shop, timeout_s=20.0).work(0.0, "patient") == "patient"
        await asyncio.gather(*tasks)


@virtual_time
async def test_who_gives_up_in_the_queue_leaves_it_at_once_and_blocks_nobody() -> None:
    limit = ConcurrencyLimit(1, queue=5, max_wait_s=60.0)
    async with Scene(limit) as scene:
        (running,) = await scene.fill(1)
        waiting = [asyncio.ensure_future(scene.shop.wait(f"w{number}")) for number in range(3)]
        await until(lambda: limit.waiting == 3)
        await cancel(waiting[:2])
        await until(lambda: limit.waiting == 1)
        scene.service.gate.set()
        await asyncio.gather(running, waiting[2])
        assert scene.service.began == ["0", "w2"]
        assert (limit.running, limit.waiting) == (0, 0)


@virtual_time
async def test_one_cancelled_in_the_turn_in_which_it_gets_its_slot_hands_it_on() -> None:
    limit = ConcurrencyLimit(1, queue=5, max_wait_s=60.0)
    gate, began = asyncio.Event(), list[str]()
    method = rpcfw.spec_of(Shop).methods["wait"]

    async def handle(call: rpcfw.Call) -> None:
        began.append(call.arguments[0])
        await gate.wait()

    handler = limit(handle)

    async def make_first() -> None:
        await handler(rpcfw.Call(method, ("first",)))
        second.cancel()  # its turn has just come, and it does not know yet

    first = asyncio.ensure_future(make_first())
    await until(lambda: began)
    second, third = (
        asyncio.ensure_future(handler(rpcfw.Call(method, (name,)))) for name in ("second", "third")
    )
    await until(lambda: limit.waiting == 2)
    gate.set()
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    assert began == ["first", "third"]
    assert (limit.running, limit.waiting) == (0, 0)


@virtual_time
async def test_without_a_queue_nobody_waits() -> None:
    async with Scene(ConcurrencyLimit(1)) as scene:
        tasks = await scene.fill(1)
        began = now()
        error = await refusal_of(scene.shop.wait())
        assert now() == began
        assert error.message == (
            "tests.Shop/wait: 1 of 1 calls run; try again later or another server, or raise max_running"
        )
        await cancel(tasks)
        await scene.place.settle()


@pytest.mark.parametrize(
    ("options", "word"),
    [({"max_running": 0}, "max_running"), ({"queue": -1}, "queue"), ({"max_wait_s": 0.0}, "max_wait_s")],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ConcurrencyLimit(**{"max_running": 1, **options})  # type: ignore[arg-type]


@virtual_time
async def test_on_a_client_it_limits_what_is_under_way() -> None:
    async with Scene() as scene:
        limit = ConcurrencyLimit(2)
        client = scene.place.connect(scene.place.servers[0], middleware=[limit])
        shop = client.stub(Shop)
        tasks = [asyncio.ensure_future(shop.wait(str(number))) for number in range(2)]
        await until(lambda: scene.service.inside == 2)
        with pytest.raises(RpcError) as refused:
            await shop.wait()
        assert (refused.value.code, refused.value.executed) == (Code.RESOURCE_EXHAUSTED, False)
        stream = shop.count(1)
        scene.service.gate.set()
        await asyncio.gather(*tasks)
        assert await anext(stream) == 1
        assert limit.running == 1
        await stream.aclose()  # type: ignore[attr-defined]
        assert limit.running == 0
