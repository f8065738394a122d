"""The lag of an event loop: how much later than asked for does a timer fire.

On a loop that keeps up it is next to nothing. Where handlers compute on the loop, calls wait for their turn unseen by
any count of calls in progress, and only the lag tells. This is the one module here that uses the running loop.
"""

from __future__ import annotations

import asyncio
import math

INTERVAL_S = 0.05
_SHARE = 0.3
"""Weight of the newest measurement in the average."""
_PEAK_DECAY = 0.9
"""What is left of the peak after each measurement: a twentieth after 1.5 seconds of intervals."""


class LagMeter:
    """Measures the lag of the running loop with one timer at a time.

    Two ways to use it: `start` and `stop`, by an owner with a lifetime; or `touch` at each event, by what has none: it
    measures from the first touch on, and ends by itself when nothing has touched it for an interval.

    Args:
        interval_s: seconds between two measurements, more than 0. A block of the loop that is much shorter may fall
            between them.

    Attributes:
        lag_s: average of the recent measurements, in seconds; the newest counts most.
        peak_s: the highest of them, fading with each further one.
        due_at: when the timer should fire, in the loop's seconds; `math.inf` while it does not measure. A time that is
            later than this is a lag that has not been measured yet.
    """

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        if not 0 < interval_s < math.inf:
            raise ValueError(f"interval_s={interval_s!r} must be more than 0 seconds, and finite")
        self.interval_s = interval_s
        self.lag_s = 0.0
        self.peak_s = 0.0
        self.due_at = math.inf
        self._owned = False
        self._touched = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def measuring(self) -> bool:
        """Whether its timer is set."""
        return self._timer is not None

    def start(self) -> None:
        """Measure the running loop until `stop`."""
        self._owned = True
        self.touch()

    def stop(self) -> None:
        """Measure no more, and forget what was measured. The timer is gone at once."""
        self._owned = self._touched = False
        self._rest()

    def touch(self) -> None:
        """Measure for at least one more interval."""
        self._touched = True
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # it rests, or the loop it measured is gone
            self._rest()
            self._loop = loop
            self._arm(loop)

    def overdue_s(self, now: float) -> float:
        """The lag that can be told before the timer fires: how long ago it should have; 0 when it is not due."""
        return max(0.0, now - self.due_at)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self.due_at = loop.time() + self.interval_s
        self._timer = loop.call_at(self.due_at, self._measure)

    def _measure(self) -> None:
        assert self._loop is not None
        lag_s = max(0.0, self._loop.time() - self.due_at)
        self.lag_s += _SHARE * (lag_s - self.lag_s)
        self.peak_s = max(lag_s, self.peak_s * _PEAK_DECAY)
        if self._owned or self._touched:
            self._touched = False
            self._arm(self._loop)
        else:
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._loop, self.due_at = None, None, math.inf
        self.lag_s = self.peak_s = 0.0
