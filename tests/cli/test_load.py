"""The loops of `rpcfw bench` in virtual time: who begins when, what latencies count from, and how a load ends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import pytest

import rpcfw
from rpcfw.cli.histogram import MAX_RELATIVE_ERROR
from rpcfw.cli.load import Clock, Load, Plan, share
from rpcfw.cli.tally import MAX_ERRORS, OTHER_ERRORS, Tally, merged
from rpcfw.testing import run

Call = Callable[[Tally], Awaitable[object]]


class LoopClock:
    """The running loop's time, which is virtual here."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Endless:
    """A stream that yields an item ten times a second, and never ends."""

    async def call(self, tally: Tally) -> None:
        while True:
            await asyncio.sleep(0.1)
            tally.items += 1


class Recorder:
    """A service as a load sees it: when calls began, after how long each ends."""

    def __init__(self, takes_s: Callable[[float], float] = lambda _: 0.0) -> None:
        self.began: list[float] = []
        self._takes_s = takes_s
        self._zero = asyncio.get_running_loop().time()

    async def call(self, tally: Tally) -> None:
        now = asyncio.get_running_loop().time() - self._zero
        self.began.append(now)
        await asyncio.sleep(self._takes_s(now))


async def loaded(call: Call, plan: Plan, clock: Clock | None = None) -> Tally:
    load = Load(call, plan, clock or LoopClock())
    await load.run()
    return load.tally


