"""Hosts on the simulated loop: whose clock it is, who is held back, who owns a task or a timer."""

from __future__ import annotations

import asyncio
import random

import pytest

from rpcfw.testing import SimLoop, Stuck, current_host, run
from rpcfw.testing.clock import START_S, SimHost, context_on


class Machine:
    """A host with a clock that runs at `rate` and began `ahead_s` too far on."""

    def __init__(self, name: str, rate: float = 1.0, ahead_s: float = 0.0) -> None:
        self.name = name
        self.dead = False
        self.rate = rate
        self.ahead_s = ahead_s

    def local(self, true_s: float, /) -> float:
        return START_S + self.ahead_s + (true_s - START_S) * self.rate

    def true(self, local_s: float, /) -> float:
        return START_S + (local_s - START_S - self.ahead_s) / self.rate


def sim_loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


async def sleeper(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return sim_loop().global_time()


def test_a_fast_clock_lets_its_timers_fire_early() -> None:
    async def main() -> tuple[float, float, float]:
        loop = sim_loop()
        fast = loop.create_task(sleeper(10), context=context_on(Machine("fast", rate=1.25)))
        slow = loop.create_task(sleeper(10), context=context_on(Machine("slow", rate=0.5)))
        return await fast - START_S, await slow - START_S, loop.time() - START_S

    assert run(main) == (8.0, 20.0, 20.0)


@pytest.mark.parametrize("seed", range(50))
def test_a_timer_never_fires_before_its_own_clock_shows_its_time(seed: int) -> None:
    rng = random.Random(seed)
    machine = Machine("odd", rate=rng.uniform(0.9, 1.1), ahead_s=rng.choice([0.0, rng.uniform(-1e3, 1e9)]))

    async def main() -> None:
        loop = sim_loop()
        for _ in range(50):
            until = loop.time() + rng.uniform(0, 10)
            future = loop.create_future()
            loop.call_at(until, future.set_result, None)
            await future
            assert until <= loop.time() < until + 1e-5

    run(lambda: _on(machine, main()))


async def _on(machine: SimHost, main: object) -> None:
    assert asyncio.iscoroutine(main)
    await sim_loop().create_task(main, context=context_on(machine))


def test_a_clock_that_changes_its_rate_takes_the_timers_that_are_set_along() -> None:
    async def main() -> tuple[float, float]:
        loop, machine = sim_loop(), Machine("orders")
        mine = loop.create_task(sleeper(10), context=context_on(machine))
        others = loop.create_task(sleeper(10))
        await asyncio.sleep(4)
        machine.rate, machine.ahead_s = 2.0, -4.0  # shows the same, and twice as much from now on
        loop.clock_changed(machine)
        return await mine - START_S, await others - START_S

    assert run(main) == (7.0, 10.0)


def test_what_a_host_starts_belongs_to_it() -> None:
    async def main() -> None:
        loop, machine = sim_loop(), Machine("orders")
        seen: list[SimHost | None] = []

        async def child() -> None:
            seen.append(current_host())
            await asyncio.to_thread(lambda: seen.append(current_host()))
            loop.call_later(1, lambda: seen.append(loop.host))
            loop.call_at_global(loop.global_time() + 1, lambda: seen.append(loop.host))
            await asyncio.sleep(2)

        async def parent() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(), name="child")
                await asyncio.sleep(0.5)
                assert [task.get_name() for task in loop.tasks(machine)] == ["parent", "child"]

        await loop.create_task(parent(), name="parent", context=context_on(machine))
        assert seen == [machine, machine, machine, None]
        assert loop.host is None
        assert [task.get_name() for task in loop.tasks()] == ["Task-1"]

    run(main)


def test_true_time_is_nobodys_clock() -> None:
    async def main() -> list[float]:
        loop, fired = sim_loop(), list[float]()
        loop.call_at_global(loop.global_time() + 3, lambda: fired.append(loop.global_time() - START_S))
        await asyncio.sleep(30)
        return fired

    async def drifting() -> list[float]:
        return await sim_loop().create_task(main(), context=context_on(Machine("fast", 3.0, 1e6)))

    assert run(drifting) == [3.0]


def test_a_host_that_is_held_does_nothing_and_then_all_it_missed_in_order() -> None:
    async def main() -> None:
        loop, machine, done = sim_loop(), Machine("orders"), list[tuple[str, float]]()

        async def beat(name: str, interval_s: float) -> None:
            for _ in range(3):
                await asyncio.sleep(interval_s)
                done.append((name, loop.time() - START_S))

        beats = [
            loop.create_task(beat(name, s), context=context_on(machine)) for name, s in (("b", 1.5), ("a", 1))
        ]
        other = loop.create_task(beat("other", 1))
        await asyncio.sleep(0.5)
        loop.hold(machine)
        await other
        assert [name for name, _ in done] == ["other"] * 3
        done.clear()
        await asyncio.sleep(7)
        loop.release(machine)
        await asyncio.gather(*beats)
        assert done == [("a", 10.0), ("b", 10.0), ("a", 11.0), ("b", 11.5), ("a", 12.0), ("b", 13.0)]

    run(main)


def test_a_held_host_is_named_when_all_wait_for_it() -> None:
    async def main() -> None:
        machine = Machine("orders")
        sim_loop().hold(machine)
        await sim_loop().create_task(asyncio.sleep(1), name="work", context=context_on(machine))

    with pytest.raises(Stuck, match=r"work on orders: (.|\n)*orders is held, 1 callbacks ready"):
        run(main)


def test_timers_go_with_the_power_of_their_host() -> None:
    async def main() -> list[str]:
        loop, machine, fired = sim_loop(), Machine("orders"), list[str]()
        context_on(machine).run(loop.call_later, 1, fired.append, "orders")
        context_on(Machine("stock")).run(loop.call_later, 1, fired.append, "stock")
        loop.call_later(1, fired.append, "scenario")
        loop.drop_timers(machine)
        await asyncio.sleep(2)
        return fired

    assert run(main) == ["stock", "scenario"]


def test_timers_of_hosts_due_at_one_instant_fire_in_an_order_of_the_seed() -> None:
    async def main() -> str:
        loop, fired = sim_loop(), list[str]()
        for name in "abcd":
            context_on(Machine(name)).run(loop.call_later, 1, fired.append, name)
            loop.call_later(1, fired.append, name.upper())
        await asyncio.sleep(2)
        return "".join(fired)

    fired = [run(main, seed, permute=True) for seed in range(20)]
    assert len(set(fired)) > 10
    assert {"".join(name for name in order if name.isupper()) for order in fired} == {"ABCD"}
    assert run(main) == "aAbBcCdD"
