"""The breaker that refuses just as large a share of calls as the node would, from what it did lately.

Source: Beyer et al., "Site Reliability Engineering" (2016), chapter 21, "Client-Side Throttling"; the window and the
least number of requests are those of Kratos.
"""

from __future__ import annotations

import math
import random

from rpcfw.breaker.policy import Listener, State
from rpcfw.breaker.window import BUCKETS, SecondsWindow
from rpcfw.chance import new_rng


class Adaptive:
    """Refuses a call with the probability max(0, (requests - k * accepts) / (requests + 1)).

    It never opens: some calls always pass, so it needs no probes, and finds out by itself when the node does better. It
    counts as half-open while it refuses any. Requests are the calls that ended and those refused here, so that calls
    that merely take long do not count against the node; accepts are those that did not fail. When a call began does not
    matter: all tickets are the same.

    It is made for nodes that are overloaded. Judge calls by `is_failure_or_overload` then.

    Args:
        k: a share of 1 - 1/k of all calls may fail before it refuses any; more than 1. The less, the stricter.
        window_s: what "lately" means, in seconds.
        min_requests: with fewer requests in the window it refuses none.
        rng: the dice.
    """

    __slots__ = ("_k", "_listener", "_min_requests", "_rng", "_tell_after", "_tell_s", "_told", "_window")

    def __init__(
        self,
        k: float = 2.0,
        *,
        window_s: float = 3.0,
        min_requests: int = 20,
        rng: random.Random | None = None,
    ) -> None:
        if not k > 1:
            raise ValueError(f"k={k!r} must be more than 1, or it would refuse calls for one failure")
        if min_requests < 1:
            raise ValueError(f"min_requests={min_requests!r} must be at least 1")
        self._k = k
        self._min_requests = min_requests
        self._window = SecondsWindow(window_s)
        self._rng = rng
        self._listener: Listener | None = None
        self._told = State.CLOSED
        self._tell_after = -math.inf
        self._tell_s = window_s / BUCKETS

    def state(self, now: float) -> State:
        """Closed while it refuses none, else half-open."""
        return State.HALF_OPEN if self.refused_share(now) > 0 else State.CLOSED

    def permits(self, now: float) -> bool:
        """True: any call may pass, with luck."""
        return True

    def refused_share(self, now: float) -> float:
        """The probability that a call is refused now: from 0 to less than 1."""
        requests, refused = self._window.count(now)
        surplus = requests - self._k * (requests - refused)
        if surplus <= 0 or requests < self._min_requests:
            return 0.0
        return surplus / (requests + 1)

    def enter(self, now: float) -> int:
        """1, or 0 when the call is refused."""
        share = self.refused_share(now)
        if self._told is not State.CLOSED or share:
            self._tell(now, share)
            if share and self._dice() < share:
                self._window.add(now, True)
                return 0
        return 1

    def leave(self, now: float, ticket: int, failed: bool | None) -> None:
        """A call has ended."""
        if failed is not None:
            self._window.add(now, failed)

    def retry_at(self, now: float) -> float:
        """Now."""
        return now

    def on_change(self, listener: Listener | None) -> None:
        """Tell this listener when it begins to refuse calls, and when it ceases to.

        At most once in a tenth of the window, and only as calls come.
        """
        self._listener = listener

    def _dice(self) -> float:
        if self._rng is None:
            self._rng = new_rng()
        return self._rng.random()

    def _tell(self, now: float, share: float) -> None:
        after = State.HALF_OPEN if share else State.CLOSED
        if after is self._told or now < self._tell_after:
            return
        before, self._told, self._tell_after = self._told, after, now + self._tell_s
        if self._listener is not None:
            requests, refused = self._window.count(now)
            why = f"of {requests} calls {requests - refused} were accepted: {share:.0%} are refused"
            self._listener(before, after, why)
