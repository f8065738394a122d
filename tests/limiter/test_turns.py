"""Turns of a loop that computes: a burst is let through, a loop that is busy all the time is not made busier."""

from __future__ import annotations

import asyncio
import random

import pytest

from rpcfw.limiter import Turns
from tests.calls.virtual import VirtualLoop, virtual_time

TARGET_S, INTERVAL_S = 0.01, 0.1


def running() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


async def turn(turns: Turns, calls: int, call_s: float, tolerance: float = 1.0) -> int:
    """So many calls in one turn of the loop; how many were let in."""
    loop, entered = running(), 0
    for _ in range(calls):
        if turns.enter(loop, loop.time(), tolerance):
            loop.jump(call_s)
            entered += 1
    await asyncio.sleep(0)
    return entered


@virtual_time
async def test_one_long_turn_lets_all_in() -> None:
    turns = Turns(TARGET_S, INTERVAL_S)
    assert await turn(turns, 90, 0.001) == 90


@virtual_time
@pytest.mark.parametrize(("calls", "call_s"), [(2, 0.12), (4, 0.04), (150, 0.001)])
async def test_a_turn_that_follows_no_busy_time_lets_all_in_however_long_it_gets(
    calls: int, call_s: float
) -> None:
    turns = Turns(TARGET_S, INTERVAL_S)
    for _ in range(3):
        assert await turn(turns, calls, call_s) == calls
        await asyncio.sleep(0.3)


@virtual_time
async def test_once_no_turn_was_short_for_the_interval_calls_begin_within_the_target_only() -> None:
    turns = Turns(TARGET_S, INTERVAL_S)
    entered = [await turn(turns, 40, 0.001) for _ in range(10)]
    assert entered[:2] == [40, 40]
    assert all(10 <= count <= 12 for count in entered[3:]), entered


@virtual_time
async def test_a_short_turn_or_a_pause_makes_it_generous_again() -> None:
    for pause in (False, True):
        turns = Turns(TARGET_S, INTERVAL_S)
        for _ in range(10):
            await turn(turns, 40, 0.001)
        if pause:
            await asyncio.sleep(0.005)
        else:
            assert await turn(turns, 3, 0.001) == 3
        assert await turn(turns, 90, 0.001) == 90


@virtual_time
async def test_an_empty_turn_is_no_pause() -> None:
    turns = Turns(TARGET_S, INTERVAL_S)
    for _ in range(10):
        await turn(turns, 40, 0.001)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await turn(turns, 90, 0.001) < 15


@virtual_time
async def test_calls_longer_than_the_target_come_at_least_two_in_a_turn() -> None:
    turns = Turns(TARGET_S, INTERVAL_S)
    entered = [await turn(turns, 10, 0.03) for _ in range(40)]
    assert set(entered[-10:]) <= {2, 3}, entered


@virtual_time
async def test_what_matters_more_is_let_in_later() -> None:
    counts = []
    for tolerance in (0.5, 1.0, 2.0):
        turns = Turns(TARGET_S, INTERVAL_S)
        for _ in range(10):
            await turn(turns, 90, 0.001, tolerance)
        counts.append(await turn(turns, 90, 0.001, tolerance))
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < 30


@virtual_time
async def test_at_nine_tenths_of_what_the_loop_can_do_next_to_nothing_is_refused() -> None:
    seed = 7
    print(f"seed {seed}")
    turns, loop, rng = Turns(TARGET_S, INTERVAL_S), running(), random.Random(seed)
    refused, due, number = 0, loop.time(), 20_000
    arrivals = []
    for _ in range(number):
        due += rng.expovariate(0.9 / 0.001)
        arrivals.append(due)
    index = 0
    while index < number:
        now = loop.time()
        if arrivals[index] > now:
            await asyncio.sleep(arrivals[index] - now)
            continue
        ready = index
        while ready < number and arrivals[ready] <= now:
            ready += 1
        refused += ready - index - await turn(turns, ready - index, 0.001)
        index = ready
    assert refused < number * 0.01, refused
