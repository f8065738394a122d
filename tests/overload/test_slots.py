"""What `ConcurrencyLimit`, `Bulkhead` and `AdaptiveLimit` have in common: the limit holds, and no slot is ever lost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from rpcfw import Call, Code, Handler, Middleware, RpcError
from rpcfw.limiter import Gradient
from rpcfw.limiter.held import HeldItems
from rpcfw.middleware.adaptive import AdaptiveLimit
from rpcfw.middleware.bulkhead import Bulkhead
from rpcfw.middleware.concurrency import ConcurrencyLimit
from tests.calls.place import until
from tests.calls.virtual import virtual_time
from tests.overload.shop import Scene, Shop, cancel, first_of, refusal_of

LIMIT = 3

Limited = tuple[Middleware, Callable[[], int]]


def concurrency() -> Limited:
    limit = ConcurrencyLimit(LIMIT)
    return limit, lambda: limit.running


def queued() -> Limited:
    limit = ConcurrencyLimit(LIMIT, queue=1, max_wait_s=0.001)
    return limit, lambda: limit.running + limit.waiting


def bulkhead() -> Limited:
    limit = Bulkhead(2 * LIMIT, share=0.5)
    return limit, lambda: limit.running("tests.Shop")


def adaptive() -> Limited:
    limit = AdaptiveLimit(Gradient(LIMIT, max_limit=LIMIT, min_limit=LIMIT))
    return limit, lambda: limit.running


ALL = [concurrency, queued, bulkhead, adaptive]
COUNT_STREAMS = [concurrency, queued, bulkhead]


Make = Callable[[], Limited]


def each(limits: list[Make]) -> Callable[[Callable[[Make], Awaitable[None]]], Callable[[Make], None]]:
    """Run a test for each of these, in virtual time."""

    def decorate(test: Callable[[Make], Awaitable[None]]) -> Callable[[Make], None]:
        @pytest.mark.parametrize("make", limits)
        def run(make: Make) -> None:
            async def scenario() -> None:
                await test(make)

            virtual_time(scenario)()

        return run

    return decorate


@each(ALL)
async def test_as_many_run_as_the_limit_says_and_the_next_is_refused_until_one_ends(
    make: Make,
) -> None:
    limit, held = make()
    async with Scene(limit) as scene:
        tasks = await scene.fill(LIMIT)
        for _ in range(3):
            error = await refusal_of(scene.shop.wait())
            assert "tests.Shop/wait: " in error.message
            assert "3" in error.message
            assert "another server" in error.message
        assert held() == LIMIT
        assert scene.service.most == LIMIT
        scene.service.gate.set()
        assert await asyncio.gather(*tasks) == ["0", "1", "2"]
        assert held() == 0
        assert await scene.shop.wait("again") == "again"


@each(ALL)
async def test_a_call_that_fails_is_cancelled_or_cut_off_gives_its_slot_back(
    make: Make,
) -> None:
    limit, held = make()
    async with Scene(limit) as scene:
        for _ in range(2 * LIMIT):
            with pytest.raises(RpcError, match="ZeroDivisionError"):
                await scene.shop.fail()
        assert held() == 0
        await cancel(await scene.fill(LIMIT))
        await until(lambda: held() == 0)
        quick = scene.shop.with_options(timeout_s=0.5)  # type: ignore[attr-defined]
        for _ in range(2 * LIMIT):
            with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
                await quick.wait()
        await until(lambda: held() == 0)
        tasks = await scene.fill(LIMIT)
        await cancel(tasks)
        await until(lambda: held() == 0)


@each(COUNT_STREAMS)
async def test_a_stream_holds_its_slot_until_its_last_item(make: Make) -> None:
    limit, held = make()
    async with Scene(limit) as scene:
        streams = [scene.shop.count(number) for number in range(LIMIT)]
        assert [await anext(stream) for stream in streams] == [0, 1, 2]
        assert held() == LIMIT
        await refusal_of(anext(scene.shop.count(9)))
        await refusal_of(scene.shop.work(0))
        scene.service.gate.set()
        assert [[item async for item in stream] for stream in streams] == [[1], [2], [3]]
        await until(lambda: held() == 0)
        assert await scene.shop.work(0, "again") == "again"


@each(COUNT_STREAMS)
async def test_a_stream_that_is_left_fails_or_was_none_gives_its_slot_back(
    make: Make,
) -> None:
    limit, held = make()
    async with Scene(limit) as scene:
        for number in range(2 * LIMIT):
            assert await first_of(scene.shop.count(number)) == number
            await until(lambda: held() == 0)
        for _ in range(2 * LIMIT):
            with pytest.raises(RpcError, match="broken"):
                assert [item async for item in scene.shop.broken()] == [1]
            with pytest.raises(RpcError, match="never yields"):
                await anext(scene.shop.no_stream())
        await until(lambda: held() == 0)
        quick = scene.shop.with_options(timeout_s=0.5)  # type: ignore[attr-defined]
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            assert [item async for item in quick.count(1)]
        await until(lambda: held() == 0)


@each(COUNT_STREAMS)
async def test_a_stream_that_nobody_iterates_over_gives_its_slot_back(make: Make) -> None:
    limit, held = make()

    def drop(handler: Handler) -> Handler:
        async def dropping(call: Call) -> Any:
            await handler(call)
            raise RpcError(Code.ABORTED, "an outer middleware failed")

        return dropping

    async with Scene(drop, limit) as scene:
        with pytest.raises(RpcError, match="outer"):
            await anext(scene.shop.count(1))
        gc.collect()
        assert held() == 0


@each(ALL)
async def test_a_stream_of_the_callers_own_is_read_through(make: Make) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            yield number

    limit, held = make()
    async with Scene(limit) as scene:
        assert await scene.shop.total(numbers()) == 6
        assert held() == 0


@virtual_time
async def test_streams_are_refused_by_an_adaptive_limit_that_is_full_but_do_not_fill_it() -> None:
    limit = AdaptiveLimit(Gradient(2, max_limit=2))
    async with Scene(limit) as scene:
        streams = [scene.shop.count(number) for number in range(5)]
        assert [await anext(stream) for stream in streams] == [0, 1, 2, 3, 4]
        assert limit.running == 0
        tasks = await scene.fill(2)
        await refusal_of(anext(scene.shop.count(9)))
        scene.service.gate.set()
        await asyncio.gather(*tasks)
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]
        await scene.place.settle()


@virtual_time
async def test_held_items_let_go_once_however_they_end() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        yield 2

    let_go: list[str] = []
    held = HeldItems(items(), lambda: let_go.append("end"))
    assert [item async for item in held] == [1, 2]
    await held.aclose()
    never_begun = HeldItems(items(), lambda: let_go.append("closed"))
    await never_begun.aclose()
    with pytest.raises(TypeError):
        HeldItems(7, lambda: let_go.append("none"))
    assert let_go == ["end", "closed", "none"]


def test_middleware_wraps_without_a_loop() -> None:
    for make in ALL:
        limit, _ = make()
        assert callable(limit(lambda call: None))  # type: ignore[arg-type,return-value]
    assert Shop.__name__ == "Shop"
