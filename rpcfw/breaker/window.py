"""How many of the latest calls failed: those of the last seconds, or the last so many. Counting only, no judgement."""

from __future__ import annotations

BUCKETS = 10


class SecondsWindow:
    """Counts over the last `window_s` seconds, in `BUCKETS` parts: the present one in progress and those before it.

    So it looks back between nine tenths of its length and all of it. An addition costs the same however long it is.
    """

    __slots__ = ("_calls", "_calls_before", "_failed", "_failed_before", "_marks", "_number", "_per_s")

    def __init__(self, window_s: float) -> None:
        if not window_s > 0:
            raise ValueError(f"window_s={window_s!r} must be more than 0 seconds")
        self._per_s = BUCKETS / window_s
        self._number = 0  # of the present bucket
        self._calls = 0  # in all, ever; what was counted before the window began is taken off when asked
        self._failed = 0
        self._calls_before = 0
        self._failed_before = 0
        self._marks = [(0, 0)] * BUCKETS  # both as they were when each bucket began

    def add(self, now: float, failed: bool) -> None:
        """Count a call."""
        number = int(now * self._per_s)
        if number > self._number:
            self._move(number)
        self._calls += 1
        if failed:
            self._failed += 1

    def count(self, now: float) -> tuple[int, int]:
        """Calls in the window, and how many of them failed."""
        number = int(now * self._per_s)
        if number > self._number:
            self._move(number)
        return self._calls - self._calls_before, self._failed - self._failed_before

    def clear(self) -> None:
        """Forget all."""
        self._calls_before, self._failed_before = mark = self._calls, self._failed
        self._marks = [mark] * BUCKETS

    def _move(self, number: int) -> None:
        marks, mark = self._marks, (self._calls, self._failed)
        for begun in range(max(self._number, number - BUCKETS) + 1, number + 1):
            marks[begun % BUCKETS] = mark
        self._number = number
        self._calls_before, self._failed_before = marks[(number + 1) % BUCKETS]


class CallsWindow:
    """Counts over the last `size` calls, however long ago they were."""

    __slots__ = ("_at", "_calls", "_failed", "_outcomes")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"last={size!r} must be at least 1 call")
        self._outcomes = bytearray(size)
        self._at = 0
        self._calls = 0
        self._failed = 0

    def add(self, now: float, failed: bool) -> None:
        """Count a call."""
        outcomes, at = self._outcomes, self._at
        if self._calls < len(outcomes):
            self._calls += 1
        self._failed += failed - outcomes[at]
        outcomes[at] = failed
        self._at = at + 1 if at + 1 < len(outcomes) else 0

    def count(self, now: float) -> tuple[int, int]:
        """Calls in the window, and how many of them failed."""
        return self._calls, self._failed

    def clear(self) -> None:
        """Forget all."""
        self._outcomes = bytearray(len(self._outcomes))
        self._at = self._calls = self._failed = 0
