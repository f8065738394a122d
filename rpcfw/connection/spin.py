"""Looking out for frames a little longer before the loop goes to sleep, where that has paid before.

To sleep and be woken costs both sides tens of microseconds, more than many a call. Who waits for as long as sleeping
would cost, and then sleeps, is never worse than twice the best there is (Karlin et al., "Competitive randomized
algorithms for non-uniform problems", 1990); mutexes, schedulers and virtual machines do the same. No I/O happens here.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from time import perf_counter

DEFAULT_TURNS = 64
_PAYS_FROM = 8
"""A spin was worth it when frames came so often before it ended."""
_FIRST_PAUSE, _LONGEST_PAUSE = 64, 65_536
"""How many writes pass before the next attempt; doubled each time that it did not pay."""
_LONG_YIELD_S = 10e-6
"""Yielding the core takes a tenth of that when nobody else wants it; an interrupt may lengthen one now and then."""
_LARGE_FOLD = 4
_LARGE_WRITES = 8
"""It is spun so much longer while large messages come and go, until this write after the last part of one."""
_MAX_LONG_YIELDS, _FORGOTTEN_EVERY = 3, 32
"""How many long ones end a spin, and after how many times that frames came they are forgotten."""


def _no_yield() -> None:
    """Where the system cannot be asked to let others run."""


_yield_core: Callable[[], None] = getattr(os, "sched_yield", _no_yield)


class _Record:
    """How spins have paid: how many writes pass before the next, and before the one after if that does not pay."""

    __slots__ = ("longer", "pause")

    def __init__(self) -> None:
        self.pause = self.longer = _FIRST_PAUSE


class Spin:
    """Keeps the loop awake for a few turns after each write; shared by all connections of a client or server.

    It begins when `expect` has been called often enough, goes on as long as frames come, and ends when none came for
    `turns` turns, or when another process wants the core. After one that did not pay it pauses, each time longer. While
    large messages come and go it takes four times as many turns, and what pays then is learnt apart.

    Args:
        turns: how many turns of the loop to look for frames, about a microsecond and a half each; 0: never.
    """

    __slots__ = (
        "_active",
        "_charged",
        "_context",
        "_fresh",
        "_heard",
        "_large",
        "_large_left",
        "_left",
        "_limit",
        "_long_yields",
        "_loop",
        "_record",
        "_small",
        "_turns",
    )

    def __init__(self, turns: int) -> None:
        if turns < 0:
            raise ValueError(f"spin_turns={turns} must be 0, for never, or more")
        self._turns = turns
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.Context()  # its own, or it would keep that of the call that began it
        self._active = False
        self._fresh = False
        self._left = 0
        self._limit = turns + 1
        self._large_left = 0
        self._heard = 0
        self._long_yields = 0
        self._small, self._large = _Record(), _Record()
        self._record = self._charged = (
            self._small
        )  # the one that counts now, and that of the spin in progress

    def expect(self) -> None:
        """Something was written, so an answer may come soon."""
        if self._large_left:
            self._large_left -= 1
            if not self._large_left:
                self._record, self._limit = self._small, self._turns + 1
        if self._active:
            self._left = self._limit
            self._fresh = True
        elif self._record.pause:
            self._record.pause -= 1
        elif self._turns:
            try:
                self._loop = asyncio.get_running_loop()
            except RuntimeError:
                return  # between two runs of the loop, where a stream was dropped
            self._active, self._left, self._heard, self._long_yields = True, self._limit, 0, 0
            self._fresh = True
            self._charged = self._record
            self._loop.call_soon(self._turn, context=self._context)

    def large(self) -> None:
        """Part of a large message was written or read: the other side takes as long for what comes next."""
        self._record, self._limit = self._large, _LARGE_FOLD * self._turns + 1
        self._large_left = _LARGE_WRITES
        self._left = self._limit

    def heard(self) -> None:
        """Something came."""
        if self._active:
            self._left = self._limit
            self._fresh = True
            self._heard += 1
            if self._heard % _FORGOTTEN_EVERY == 0:
                self._long_yields = 0

    def _turn(self) -> None:
        assert self._loop is not None
        left = self._left = self._left - 1
        if self._fresh:  # something was heard or written in the last turn
            self._fresh = False
        else:
            started = perf_counter()
            _yield_core()
            if perf_counter() - started > _LONG_YIELD_S:
                self._long_yields += 1
            if left <= 0 or self._long_yields == _MAX_LONG_YIELDS:
                self._end()
                return
        self._loop.call_soon(self._turn, context=self._context)

    def _end(self) -> None:
        self._active = False
        record = self._charged
        if self._long_yields == _MAX_LONG_YIELDS or self._heard < _PAYS_FROM:
            record.longer = min(2 * record.longer, _LONGEST_PAUSE)
            record.pause = record.longer
        else:
            record.longer = _FIRST_PAUSE  # and the next one begins with the next write
