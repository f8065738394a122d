"""What a circuit breaker is: it refuses calls that would fail anyway, and lets a few through to see if they would."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol


class State(enum.Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Calls pass."""
    OPEN = "open"
    """Calls are refused."""
    HALF_OPEN = "half-open"
    """A few calls pass, as probes."""


Listener = Callable[[State, State, str], None]
"""Is told of a change: where the breaker stood, where it stands, and why in words. Must not block or raise."""


class Breaker(Protocol):
    """Watches the calls of one endpoint, or of one of its methods. No clock: the time is passed in, in seconds.

    Each `enter` that lets a call pass is followed by one `leave` with the ticket that it gave. The ticket says when the
    call began: one that began before the breaker opened may end long after, and its end must not pass for a probe's.
    """

    def state(self, now: float) -> State:
        """Where it stands now."""
        ...

    def permits(self, now: float) -> bool:
        """Whether `enter` may let a call pass now. Changes nothing."""
        ...

    def enter(self, now: float) -> int:
        """A call is about to be made: its ticket, which is at least 1, or 0 when the call is refused."""
        ...

    def leave(self, now: float, ticket: int, failed: bool | None) -> None:
        """A call that was let through has ended; `failed` is None when that says nothing, as when it was cancelled.

        A call whose reply is a stream had better leave at the first item: how long it goes on says nothing more.
        """
        ...

    def retry_at(self, now: float) -> float:
        """When calls will pass again: later than `now` while it is open, else `now`.

        That goes for a half-open breaker whose probes are all under way, too: one of them may end at any moment.
        """
        ...

    def on_change(self, listener: Listener | None) -> None:
        """Tell this listener of changes from now on, instead of the one before; within `enter` and `leave`."""
        ...