def test_a_closed_loop_keeps_so_many_calls_in_flight() -> None:
    async def main() -> None:
        recorder = Recorder(lambda _: 0.1)
        tally = await loaded(recorder.call, Plan(4, seconds=9.95))
        assert tally.latencies.count == tally.calls == 400
        assert tally.elapsed_s == pytest.approx(10.0)
        assert tally.latencies.percentile(99) == pytest.approx(0.1, rel=MAX_RELATIVE_ERROR)
        assert recorder.began == pytest.approx([n // 4 * 0.1 for n in range(400)])

    run(main)


@pytest.mark.parametrize(("in_flight", "calls"), [(4, 10), (16, 10), (1, 1)])
def test_a_closed_loop_ends_after_exactly_so_many_calls(in_flight: int, calls: int) -> None:
    async def main() -> None:
        recorder = Recorder(lambda now: 0.1 + now / 10)
        tally = await loaded(recorder.call, Plan(in_flight, calls=calls))
        assert len(recorder.began) == tally.calls == calls

    run(main)


def test_an_open_loop_begins_calls_at_their_times_however_long_they_take() -> None:
    async def main() -> None:
        recorder = Recorder(lambda _: 7.0)
        tally = await loaded(recorder.call, Plan(1000, rate=20, seconds=10))
        assert recorder.began == pytest.approx([number / 20 for number in range(200)])
        assert tally.calls == 200
        assert tally.latencies.min == pytest.approx(7.0)
        assert tally.latencies.max == pytest.approx(7.0)
        assert tally.delays.max < 1e-6
        assert tally.elapsed_s == pytest.approx(199 / 20 + 7)

    run(main)


def test_the_open_loop_counts_a_stall_of_the_server_for_all_calls_that_were_due() -> None:
    async def main() -> None:
        recorder = Recorder(lambda now: 4.0 - now if 2.0 <= now < 4.0 else 0.001)
        tally = await loaded(recorder.call, Plan(1000, rate=10, seconds=10))
        # those due at 2.0, 2.1 ... 3.9 waited 2.0, 1.9 ... 0.1 s: a fifth of all, evenly spread
        assert tally.latencies.percentile(79.9) == pytest.approx(0.001, rel=MAX_RELATIVE_ERROR)
        for late in range(1, 21):
            percent = 80 + late
            assert tally.latencies.percentile(percent) == pytest.approx(late / 10, rel=MAX_RELATIVE_ERROR)

    run(main)


class Pausing(LoopClock):
    """The clock of a client that stands still once, as for a collection of garbage: it wakes late."""

    def __init__(self, at: float, seconds: float) -> None:
        self._at = self.now() + at
        self._seconds = seconds

    async def wait(self, seconds: float) -> None:
        paused = self._seconds if self.now() + seconds >= self._at else 0.0
        self._seconds -= paused
        await asyncio.sleep(seconds + paused)


def test_what_the_client_itself_is_late_counts_from_the_intended_beginning() -> None:
    async def main() -> None:
        recorder = Recorder(lambda _: 0.01)
        tally = await loaded(recorder.call, Plan(1000, rate=10, seconds=10), Pausing(at=5.0, seconds=1.0))
        assert tally.calls == len(recorder.began) == 100
        assert tally.delays.max == pytest.approx(1.0)
        assert tally.latencies.max == pytest.approx(1.01)
        assert [began for began in recorder.began if 4.95 < began < 6.05] == pytest.approx([6.0] * 11)
        assert recorder.began[-1] == pytest.approx(9.9)  # back on schedule

    run(main)


def test_the_open_loop_tells_what_it_could_not_start() -> None:
    async def main() -> None:
        recorder = Recorder(lambda _: 0.95)
        tally = await loaded(recorder.call, Plan(3, rate=10, seconds=2))
        assert recorder.began == pytest.approx([0.0, 0.1, 0.2, 1.0, 1.1, 1.2])
        assert (tally.calls, tally.not_started) == (6, 14)

    run(main)


@pytest.mark.parametrize(
    ("seconds", "calls", "scheduled"), [(2, None, 20), (2, 7, 7), (0.5, 7, 5), (None, 7, 7)]
)
def test_the_open_loop_ends_at_the_first_of_its_limits(
    seconds: float | None, calls: int | None, scheduled: int
) -> None:
    async def main() -> None:
        plan = Plan(100, rate=10, seconds=seconds, calls=calls)
        assert plan.scheduled == scheduled
        assert (await loaded(Recorder().call, plan)).calls == scheduled

    run(main)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_a_plan_is_shared_without_a_rest(processes: int) -> None:
    closed = share(Plan(16, calls=1000), processes)
    assert sum(plan.in_flight for plan in closed) == 16
    assert sum(plan.calls or 0 for plan in closed) == 1000
    opened = share(Plan(16, rate=10, seconds=2.5), processes)
    assert sum(plan.rate or 0 for plan in opened) == pytest.approx(10)
    assert sum(plan.scheduled or 0 for plan in opened) == 25


def test_shared_schedules_interleave() -> None:
    async def main() -> None:
        recorder = Recorder()
        plans = share(Plan(16, rate=10, seconds=2), 4)
        tally = merged(await asyncio.gather(*(loaded(recorder.call, plan) for plan in plans)))
        assert sorted(recorder.began) == pytest.approx([number / 10 for number in range(20)])
        assert tally.calls == 20

    run(main)


@pytest.mark.parametrize("plan", [Plan(8, seconds=60), Plan(8, rate=4, seconds=60)])
def test_a_load_that_is_stopped_counts_what_was_in_progress_as_unfinished(plan: Plan) -> None:
    async def main() -> None:
        began: list[float] = []

        async def call(tally: Tally) -> None:
            began.append(asyncio.get_running_loop().time())
            await asyncio.sleep(100 if len(began) > 3 else 0.01)

        load = Load(call, plan, LoopClock())
        running = asyncio.create_task(load.run())
        await asyncio.sleep(1.6)
        load.stop()
        await running
        assert load.tally.calls == 3
        assert load.tally.unfinished == len(began) - 3 > 0
        assert load.tally.elapsed_s == pytest.approx(1.6, abs=0.3)
        assert len(asyncio.all_tasks()) == 1

    run(main)


def test_an_open_loop_that_is_stopped_or_refused_does_not_wait_for_the_next_call() -> None:
    async def main() -> None:
        began = asyncio.get_running_loop().time()
        load = Load(Recorder().call, Plan(8, rate=0.001, calls=10), LoopClock())
        running = asyncio.create_task(load.run())
        await asyncio.sleep(1.0)
        load.stop()
        await running
        assert (load.tally.calls, load.tally.unfinished) == (1, 0)
        refusal = rpcfw.RpcError(rpcfw.Code.UNIMPLEMENTED, "no")
        with pytest.raises(rpcfw.RpcError, match="no"):
            await loaded(Failing([refusal]).call, Plan(8, rate=0.001, calls=10))
        assert asyncio.get_running_loop().time() - began < 2.0

    run(main)


@pytest.mark.parametrize("plan", [Plan(8, seconds=60), Plan(8, rate=4, seconds=60)])
def test_a_load_that_is_cancelled_leaves_no_call_behind(plan: Plan) -> None:
    async def main() -> None:
        load = Load(Recorder(lambda _: 1000.0).call, plan, LoopClock())
        running = asyncio.create_task(load.run())
        await asyncio.sleep(1.6)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    run(main)


@pytest.mark.parametrize("plan", [Plan(4, seconds=2), Plan(4, rate=100, seconds=2)])
def test_calls_that_do_not_end_are_given_up_after_the_grace(plan: Plan) -> None:
    async def main() -> None:
        load = Load(Endless().call, plan, LoopClock(), grace_s=3.0)
        await load.run()
        tally = load.tally
        assert (tally.calls, tally.unfinished) == (0, 4)
        assert tally.elapsed_s == pytest.approx(5.0, abs=0.05)
        assert tally.items == pytest.approx(4 * 50, abs=4)
        assert len(asyncio.all_tasks()) == 1

    run(main)


@pytest.mark.parametrize("plan", [Plan(4, seconds=2), Plan(1000, rate=2, seconds=2)])
def test_calls_that_end_within_the_grace_are_waited_for(plan: Plan) -> None:
    async def main() -> None:
        load = Load(Recorder(lambda _: 3.4).call, plan, LoopClock(), grace_s=3.0)
        await load.run()
        assert (load.tally.calls, load.tally.unfinished) == (4, 0)

    run(main)


def test_without_seconds_the_last_call_is_waited_for_however_long() -> None:
    async def main() -> None:
        load = Load(Recorder(lambda _: 1000.0).call, Plan(2, calls=4), LoopClock(), grace_s=1.0)
        await load.run()
        assert (load.tally.calls, load.tally.unfinished) == (4, 0)

    run(main)


@dataclasses.dataclass
class Failing:
    """Raises these in turn, the last one for ever; None succeeds."""

    errors: list[Exception | None]

    async def call(self, tally: Tally) -> None:
        await asyncio.sleep(0.25)
        error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
        if error is not None:
            raise error


class SoldOut(rpcfw.ServiceError):
    sku: str


def test_errors_are_counted_by_code_or_name_with_an_example_each() -> None:
    async def main() -> None:
        errors = [
            None,
            rpcfw.RpcError(rpcfw.Code.INTERNAL, "first"),
            rpcfw.RpcError(rpcfw.Code.INTERNAL, "second"),
        ]
        tally = await loaded(Failing([*errors, SoldOut("tea"), None]).call, Plan(1, calls=8))
        assert (tally.calls, tally.failed, tally.latencies.count) == (8, 3, 5)
        told = {name: (failures.count, failures.example) for name, failures in tally.errors.items()}
        assert told == {"INTERNAL": (2, "first"), "SoldOut": (1, "sku='tea'")}
        assert tally.errors["INTERNAL"].total_s == pytest.approx(0.5)

    run(main)


@pytest.mark.parametrize("plan", [Plan(1, seconds=60), Plan(1, rate=2, seconds=60)])
def test_a_first_call_that_is_refused_as_all_would_be_ends_the_load(plan: Plan) -> None:
    async def main() -> None:
        refusal = rpcfw.RpcError(rpcfw.Code.INVALID_ARGUMENT, "no")
        service = Failing([refusal])
        began = asyncio.get_running_loop().time()
        with pytest.raises(rpcfw.RpcError, match="no"):
            await loaded(service.call, plan)
        assert asyncio.get_running_loop().time() - began < 1.0
        later = await loaded(Failing([None, refusal]).call, dataclasses.replace(plan, seconds=2))
        assert later.failed == later.calls - 1 > 1

    run(main)


def test_calls_that_cannot_even_be_sent_are_not_made_as_fast_as_they_fail() -> None:
    async def main() -> None:
        async def call(tally: Tally) -> None:
            raise rpcfw.RpcError(rpcfw.Code.UNAVAILABLE, "nobody there", executed=False)

        tally = await loaded(call, Plan(2, seconds=1))
        assert 10 <= tally.failed <= 300

    run(main)


def test_so_many_different_errors_are_told_apart() -> None:
    tally = Tally()
    for number in range(MAX_ERRORS + 5):
        tally.fail(type(f"Error{number}", (Exception,), {})("x"), 0.0)
    assert len(tally.errors) == MAX_ERRORS + 1
    assert tally.errors[OTHER_ERRORS].count == 5
    assert merged([tally, tally]).failed == 2 * (MAX_ERRORS + 5)
