"""Deadlines of all calls of a connection, kept by one timer instead of one for each call.

The timer stands at the earliest deadline seen; when it fires, all calls are looked at once. With many calls the looks
are spaced out, so that they take a small share of the time however the deadlines are spread.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Iterable

_S_PER_ENTRY = 5e-6
"""At least so much time per call in progress lies between two looks: 1,000 calls are looked at every 5 ms at most."""


class Deadlines:
    """Calls `expire(stream)` for each stream whose deadline has passed.

    Args:
        loop: whose clock the deadlines are on.
        entries: gives (stream, deadline) of every call in progress.
        expire: called for each that is over; may remove it.
    """

    __slots__ = ("_context", "_entries", "_expire", "_loop", "_timer", "next_look")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        entries: Callable[[], Iterable[tuple[int, float]]],
        expire: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._entries = entries
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.copy_context()
        """The connection's own: the timer would keep that of whichever call set it, from look to look."""
        self.next_look = math.inf

    def watch(self, deadline: float) -> None:
        """Make sure that the timer stands no later than a deadline. Callers skip this when it is after `next_look`."""
        if deadline < self.next_look:
            if self._timer is not None:
                self._timer.cancel()
            self.next_look = deadline
            self._timer = self._loop.call_at(deadline, self._look, context=self._context)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.next_look = math.inf

    def _look(self) -> None:
        self._timer, self.next_look = None, math.inf
        now = self._loop.time()
        entries = list(self._entries())
        for stream, deadline in entries:
            if deadline <= now:
                self._expire(stream)
        following = min((deadline for _, deadline in entries if deadline > now), default=math.inf)
        if following != math.inf:
            self.watch(max(following, now + len(entries) * _S_PER_ENTRY))
