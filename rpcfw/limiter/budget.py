"""A retry budget: repetitions are paid from what calls bring in, so that retries do not make an outage worse.

A bucket of tokens, no clock: the time is passed in. After Finagle's RetryBudget (a share of the calls of a window, and
a reserve) and the throttling of gRPC's A6; here only a repetition that reached a server costs anything.
"""

from __future__ import annotations

import math

_BUCKETS = 10


class RetryBudget:
    """How many repetitions there may be, beside the calls that are made anyway.

    Each call brings in `ratio`; each repetition that a server got to see costs 1. So in an outage in which every call
    fails, servers see at most ``1 + ratio`` times the calls that are offered, and the reserve once.

    One budget may be shared by several middleware, as `Retry` and `Hedge` of one client; whoever makes the first
    attempts deposits, once for each.

    Args:
        ratio: repetitions per call, at least 0; 0.1 is one in ten.
        reserve: what is there at the start, and what it can hold at the least: for clients that make few calls.
            `math.inf` for a budget without limit.
        window_s: it holds what the calls of this time have brought in, if that is more than the reserve.

    Attributes:
        untold: calls since the last `deposit`. Who makes many adds to this, and deposits now and then, even nothing.
    """

    __slots__ = (
        "_bucket_s",
        "_counts",
        "_current",
        "_next",
        "_past",
        "_tokens",
        "ratio",
        "reserve",
        "untold",
    )

    def __init__(self, ratio: float = 0.1, *, reserve: float = 50.0, window_s: float = 10.0) -> None:
        if not 0 <= ratio < math.inf:
            raise ValueError(f"ratio={ratio!r} must be 0 or more: repetitions per call, such as 0.1")
        if not reserve >= 0:
            raise ValueError(f"reserve={reserve!r} must be 0 or more repetitions")
        if not 0 < window_s < math.inf:
            raise ValueError(f"window_s={window_s!r} must be more than 0 seconds")
        self.ratio = ratio
        self.reserve = reserve
        self._tokens = reserve
        self._bucket_s = window_s / _BUCKETS
        self._counts = [0] * _BUCKETS  # calls of the past parts of the window, the oldest first
        self._past = 0  # their sum
        self._current = 0  # calls of the part that runs, but for those untold
        self.untold = 0
        self._next = -math.inf  # when it ends

    def deposit(self, now: float, calls: int = 1) -> None:
        """So many calls are made for the first time."""
        if now >= self._next:
            self._turn(now)
        self.untold += calls
        self._settle()

    def withdraw(self, now: float) -> bool:
        """A call is to be repeated: whether it may. What came of it is told with `refund`, where it cost nothing."""
        if now >= self._next:
            self._turn(now)
        self._settle()
        if self._tokens < 1.0 - 1e-9:  # a sum of many ratios is a little off
            return False
        self._tokens -= 1.0
        return True

    def refund(self) -> None:
        """A repetition that was paid for has surely not been seen by any server."""
        self._settle()
        self._tokens = min(self._tokens + 1.0, self.capacity)

    @property
    def capacity(self) -> float:
        """How many repetitions it can hold, as of the last call."""
        return max(self.reserve, self.ratio * (self._past + self._current + self.untold))

    def tokens(self, now: float) -> float:
        """How many repetitions there may be now."""
        if now >= self._next:
            self._turn(now)
        self._settle()
        return self._tokens

    def _settle(self) -> None:
        """Count the calls since the last time: together or one by one comes to the same, as the cap grows with them."""
        calls, self.untold = self.untold, 0
        self._current += calls
        self._tokens = min(self._tokens + calls * self.ratio, self.capacity)

    def _turn(self, now: float) -> None:
        """The running part of the window is over: forget as many of the oldest as have passed.

        Calls that are untold count as made now, which they may have been.
        """
        behind_s = now - self._next
        passed = 1 + int(min(behind_s / self._bucket_s, _BUCKETS))
        counts = [*self._counts, self._current, *[0] * (passed - 1)]
        self._counts = counts[-_BUCKETS:]
        self._past = sum(self._counts)
        self._current = 0
        self._next = now + self._bucket_s if passed > _BUCKETS else self._next + passed * self._bucket_s
        self._tokens = min(self._tokens, self.capacity)
