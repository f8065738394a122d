"""Load on a server: calls made in a closed or an open loop, and the tally of how they went.

Closed: so many calls are always in progress, so a server that stalls is asked less, and what a stall would have cost
those who did not ask is not seen. Open: calls begin at their times whatever happens, and the latency of each counts
from then, as in Gil Tene's wrk2: no coordinated omission. What a call is, and what is made of the tally, is decided
elsewhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from rpcfw.cli.tally import Tally
from rpcfw.errors import Code, Origin, RpcError

HOPELESS = (Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED, Code.UNIMPLEMENTED)
"""When the first call ends so, the others would as well."""
_MAX_BURST = 64
"""So many calls begin at most before the loop turns: who is late must still hear the replies."""
_PAUSE_S = 0.01
"""Who cannot connect fails at once, and need not do so a hundred thousand times a second."""
_COARSE_S = 0.002
"""Loops wake to the millisecond only: what is nearer than this is waited for by turning the loop."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How much is called, and when. It ends after so many calls or seconds, or at the first of both.

    Attributes:
        in_flight: closed loop: calls in progress all the time; open loop: the most there may be.
        rate: open loop: calls that begin in a second; None for the closed one.
        seconds: no call begins later.
        calls: no more begin than these.
        phase: open loop: the part of an interval that passes before the first call, from 0 to 1.
    """

    in_flight: int
    rate: float | None = None
    seconds: float | None = None
    calls: int | None = None
    phase: float = 0.0

    @property
    def scheduled(self) -> int | None:
        """Open loop: how many calls are to begin."""
        if self.rate is None:
            return None
        in_time = (
            math.inf if self.seconds is None else math.ceil(round(self.seconds * self.rate - self.phase, 6))
        )
        return int(min(in_time, math.inf if self.calls is None else self.calls))


class Clock(Protocol):
    """Time as a load needs it: finer than a loop's own."""

    def now(self) -> float:
        """Seconds, never going back."""
        ...

    async def wait(self, seconds: float) -> None:
        """Let the loop turn, for no longer than this; it may be much less."""
        ...


class WallClock:
    """The machine's. Its last milliseconds before a time are spent turning the loop, which takes the processor."""

    now = staticmethod(time.perf_counter)

    async def wait(self, seconds: float) -> None:
        """Sleep while the time is far, else let the loop turn once."""
        await asyncio.sleep(seconds - _COARSE_S if seconds > _COARSE_S else 0)


