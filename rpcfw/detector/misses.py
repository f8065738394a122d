"""The detector that counts missed heartbeats: a fixed time after the last one, the node is taken for gone."""

from __future__ import annotations

import math

_BELOW_ONE = math.nextafter(1.0, 0.0)


class Misses:
    """Suspicion grows evenly, and reaches 1 when `misses` intervals have passed since the last heartbeat.

    How soon a loss is found is known beforehand, and does not depend on how regular the heartbeats were.

    Args:
        interval_s: seconds between two heartbeats.
        misses: the node is gone when the time of so many has passed without one; at least 1.
    """

    __slots__ = ("_deadline", "_heard_at", "_span_s")

    def __init__(self, interval_s: float, misses: int = 3) -> None:
        if not 0 < interval_s < math.inf:
            raise ValueError(f"interval_s={interval_s!r} must be more than 0 seconds, and finite")
        if misses < 1:
            raise ValueError(f"misses={misses!r} must be at least 1")
        self._span_s = interval_s * misses
        self._heard_at = -math.inf
        self._deadline = math.inf

    def heartbeat(self, now: float) -> None:
        """A sign of life came at that time."""
        if now > self._heard_at:
            self._heard_at = now
            self._deadline = now + self._span_s

    def suspicion(self, now: float) -> float:
        """The share of the time that has passed."""
        if self._deadline == math.inf or now <= self._heard_at:
            return 0.0
        share = (now - self._heard_at) / self._span_s
        # the very sum decides: the quotient may round to the other side of 1
        return max(1.0, share) if now >= self._deadline else min(_BELOW_ONE, share)

    def deadline(self) -> float:
        """So many intervals after the last heartbeat."""
        return self._deadline
