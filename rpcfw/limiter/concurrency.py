"""So many at a time, and a queue of so many more: slots, and who gets the next one.

No I/O and no clock: who waits leaves a function to be called. The highest class of those that wait is served first,
each class in the order of arrival.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from rpcfw.limiter.priority import Priority

NORMAL_SHARE = 0.9
SHEDDABLE_SHARE = 0.8
_EWMA_SHARE = 0.1
_NORMAL, _CRITICAL = Priority.NORMAL, Priority.CRITICAL


class Ticket:
    """One that waits for a slot.

    Attributes:
        granted: None while it waits; then whether it got a slot, or was turned out for a call of a higher class.
    """

    __slots__ = ("granted", "priority", "wake")

    def __init__(self, priority: Priority, wake: Callable[[], None]) -> None:
        self.priority = priority
        self.wake = wake
        self.granted: bool | None = None


class Concurrency:
    """Slots for `limit` at a time. Each `enter` that returns True, and each ticket granted, is followed by one `leave`.

    Sheddable ones get at most `SHEDDABLE_SHARE` of the slots. The last tenth is kept for critical ones, from the first
    of these on: where nobody makes use of them, all slots are for all. Shares are rounded up, so that a small limit
    still leaves a slot to everyone.

    Args:
        limit: how many at a time, at least 1.
        queue: how many more may wait.

    Attributes:
        running: how many slots are taken.
    """

    __slots__ = (
        "_ceilings",
        "_has_critical",
        "_interval_s",
        "_left_at",
        "_limit",
        "_queues",
        "queue",
        "running",
    )

    def __init__(self, limit: int, queue: int = 0) -> None:
        if queue < 0:
            raise ValueError(f"queue={queue!r} must be at least 0 calls")
        self.queue = queue
        self.running = 0
        self._queues: tuple[deque[Ticket], ...] = tuple(deque() for _ in Priority)
        self._has_critical = False
        self._left_at = -math.inf
        self._interval_s = 0.0
        self.limit = limit

    @property
    def limit(self) -> int:
        """How many at a time. May be changed: what runs goes on, and what waits is let in as soon as there is room."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit!r} must be at least 1 at a time")
        self._limit = limit
        normal = math.ceil(limit * NORMAL_SHARE) if self._has_critical else limit
        self._ceilings = limit, normal, math.ceil(limit * SHEDDABLE_SHARE)
        self._admit()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._queues))

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits."""
        return self.queue > 0 and any(self._queues)

    def ceiling(self, priority: Priority) -> int:
        """How many slots may be taken for one of that class still to get another."""
        return self._ceilings[priority]

    def enter(self, priority: Priority = _NORMAL) -> bool:
        """Take a slot if there is one for that class; whether it did. Then nobody of it, or of a higher one, waits."""
        if priority is _CRITICAL and not self._has_critical:
            self._has_critical = True
            self.limit = self._limit
        if self.running >= self._ceilings[priority]:
            return False
        self.running += 1
        return True

    def leave(self, now: float = math.nan) -> None:
        """Give a slot back. It goes to whoever is next.

        Args:
            now: the time, by which `expected_wait_s` is estimated; needed only if it `is_awaited`.
        """
        self.running -= 1
        if self.is_awaited:
            interval_s = now - self._left_at
            if math.isfinite(interval_s):
                known_s = self._interval_s
                self._interval_s = known_s + _EWMA_SHARE * (interval_s - known_s) if known_s else interval_s
            self._admit()
            self._left_at = now
            if not self.is_awaited:  # what is measured here is the pace of a queue
                self._left_at, self._interval_s = -math.inf, 0.0

    def wait(self, priority: Priority, wake: Callable[[], None]) -> Ticket | None:
        """Join the queue, after an `enter` that returned False.

        A full queue turns out the last of a lower class, if there is one.

        Args:
            priority: its class.
            wake: called once when the ticket's `granted` is known, unless it gives up first. Must not raise.

        Returns:
            The ticket, or None when the queue is full.
        """
        if self.waiting >= self.queue and not self._turn_out(priority):
            return None
        ticket = Ticket(priority, wake)
        self._queues[priority].append(ticket)
        return ticket

    def give_up(self, ticket: Ticket, now: float) -> None:
        """Wait no longer. A slot that was granted meanwhile goes to the next."""
        if ticket.granted is None:
            self._queues[ticket.priority].remove(ticket)
            self._admit()  # a class below may have waited for this one alone
        elif ticket.granted:
            self.leave(now)

    def expected_wait_s(self, priority: Priority) -> float:
        """How long one that joins the queue now is likely to wait, by the pace of late; 0 while that is not known."""
        ahead = sum(len(queue) for queue in self._queues[: priority + 1])
        return (ahead + 1) * self._interval_s

    def _admit(self) -> None:
        """Give free slots to those that wait, at every change: so a slot that is free is wanted by nobody who waits."""
        for priority, queue in zip(Priority, self._queues, strict=True):
            while queue and self.running < self._ceilings[priority]:
                self.running += 1
                self._settle(queue.popleft(), granted=True)

    def _turn_out(self, priority: Priority) -> bool:
        for queue in reversed(self._queues[priority + 1 :]):
            if queue:
                self._settle(queue.pop(), granted=False)
                return True
        return False

    @staticmethod
    def _settle(ticket: Ticket, *, granted: bool) -> None:
        ticket.granted = granted
        ticket.wake()
