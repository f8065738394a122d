"""`AdaptiveLimit` against a real server in virtual time: three times too many calls, and those let in are fast."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import rpcfw
from rpcfw import Code, Middleware, RpcError
from rpcfw.call import pack_metadata
from rpcfw.limiter import Gradient, LagMeter, Priority
from rpcfw.middleware.adaptive import AdaptiveLimit
from tests.calls.place import Place
from tests.calls.virtual import VirtualLoop, now, virtual_time

SEED = 5


@rpcfw.service("tests.Engine")
class Engine:
    """Has so many workers that wait for something else, and a loop on which it computes."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = asyncio.Semaphore(workers)

    async def ask(self, seconds: float) -> None:
        async with self.workers:
            await asyncio.sleep(seconds)

    async def compute(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.jump(seconds)  # what blocks the loop lets time pass for all


class Result:
    """What came of an offered load: goodput, latencies of what was let in, and the time a refusal took."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.refused_s: list[float] = []
        self.other: list[RpcError] = []

    def late_s(self, share: float = 0.99) -> float:
        return sorted(self.latencies_s)[int(len(self.latencies_s) * share)]


async def offer(
    call: Any, rate_per_s: float, seconds: float, *, settle_s: float = 0.0, seed: int = SEED
) -> Result:
    """Make calls at that rate whatever becomes of them; those of the first `settle_s` are not looked at."""
    rng, result, tasks = random.Random(seed), Result(), set[asyncio.Task[None]]()
    began = now()

    async def one(at: float) -> None:
        start = now()
        try:
            await call()
        except RpcError as error:
            if at < settle_s:
                return
            if error.code is Code.RESOURCE_EXHAUSTED and error.executed is False:
                result.refused_s.append(now() - start)
            else:
                result.other.append(error)
            return
        if at >= settle_s:
            result.latencies_s.append(now() - start)

    def begin(at: float) -> None:
        task = asyncio.ensure_future(one(at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop, due = asyncio.get_running_loop(), rng.expovariate(rate_per_s)
    while due < seconds:  # all set at once: a loop that is late gets all that was due meanwhile
        loop.call_at(loop.time() - now() + began + due, begin, due)
        due += rng.expovariate(rate_per_s)
    await asyncio.sleep(seconds)
    while tasks:
        await asyncio.wait(tasks)
    return result


class Run:
    """A server with an engine, and a client."""

    def __init__(self, engine: Engine, *middleware: Middleware) -> None:
        self.place = Place("mem")
        self.engine, self.middleware = engine, middleware

    async def __aenter__(self) -> Engine:
        server = await self.place.serve(self.engine, middleware=self.middleware)
        return self.place.connect(server, middleware=[]).stub(Engine)

    async def __aexit__(self, *_: object) -> None:
        await self.place.close()


@virtual_time
async def test_of_three_times_the_load_what_is_let_in_is_all_that_can_be_done_and_is_done_fast() -> None:
    limit = AdaptiveLimit()
    async with Run(Engine(workers=10), limit) as engine:
        result = await offer(lambda: engine.ask(0.02), 3 * 500, 25.0, settle_s=10.0)
    goodput = len(result.latencies_s) / (15.0 * 500)
    print(
        f"seed {SEED}: goodput {goodput:.2f}, p50 {result.late_s(0.5) * 1000:.0f} ms, "
        f"p99 {result.late_s() * 1000:.0f} ms, limit {limit.limit}"
    )
    assert goodput > 0.8
    assert result.late_s() < 0.1
    assert max(result.refused_s) < 0.01
    assert not result.other
    assert limit.running == 0


@virtual_time
async def test_without_it_the_same_load_waits_for_seconds() -> None:
    async with Run(Engine(workers=10)) as engine:
        result = await offer(lambda: engine.ask(0.02), 3 * 500, 3.0)
    assert result.late_s() > 4.0


@virtual_time
async def test_a_loop_that_computes_too_much_is_told_by_its_lag_alone() -> None:
    limit = AdaptiveLimit(max_lag_s=0.1)
    async with Run(Engine(), limit) as engine:
        result = await offer(lambda: engine.compute(0.002), 3 * 500, 20.0, settle_s=5.0)
    goodput = len(result.latencies_s) / (15.0 * 500)
    print(
        f"seed {SEED}: goodput {goodput:.2f}, p50 {result.late_s(0.5) * 1000:.0f} ms, "
        f"p99 {result.late_s() * 1000:.0f} ms"
    )
    assert goodput > 0.8
    assert result.late_s() < 0.05, "calls wait for as long as the loop is late before each turn"
    assert sorted(result.refused_s)[int(len(result.refused_s) * 0.99)] < 0.05
    assert limit.running == 0


@virtual_time
async def test_a_burst_that_the_loop_works_off_in_time_is_not_refused() -> None:
    async with Run(Engine(), AdaptiveLimit(max_lag_s=0.1)) as engine:
        for _ in range(5):
            await asyncio.gather(*(engine.compute(0.002) for _ in range(24)))  # 0.048 s in one turn
            await asyncio.sleep(0.2)


@virtual_time
@pytest.mark.parametrize("calls_s", [[0.06] * 2, [0.06] + [0.0] * 10, [0.02] * 4, [0.015] * 5])
async def test_an_idle_server_refuses_none_of_a_few_long_calls(calls_s: list[float]) -> None:
    async with Run(Engine(), AdaptiveLimit()) as engine:
        for _ in range(3):
            await asyncio.gather(*(engine.compute(seconds) for seconds in calls_s))
            await asyncio.sleep(0.3)


@virtual_time
async def test_calls_that_take_long_on_the_loop_are_not_refused_while_they_come_one_by_one() -> None:
    async with Run(Engine(), AdaptiveLimit(max_lag_s=0.1)) as engine:
        for _ in range(20):
            await engine.compute(0.05)


@virtual_time
async def test_a_load_that_can_be_done_is_done_and_leaves_the_limit_alone() -> None:
    limit = AdaptiveLimit()
    async with Run(Engine(workers=10), limit) as engine:
        result = await offer(lambda: engine.ask(0.02), 0.3 * 500, 20.0)
    assert not result.refused_s
    assert not result.other


@virtual_time
async def test_within_seconds_of_an_overload_nothing_is_refused_any_more() -> None:
    async with Run(Engine(workers=10), AdaptiveLimit()) as engine:
        await offer(lambda: engine.ask(0.02), 3 * 500, 15.0)
        result = await offer(lambda: engine.ask(0.02), 0.5 * 500, 6.0, settle_s=3.0)
    assert len(result.refused_s) <= 0.01 * len(result.latencies_s)


@virtual_time
async def test_when_the_loop_is_late_what_matters_less_is_refused_first() -> None:
    lag = LagMeter(0.05)
    lag.start()
    limit = AdaptiveLimit(lag=lag, max_lag_s=0.1)

    async def answer(call: rpcfw.Call) -> str:
        return "done"

    handler = limit(answer)
    method = rpcfw.spec_of(Engine).methods["ask"]
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    async def passing() -> set[Priority]:
        passed = set()
        for priority in Priority:
            call = rpcfw.Call(method, (0.0,), metadata_bytes=pack_metadata(priority.metadata))
            try:
                await handler(call)
                passed.add(priority)
            except RpcError as error:
                messages.append(error.message)
        return passed

    got = []
    messages: list[str] = []
    for lag_s in (0.0, 0.07, 0.15, 0.25):
        loop.jump(lag.due_at + lag_s - loop.time())
        got.append(await passing())
        await asyncio.sleep(0.001)
    critical, normal, sheddable = Priority
    assert got == [{critical, normal, sheddable}, {critical, normal}, {critical}, set()]
    assert len(messages) == 6
    assert all(
        "the event loop is late by" in message and "offload='thread'" in message for message in messages
    )
    lag.stop()


@virtual_time
async def test_its_own_meter_rests_when_there_are_no_calls() -> None:
    limit = AdaptiveLimit()
    async with Run(Engine(), limit) as engine:
        await engine.ask(0.0)
        assert limit._lag.measuring
        await asyncio.sleep(0.2)
        assert not limit._lag.measuring


@virtual_time
async def test_failures_that_are_no_overload_do_not_shrink_it_and_deadlines_do() -> None:
    gradient = Gradient(50)
    limit = AdaptiveLimit(gradient)

    async def handle(call: rpcfw.Call) -> None:
        await asyncio.sleep(0.01)
        raise RpcError(call.arguments[0], "no")

    handler = limit(handle)
    method = rpcfw.spec_of(Engine).methods["ask"]

    async def many(code: Code) -> None:
        for _ in range(100):
            results = await asyncio.gather(
                *(handler(rpcfw.Call(method, (code,))) for _ in range(limit.limit)), return_exceptions=True
            )
            assert all(isinstance(result, RpcError) and result.code is code for result in results)

    await many(Code.NOT_FOUND)
    assert limit.limit == 50
    await many(Code.DEADLINE_EXCEEDED)
    assert limit.limit < 30


@pytest.mark.parametrize("max_lag_s", [0, -1.0, float("nan")])
def test_a_lag_that_is_none_is_refused(max_lag_s: float) -> None:
    with pytest.raises(ValueError, match="max_lag_s"):
        AdaptiveLimit(max_lag_s=max_lag_s)
