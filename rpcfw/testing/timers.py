"""What is due when, in true time, set by clocks that run each at its own rate.

A heap, and nothing of turns or tasks. Entries are compared as tuples, in C; equal times keep their order.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable

from rpcfw.testing.clock import SimHost, true_time_of

_FEW_CANCELLED = 100
"""Cancelled timers that may lie about, as long as they are fewer than the others."""


class SimTimer(asyncio.TimerHandle):
    """A timer; `clock` is the host that set it, in its own time, or None for true time."""

    __slots__ = ("clock",)
    clock: SimHost | None
    _scheduled: bool


class Timers:
    """All timers of a loop."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, SimTimer]] = []
        self._cancelled = 0
        self._next = itertools.count().__next__

    def set(self, timer: SimTimer) -> None:
        """Take one in. Raises ValueError for a time that is no number."""
        heapq.heappush(self._heap, (_due(timer), self._next(), timer))
        timer._scheduled = True  # so that the loop is told when it is cancelled

    def next_due(self) -> float:
        """The true time of the next one that is not cancelled; infinite when there is none."""
        heap = self._heap
        while heap and heap[0][2]._cancelled:
            heapq.heappop(heap)[2]._scheduled = False
            self._cancelled -= 1
        return heap[0][0] if heap else math.inf

    def move_due(self, now: float, ready: deque[asyncio.Handle]) -> None:
        """Append those that are due to what is ready."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            timer = heapq.heappop(heap)[2]
            timer._scheduled = False
            if timer._cancelled:
                self._cancelled -= 1
            else:
                ready.append(timer)

    def cancelled(self) -> None:
        """One of them was cancelled; now and then those that were are dropped."""
        self._cancelled += 1
        if self._cancelled > _FEW_CANCELLED and 2 * self._cancelled > len(self._heap):
            self._keep(lambda timer: not timer._cancelled)

    def clock_changed(self, host: SimHost) -> None:
        """Set a host's timers anew, for its clock runs otherwise from now on."""
        self._heap = [
            (_due(timer) if timer.clock is host else due, number, timer) for due, number, timer in self._heap
        ]
        heapq.heapify(self._heap)

    def drop(self, host: SimHost) -> None:
        """Forget what a host has set."""
        self._keep(lambda timer: not timer._cancelled and timer.clock is not host)

    def clear(self) -> None:
        """Forget all."""
        self._keep(lambda timer: False)

    def __len__(self) -> int:
        """How many are set and not cancelled."""
        return len(self._heap) - self._cancelled

    def of_hosts(self) -> int:
        """How many of them were set by hosts."""
        return sum(not timer._cancelled and timer.clock is not None for _, _, timer in self._heap)

    def _keep(self, wanted: Callable[[SimTimer], bool]) -> None:
        kept = []
        for entry in self._heap:
            if wanted(entry[2]):
                kept.append(entry)
            else:
                entry[2]._scheduled = False
                entry[2].cancel()
        heapq.heapify(kept)
        self._heap = kept
        self._cancelled = 0


def _due(timer: SimTimer) -> float:
    when = timer.when()
    if math.isnan(when):
        raise ValueError("a timer set for nan would never fire; give a number of seconds")
    if timer.clock is None or math.isinf(when):
        return when
    return true_time_of(timer.clock, when)