class Load:
    """One run of a plan.

    Args:
        call: makes a call, and counts in the tally what only it knows of, such as the items of a stream.
        plan: how many, and when.
        clock: the machine's unless given.
        grace_s: how long calls in progress are waited for when the seconds of the plan are over; those that are left
            then are given up, and counted as unfinished. Without seconds the last call is waited for however long.

    Attributes:
        tally: of the calls so far.
    """

    def __init__(
        self,
        call: Callable[[Tally], Awaitable[object]],
        plan: Plan,
        clock: Clock | None = None,
        *,
        grace_s: float = math.inf,
    ) -> None:
        self.tally = Tally()
        self._call = call
        self._plan = plan
        self._clock = clock or WallClock()
        self._grace_s = grace_s
        self._running: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None
        self._stopped = False
        self._left = math.inf if plan.calls is None else plan.calls
        self._began = self._ends_at = 0.0
        self._cpu_began_s = 0.0
        self._refusal: RpcError | None = None

    async def run(self) -> None:
        """Make the calls, and wait for those in progress at the end, but no longer than the grace.

        Raises:
            RpcError: the first call was refused for a reason that holds for all of them; see `HOPELESS`.
        """
        self._cpu_began_s = time.process_time()
        self._began = self._clock.now()
        self._ends_at = self._began + (math.inf if self._plan.seconds is None else self._plan.seconds)
        try:
            if self._plan.rate is None:
                for _ in range(int(min(self._plan.in_flight, self._left))):
                    self._start(self._caller())
            else:
                self._pacing = asyncio.create_task(self._keep_schedule(self._plan.rate))
                await asyncio.wait([self._pacing])
                if not self._pacing.cancelled():
                    self._pacing.result()
            if not await self._settle(max(self._ends_at, self._clock.now()) + self._grace_s):
                self.stop()
                await self._settle(math.inf)
        finally:
            self.stop()
            self.measure()
        if self._refusal is not None:
            raise self._refusal

    def stop(self) -> None:
        """Begin no more calls and give up those in progress, which are counted as unfinished. `run` returns."""
        self._begin_no_more()
        self._cut_off()

    def measure(self) -> Tally:
        """The tally, with the times until now."""
        self.tally.elapsed_s = self._clock.now() - self._began
        self.tally.cpu_s = time.process_time() - self._cpu_began_s
        return self.tally

    async def _settle(self, until: float) -> bool:
        """Wait for what runs, until that time of the clock at most; whether all has ended."""
        while self._running:
            left_s = until - self._clock.now()
            if left_s <= 0:
                return False
            done, _ = await asyncio.wait(self._running, timeout=None if left_s == math.inf else left_s)
            for task in done:
                if not task.cancelled():
                    task.result()
        return True

    async def _caller(self) -> None:
        """Closed loop: a call after the other."""
        clock, tally = self._clock.now, self.tally
        record, call = tally.latencies.record, self._call
        while self._left > 0 and not self._stopped:
            started = clock()
            if started >= self._ends_at:
                return
            self._left -= 1
            try:
                await call(tally)
            except Exception as error:
                self._failed(error, clock() - started)
                await self._clock.wait(_PAUSE_S if _never_left(error) else 0)  # it may not have waited at all
            except asyncio.CancelledError:
                tally.unfinished += 1
                raise
            else:
                record(clock() - started)

    async def _keep_schedule(self, rate: float) -> None:
        """Open loop: begin each call at its time."""
        clock, total = self._clock, self._plan.scheduled or 0
        began, number = self._began + self._plan.phase / rate, 0
        while number < total and not self._stopped:
            due = began + number / rate
            now = clock.now()
            if due > now:
                await clock.wait(due - now)
                continue
            over = math.floor((now - began) * rate)  # the last one that is due, but for rounding
            upto = min(total, number + _MAX_BURST, max(over, number) + 1)
            for late in range(number, upto):
                if len(self._running) < self._plan.in_flight:
                    self._start(self._scheduled(began + late / rate))
                else:
                    self.tally.not_started += 1
            number = upto
            await asyncio.sleep(0)

    async def _scheduled(self, due: float) -> None:
        clock, tally = self._clock.now, self.tally
        tally.delays.record(max(clock() - due, 0.0))
        try:
            await self._call(tally)
        except Exception as error:
            self._failed(error, clock() - due)
        except asyncio.CancelledError:
            tally.unfinished += 1
            raise
        else:
            tally.latencies.record(max(clock() - due, 0.0))

    def _failed(self, error: Exception, took_s: float) -> None:
        first = not self.tally.errors and not self.tally.latencies.count
        self.tally.fail(error, took_s)
        if first and isinstance(error, RpcError) and error.code in HOPELESS:
            self._refusal = error
            self._begin_no_more()

    def _start(self, calling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(calling)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _begin_no_more(self) -> None:
        self._stopped = True
        if self._pacing is not None:
            self._pacing.cancel()  # the next call may be due in an hour

    def _cut_off(self) -> None:
        for task in self._running:
            task.cancel()


def share(plan: Plan, parts: int) -> list[Plan]:
    """A plan for each of several processes; together they do what the plan says."""
    return [
        dataclasses.replace(
            plan,
            in_flight=_part(plan.in_flight, parts, number),
            rate=None if plan.rate is None else plan.rate / parts,
            calls=None if plan.calls is None else _part(plan.calls, parts, number),
            phase=number / parts,
        )
        for number in range(parts)
    ]


def _never_left(error: Exception) -> bool:
    return isinstance(error, RpcError) and error.executed is False and error.origin is not Origin.REMOTE


def _part(whole: int, parts: int, number: int) -> int:
    return whole // parts + (number < whole % parts)
