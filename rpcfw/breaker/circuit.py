"""What breakers do once they have opened: refuse, probe, close or open again. When to open is up to each of them.

The states are those of Nygard, "Release It!" (2007), chapter 5. The time that a circuit stays open doubles with equal
jitter (Brooker, "Exponential Backoff And Jitter", 2015), by default from 5 to 300 s as Finagle's failure accrual has
it.
"""

from __future__ import annotations

import dataclasses
import math
import random

from rpcfw.breaker.policy import Listener, State
from rpcfw.chance import new_rng

_MAX_DOUBLINGS = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Recovery:
    """How an open breaker finds out whether calls succeed again.

    Attributes:
        open_s: it refuses all calls for at least so many seconds.
        max_open_s: the same, at the most. From open_s on the time doubles whenever a probe fails, and is drawn from the
            upper half of what it may be, so that many clients do not probe at once. Equal to `open_s`: always that.
        probes: so many calls pass at a time while it is half-open; at least 1.
        successes_to_close: so many probes must succeed, and none fail in between, until it closes; at least 1.
        probe_timeout_s: a probe that has not ended after so many seconds gives its place to another, and its end counts
            no more then. Longer than calls take.
    """

    open_s: float = 5.0
    max_open_s: float = 300.0
    probes: int = 1
    successes_to_close: int = 2
    probe_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.open_s <= self.max_open_s < math.inf:
            raise ValueError(
                f"open_s={self.open_s!r} must be more than 0, and max_open_s={self.max_open_s!r} no less than it, "
                "and finite"
            )
        if self.probes < 1:
            raise ValueError(f"probes={self.probes!r} must be at least 1, or it would never close again")
        if self.successes_to_close < 1:
            raise ValueError(f"successes_to_close={self.successes_to_close!r} must be at least 1")
        if not self.probe_timeout_s > 0:
            raise ValueError(f"probe_timeout_s={self.probe_timeout_s!r} must be more than 0 seconds")


DEFAULT_RECOVERY = Recovery()


class Circuit:
    """Closed, open or half-open. A breaker owns one, and opens it.

    While it is closed all calls have the same ticket. Each probe has its own. Tickets only grow, and the one for closed
    times changes whenever it closes. So the end of a call tells to which time it belongs, and one that began in an
    earlier time, or a probe whose place was given away, changes nothing.

    Attributes:
        closed: calls pass, and their ends are the breaker's to judge.
        ticket: what calls get while it is closed; else the last probe's.
        listener: is told of changes.
    """

    __slots__ = (
        "_half_open",
        "_openings",
        "_probes",
        "_recovery",
        "_retry_at",
        "_rng",
        "_successes",
        "closed",
        "listener",
        "ticket",
    )

    def __init__(self, recovery: Recovery, rng: random.Random | None) -> None:
        self.closed = True
        self.ticket = 1
        self.listener: Listener | None = None
        self._recovery = recovery
        self._rng = rng  # made when first needed: a fleet has thousands of circuits, few of which ever open
        self._half_open = False
        self._retry_at = 0.0
        self._openings = 0  # since it was closed
        self._successes = 0
        self._probes: dict[int, float] = {}  # ticket: when its place may be given away, the earliest first

    def state(self, now: float) -> State:
        """Where it stands now."""
        if self.closed:
            return State.CLOSED
        return State.OPEN if now < self._retry_at else State.HALF_OPEN

    def permits(self, now: float) -> bool:
        """Whether `enter` would let a call pass."""
        if self.closed:
            return True
        return now >= self._retry_at and self._has_place(now)

    def enter(self, now: float) -> int:
        """The ticket of a call, or 0."""
        if self.closed:
            return self.ticket
        if now < self._retry_at:
            return 0
        if not self._half_open:
            self._half_open = True
            self._tell(State.OPEN, State.HALF_OPEN, "its time is over: calls pass as probes")
        if not self._has_place(now):
            return 0
        probes = self._probes
        if len(probes) == self._recovery.probes:
            del probes[next(iter(probes))]  # overdue
        self.ticket += 1
        probes[self.ticket] = now + self._recovery.probe_timeout_s
        return self.ticket

    def leave(self, now: float, ticket: int, failed: bool | None) -> None:
        """A call ended that has not the ticket of the present closed time: a probe's end counts, no other does."""
        if self._probes.pop(ticket, None) is None or failed is None:
            return
        if failed:
            self.open(now, "a probe failed")
            return
        self._successes += 1
        if self._successes >= self._recovery.successes_to_close:
            self._close()

    def retry_at(self, now: float) -> float:
        """When it will be half-open, or `now`."""
        return now if self.closed else max(now, self._retry_at)

    def open(self, now: float, why: str) -> None:
        """Refuse calls from now on, for a while."""
        before = State.CLOSED if self.closed else State.HALF_OPEN
        open_s = self._open_s()
        self._openings += 1
        self._retry_at = now + open_s
        self._start(closed=False)
        self._tell(before, State.OPEN, f"{why}; calls are refused for {open_s:.1f} s")

    def _close(self) -> None:
        why = f"probes succeeded: {self._successes}"
        self._openings = 0
        self.ticket += 1
        self._start(closed=True)
        self._tell(State.HALF_OPEN, State.CLOSED, why)

    def _start(self, *, closed: bool) -> None:
        self.closed = closed
        self._half_open = False
        self._successes = 0
        self._probes.clear()

    def _has_place(self, now: float) -> bool:
        probes = self._probes
        return len(probes) < self._recovery.probes or probes[next(iter(probes))] <= now

    def _open_s(self) -> float:
        recovery = self._recovery
        if self._rng is None:
            self._rng = new_rng()
        most_s = min(recovery.max_open_s, recovery.open_s * 2.0 ** min(self._openings + 1, _MAX_DOUBLINGS))
        return max(recovery.open_s, most_s / 2 + self._rng.random() * most_s / 2)

    def _tell(self, before: State, after: State, why: str) -> None:
        if self.listener is not None:
            self.listener(before, after, why)
