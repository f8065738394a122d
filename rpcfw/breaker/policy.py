"""What a circuit breaker is: it refuses calls that would fail anyway, and lets a few through to see if they would."""

from __future__ import annotations

import enum
from typing import Protocol


class State(enum.Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    """Calls pass."""
    OPEN = "open"
    """Calls are refused."""
    HALF_OPEN = "half-open"
    """A few calls pass, as probes."""


class Breaker(Protocol):
    """Watches the calls of one endpoint, or of one of its methods. No clock: the time is passed in, in seconds.

    Each `enter` that returns True is followed by exactly one `leave`.
    """

    def state(self, now: float) -> State:
        """Where it stands now."""
        ...

    def permits(self, now: float) -> bool:
        """Whether `enter` may let a call pass now. Changes nothing."""
        ...

    def enter(self, now: float) -> bool:
        """A call is about to be made: whether it may."""
        ...

    def leave(self, now: float, failed: bool | None) -> None:
        """A call that was let through has ended; None when its end says nothing, as that of a cancelled call."""
        ...

    def retry_at(self, now: float) -> float:
        """When calls will pass again, as far as is known; `now` when they do already."""
        ...
