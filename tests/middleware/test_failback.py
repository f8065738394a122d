"""Failback: what could not be delivered is delivered later, and nothing is forgotten without a word."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from typing import Any

import pytest

from rpcfw import Call, Code, RpcError
from rpcfw.call import Route
from rpcfw.middleware import Failback
from tests.calls.virtual import now, virtual_time
from tests.middleware.fleet import Fleet, answers, call_of, each, fails, hangs, outcome, refuses, told

arrives = answers(None)


def failback(**options: Any) -> Failback:
    return Failback(rng=random.Random(7), **options)


@virtual_time
async def test_a_call_that_fails_is_queued_and_delivered_later() -> None:
    fleet = Fleet(a=each(refuses(), arrives))
    async with failback() as middleware:
        assert await middleware(fleet)(call_of("tell", "hi")) is None
        assert (middleware.queued, now()) == (1, 0)
        await asyncio.sleep(7)
        assert (middleware.queued, middleware.delivered, middleware.lost) == (0, 1, 0)
    assert 4 <= fleet.times[1] <= 6
    assert fleet.calls[1][2].arguments == ("hi",)


@virtual_time
async def test_waits_double_and_after_the_last_attempt_a_call_is_given_up_with_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet(a=refuses())
    async with failback(attempts=3) as middleware:
        await middleware(fleet)(call_of("tell", "hi"))
        await asyncio.sleep(60)
        assert (middleware.queued, middleware.lost) == (0, 1)
    assert len(fleet.calls) == 4
    waits = [later - sooner for sooner, later in zip(fleet.times, fleet.times[1:], strict=False)]
    assert [round(wait / 5) for wait in waits] == [1, 2, 4]
    assert caplog.messages == ["tests.Fleet/tell is given up after 3 deliveries: UNAVAILABLE: refused"]


@virtual_time
async def test_each_delivery_has_the_time_that_the_call_had_at_first() -> None:
    for timeout_s in (2.0, math.inf):
        fleet = Fleet(a=each(refuses(after_s=0.5), arrives))
        async with failback() as middleware:
            await middleware(fleet)(call_of("tell", "hi", timeout_s=timeout_s))
            await asyncio.sleep(10)
        began, _, call = fleet.calls[1]
        assert call.deadline - 1000.0 - began == pytest.approx(timeout_s)


@virtual_time
async def test_a_delivery_carries_no_route_and_no_reply_metadata_but_says_so_on_the_callers() -> None:
    fleet, route = Fleet(a=each(refuses(), arrives)), Route()
    async with failback() as middleware:
        await middleware(fleet)(call_of("tell", "hi", route=route, reply_metadata={}))
        await asyncio.sleep(10)
    assert (fleet.calls[1][2].route, fleet.calls[1][2].reply_metadata) == (None, None)
    assert told(route) == ["failback: queued, the first delivery in 5 s, since UNAVAILABLE: refused"]


@pytest.mark.parametrize(
    ("name", "act", "queued"),
    [
        ("tell", refuses(), True),
        ("tell", refuses(code=Code.RESOURCE_EXHAUSTED), True),
        ("shout", refuses(), True),
        ("note", fails(), True),
        ("note", fails(Code.DEADLINE_EXCEEDED), True),
        ("tell", fails(), False),
        ("note", fails(Code.INVALID_ARGUMENT), False),
        ("get", refuses(), False),
        ("watch", refuses(), False),
    ],
)
def test_only_what_returns_nothing_and_may_run_again_is_queued(name: str, act: Any, queued: bool) -> None:
    @virtual_time
    async def scenario() -> None:
        middleware = failback()
        result = await outcome(middleware(Fleet(a=act)), call_of(name, "hi"))
        assert (result is None, middleware.queued) == (queued, int(queued))
        await middleware.close()

    scenario()


@virtual_time
async def test_what_finds_the_queue_full_fails_and_says_so() -> None:
    async with failback(max_queued=2) as middleware:
        handler = middleware(Fleet(a=refuses()))
        for _ in range(2):
            assert await outcome(handler, call_of("tell", "hi")) is None
        error = await outcome(handler, call_of("tell", "hi"))
        assert isinstance(error, RpcError)
        assert error.message == "refused (and the queue of 2 calls to be delivered later is full)"
        await asyncio.sleep(100)
        assert await outcome(handler, call_of("tell", "hi")) is None


@virtual_time
async def test_an_error_that_another_delivery_cannot_mend_gives_the_call_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(call: Call) -> Any:
        raise LookupError("a fault of ours")

    for last in (fails(Code.INVALID_ARGUMENT), fails(), broken):
        fleet = Fleet(a=each(refuses(), last))
        async with failback() as middleware:
            await middleware(fleet)(call_of("tell", "hi"))
            await asyncio.sleep(60)
            assert (middleware.lost, len(fleet.calls)) == (1, 2)
    assert "a fault of ours" in caplog.messages[-1]


@virtual_time
async def test_closing_reports_and_returns_what_is_left_and_leaves_no_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Fleet(a=each(refuses(), refuses(), hangs))
    middleware = failback()
    handler = middleware(fleet)
    await handler(call_of("tell", "one"))
    await asyncio.sleep(1)
    await handler(call_of("tell", "two"))
    await asyncio.sleep(6)  # the first is being delivered, the second waits
    with caplog.at_level(logging.WARNING, "rpcfw"):
        left = await middleware.close()
    assert [call.arguments for call in left] == [("one",), ("two",)]
    assert caplog.messages == ["2 calls were still to be delivered: 2 of tests.Fleet/tell"]
    assert (middleware.queued, middleware.lost, fleet.running) == (0, 2, 0)
    assert len(asyncio.all_tasks()) == 1
    assert await middleware.close() == []
    assert isinstance(await outcome(middleware(Fleet(a=refuses())), call_of("tell", "hi")), RpcError)


@virtual_time
async def test_a_caller_that_is_cancelled_queues_nothing() -> None:
    middleware = failback()
    calling = asyncio.ensure_future(middleware(Fleet(a=hangs))(call_of("tell", "hi")))
    await asyncio.sleep(1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert middleware.queued == 0


@virtual_time
async def test_one_slow_delivery_does_not_hold_up_the_others() -> None:
    fleet = Fleet(a=each(refuses(), refuses(), hangs, arrives))
    async with failback() as middleware:
        handler = middleware(fleet)
        await handler(call_of("tell", "one"))
        await handler(call_of("tell", "two"))
        await asyncio.sleep(7)
        assert middleware.delivered == 1


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"every_s": 0.0}, {"max_queued": 0}])
def test_a_wrong_figure_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Failback(**wrong)
