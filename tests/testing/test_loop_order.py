"""One seed, one run: in every process and whatever ran before; another seed runs what is ready in another order."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator

import pytest

from rpcfw.testing import SimLoop, run

SEEDS = 20


async def _eventful() -> list[str]:
    """Everything whose order could depend on addresses, hashes or the garbage collector, as lines."""
    loop, lines = asyncio.get_running_loop(), list[str]()
    assert isinstance(loop, SimLoop)

    def note(what: str) -> None:
        task = asyncio.current_task(loop)
        lines.append(f"{loop.turns} {loop.time():.3f} {task and task.get_name()} {what}")

    async def numbers() -> AsyncIterator[object]:
        try:
            cycle: list[object] = []
            cycle.append(cycle)
            yield cycle
        finally:
            note("generator collected")

    async def work(rng: random.Random) -> None:
        try:
            for _ in range(rng.randrange(1, 20)):
                await asyncio.sleep(rng.choice([0, 0, 0.001, 0.002]))
                note("works")
                generator = numbers()
                cycle = await anext(generator)
                assert isinstance(cycle, list)
                cycle.append(generator)
            if rng.random() < 0.1:
                raise LookupError("planted")
        except asyncio.CancelledError:
            note("cancelled")
            raise
        finally:
            await asyncio.to_thread(note, "ends")

    rng = loop.rng("work")
    for _ in range(20):
        tasks = {asyncio.create_task(work(rng)) for _ in range(20)} | {loop.start_task(work(rng))}
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                note(f"saw the end of {task.get_name()}: {task.exception()!r}")
            if len(tasks) < 10:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                break
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(work(rng))
        except* LookupError as errors:
            note(f"group: {len(errors.exceptions)}")
        futures = {loop.create_future() for _ in range(20)}
        for future in futures:
            future.add_done_callback(lambda done: note(f"future {done.result()}"))
        for at, future in enumerate(futures):
            future.set_result(at)
        await asyncio.wait(futures)
    return lines


def _in_a_process_of_its_own(seed: int, permute: bool, noise: int) -> list[str]:
    environment = {**os.environ, "PYTHONHASHSEED": str(noise), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(seed), str(int(permute)), str(noise)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()


@pytest.mark.parametrize("permute", [False, True])
def test_one_seed_is_one_run_in_every_process(permute: bool) -> None:
    here = run(_eventful, seed=3, permute=permute)
    assert len(here) > 1_000
    assert any("generator collected" in line for line in here)
    assert here == run(_eventful, seed=3, permute=permute)
    for noise in (1, 4_321):
        assert _in_a_process_of_its_own(3, permute, noise) == here


async def _order_of_tasks() -> str:
    order: list[str] = []

    async def step(name: str) -> None:
        await asyncio.sleep(0)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        for name in "abcdef":
            group.create_task(step(name))
    return "".join(order)


def test_another_seed_runs_ready_tasks_in_another_order_when_asked_to() -> None:
    orders = [run(_order_of_tasks, seed, permute=True) for seed in range(SEEDS)]
    assert len(set(orders)) > SEEDS // 2
    assert {"".join(sorted(order)) for order in orders} == {"abcdef"}
    assert {run(_order_of_tasks, seed) for seed in range(SEEDS)} == {"abcdef"}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_plain_callbacks_keep_their_order(seed: int) -> None:
    async def main() -> list[int]:
        loop, called = asyncio.get_running_loop(), list[int]()
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(10)]
        for number in range(10):
            loop.call_soon(called.append, number)
        await asyncio.gather(*tasks)
        return called

    assert run(main, seed, permute=True) == list(range(10))


def test_some_seed_shows_a_race_that_the_usual_order_hides() -> None:
    async def main() -> int:
        stock, taken = 1, 0

        async def take(waits: int) -> None:
            nonlocal stock, taken
            if stock:
                for _ in range(waits):
                    await asyncio.sleep(0)
                stock -= 1
                taken += 1

        async def give_up() -> None:
            nonlocal stock
            await asyncio.sleep(0)
            stock = 0

        await asyncio.gather(take(0), take(1), give_up())
        return taken

    assert run(main) == 1
    assert max(run(main, seed, permute=True) for seed in range(SEEDS)) == 2


def test_sets_of_tasks_and_futures_iterate_in_an_order_of_the_seed() -> None:
    async def main() -> tuple[list[str], list[int]]:
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(asyncio.sleep(0), name=name) for name in "abcdef"}
        futures = [loop.create_future() for _ in range(6)]
        return [task.get_name() for task in tasks], [futures.index(future) for future in set(futures)]

    for seed in range(SEEDS):
        assert run(main, seed) == (list("abcdef"), list(range(6)))
        assert run(main, seed, permute=True) == run(main, seed, permute=True)
    drawn = [run(main, seed, permute=True) for seed in range(SEEDS)]
    assert len({"".join(names) for names, _ in drawn}) > SEEDS // 2
    assert len({str(numbers) for _, numbers in drawn}) > SEEDS // 2


def test_a_loop_lists_its_tasks_in_the_order_they_were_made() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        kept = [loop.create_task(asyncio.sleep(0)) for _ in range(20)]
        return [task.get_name() for task in loop.tasks()] if kept else []

    for seed in range(SEEDS):
        assert run(main, seed, permute=True) == [f"Task-{number}" for number in range(1, 22)]


def test_sources_of_chance_are_told_apart_by_name_and_seed() -> None:
    first, second = SimLoop(1), SimLoop(2)
    draws = {loop.rng(name).random() for loop in (first, second, first) for name in ("network", "disk")}
    first.close()
    second.close()
    assert len(draws) == 4


def test_garbage_is_collected_while_a_loop_runs() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self

    async def main() -> bool:
        node = weakref.ref(Node())
        assert node() is not None
        for _ in range(1_000):
            await asyncio.sleep(0)
        return node() is None

    assert run(main)


def test_python_collects_garbage_by_itself_again_after_a_run() -> None:
    async def main() -> bool:
        return gc.isenabled()

    assert not run(main)
    assert gc.isenabled()


if __name__ == "__main__":
    seed_, permute_, noise_ = (int(text) for text in sys.argv[1:])
    kept = [object() for _ in range(noise_)]  # so that everything lies at other addresses
    print("\n".join(run(_eventful, seed_, permute=bool(permute_))))
