"""The lag meter tells how late the loop is, and leaves nothing behind on it."""

from __future__ import annotations

import asyncio

import pytest

from rpcfw.limiter import LagMeter
from rpcfw.testing import simulate
from tests.calls.virtual import VirtualLoop, virtual_time


def block(seconds: float) -> None:
    """Compute for that long, as far as the loop can tell."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.jump(seconds)


def timers() -> int:
    """Timers of the running loop that are to fire."""
    loop = asyncio.get_running_loop()
    return sum(not timer.cancelled() for timer in loop._scheduled)  # type: ignore[attr-defined]


@virtual_time
async def test_a_loop_that_keeps_up_has_no_lag() -> None:
    meter = LagMeter(0.05)
    meter.start()
    await asyncio.sleep(10.0)
    assert 0 <= meter.lag_s <= meter.peak_s < 1e-6
    meter.stop()


def test_on_a_simulated_loop_it_reports_none() -> None:
    async def scenario(_: object) -> tuple[float, float]:
        meter = LagMeter()
        meter.start()
        await asyncio.sleep(3600.0)
        seen = meter.lag_s, meter.peak_s
        meter.stop()
        return seen

    assert max(simulate(scenario, seed=3)) < 1e-6


@virtual_time
async def test_a_block_shows_at_once_as_overdue_then_in_peak_and_average_and_fades() -> None:
    meter = LagMeter(0.05)
    meter.start()
    await asyncio.sleep(0.01)
    block(1.04)
    now = asyncio.get_running_loop().time()
    assert meter.overdue_s(now) == pytest.approx(1.0)
    await asyncio.sleep(0.001)
    assert meter.peak_s == pytest.approx(1.0)
    assert meter.lag_s == pytest.approx(0.3)
    assert meter.overdue_s(asyncio.get_running_loop().time()) == 0
    await asyncio.sleep(3.0)
    assert meter.peak_s < 0.01
    assert meter.lag_s < 0.001
    meter.stop()


@virtual_time
async def test_a_loop_that_is_always_late_has_that_lag() -> None:
    meter = LagMeter(0.05)
    meter.start()
    for _ in range(200):
        block(0.2)
        await asyncio.sleep(0)
    assert (
        0.15 <= meter.lag_s <= meter.peak_s <= 0.4
    )  # a timer of 0.05 s meets the end of the first or second block
    meter.stop()


@virtual_time
async def test_stopping_leaves_no_timer_and_forgets() -> None:
    meter = LagMeter(0.05)
    meter.start()
    await asyncio.sleep(0.01)
    block(1.0)
    await asyncio.sleep(0.2)
    assert meter.lag_s > 0
    assert timers() == 1
    meter.stop()
    assert (timers(), meter.measuring, meter.lag_s, meter.peak_s) == (0, False, 0.0, 0.0)
    meter.stop()
    meter.start()
    await asyncio.sleep(1.0)
    assert meter.measuring
    meter.stop()


@virtual_time
async def test_touched_it_measures_until_nothing_touches_it_any_more() -> None:
    meter = LagMeter(0.05)
    for _ in range(10):
        meter.touch()
        await asyncio.sleep(0.04)
        assert meter.measuring
        assert timers() == 1
    await asyncio.sleep(0.11)
    assert (timers(), meter.measuring) == (0, False)
    meter.touch()
    assert meter.measuring
    meter.stop()


def test_a_loop_that_ended_does_not_keep_it_from_measuring_the_next() -> None:
    meter = LagMeter(0.05)

    async def touched() -> None:
        meter.touch()
        await asyncio.sleep(0.01)

    async def late() -> float:
        meter.touch()
        await asyncio.sleep(0.01)
        block(0.54)
        await asyncio.sleep(0.001)
        return meter.peak_s

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(touched())
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(late()) == pytest.approx(0.5)


@pytest.mark.parametrize("interval_s", [0, -1.0, float("inf"), float("nan")])
def test_an_interval_that_is_none_is_refused(interval_s: float) -> None:
    with pytest.raises(ValueError, match="interval_s"):
        LagMeter(interval_s)
