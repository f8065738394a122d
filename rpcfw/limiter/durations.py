"""How long calls of one method took of late: what the next one is likely to need. No I/O and no clock."""

from __future__ import annotations

from collections import deque

KEPT = 64
LEAST = 20
MAX_AGE_S = 60.0
_SORTED_EVERY = 8


class Durations:
    """The median of the last `KEPT` durations, none older than `MAX_AGE_S`; it is sorted anew for every eighth."""

    __slots__ = ("_at", "_durations", "_median_s", "_unsorted")

    def __init__(self) -> None:
        self._durations: deque[float] = deque(maxlen=KEPT)
        self._median_s = 0.0
        self._unsorted = 0
        self._at = 0.0

    def add(self, now: float, duration_s: float) -> None:
        """A call has ended after that many seconds, or been cut off after them."""
        if now - self._at > MAX_AGE_S:
            self.forget()
        self._at = now
        self._durations.append(duration_s)
        self._unsorted += 1
        count = len(self._durations)
        if count >= LEAST and (self._unsorted >= _SORTED_EVERY or not self._median_s):
            self._unsorted = 0
            self._median_s = sorted(self._durations)[count // 2]

    def expected_s(self, now: float) -> float:
        """The median in seconds; 0 while fewer than `LEAST` are known, or when the last is too old."""
        return self._median_s if now - self._at <= MAX_AGE_S else 0.0

    def forget(self) -> None:
        """Begin anew."""
        self._durations.clear()
        self._median_s, self._unsorted = 0.0, 0
