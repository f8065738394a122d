"""Turns of an event loop that computes: whether calls have to wait for it all the time, and which had better not.

Calls that compute on the loop run one after the other, each as fast as ever. Offered too much, the loop takes in
whatever has come, works that off in one long turn, and finds still more. Every burst makes one long turn, though, and
is no overload; what tells is that no turn has been short for a while. After Nichols and Jacobson, "Controlling Queue
Delay" (2012), in the form that Maurer, "Fail at Scale" (2015), gives it for servers: then calls may wait for a short
time only, and the rest is refused at once.
"""

from __future__ import annotations

import asyncio
import contextvars

_SHARE = 0.1
"""Weight of the newest turn in the average."""
_LEAST_CALLS = 2
"""A turn may last as long as so many calls, however long they take."""


class Turns:
    """Measures the turns of the running loop that have calls in them, as long as they are long.

    Args:
        target_s: a turn up to this length is short, and calls do not begin later than this in a long one
        interval_s: once none has been short for so long.
    """

    __slots__ = (
        "_began_at",
        "_begun",
        "_call_s",
        "_context",
        "_interval_s",
        "_loop",
        "_short_at",
        "_target_s",
    )

    def __init__(self, target_s: float, interval_s: float) -> None:
        self._target_s = target_s
        self._interval_s = interval_s
        self._loop: asyncio.AbstractEventLoop | None = None  # while it measures
        self._context = contextvars.Context()  # its own, or it would keep that of a call
        self._began_at = 0.0
        self._short_at = 0.0
        self._begun = 0
        self._call_s = 0.0

    def enter(self, loop: asyncio.AbstractEventLoop, now: float, tolerance: float = 1.0) -> bool:
        """A call is about to begin: whether it may.

        Args:
            loop: the running one.
            now: its time.
            tolerance: times which both times are for this call.
        """
        if loop is not self._loop:
            self._loop, self._began_at, self._short_at, self._begun = loop, now, now, 0
            loop.call_soon(self._turn, context=self._context)
        elif now - self._short_at > self._interval_s * tolerance:
            late_s = now - self._began_at
            if late_s > self._target_s * tolerance and late_s > _LEAST_CALLS * self._call_s:
                return False
        self._begun += 1
        return True

    def late_s(self, now: float) -> float:
        """For how long this turn has lasted."""
        return now - self._began_at if self._loop is not None else 0.0

    def _turn(self) -> None:
        """The next turn begins."""
        assert self._loop is not None
        now = self._loop.time()
        length_s = now - self._began_at
        if not self._begun or length_s <= self._target_s:
            self._loop = None
            return
        self._call_s += _SHARE * (length_s / self._begun - self._call_s)
        self._began_at, self._begun = now, 0
        self._loop.call_soon(self._turn, context=self._context)
