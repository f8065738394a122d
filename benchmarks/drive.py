"""Loops that make calls and time them: so many in flight, for coroutines and for threads, or so many a second."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

from benchmarks.subject import WARM_UP, Sample, server_cpu_s

MAX_LATENCIES = 10_000
WARM_UP_S = float(os.environ.get(WARM_UP, "0.15"))
MAX_OUTSTANDING = 1_500
"""Of an open loop: what is due beyond it waits for its turn, and its latency counts from when it was due."""


class Meter:
    """Time, and processor time of both sides, from when it is made."""

    def __init__(self) -> None:
        self._server, self._client = server_cpu_s(), time.process_time()
        self._started = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds until now."""
        return time.perf_counter() - self._started

    def sample(self, count: int) -> Sample:
        """What was done until now."""
        elapsed, client = self.elapsed_s, time.process_time() - self._client
        return Sample(count, elapsed, client_cpu_s=client, server_cpu_s=server_cpu_s() - self._server)


async def keep_in_flight(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> Sample:
    """Make a call again as soon as one is answered, so that there are always so many in progress."""
    return await keep_each_in_flight([call] * in_flight, seconds)


async def keep_each_in_flight(calls: Iterable[Callable[[], Awaitable[object]]], seconds: float) -> Sample:
    """A task for each of these, that makes it again and again."""
    calls = list(calls)
    await _round(calls, WARM_UP_S, None)
    latencies: list[float] = []
    meter = Meter()
    count = await _round(calls, seconds, latencies if len(calls) == 1 else None)
    sample = meter.sample(count)
    if not latencies:  # timed apart from the counting, which the clock would slow down
        await _round(calls, seconds / 4, latencies)
    sample.latencies_us = thinned(latencies)
    return sample


async def _round(
    calls: list[Callable[[], Awaitable[object]]], seconds: float, latencies: list[float] | None
) -> int:
    clock = time.perf_counter
    deadline, count = clock() + seconds, 0

    async def caller(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal count
        while clock() < deadline:
            await call()
            count += 1

    async def timed(call: Callable[[], Awaitable[object]]) -> None:
        nonlocal count
        assert latencies is not None
        started = clock()
        while started < deadline:
            await call()
            ended = clock()
            latencies.append((ended - started) * 1e6)
            started = ended
            count += 1

    await asyncio.gather(*((caller if latencies is None else timed)(call) for call in calls))
    return count


def keep_threads_busy(calls: Iterable[Callable[[], object]], seconds: float) -> Sample:
    """The same for blocking calls: a thread for each of these."""
    calls = list(calls)
    _threads(calls, WARM_UP_S)
    meter = Meter()
    latencies = _threads(calls, seconds)
    sample = meter.sample(len(latencies))
    sample.latencies_us = thinned(latencies)
    return sample


def _threads(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    clock = time.perf_counter
    deadline = clock() + seconds
    found: list[list[float]] = []
    failures: list[BaseException] = []

    def caller(call: Callable[[], object]) -> None:
        latencies: list[float] = []
        try:
            started = clock()
            while started < deadline:
                call()
                ended = clock()
                latencies.append((ended - started) * 1e6)
                started = ended
        except BaseException as error:
            failures.append(error)
        found.append(latencies)

    if len(calls) == 1:
        caller(calls[0])
    else:
        threads = [threading.Thread(target=caller, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return [latency for latencies in found for latency in latencies]


async def drain(open_stream: Callable[[], AsyncIterable[object]], expected: int, seconds: float) -> Sample:
    """Read streams to their end, one after the other; counts items. Raises RuntimeError when one is short."""
    await _read(open_stream, expected)
    count, meter = 0, Meter()
    while meter.elapsed_s < seconds:
        count += await _read(open_stream, expected)
    return meter.sample(count)


async def _read(open_stream: Callable[[], AsyncIterable[object]], expected: int) -> int:
    count = 0
    async for _ in open_stream():
        count += 1
    if count != expected:
        raise RuntimeError(f"a stream ended after {count:,} of {expected:,} items")
    return count


async def fill(send: Callable[[], Awaitable[int]], expected: int, seconds: float) -> Sample:
    """Send streams, one after the other; `send` returns how many the server received."""
    await _sent(send, expected)
    count, meter = 0, Meter()
    while meter.elapsed_s < seconds:
        count += await _sent(send, expected)
    return meter.sample(count)


async def _sent(send: Callable[[], Awaitable[int]], expected: int) -> int:
    received = await send()
    if received != expected:
        raise RuntimeError(f"the server received {received:,} of {expected:,} items")
    return received


@dataclasses.dataclass
class Offered:
    """What came of calls that were offered at a rate.

    Attributes:
        elapsed_s: from the first until the last was over.
        latencies_us: of those that were answered, from when each was due.
        refused_us: of those that failed, likewise.
        failures: how they failed, by name, and how often.
    """

    elapsed_s: float = 0.0
    latencies_us: list[float] = dataclasses.field(default_factory=list)
    refused_us: list[float] = dataclasses.field(default_factory=list)
    failures: dict[str, int] = dataclasses.field(default_factory=dict)


async def offer(
    call: Callable[[], Awaitable[object]],
    rate: float,
    seconds: float,
    failure_name: Callable[[Exception], str] = lambda error: type(error).__name__,
) -> Offered:
    """Begin so many calls a second, evenly, whether or not the earlier ones are answered (an open loop).

    Latencies count from when a call was due, not from when it was sent, so that a stall counts for all whom it kept
    waiting. The loop is never left to sleep, whose wake-up would count as latency.
    """
    clock, found, outstanding = time.perf_counter, Offered(), set[asyncio.Task[None]]()
    loop, began, total = asyncio.get_running_loop(), clock(), round(rate * seconds)

    async def one(due: float) -> None:
        try:
            await call()
        except Exception as error:
            found.refused_us.append((clock() - due) * 1e6)
            name = failure_name(error)
            found.failures[name] = found.failures.get(name, 0) + 1
        else:
            found.latencies_us.append((clock() - due) * 1e6)

    number = 0
    while number < total:
        due = min(total, int((clock() - began) * rate) + 1)
        while number < due and len(outstanding) < MAX_OUTSTANDING:
            task = loop.create_task(one(began + number / rate))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)
            number += 1
        await asyncio.sleep(0)
    while outstanding:  # noqa: ASYNC110  # as before, the loop does not sleep
        await asyncio.sleep(0)
    found.elapsed_s = clock() - began
    return found


async def keep_offering(call: Callable[[], Awaitable[object]], rate: float, seconds: float) -> Sample:
    """The same as a sample. Raises RuntimeError when calls fail.

    The collector looks after every 10,000 new objects and not after every 700: each call of an open loop is a task, and
    to look through thousands of them again and again is what would be measured.
    """
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        await offer(call, rate, WARM_UP_S)
        meter = Meter()
        found = await offer(call, rate, seconds)
    finally:
        gc.set_threshold(*usual)
    if found.failures:
        raise RuntimeError(f"at {rate:,.0f} calls a second some failed: {found.failures}")
    sample = meter.sample(len(found.latencies_us))
    sample.latencies_us = thinned(found.latencies_us)
    return sample


def thinned(latencies: list[float]) -> list[float]:
    """At most `MAX_LATENCIES` of them, evenly chosen from the sorted list, ends included."""
    ordered = sorted(latencies)
    if len(ordered) <= MAX_LATENCIES:
        return [round(latency, 2) for latency in ordered]
    step = (len(ordered) - 1) / (MAX_LATENCIES - 1)
    return [round(ordered[round(number * step)], 2) for number in range(MAX_LATENCIES)]
