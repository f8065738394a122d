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
_SHORT = 0.5
_PAUSE_S = 0.001
"""When no call has come for so long, the loop has worked off what there was."""
_LEAST_CALLS = 2
"""A turn may last as long as so many calls, however long they take."""


class Turns:
    """Measures the turns of the running loop that have calls in them, as long as they are long.

    Args:
        target_s: calls do not begin later than this in a turn
        interval_s: once none has been shorter than half of that for so long before it.
    """

    __slots__ = (
        "_began_at",
        "_begun",
        "_call_s",
        "_context",
        "_interval_s",
        "_loop",
        "_pause",
        "_short_at",
        "_target_s",
    )

    def __init__(self, target_s: float, interval_s: float) -> None:
        self._target_s = target_s
        self._interval_s = interval_s
        self._loop: asyncio.AbstractEventLoop | None = None  # while it measures
        self._pause: asyncio.TimerHandle | None = None  # after a turn without calls
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
            self._loop, self._short_at, self._pause = loop, now, None
            self._begin(now)
        elif self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._begin(now)
        elif self._began_at - self._short_at > self._interval_s * tolerance:
            # This turn does not count: it may be the first, of an idle loop, and long by a single call.
            late_s = now - self._began_at
            if late_s > self._target_s * tolerance and late_s > _LEAST_CALLS * self._call_s:
                return False
        self._begun += 1
        return True

    def late_s(self, now: float) -> float:
        """For how long this turn has lasted."""
        return now - self._began_at if self._loop is not None else 0.0

    def _begin(self, now: float) -> None:
        assert self._loop is not None
        self._began_at, self._begun = now, 0
        self._loop.call_soon(self._turn, context=self._context)

    def _turn(self) -> None:
        """The next turn begins."""
        loop = self._loop
        assert loop is not None
        now = loop.time()
        length_s = now - self._began_at
        if not self._begun:  # perhaps only because the callers had no turn yet
            self._pause = loop.call_later(_PAUSE_S, self._rest, context=self._context)
        elif length_s <= self._target_s * _SHORT:
            self._rest()
        else:
            call_s, known_s = length_s / self._begun, self._call_s
            self._call_s = known_s + _SHARE * (call_s - known_s) if known_s else call_s
            self._begin(now)

    def _rest(self) -> None:
        self._loop = self._pause = None
