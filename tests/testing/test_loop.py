"""The simulated loop: what asyncio offers works in virtual time, and hangs are told."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rpcfw.testing import SimLoop, Stuck, Unsimulated, run, unguarded
from rpcfw.testing.clock import START_S
from rpcfw.testing.timers import SimTimer, Timers

DAY_S = 86_400


def now() -> float:
    return asyncio.get_running_loop().time() - START_S


def sim_loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


# ---------------------------------------------------------------------------------------------- time


def test_a_day_of_a_periodic_task_takes_two_turns_a_beat() -> None:
    async def main() -> int:
        for beat in range(1, DAY_S + 1):
            await asyncio.sleep(1)
            assert now() == beat
        return sim_loop().turns

    assert run(main) == 2 * DAY_S + 1


def test_a_timeout_ends_what_waits_after_exactly_its_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(60)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 2.5)
        return now()

    assert run(main) == 7.5


def test_timers_fire_in_the_order_of_their_times_and_equal_ones_in_the_order_they_were_set() -> None:
    async def main() -> list[str]:
        loop, fired = asyncio.get_running_loop(), list[str]()
        loop.call_later(2, fired.append, "late")
        for name in "abc":
            loop.call_at(loop.time() + 1, fired.append, name)
        cancelled = loop.call_later(1, fired.append, "never")
        assert cancelled.when() == loop.time() + 1
        cancelled.cancel()
        await asyncio.sleep(3)
        return fired

    assert run(main) == ["a", "b", "c", "late"]


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> int:
        loop, timers = asyncio.get_running_loop(), list[weakref.ref[asyncio.TimerHandle]]()
        for _ in range(1_000):
            timers.append(weakref.ref(loop.call_later(3_600, print)))
        for timer in timers:
            set_timer = timer()
            assert set_timer is not None
            set_timer.cancel()
        set_timer = None
        return sum(timer() is not None for timer in timers)

    assert run(main) <= 101


def test_timers_that_are_cancelled_or_over_do_not_count() -> None:
    loop, timers, ready = SimLoop(), Timers(), deque[asyncio.Handle]()
    loop.close()
    made = [SimTimer(when, print, (), loop) for when in (1, 2, 3, 4)]
    for timer in made:
        timer.clock = None
        timers.set(timer)
    made[1].cancel()
    timers.cancelled()
    assert len(timers) == 3
    timers.move_due(3, ready)
    assert list(ready) == [made[0], made[2]]
    assert len(timers) == 1
    assert timers.next_due() == 4


def test_a_timer_set_for_no_number_is_refused() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(float("nan"), print)

    with pytest.raises(ValueError, match="nan"):
        run(main)


# ---------------------------------------------------------------------------------------------- tasks


def test_a_task_group_cancels_the_others_when_one_fails() -> None:
    ended: list[str] = []

    async def patient() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(f"cancelled at {now():g}")

    async def failing() -> None:
        await asyncio.sleep(1)
        raise LookupError("no such order")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(patient())
            group.create_task(failing())

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert caught.group_contains(LookupError)
    assert ended == ["cancelled at 1"]


def test_queues_gather_and_wait_work() -> None:
    async def main() -> tuple[list[int], list[str], set[str], int]:
        queue = asyncio.Queue[int](maxsize=1)

        async def produce() -> None:
            for item in range(3):
                await queue.put(item)

        async def after(delay_s: float) -> str:
            await asyncio.sleep(delay_s)
            return f"after {delay_s:g}"

        producer = asyncio.create_task(produce())
        items = [await queue.get() for _ in range(3)]
        await producer
        gathered = list(await asyncio.gather(after(2), after(1)))
        tasks = [asyncio.create_task(after(delay_s)) for delay_s in (1, 2, 3)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return items, gathered, {task.result() for task in done}, len(pending)

    assert run(main) == ([0, 1, 2], ["after 2", "after 1"], {"after 1"}, 2)


def test_tasks_without_a_name_are_counted_per_loop() -> None:
    async def main() -> list[str]:
        tasks = [
            asyncio.current_task(),
            asyncio.create_task(asyncio.sleep(0)),
            sim_loop().start_task(asyncio.sleep(0)),
        ]
        return [task.get_name() for task in tasks if task is not None]

    assert run(main) == run(main) == ["Task-1", "Task-2", "Task-3"]


def test_the_eager_task_factory_makes_eager_tasks_of_the_loop() -> None:
    async def main() -> list[str]:
        factory, begun = getattr(asyncio, "eager_task_factory", None), list[str]()
        sim_loop().set_task_factory(factory)

        async def begin() -> None:
            begun.append("begun")
            await asyncio.sleep(0)

        task = asyncio.create_task(begin())
        assert hash(task) < 1_000, "hashes by its address"
        assert len(begun) == (factory is not None)
        return [task.get_name()]

    assert run(main) == ["Task-2"]


def test_another_task_factory_makes_the_tasks() -> None:
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        sim_loop().set_task_factory(factory)
        await asyncio.create_task(asyncio.sleep(1))
        sim_loop().set_task_factory(None)

    run(main)
    assert made == ["sleep"]


# ---------------------------------------------------------------------------------------------- executors


def test_an_executor_runs_in_line_in_a_copy_of_the_context_without_a_running_loop() -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    def work(factor: int) -> tuple[int, str, int]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        seen = tenant.get()
        tenant.set("changed")
        return 2 * factor, seen, threading.get_ident()

    async def main() -> None:
        tenant.set("shop")
        here = threading.get_ident()
        assert await asyncio.to_thread(work, 4) == (8, "shop", here)
        assert await asyncio.get_running_loop().run_in_executor(None, work, 5) == (10, "shop", here)
        assert tenant.get() == "shop"
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        assert now() == 0

    run(main)


def test_work_cancelled_before_its_turn_is_never_done() -> None:
    done: list[str] = []

    async def main() -> None:
        work = asyncio.get_running_loop().run_in_executor(None, done.append, "done")
        work.cancel()
        await asyncio.sleep(1)

    run(main)
    assert done == []


def test_a_function_in_an_executor_that_raises_stop_iteration_is_told_of_and_not_waited_for() -> None:
    async def main() -> None:
        await asyncio.to_thread(next, iter(()))

    with pytest.raises(RuntimeError, match=r"in an executor raised StopIteration\(\)"):
        run(main)


def test_another_thread_may_not_call_into_the_loop_but_its_own_may() -> None:
    async def main() -> list[str]:
        loop, called, refused = asyncio.get_running_loop(), list[str](), list[str]()
        loop.call_soon_threadsafe(called.append, "from here")

        def elsewhere() -> None:
            try:
                loop.call_soon_threadsafe(called.append, "from elsewhere")
            except Unsimulated as error:
                refused.append(str(error))

        thread = threading.Thread(target=elsewhere)
        with unguarded():
            thread.start()
            thread.join()
        await asyncio.sleep(0)
        assert "asyncio.to_thread" in refused[0]
        return called

    assert run(main) == ["from here"]


# ---------------------------------------------------------------------------------------------- the end


def test_run_raises_what_main_raises_and_ends_what_main_leaves_in_the_order_it_was_made() -> None:
    ended: list[str] = []

    async def left(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            ended.append(name)

    async def main() -> None:
        sim_loop().left = [asyncio.create_task(left(name)) for name in "abcdefghij"]  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        raise LookupError("no such order")

    with pytest.raises(LookupError):
        run(main)
    assert ended == list("abcdefghij")


def test_asyncios_own_runner_shuts_the_loop_down() -> None:
    ended: list[str] = []

    async def numbers(name: str) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(1)
            ended.append(name)

    async def main() -> None:
        generators = [numbers(name) for name in "abcdefghij"]
        sim_loop().left = generators  # type: ignore[attr-defined]
        for generator in generators:
            await anext(generator)

    with asyncio.Runner(loop_factory=SimLoop) as runner:
        loop = runner.get_loop()
        runner.run(main())
    assert loop.is_closed()
    assert ended == list("abcdefghij")


def test_nothing_is_handed_to_an_executor_that_was_shut_down() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.to_thread(print)

    with pytest.raises(RuntimeError, match="shut down"):
        run(main)


def test_cleaning_up_that_never_ends_is_told() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        sim_loop().left = asyncio.create_task(stubborn(), name="stubborn")  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    with pytest.raises(Stuck, match=r"3600 s has passed.*\n.*stubborn"):
        run(main)


# ---------------------------------------------------------------------------------------------- hangs


async def _take(queue: asyncio.Queue[int]) -> int:
    return await queue.get()


def test_a_loop_that_waits_for_nothing_names_its_tasks_and_what_they_wait_for() -> None:
    async def main() -> None:
        consumer = asyncio.create_task(_take(asyncio.Queue()), name="consumer")
        await asyncio.sleep(12.5)
        await consumer

    with pytest.raises(Stuck) as caught:
        run(main, seed=7)
    first, scenario, consumer = str(caught.value).split("\n")
    assert "12.5 s after the start, seed 7" in first
    assert "Task-1" in scenario
    assert "main (test_loop.py:" in scenario
    assert "consumer" in consumer
    assert "_take (test_loop.py:" in consumer
    assert "> Queue.get (queues.py:" in consumer


def test_a_timer_at_infinity_is_nothing_to_wait_for() -> None:
    with pytest.raises(Stuck, match="nothing will ever happen"):
        run(lambda: asyncio.sleep(float("inf")))


def test_a_busy_wait_at_one_instant_is_told() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match=r"waits busily(.|\n)*Task-1"):
        run(main)


def test_a_timer_that_is_always_due_at_once_is_a_busy_wait() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(1e-18)  # no float tells this from now

    with pytest.raises(Stuck, match="waits busily"):
        run(main)


def test_a_busy_wait_ends_when_what_it_waits_for_takes_its_time() -> None:
    async def main() -> float:
        arrived = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, arrived.set)
        while not arrived.is_set():
            await asyncio.sleep(0)
        return now()

    assert 0.05 <= run(main) < 0.06


def test_much_work_at_one_instant_ends_no_timeout() -> None:
    async def main() -> float:
        async with asyncio.timeout(0.5):
            for _ in range(100_000):
                await asyncio.sleep(0)
            return now()

    assert run(main) < 0.2


def test_the_limit_of_time_ends_a_run() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(7)

    with pytest.raises(Stuck, match=r"limit of 100 s has passed \(98 s after"):
        run(main, limit_s=100)
